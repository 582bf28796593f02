"""A run in a folder: `train`, and what every run does with its files and threads.

    rskernels train --data digits --method accept --envelope quantile:0.9 --seed 0 --out runs/try
    rskernels train --data digits --method accept --envelope quantile:0.9 --seed 0 --out runs/try \
        --resume

Everything random comes from the seed; a resumed run continues bit-identically.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.artifacts.figures import draw_curves
from rskernels.rsft.artifacts.lock import hold
from rskernels.rsft.artifacts.metrics import MetricsWriter
from rskernels.rsft.config import LoopConfig
from rskernels.rsft.errors import CheckpointError
from rskernels.rsft.loop import Loop
from rskernels.rsft.options import Options
from rskernels.rsft.say import say
from rskernels.rsft.state import Step, Totals
from rskernels.rsft.task import Task
from rskernels.sampling.progress import ProgressBar

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
CURVES = "curves.png"
SUMMARY = "summary.json"
# All that a run may leave behind.
FILES = (
    *(METRICS, CHECKPOINT, CURVES, SUMMARY),
    *("samples.pt", "proposal.pt", "events.out.tfevents.*"),
)


def train(
    task: Task,
    config: LoopConfig,
    out: Path,
    *,
    generator: torch.Generator | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a model and write metrics, events, checkpoint, curves and summary.

    Parameters
    ----------
    task : Task
        Model, data and densities. The model is trained in place.
    config : LoopConfig
        The rule, and how it is trained.
    out : Path
        Folder for ``metrics.jsonl``, TensorBoard events, ``checkpoint.pt``, ``curves.png`` and
        ``summary.json``.
    generator : torch.Generator, optional
        Source of the order of the rows; a new one of the configuration's seed by default.
    resume : bool
        Continue from the checkpoint in `out`; of the configuration only `epochs` may differ, and
        the task's data must be the same.
    overwrite : bool
        Replace a run that `out` already holds.
    progress : bool
        Show a progress bar where the output is a terminal.

    Returns
    -------
    dict
        The summary: the configuration under ``"config"`` and the final measurements.

    Raises
    ------
    FileExistsError
        If `out` holds a run and neither `resume` nor `overwrite` is given.
    DataError
        If the tensors of the task differ in length, or its labels are of one class.
    CheckpointError
        If there is no checkpoint to resume, or it is damaged or of another configuration, model or
        data; or another run holds the folder.
    NoFiniteM
        If the envelope is "tail" and the ratios have no finite M.
    TrainingError
        If the loss, M or a ratio to it, or every logit row of a batch, is not finite.

    Notes
    -----
    ``metrics.jsonl`` has a line for each step, of that batch alone, and a line for each epoch,
    where every count, share and time is that of the run so far; ``delta`` is the batch's
    Σ(w/M − 1)₊ / Σ w/M, and its mean over the steps; ``gradient_ess`` is (Σv)²/Σv² over all
    gradient samples, v the share that each had in the gradient of its step; ``envelope`` is
    ``Envelope.report`` of the run so far with the pilot pass, null where the rule rejects nothing.
    A batch of which nothing is accepted is a skipped step: its loss is null and the parameters and
    momentum stay as they are.

    Where the data have several modalities, an epoch's line has the accuracy on each and how many
    of its rows were used. A rule that balances them raises the M of the envelope, whose report
    stays that of its own M; ``log_M_image`` and the like are what was decided with.
    """
    task.check()
    with ExitStack() as stack:
        stack.enter_context(torch_threads(config.threads))
        stack.enter_context(locked_folder(out, resume=resume))
        loop = Loop(task, config, generator or torch.Generator().manual_seed(config.seed))
        state = loop.state
        data = task.identity()
        position = begin(loop, out, data, resume=resume, overwrite=overwrite)
        bar = stack.enter_context(make_bar(config.epochs, state.epoch, on=progress))
        writer = stack.enter_context(MetricsWriter(out, position=position, step=state.totals.steps))

        def show(step: Step, part: float) -> None:
            writer.write(step.record(state.totals.steps))
            bar.advance(
                part,
                loss="skipped" if step.loss is None else f"{step.loss:.4f}",
                acceptance=f"{state.totals.acceptance:.3f}",
                M="–" if step.M is None else f"{step.M:.4g}",
            )

        while state.epoch < config.epochs:
            writer.write(loop.epoch(show))
            save(config, out, data, {"position": writer.position(), **state.state_dict()})
    return finish(task, config, state.totals, out)


def begin(loop: Loop, out: Path, data: str, *, resume: bool, overwrite: bool) -> int:
    """Restore a loop, or learn its first M; return the bytes of the metrics that are kept."""
    if not resume:
        start_afresh(out, overwrite=overwrite)
        loop.pilot()
        return 0
    state, epochs = loop.state, loop.config.epochs
    saved = restore(loop.config, out, data, needed=frozenset({"position", *state.state_dict()}))
    try:
        check_model(state.model, saved["model"])
        loop.load_state_dict(saved)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{out / CHECKPOINT} does not fit the model: {error}") from error
    if state.epoch > epochs:
        raise CheckpointError(f"{out} has trained {state.epoch} epochs, more than epochs={epochs}")
    position: int = saved["position"]
    return position


def check_model(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a model's parameters have other names, shapes or dtypes than saved."""
    here, there = (
        {k: (v.dtype, list(v.shape)) for k, v in d.items()} for d in (model.state_dict(), saved)
    )
    differing = [name for name in {**there, **here} if here.get(name) != there.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(f"{name} was {there.get(name)}, is {here.get(name)}")


def finish(task: Task, config: LoopConfig, totals: Totals, out: Path) -> dict[str, Any]:
    """Draw the curves of a run that has ended, and write and return its summary."""
    records = read_metrics(out)
    last = next(record for record in reversed(records) if record["kind"] == "epoch")
    summary = {
        "config": dataclasses.asdict(config),
        "pool": task.counts.tolist(),
        **task.before,
        "rows": totals.rows,
        "violations_share": totals.violations / totals.rows,
        **{name: value for name, value in last.items() if name != "kind"},
    }
    draw_curves(records, out / CURVES, title=f"{config.title}, seed {config.seed}")
    write_summary(summary, out)
    return summary


def make_bar(epochs: int, done: int, *, on: bool) -> ProgressBar:
    """Return the progress bar of a run, with loss, acceptance and M, for a terminal alone."""
    return ProgressBar(
        epochs,
        [
            "epoch {task.completed:.1f}/{task.total}",
            "loss {task.fields[loss]}",
            "acceptance {task.fields[acceptance]}",
            "M {task.fields[M]}",
        ],
        completed=done,
        on=on,
        only_on_terminal=True,
        loss="–",
        acceptance="–",
        M="–",
    )


@contextmanager
def locked_folder(out: Path, *, resume: bool) -> Iterator[None]:
    """Hold the folder of a run, which is made unless there is to be a run to resume.

    Raises
    ------
    CheckpointError
        If another run holds it, or it lacks the checkpoint to resume.
    """
    if resume and not (out / CHECKPOINT).is_file():
        raise CheckpointError(f"nothing to resume: {out / CHECKPOINT} does not exist")
    out.mkdir(parents=True, exist_ok=True)
    with hold(out):
        yield


def start_afresh(out: Path, *, overwrite: bool, files: Iterable[str] = FILES) -> bool:
    """Make a folder ready for a new run, deleting an earlier run's files only if that is asked for.

    Parameters
    ----------
    out : Path
        The folder.
    overwrite : bool
        Whether to delete files of an earlier run.
    files : iterable of str
        Patterns of all files that a run may leave behind.

    Returns
    -------
    bool
        Whether there was an earlier run.

    Raises
    ------
    FileExistsError
        If the folder holds a run and `overwrite` is False.
    """
    earlier = [path for name in files for path in out.glob(name)]
    if earlier and not overwrite:
        resume = "resume it, " if (out / CHECKPOINT).is_file() else ""
        raise FileExistsError(f"{out} already holds a run: {resume}overwrite it or name another")
    for path in earlier:
        path.unlink()
    return bool(earlier)


def save(config: Options, out: Path, data: str, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run: its configuration, the digest of its data, and its state."""
    content = {
        "config": dataclasses.asdict(config),
        "data": data,
        "made_with": made_with(),
        **state,
    }
    checkpoint.save(out / CHECKPOINT, content)


def restore(config: Options, out: Path, data: str, *, needed: frozenset[str]) -> dict[str, Any]:
    """Read the checkpoint of a run.

    Parameters
    ----------
    config : Options
        What the run is now; only options that `may_change` may differ from what they were.
    out : Path
        Its folder.
    data : str
        The digest of its data.
    needed : frozenset of str
        What the state must hold.

    Raises
    ------
    CheckpointError
        If there is no checkpoint, or it is damaged, or of another configuration or other data.
    """
    fields = dataclasses.fields(config)
    saved = checkpoint.load(
        out / CHECKPOINT,
        expected=dataclasses.asdict(config),
        free=frozenset(f.name for f in fields if f.metadata["option"].may_change),
        needed=needed | {"data", "made_with"},
    )
    if saved["data"] != data:
        raise CheckpointError(
            f"{out} holds a run on other data: the SHA-256 of their arrays was "
            f"{saved['data'][:12]}, is {data[:12]}; resume it with its own, or start another run"
        )
    was, now = saved["made_with"], made_with()
    differing = [
        f"{name} was {was.get(name)}, is {now[name]}" for name in now if was.get(name) != now[name]
    ]
    if differing:
        say(f"{out} goes on, but perhaps not bit-identically: {'; '.join(differing)}")
    return saved


def made_with() -> dict[str, str]:
    """Return what the bits of a run depend on besides its configuration and data."""
    return {"torch": str(torch.__version__), "processor": torch.backends.cpu.get_cpu_capability()}


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """Return the records of a run's metrics."""
    return [json.loads(line) for line in (out / METRICS).read_text(encoding="utf-8").splitlines()]


def write_summary(summary: Mapping[str, Any], out: Path) -> None:
    """Write the summary, whole or not at all."""
    temporary = out / f"{SUMMARY}.tmp"
    temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    temporary.replace(out / SUMMARY)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
