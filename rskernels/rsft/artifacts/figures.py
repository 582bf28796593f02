"""The curves of a run, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rskernels._python.extras import train_extra

# On a logarithmic axis, which overflows near the ends of float64.
SMALLEST_DRAWN, LARGEST_DRAWN = 1e-100, 1e100


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


def _drawn(value: float | None) -> float:
    """Return where a number is drawn on a logarithmic axis; NaN is not."""
    return float("nan") if value is None else min(max(value, SMALLEST_DRAWN), LARGEST_DRAWN)
