"""The ``rskernels`` command, a file a subcommand.

``options`` makes a command's options of a configuration, ``app`` puts the commands together.
"""

import sys

from rskernels._python.extras import TRAIN_HINT as _HINT
from rskernels._python.text import never_fail as _never_fail

__all__ = ["main"]

NEEDED = ("rich", "typer")


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail(stream)
    try:
        from rskernels.cli.app import app
    except ModuleNotFoundError as missing:
        if missing.name not in NEEDED:
            raise
        raise SystemExit(f"the rskernels command needs {missing.name}: {_HINT}") from missing
    app(prog_name="rskernels")
