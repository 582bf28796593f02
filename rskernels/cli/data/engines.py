"""The options of where a data set is worked on."""

from typing import Annotated

import typer

from rskernels.cli.options import OUTPUT, completion
from rskernels.pipeline.engines.choose import ENGINES

ENGINE = "Engine"

Engines = Annotated[
    str,
    typer.Option(
        help=f"What runs it. One of {', '.join(ENGINES)}.",
        rich_help_panel=ENGINE,
        autocompletion=completion(ENGINES),
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes.", rich_help_panel=ENGINE, show_default="1; of a cluster one a CPU"
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="ray: a cluster that runs, as ray.init takes it.",
        rich_help_panel=ENGINE,
        show_default="a Ray of this machine, which ends with the run",
    ),
]
Parts = Annotated[
    bool,
    typer.Option(
        "--parts",
        help="Leave rows in a file a piece, in a folder, in place of one file.",
        rich_help_panel=OUTPUT,
    ),
]
Gpus = Annotated[
    float,
    typer.Option(help="ray: GPUs of each process; several share one.", rich_help_panel=ENGINE),
]
