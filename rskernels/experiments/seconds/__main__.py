"""``python -m rskernels.experiments.seconds``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from rskernels.experiments.seconds.report import write_report
from rskernels.experiments.seconds.study import FULL, QUICK, run_study
from rskernels.rsft.say import say


def main(arguments: list[str] | None = None) -> None:
    """Run the study, going on where it was interrupted, and write its report."""
    parser = argparse.ArgumentParser(
        prog="python -m rskernels.experiments.seconds",
        description="Measure when rejection takes fewer seconds than plain training.",
    )
    parser.add_argument("--quick", action="store_true", help="in seconds: does it all work?")
    parser.add_argument("--out", type=Path, help="folder of the pieces; runs/seconds")
    parser.add_argument("--report", type=Path, help="folder of the report; that of the pieces")
    parser.add_argument(
        "--only",
        metavar="NAME",
        help="make the pieces whose names begin so, such as costs, which want a machine that does "
        "nothing else, or trained-3; and no report",
    )
    given = parser.parse_args(arguments)
    folder = given.out or Path("runs") / ("seconds-quick" if given.quick else "seconds")
    size = QUICK if given.quick else FULL
    # Costs are those of one thread.
    torch.set_num_threads(1)
    pieces = run_study(size, folder, say, given.only or "")
    if given.only is None:
        print(write_report(pieces, size, given.report or folder, is_quick=given.quick))


if __name__ == "__main__":
    main()
