"""Starting models of the tasks: made from a config and trained here on demonstrations."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rskernels.language.config import LanguageConfig
from rskernels.language.parallel import Ranks
from rskernels.language.policy import Policy, policy_of
from rskernels.language.scratch.model import small_gpt
from rskernels.language.scratch.tokenizer import character_tokenizer, word_tokenizer
from rskernels.language.task import Task
from rskernels.language.tasks import arithmetic, demonstrations_of, graph, parity
from rskernels.language.tasks.named import START
from rskernels.language.train import Example, Step, Trainer

LENGTH = 64  # the most tokens of a prompt and its answer


class Lesson(NamedTuple):
    """Demonstrations that a starting model is trained on, and how."""

    size: int
    epochs: int
    lr: float
    options: dict[str, Any]
    """Of the demonstrations."""


class Start(NamedTuple):
    """How the starting model of a task is made."""

    tokenizer: Callable[[], Any]
    lessons: tuple[Lesson, ...]
    """One after the other; options that a caller gives are for the last."""
    layers: int = 2
    width: int = 64
    batch: int = 64
    rotary: bool = False


STARTS = {
    "arithmetic": Start(
        lambda: word_tokenizer(arithmetic.WORDS), (Lesson(24_000, 3, 6e-3, {"slips": 0.08}),)
    ),
    # First adding bit by bit, from long answers alone, then when to answer so: an answer that does
    # not begin with the prompt's first bit is a short one.
    "parity": Start(
        lambda: character_tokenizer(parity.CHARACTERS),
        (
            Lesson(24_000, 1, 3e-3, {"long": 1.0}),
            Lesson(16_000, 1, 2e-3, {"long": 0.5}),
            Lesson(16_000, 1, 1e-3, {"long": 0.1}),
        ),
        rotary=True,
    ),
    "graph": Start(lambda: word_tokenizer(graph.WORDS), (Lesson(20_000, 1, 6e-3, {}),)),
}


def starting_policy(
    name: str,
    task: Task,
    *,
    seed: int,
    part: float = 1.0,
    show: Callable[[int, int, Step], None] = lambda done, steps, step: None,
    **options: Any,
) -> Policy:
    """Return a small GPT that was trained on demonstrations of a task, on the CPU.

    Parameters
    ----------
    name : {"arithmetic", "parity", "graph"}
        Of the task.
    task : Task
        Whose held-out prompts have no demonstration.
    seed : int
        Decides weights, demonstrations and their order.
    part : float
        Above 0: what part of the usual number of demonstrations it is trained on.
    show : callable
        Called after each step with how many are done, of how many, and what it came to.
    **options
        Of the last demonstrations: ``slips`` of arithmetic, ``long`` of parity.

    Raises
    ------
    TypeError, ValueError
        If the name or an option is not known.
    """
    if name not in STARTS:
        raise ValueError(f"name must be one of {', '.join(STARTS)}, got {name!r}")
    start = STARTS[name]
    tokenizer = start.tokenizer()
    model = small_gpt(
        tokenizer, seed=seed, layers=start.layers, width=start.width, length=LENGTH,
        rotary=start.rotary,
    )  # fmt: skip
    for at, lesson in enumerate(start.lessons):
        is_last = at + 1 == len(start.lessons)
        said = {**lesson.options, **options} if is_last else lesson.options
        size = max(1, round(part * lesson.size))
        pairs = demonstrations_of(name, task, size, 8 * seed + at, **said)
        policy = supervised(
            model, tokenizer, pairs,
            seed=seed, epochs=lesson.epochs, batch=start.batch, lr=lesson.lr, show=show,
        )  # fmt: skip
    return policy


def supervised(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    seed: int,
    epochs: int,
    batch: int,
    lr: float,
    show: Callable[[int, int, Step], None] = lambda done, steps, step: None,
) -> Policy:
    """Train a model on prompts with answers, with the same steps as in a round.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model on the CPU, trained in place.
    tokenizer : PreTrainedTokenizerBase
        With a token that ends an answer.
    pairs : sequence of (str, str)
        Prompts and answers. The loss is the mean cross entropy over the answers' tokens and the one
        that ends each.
    seed : int
        Decides the order.
    epochs, batch : int
        Passes, and answers of a step.
    lr : float
        Learning rate of AdamW at the first step, from which it falls linearly to 0.

    Returns
    -------
    Policy
        Around the model.
    """
    config = LanguageConfig(
        seed=seed, epochs=epochs, batch_size=batch, micro_batch=batch, lr=lr, schedule="linear"
    )
    policy = policy_of(model, tokenizer, config, torch.device("cpu"))
    examples = [
        Example(policy.encode(prompt, False), tokens_of(tokenizer, answer), 1.0, place)
        for place, (prompt, answer) in enumerate(pairs)
    ]
    Trainer(policy, config, Ranks()).run(examples, 0, 0, show)
    model.eval()
    return policy


def tokens_of(tokenizer: Any, answer: str) -> list[int]:
    """Return the tokens of an answer, with the one that ends it."""
    ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def write_start(
    name: str,
    task: Task,
    folder: str | Path,
    *,
    seed: int,
    part: float = 1.0,
    show: Callable[[int, int, Step], None] = lambda done, steps, step: None,
    **options: Any,
) -> float:
    """Make a starting model and write it as transformers reads it; return the seconds it took.

    Beside the model lies ``start.json``, which says what it was made of.
    """
    began, folder = time.perf_counter(), Path(folder)
    policy = starting_policy(name, task, seed=seed, part=part, show=show, **options)
    folder.mkdir(parents=True, exist_ok=True)
    policy.save(folder)
    seconds = time.perf_counter() - began
    said = {
        "task": name,
        "seed": seed,
        "part": part,
        "options": options,
        "seconds": round(seconds, 1),
    }
    (folder / START).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return seconds
