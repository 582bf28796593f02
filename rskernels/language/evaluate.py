"""How good answers to held-out prompts are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rskernels.language.task import Row, Task


def pass_at_k(n: int, right: int, k: int) -> float:
    """Return the chance that one of k answers is right, estimated without bias from n answers.

    ``1 - C(n - right, k)/C(n, k)`` (Chen et al., "Evaluating large language models trained on
    code", 2021).

    Parameters
    ----------
    n, right : int
        Answers that were drawn, and how many of them are right.
    k : int
        In [1, n].

    Raises
    ------
    ValueError
        If ``k`` is not in [1, n], or ``right`` not in [0, n].
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"needed are 1 <= k <= n and 0 <= right <= n, got {k=}, {right=}, {n=}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def numbers_of(
    texts: Sequence[Sequence[str]],
    is_right: Sequence[Sequence[bool]],
    key: Callable[[str], str] | None,
) -> dict[str, float]:
    """Return the numbers that are reported of some prompts with n answers each.

    Parameters
    ----------
    texts : sequence of sequence of str
        The answers to each prompt, n to each.
    is_right : sequence of sequence of bool
        Which of them are.
    key : callable, optional
        The canonical form of an answer. None: the answer without white space at its ends.

    Returns
    -------
    dict
        ``pass_at_1``, ``pass_at_2``, ``pass_at_4`` and so on, and ``pass_at_n``: means over the
        prompts. ``distinct_right``: the mean number of different right answers to a prompt.
    """
    n = len(texts[0])
    ks = sorted({1 << power for power in range(n.bit_length()) if 1 << power <= n} | {n})
    right = [sum(of) for of in is_right]
    numbers = {f"pass_at_{k}": _mean([pass_at_k(n, c, k) for c in right]) for k in ks}
    form = key or str.strip
    distinct = [
        float(len({form(text) for text, good in zip(answers, of, strict=True) if good}))
        for answers, of in zip(texts, is_right, strict=True)
    ]
    return {**numbers, "distinct_right": _mean(distinct)}


def scores_of(
    task: Task,
    rows: Sequence[Row],
    texts: Sequence[Sequence[str]],
    is_right: Sequence[Sequence[bool]],
    best: Sequence[bool],
) -> dict[str, float]:
    """Return what is reported of answers to held-out prompts of a task.

    Parameters
    ----------
    task : Task
        One task, or several mixed.
    rows : sequence of dict
        The prompts.
    texts, is_right
        n answers to each, and which of them are right.
    best : sequence of bool
        Whether the most likely answer to each is right.

    Returns
    -------
    dict
        What `numbers_of` returns; ``greedy``, the mean of ``best``; and ``mean_NAME`` of each
        measure of the task. Of mixed tasks also those of each task, as ``TASK/NAME``.
    """
    if task.parts:
        # Forms of answers are each task's own.
        same = [
            [(task.parts[row["task"]].key or str.strip)(text) for text in of]
            for row, of in zip(rows, texts, strict=True)
        ]
        scores = {**numbers_of(same, is_right, None), "greedy": _mean(best)}
        for name, part in task.parts.items():
            at = [place for place, row in enumerate(rows) if row["task"] == name]
            if at:
                of_part = scores_of(
                    part,
                    [rows[place] for place in at],
                    [texts[place] for place in at],
                    [is_right[place] for place in at],
                    [best[place] for place in at],
                )
                scores |= {f"{name}/{key}": value for key, value in of_part.items()}
        return scores
    means = {
        f"mean_{name}": _mean([float(measure(text)) for of in texts for text in of])
        for name, measure in task.measures.items()
    }
    return {**numbers_of(texts, is_right, task.key), "greedy": _mean(best), **means}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
