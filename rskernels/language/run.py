"""A run in a folder: `fine_tune`, which goes on from any stage to the same end.

    rskernels rft --model my_model --tasks arithmetic --rounds 5 --beta 0.2 --out runs/one
    torchrun --nproc-per-node 2 -m rskernels rft --model my_model --tasks arithmetic --out runs/two

Answers are kept as they come, the model after each round and every so many minutes: a run that is
resumed, also by another number of processes, makes only what is missing.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rskernels.language.config import LanguageConfig
from rskernels.language.loop import Loop, Selected
from rskernels.language.parallel import device_of, is_sharded, joined, whole_model
from rskernels.language.policy import Policy, load
from rskernels.language.report import REPORT, SAMPLES, write_report, write_rows, write_samples
from rskernels.language.rewards import task_from
from rskernels.language.task import Task
from rskernels.language.train import Step
from rskernels.rsft.artifacts.metrics import MetricsWriter
from rskernels.rsft.errors import CheckpointError, DataError
from rskernels.rsft.run import (
    CHECKPOINT,
    CURVES,
    METRICS,
    SUMMARY,
    locked_folder,
    read_metrics,
    restore,
    save,
    start_afresh,
    torch_threads,
    write_summary,
)
from rskernels.sampling.progress import ProgressBar

PARTS, ROUNDS, MODEL, ADAPTER = "parts", "rounds", "model", "adapter"
FOLDERS = (PARTS, ROUNDS, MODEL, ADAPTER, SAMPLES)
FILES = (METRICS, CHECKPOINT, CURVES, SUMMARY, REPORT, "events.out.tfevents.*")
STATE = frozenset({"position", "model", "optimizer", "envelope", "place"})


def fine_tune(
    config: LanguageConfig,
    out: str | Path,
    *,
    task: Task | None = None,
    policy: Policy | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Fine-tune a language model in rounds on its own answers, selected by reward.

    Under ``torchrun`` every process calls this alike. Which answers are made and selected does not
    depend on how many processes there are, the loss only by rounding.

    Parameters
    ----------
    config : LanguageConfig
        The model, the task and the rule.
    out : str or Path
        Folder for ``metrics.jsonl``, TensorBoard events, ``checkpoint.pt``, ``rounds/`` with all
        answers, ``samples/`` to read, ``model/``, ``adapter/`` of LoRA, ``curves.png``,
        ``report.md`` and ``summary.json``.
    task : Task, optional
        None: the one that the configuration names.
    policy : Policy, optional
        The model, which is trained in place. None: read from the folder that the configuration
        names.
    resume : bool
        Go on from the checkpoint in ``out``, and from the answers there that are newer than it.
    overwrite : bool
        Replace a run that ``out`` already holds.
    progress : bool
        Show a progress bar where the output is a terminal.

    Returns
    -------
    dict
        The summary: the configuration under ``"config"``, the numbers of the last round, and under
        ``"before"`` those of the model as it was given.

    Raises
    ------
    FileExistsError
        If ``out`` holds a run and neither ``resume`` nor ``overwrite`` is given.
    DataError
        If the model, the task or a file of it is not as it must be.
    CheckpointError
        If there is nothing to resume, or it is damaged or of another configuration or task; or
        another run holds the folder.
    TrainingError
        If the loss is not finite, the reward function raises, or no answer of a round has a reward.
    ModuleNotFoundError
        If transformers, peft or reasoning_gym is needed and not installed.
    """
    out = Path(out)
    with ExitStack() as stack:
        stack.enter_context(torch_threads(config.threads))
        device = device_of(config.device)
        ranks = stack.enter_context(joined(device.type))
        if ranks.is_first:
            stack.enter_context(locked_folder(out, resume=resume))
        task = task or task_from(config)
        policy = policy or load(config, device)
        loop = Loop(policy, task, config, ranks, out / PARTS)
        run = Run(loop, out)
        run.begin(resume=resume, overwrite=overwrite)
        stack.enter_context(run.writing(progress))
        run.rounds()
        summary = run.finish()
    return summary


class Run:
    """A loop that leaves files behind."""

    def __init__(self, loop: Loop, out: Path) -> None:
        self.loop, self.out = loop, out
        self.config, self.ranks = loop.config, loop.ranks
        self.data = digest_of(loop.task)
        self.position = 0
        self._writer: MetricsWriter | None = None
        self._bar = ProgressBar(1, [], on=False)
        self._saved_at = time.monotonic()

    def begin(self, *, resume: bool, overwrite: bool) -> None:
        """Restore the loop, or make the folder ready."""
        model = self.config.model
        if model is not None and self.out.resolve() in Path(model).resolve().parents:
            raise DataError(f"the model {model} lies in {self.out}, where the run is to be written")
        if not resume:
            if self.ranks.is_first and start_afresh(self.out, overwrite=overwrite, files=FILES):
                # Without an earlier run they are somebody else's.
                for name in FOLDERS:
                    shutil.rmtree(self.out / name, ignore_errors=True)
            self.ranks.wait()
            return
        saved = None
        if self.ranks.is_first:
            saved = restore(self.config, self.out, self.data, needed=STATE)
        saved = self.ranks.of_first(saved)
        try:
            self.loop.load_state_dict(saved)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.out / CHECKPOINT} does not fit the model: {error}"
            ) from error
        self.position = saved["position"]
        done = self.loop.place.round
        if done > self.config.rounds + 1:
            raise CheckpointError(
                f"{self.out} has had {done - 1} rounds, more than rounds={self.config.rounds}"
            )
        self.loop.rollouts.forget(done - 1)

    @contextmanager
    def writing(self, progress: bool) -> Iterator[None]:
        """Hold the metrics and the progress bar, on the first process."""
        place = self.loop.place
        fields = ["round {task.fields[at]}/{task.total}", "{task.fields[stage]}"]
        fields += ["acceptance {task.fields[acceptance]}", "pass@1 {task.fields[right]}"]
        self._bar = ProgressBar(
            self.config.rounds, fields, completed=max(0, place.round - 1),
            on=progress and self.ranks.is_first, only_on_terminal=True,
            at="0", stage="", acceptance="–", right="–",
        )  # fmt: skip
        with ExitStack() as stack:
            stack.enter_context(self._bar)
            if self.ranks.is_first:
                self._writer = stack.enter_context(
                    MetricsWriter(self.out, position=self.position, step=place.totals.steps)
                )
            yield

    def rounds(self) -> None:
        """Do the rounds that are left; round 0 evaluates the model as it was given."""
        loop, place = self.loop, self.loop.place
        if place.round == 0:
            self._save()
            self._record({}, None)
        while place.round <= self.config.rounds:
            at = place.round - 1
            self._show(at, 0.0, "generating")
            selected = loop.sample(self._generated)
            if place.step == 0:
                # Before training: to resume amid it needs the rows that it trains on.
                self._write_round(selected)
            overall = selected.selection.overall
            self._bar.update(at + 0.5, acceptance=f"{overall['acceptance']:.3f}")
            loop.train(selected, self._stepped)
            if place.step:
                self._save()
            self._record(selected.numbers, selected)

    def finish(self) -> dict[str, Any]:
        """Write model, curves, report and summary; return the summary."""
        policy, module = self.loop.policy, self.loop.trainer.module
        if is_sharded(module):
            state = whole_model(module, on_first=True)
            policy = self.loop.trainer.outline
            if self.ranks.is_first:
                policy.fill(state)
        summary: dict[str, Any] | None = None
        if self.ranks.is_first:
            policy.save(self.out / MODEL)
            records = [r for r in read_metrics(self.out) if r["kind"] == "round"]
            last = {name: value for name, value in records[-1].items() if name != "kind"}
            summary = {
                "config": dataclasses.asdict(self.config),
                "task": self.loop.task.name,
                "before": {k: v for k, v in records[0].items() if k != "kind"},
                **last,
            }
            write_report(read_metrics(self.out), summary, self.config, self.out)
            write_summary(summary, self.out)
        return self.ranks.of_first(summary)

    def _write_round(self, selected: Selected) -> None:
        if self.ranks.is_first:
            number, task = self.loop.place.round, self.loop.task
            write_rows(self.out / ROUNDS, number, selected, task)
            write_samples(self.out / SAMPLES, number, selected, task)

    def _generated(self, part: float) -> None:
        self._show(self.loop.place.round - 1, 0.5 * part, "generating")

    def _stepped(self, done: int, steps: int, step: Step) -> None:
        """Write a step's line, and a checkpoint where it is time for one."""
        place = self.loop.place
        if self._writer is not None:
            self._writer.write(
                {
                    "kind": "step",
                    "step": place.totals.steps,
                    "round": place.round,
                    **step._asdict(),
                }
            )
        self._show(place.round - 1, 0.5 + 0.4 * done / steps, "training")
        due = time.monotonic() - self._saved_at >= 60 * self.config.checkpoint_minutes
        if done < steps and self.ranks.of_first(due):
            self._save()

    def _record(self, numbers: dict[str, Any], selected: Selected | None) -> None:
        """Evaluate, write the round's line, and go on to the next round."""
        loop, place = self.loop, self.loop.place
        at = place.round
        self._show(max(0, at - 1), 0.9 * (at > 0), "evaluating")
        scores = loop.evaluate()
        loop.next_round(selected)
        self._bar.update(at, at=str(at), right=f"{scores['pass_at_1']:.3f}")
        if self._writer is not None:
            own = {k: v for k, v in numbers.items() if k not in ("answers", "generated_tokens")}
            totals = dataclasses.asdict(place.totals)
            record = {"kind": "round", "step": totals.pop("steps"), "round": at}
            self._writer.write({**record, **scores, **own, **totals})
        self._save()
        loop.rollouts.forget(at)

    def _save(self) -> None:
        """Write a checkpoint, for which all processes come together."""
        state = self.loop.state_dict()
        if self._writer is not None:
            save(self.config, self.out, self.data, {"position": self._writer.position(), **state})
        self._saved_at = time.monotonic()

    def _show(self, rounds: int, part: float, stage: str) -> None:
        self._bar.update(rounds + part, at=str(rounds + 1), stage=stage)


def digest_of(task: Task) -> str:
    """Return a digest of the prompts, by which a run that is resumed knows them again."""
    import hashlib

    held = hashlib.sha256()
    for rows in (task.train, task.test):
        held.update(json.dumps(rows, sort_keys=True, default=str).encode())
    return held.hexdigest()
