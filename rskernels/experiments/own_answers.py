"""The language model of `rskernels demo`: made from nothing, then trained on its own right answers.

It is a small GPT that a few thousand demonstrations of somebody who miscalculates have taught the
arithmetic of `rskernels.language.tasks.arithmetic`. In each round it answers every prompt some
times, the verifier keeps the right answers, and it is trained on those.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rskernels.language.config import LanguageConfig
from rskernels.language.run import fine_tune
from rskernels.language.scratch import write_start
from rskernels.language.tasks import task_of
from rskernels.rsft.run import read_metrics

START, RUN = "start", "run"
TASK = "arithmetic"


def run_own_answers(
    folder: Path, *, seed: int, rounds: int, say: Callable[[str], None], **more: Any
) -> list[dict[str, Any]]:
    """Make the model and fine-tune it, and return the records of its rounds.

    Parameters
    ----------
    folder : Path
        For the model as it starts, and the run of ``rskernels rft``; an earlier one is replaced.
    seed : int
        Decides everything.
    rounds : int
        At least 1.
    say : callable
        Told what is done, and what it took.
    **more
        Other options of the run than those here.

    Returns
    -------
    list of dict
        Of each round, the first of the model as it starts.
    """
    began = time.perf_counter()
    task = task_of(TASK, seed)
    start = folder / START
    said = write_start(TASK, task, start, seed=seed)
    say(f"language model made from a config and taught by demonstrations, in {said:.0f} s: {start}")
    options: dict[str, Any] = {
        "samples": 32, "form": "verifier", "beta": 0.0, "max_new_tokens": 11, "rows_at_once": 2048,
        "epochs": 2, "lr": 3e-3, "schedule": "linear", "batch_size": 64, "micro_batch": 64,
    }  # fmt: skip
    config = LanguageConfig(
        model=str(start), tasks=TASK, seed=seed, rounds=rounds, device="cpu", **(options | more)
    )
    fine_tune(config, folder / RUN, overwrite=True)
    say(f"{rounds} rounds on its own right answers; {time.perf_counter() - began:.0f} s with those")
    return [record for record in read_metrics(folder / RUN) if record["kind"] == "round"]
