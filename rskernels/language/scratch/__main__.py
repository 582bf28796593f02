"""Make the starting model of a task, a folder for ``rskernels rft --model``."""

from __future__ import annotations

import argparse
from pathlib import Path

from rskernels.language.rewards import options_of
from rskernels.language.scratch.start import STARTS, write_start
from rskernels.language.tasks import task_of
from rskernels.language.train import Step

SHOWN = 100


def main() -> None:
    """Read the options, make the model, and say where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m rskernels.language.scratch", description=__doc__
    )
    parser.add_argument("task", choices=sorted(STARTS))
    parser.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="the seed that rft is given, too")
    parser.add_argument("--task-options", help="as of rskernels rft")
    parser.add_argument("--options", help="of the demonstrations, such as slips=0.2")
    parser.add_argument("--overwrite", action="store_true", help="replace what --out holds")
    given = parser.parse_args()
    if (
        not given.overwrite
        and given.out.exists()
        and (given.out.is_file() or any(given.out.iterdir()))
    ):
        parser.error(f"{given.out} is there already: replace it with --overwrite, or name another")

    def show(done: int, steps: int, step: Step) -> None:
        if done % SHOWN == 0 or done == steps:
            print(f"step {done} of {steps}: loss {step.loss:.3f}", flush=True)

    try:
        task = task_of(given.task, given.seed, **options_of(given.task_options))
        seconds = write_start(
            given.task, task, given.out, seed=given.seed, show=show, **options_of(given.options)
        )
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    print(f"model: {given.out}, made in {seconds:.0f} s")


if __name__ == "__main__":
    main()
