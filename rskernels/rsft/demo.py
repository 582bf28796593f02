"""The demonstration: every method on the same seeds, side by side, whatever the result is.

rskernels demo --seeds 6 --out runs/demo
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rskernels.rsft.config import Config
from rskernels.rsft.extras import train_extra
from rskernels.rsft.report import COLUMNS, describe
from rskernels.rsft.train import train


class Case(NamedTuple):
    """A method to compare, with the policy of M where it has one."""

    method: str
    envelope: str = Config.envelope


CASES = (
    Case("plain"),
    Case("reweight"),
    Case("importance"),
    Case("accept", "max"),
    Case("accept", "quantile:0.9"),
)

CURVE = ("gradient_samples", "balanced_accuracy", "rarest_accuracy")

Runs = dict[str, list[dict[str, Any]]]


def run_demo(base: Config, out: Path, *, seeds: int, progress: bool = True) -> Runs:
    """Train every case with every seed, and write a comparison.

    Parameters
    ----------
    base : Config
        What the cases share; method, envelope and seed are replaced.
    out : Path
        Folder for one folder a run, ``demo.json``, ``demo.md`` and ``demo.png``.
    seeds : int
        Seeds ``base.seed`` … ``base.seed + seeds − 1``, the same for each case: a seed also
        decides the split, so differences between cases are taken seed by seed.
    progress : bool
        Show a progress bar where the output is a terminal.

    Returns
    -------
    dict of str to list of dict
        Summaries of the runs of each case, by its name; ``"curve"`` holds the course of accuracy
        over the epochs.

    Raises
    ------
    ValueError
        If a configuration is refused, before anything is trained.
    """
    todo = make_configs(base, seeds=seeds)
    with train_extra():
        from rich.console import Console
        from rich.progress import track
    console = Console(stderr=True)
    runs: Runs = {}
    for config in track(
        todo, "runs", console=console, disable=not (progress and console.is_terminal)
    ):
        name = describe(dataclasses.asdict(config))
        folder = out / f"{re.sub('[^a-z0-9.]+', '-', name.lower())}-seed{config.seed}"
        if name not in runs:
            # The first run of a case pays for compiling its kernels; time the second.
            train(dataclasses.replace(config, epochs=1), folder, overwrite=True, progress=False)
        summary = train(config, folder, overwrite=True, progress=False)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        epochs = [record for record in map(json.loads, lines) if record["kind"] == "epoch"]
        summary["curve"] = {key: [record[key] for record in epochs] for key in CURVE}
        runs.setdefault(name, []).append(summary)
    (out / "demo.json").write_text(json.dumps(runs, indent=1) + "\n")
    (out / "demo.md").write_text(as_markdown(runs))
    draw_comparison(runs, out / "demo.png")
    return runs


def make_configs(base: Config, *, seeds: int) -> list[Config]:
    """Return the configuration of every run of the demonstration, case by case.

    Raises
    ------
    ValueError
        If one of them is refused, such as for a seed beyond the last that is accepted.
    """
    return [
        dataclasses.replace(base, **case._asdict(), seed=seed)
        for case, seed in itertools.product(CASES, range(base.seed, base.seed + seeds))
    ]


def compare(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: mean ± standard error over the seeds of each case.

    The last column is the difference of balanced accuracy from the first case, seed by seed.
    """
    cases = list(runs)
    baseline = _values(runs[cases[0]], "balanced_accuracy")
    rows = []
    for name in cases:
        row = [name]
        for _, key, show in COLUMNS:
            row.append(mean_and_error(_values(runs[name], key), show))
        gain = _values(runs[name], "balanced_accuracy") - baseline
        row.append("" if name == cases[0] else mean_and_error(gain, "{:+.3f}".format))
        rows.append(row)
    return ["method", *(heading for heading, _, _ in COLUMNS), f"gain on {cases[0]}"], rows


def mean_and_error(values: np.ndarray, show: Callable[[float], str]) -> str:
    """Show a mean ± its standard error; one value alone has none."""
    if len(values) < 2:
        return show(float(values.mean()))
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return f"{show(float(values.mean()))} ± {show(error).lstrip('+')}"


def as_markdown(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the comparison as a Markdown table, with what was run below it."""
    headings, rows = compare(runs)
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    first = next(iter(runs.values()))
    config = first[0]["config"]
    return (
        f"{table}\n\nMean ± standard error over {len(first)} seeds; data {config['data']}, "
        f"imbalance {config['imbalance']:g}, {config['epochs']} epochs of "
        f"{sum(first[0]['pool'])} rows, batch {config['batch_size']}, SGD lr {config['lr']:g}, "
        f"momentum {config['momentum']:g}, {config['threads']} thread(s). Seconds are those of the "
        f"training steps and the pilot pass, without evaluation.\n"
    )


def draw_comparison(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw accuracy against gradient samples: the course of each case's mean, and where it ends.

    The band is one standard error over the seeds.
    """
    with train_extra():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    titles = {"balanced_accuracy": "all classes", "rarest_accuracy": "3 rarest classes"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for name, summaries in runs.items():
            spent = np.mean([s["curve"]["gradient_samples"] for s in summaries], axis=0)
            accuracy = np.array([s["curve"][key] for s in summaries])  # [seeds, epochs]
            mean = accuracy.mean(axis=0)
            error = accuracy.std(axis=0, ddof=min(1, len(accuracy) - 1)) / np.sqrt(len(accuracy))
            (line,) = axes.plot(spent, mean, label=name)
            axes.fill_between(spent, mean - error, mean + error, color=line.get_color(), alpha=0.2)
            axes.plot(spent[-1], mean[-1], "o", color=line.get_color())
        axes.set(xlabel="samples used for gradients", title=title, ylim=(0, 1))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("balanced test accuracy")
    panels[1].legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120)


def _values(summaries: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([float(summary[key]) for summary in summaries])
