"""``python -m rskernels.experiments.off_policy``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from rskernels.experiments.off_policy.report import write_report
from rskernels.experiments.off_policy.study import FULL, QUICK, run_study
from rskernels.rsft.say import say


def main(arguments: list[str] | None = None) -> None:
    """Run the study, going on where it was interrupted, and write its report."""
    parser = argparse.ArgumentParser(
        prog="python -m rskernels.experiments.off_policy",
        description="Measure what rejection buys on rollouts of a stale policy.",
    )
    parser.add_argument("--quick", action="store_true", help="in seconds: does it all work?")
    parser.add_argument("--out", type=Path, help="folder of the pieces; runs/off-policy")
    parser.add_argument("--report", type=Path, help="folder of the report; that of the pieces")
    given = parser.parse_args(arguments)
    folder = given.out or Path("runs") / ("off-policy-quick" if given.quick else "off-policy")
    size = QUICK if given.quick else FULL
    # The figures do not depend on the threads, but for the last bits of sums.
    torch.set_num_threads(1)
    pieces = run_study(size, folder, say)
    print(write_report(pieces, size, given.report or folder, is_quick=given.quick))


if __name__ == "__main__":
    main()
