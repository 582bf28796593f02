"""What a run shows: the progress bar, the table at the end, the curves."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rskernels.rsft.extras import train_extra
from rskernels.rsft.rules import RULES

if TYPE_CHECKING:
    from rich.table import Table

# On a logarithmic axis, which overflows near the ends of float64.
SMALLEST_DRAWN, LARGEST_DRAWN = 1e-100, 1e100

# Heading, name in the summary, format: the order of every table.
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("balanced accuracy", "balanced_accuracy", "{:.3f}".format),
    ("3 rarest classes", "rarest_accuracy", "{:.3f}".format),
    ("gradient samples", "gradient_samples", "{:,.0f}".format),
    ("acceptance", "acceptance", "{:.2f}".format),
    ("skipped steps", "skipped_steps", "{:.1f}".format),
    ("violations", "violations_share", "{:.1%}".format),
    ("δ̂", "delta", "{:.3f}".format),
    ("worst class", "worst_accuracy", "{:.3f}".format),
    ("calibration error", "calibration_error", "{:.3f}".format),
    ("effective samples", "gradient_ess", "{:,.0f}".format),
    ("seconds", "seconds", "{:.2f}".format),
)

# What the methods besides the rules tell, besides that.
MORE: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("balanced accuracy before", "balanced_accuracy_before", "{:.3f}".format),
    ("accuracy, images", "accuracy_image", "{:.3f}".format),
    ("accuracy, speech", "accuracy_speech", "{:.3f}".format),
    ("accuracy, words", "accuracy_word", "{:.3f}".format),
    ("gradient samples, images", "gradient_samples_image", "{:,.0f}".format),
    ("gradient samples, speech", "gradient_samples_speech", "{:,.0f}".format),
    ("gradient samples, words", "gradient_samples_word", "{:,.0f}".format),
    ("acceptance of the draws", "draw_acceptance", "{:.3f}".format),
    ("distinct rows of an epoch", "distinct_rows", "{:,.0f}".format),
    ("acceptance at the start", "acceptance_start", "{:.4f}".format),
    ("log M at the start", "log_M_start", "{:.3f}".format),
    ("log M", "log_M", "{:.3f}".format),
    ("draws per second at the start", "draws_per_second_start", "{:,.0f}".format),
    ("draws per second", "draws_per_second", "{:,.0f}".format),
    ("parameters", "parameters", "{:,.0f}".format),
    ("σ", "sigma", "{:.4g}".format),
    ("split R̂", "r_hat", "{:.3f}".format),
    ("effective sample size", "ess", "{:,.0f}".format),
)


class Bar:
    """A progress bar with loss, acceptance and M; silent where the output is no terminal.

    Parameters
    ----------
    epochs : int
        Epochs of the whole run.
    done : int
        Epochs of an earlier part of it.
    on : bool
        False shows nothing.
    """

    def __init__(self, epochs: int, *, done: int = 0, on: bool = True) -> None:
        with train_extra():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            TextColumn("epoch {task.completed:.1f}/{task.total}"),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("acceptance {task.fields[acceptance]}"),
            TextColumn("M {task.fields[M]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (on and console.is_terminal),
        )
        self._task = self._progress.add_task(
            "train", total=epochs, completed=done, loss="–", acceptance="–", M="–"
        )

    def advance(
        self, part: float, *, loss: float | None, acceptance: float, M: float | None
    ) -> None:
        """Count a step, part of an epoch; a loss of None is a skipped one, no M a rule without."""
        self._progress.update(
            self._task,
            advance=part,
            loss="skipped" if loss is None else f"{loss:.4f}",
            acceptance=f"{acceptance:.3f}",
            M="–" if M is None else f"{M:.4g}",
        )

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def make_table(rows: Iterable[Sequence[str]], headings: Sequence[str]) -> "Table":
    """Return a terminal table; the first column is text, the others numbers."""
    with train_extra():
        from rich.table import Table
    table = Table()
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


def summary_table(summary: Mapping[str, Any]) -> "Table":
    """Return the table of one run from its summary, a measure a line."""
    columns = [column for column in (*COLUMNS, *MORE) if column[1] in summary]
    rows = [(heading, show(summary[name])) for heading, name, show in columns]
    return make_table(rows, ("", describe(summary["config"])))


def describe(config: Mapping[str, Any]) -> str:
    """Name a configuration by its method, and by what else the method reads of it."""
    method = str(config["method"])
    if method == "parameter":
        return f"{method}, {config['form']}"
    chosen = "" if config["selection"] == "reject" else f", {config['selection']}"
    if method == "transfer":
        return f"{method}, {config['ratio']}{chosen}"
    if method == "proposal":
        return f"{method}{chosen}"
    if method in RULES and RULES[method].rejects:
        return f"{method}, M {config['envelope']}{' of the pilot' * config['freeze']}"
    return method


def draw_curves(records: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draw a run's accuracy, loss, acceptance and M against its gradient samples.

    Parameters
    ----------
    records : sequence of mapping
        The lines of ``metrics.jsonl``.
    path : Path
        The PNG to write.
    title : str
        Above the figure.
    """
    with train_extra():
        from matplotlib.figure import Figure
    epochs = [record for record in records if record["kind"] == "epoch"]
    spent = [record["gradient_samples"] for record in epochs]
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    (accuracy, loss), (acceptance, constant) = figure.subplots(2, 2)
    accuracy.plot(spent, [r["balanced_accuracy"] for r in epochs], label="all classes")
    accuracy.plot(spent, [r["rarest_accuracy"] for r in epochs], label="3 rarest classes")
    accuracy.set(ylabel="balanced test accuracy", ylim=(0, 1))
    accuracy.legend()
    loss.plot(spent, [_drawn(r["loss"]) for r in epochs])
    loss.set(ylabel="training loss", yscale="log")
    acceptance.plot(spent, [r["acceptance"] for r in epochs], label="accepted")
    acceptance.plot(spent, [r["delta"] for r in epochs], label="δ̂, mass above M")
    acceptance.set(ylabel="share so far", ylim=(0, 1.02))
    acceptance.legend()
    constant.plot(spent, [_drawn(r["M"]) for r in epochs])
    constant.set(ylabel="envelope constant M", yscale="log")
    for axes in (accuracy, loss, acceptance, constant):
        axes.set_xlabel("samples used for gradients")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_trace(values: Tensor, path: Path, *, title: str, label: str, axis: str = "draw") -> None:
    """Draw the course of a number, ``[steps, chains]``, a line for each chain."""
    with train_extra():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    axes.plot(values.numpy(), linewidth=0.8)
    axes.set(xlabel=axis, ylabel=label)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def write_summary(summary: Mapping[str, Any], out: Path) -> None:
    """Write ``summary.json``, whole or not at all."""
    temporary = out / "summary.json.tmp"
    temporary.write_text(json.dumps(summary, indent=2) + "\n")
    temporary.replace(out / "summary.json")


def _drawn(value: float | None) -> float:
    """Return where a number is drawn on a logarithmic axis; NaN is not."""
    return float("nan") if value is None else min(max(value, SMALLEST_DRAWN), LARGEST_DRAWN)
