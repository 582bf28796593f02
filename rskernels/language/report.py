"""What a run leaves to read: answers, samples of them, curves and a report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rskernels._python.extras import train_extra
from rskernels.language.config import LanguageConfig
from rskernels.language.loop import Selected
from rskernels.language.task import Task
from rskernels.rsft.run import CURVES

REPORT, SAMPLES = "report.md", "samples"
SHOWN_PROMPTS, SHOWN_ANSWERS, LONGEST_SHOWN = 8, 4, 600

Column = tuple[str, str, Callable[[Any], str]]
"""Heading, name in the records, how it is written."""
COLUMNS: tuple[Column, ...] = (
    ("round", "round", str),
    ("pass@1", "pass_at_1", "{:.3f}".format),
    ("greedy", "greedy", "{:.3f}".format),
    ("distinct right", "distinct_right", "{:.2f}".format),
    ("right of the round", "right", "{:.3f}".format),
    ("acceptance", "acceptance", "{:.3f}".format),
    ("accepted", "accepted", "{:,}".format),
    ("KL", "kl", "{:.3f}".format),
    ("entropy a token", "entropy", "{:.3f}".format),
    ("violations", "violations", "{:,}".format),
    ("invalid", "invalid", "{:,}".format),
    ("tokens generated", "generated_tokens", "{:,}".format),
    ("tokens trained on", "gradient_tokens", "{:,}".format),
    ("seconds", "seconds", "{:,.0f}".format),
)
OF_A_TASK = ("round", "pass_at_1", "greedy", "distinct_right", "right", "acceptance")


def write_rows(folder: Path, number: int, selected: Selected, task: Task) -> None:
    """Write all answers of a round as JSON lines: prompt, completion, reward, accepted, weight."""
    kept = selected.selection.mask.tolist()
    weights = selected.selection.log_weights.exp().tolist()
    many = len(task.parts)
    lines = (
        json.dumps(
            {
                "id": name,
                **{name: task.train[row.prompt][name] for name in ("prompt", *["task"][:many])},
                "completion": row.text,
                "sample": row.sample,
                "reward": row.reward if math.isfinite(row.reward) else None,
                "accepted": is_kept,
                "weight": weight,
                "log_prob": row.log_prob,
                "tokens": row.tokens,
                "ended": row.ended,
            },
            ensure_ascii=False,
        )
        for row, name, is_kept, weight in zip(
            selected.rows, selected.ids.tolist(), kept, weights, strict=True
        )
    )
    _write(folder / f"{number:04d}.jsonl", "".join(f"{line}\n" for line in lines))


def write_samples(folder: Path, number: int, selected: Selected, task: Task) -> None:
    """Write some prompts of a round with answers to each, to be read."""
    kept = selected.selection.mask.tolist()
    # Of several tasks some prompts of each.
    named = {row.prompt: task.train[row.prompt].get("task", "") for row in selected.rows}
    places = sorted(named, key=lambda place: (named[place] if task.parts else "", place))
    shown = min(SHOWN_PROMPTS, len(places))
    text = [f"# Round {number}: {task.name}\n"]
    for place in (places[at * len(places) // shown] for at in range(shown)):
        text.append(f"## Prompt {place}\n\n{_quoted(task.train[place]['prompt'])}\n")
        answers = [
            (row, is_kept)
            for row, is_kept in zip(selected.rows, kept, strict=True)
            if row.prompt == place
        ]
        for row, is_kept in answers[:SHOWN_ANSWERS]:
            head = (
                f"Answer {row.sample}, reward {row.reward:g}, {'kept' if is_kept else 'rejected'}"
            )
            cut = "" if row.ended else ", cut at the longest length"
            text.append(f"{head}{cut}:\n\n{_quoted(row.text)}\n")
    _write(folder / f"round-{number:04d}.md", "\n".join(text))


def write_report(
    records: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    config: LanguageConfig,
    out: Path,
) -> None:
    """Draw the curves of a run, and write its report."""
    draw(records, out / CURVES, title=f"{summary['task']}: {config.title}, seed {config.seed}")
    rounds = [record for record in records if record["kind"] == "round"]
    columns = columns_of(rounds)
    lines = [
        f"# {summary['task']}: {config.title}",
        "",
        f"{len(rounds) - 1} rounds, {config.samples} answers to a prompt, seed {config.seed}. "
        "Round 0 is the model as it was given.",
        "",
        *_table(rounds, columns),
        *_of_tasks(rounds),
        *_warning(rounds),
        f"![curves]({CURVES})",
        "",
        f"pass@1 is the share of right answers to held-out prompts, over {config.eval_samples} "
        "to each at the temperature of sampling; greedy is that of the most likely answers; "
        "distinct right the mean number of different right answers to a prompt. KL is that of the "
        "law that is trained on from the policy of the round, in nats a prompt, by the answers to "
        "it or those of its pilot: an estimate, which few answers make too small. Tokens and "
        "seconds are sums; seconds leave out evaluation.",
        "",
        f"Samples to read: `{SAMPLES}/`. All answers: `rounds/`. The model: `model/`.",
        "",
        "```json",
        json.dumps(summary["config"], indent=2),
        "```",
    ]
    _write(out / REPORT, "\n".join(lines) + "\n")


def columns_of(rounds: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns of the table of the rounds; what a task measures comes last."""
    own = [name for name in rounds[0] if name.startswith("mean_")]
    return [*COLUMNS, *((name.removeprefix("mean_"), name, "{:.3f}".format) for name in own)]


def _table(rounds: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    return [
        "| " + " | ".join(heading for heading, _, _ in columns) + " |",
        "|" + "--:|" * len(columns),
        *("| " + " | ".join(cells(record, columns)) + " |" for record in rounds),
        "",
    ]


def _of_tasks(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of each task, where there are several."""
    lines = []
    for task in dict.fromkeys(name.rpartition("/")[0] for name in rounds[0] if "/" in name):
        start = f"{task}/"
        held = [
            {k.removeprefix(start): v for k, v in record.items() if k.startswith(start)}
            for record in rounds
        ]
        of = [{"round": record["round"], **part} for record, part in zip(rounds, held, strict=True)]
        chosen = [column for column in columns_of(of) if column[1] in (*OF_A_TASK, *of[0])]
        lines += [f"## {task}", "", *_table(of, chosen)]
    return lines


def _warning(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to say of answers that were not decided, for want of a reward, M or pilot."""
    names = ("invalid", "unknown", "pilot_invalid")
    invalid, unknown, of_pilot = (sum(r.get(name) or 0 for r in rounds) for name in names)
    if not invalid + unknown + of_pilot:
        return []
    return [
        f"**Rejected without being decided**: {invalid:,} answers without a reward that the form "
        f"takes; {unknown:,} to prompts without M or a pilot. Left out of pilots: "
        f"{of_pilot:,} without a reward.",
        "",
    ]


def cells(record: Mapping[str, Any], columns: Sequence[Column] = COLUMNS) -> list[str]:
    """Return a record as a row of a table."""
    return [
        show(record[name]) if record.get(name) is not None else "–" for _, name, show in columns
    ]


def draw(records: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draw accuracy, acceptance, diversity and loss."""
    with train_extra():
        from matplotlib.figure import Figure
    rounds = [record for record in records if record["kind"] == "round"]
    steps = [record for record in records if record["kind"] == "step"]
    at = [record["round"] for record in rounds]
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    (right, kept), (diverse, loss) = figure.subplots(2, 2)
    names = [name for name in rounds[0] if name.startswith("pass_at_")]
    for name in names:
        right.plot(at, [r[name] for r in rounds], "o-", label=f"pass@{name.rpartition('_')[2]}")
    right.plot(at, [r["greedy"] for r in rounds], "k:", label="greedy")
    right.set(xlabel="round", ylabel="held-out prompts answered right", ylim=(0, 1.02))
    right.legend()
    for name, label in (
        ("right", "right answers"), ("acceptance", "accepted"),
        ("accepted_distinct", "distinct of those accepted"),
    ):  # fmt: skip
        kept.plot(at[1:], _drawn(rounds[1:], name), "o-", label=label)
    kept.set(xlabel="round", ylabel="share of the round's answers", ylim=(0, 1.02))
    kept.legend()
    diverse.plot(at, _drawn(rounds, "distinct_right"), "o-", label="distinct right answers")
    diverse.plot(at[1:], _drawn(rounds[1:], "kl"), "o-", label="KL of the tilt, nats")
    diverse.plot(at[1:], _drawn(rounds[1:], "entropy"), "o-", label="entropy a token, nats")
    diverse.set(xlabel="round")
    diverse.legend()
    loss.plot([s["step"] for s in steps], [s["loss"] for s in steps], linewidth=0.8)
    loss.set(xlabel="step", ylabel="training loss")
    for axes in (right, kept, diverse):
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in (right, kept, diverse, loss):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _drawn(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    values = (record.get(name) for record in records)
    return [math.nan if value is None else float(value) for value in values]


def _quoted(text: str) -> str:
    """Return a text as a block of Markdown that nothing in it ends."""
    cut = text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + " …"
    return "\n".join(f"    {line}" for line in (cut.splitlines() or [""]))


def _write(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    temporary.replace(path)
