"""A Hugging Face ``Trainer`` callback: an envelope in its checkpoints, over its ranks, in its logs.

>>> import rskernels
>>> callback = EnvelopeCallback(rskernels.Envelope("fixed", M=2.0))
>>> seen = callback.record(callback.bernoulli(torch.zeros(4)))
>>> callback.batches
1
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rskernels._python.extras import HF_HINT, framework
from rskernels.envelope import Envelope
from rskernels.integrations import metrics
from rskernels.law.numbers import IGNORED
from rskernels.ops import Acceptance, SequenceAcceptance, masked_mean

with framework("EnvelopeCallback", HF_HINT):
    from transformers import Trainer, TrainerCallback

FILE = "rskernels-envelope-{}.pt"
"""What each rank writes into a checkpoint's folder."""
KEY = "rskernels"
"""The key in a trainer's state under which the run has its name."""
IDS_A_BATCH = 1 << 32
"""How many ids a batch has to itself."""


class EnvelopeCallback(TrainerCallback):
    """Keeps the envelope by which a ``Trainer``'s loss decides: saved, shared and logged.

    The loss decides by :attr:`envelope` with the seed and ids of :meth:`draws`, and hands what it
    got to :meth:`record`. :func:`attach` adds the callback to a trainer before those that report.

    Several processes share what they have seen by ``Envelope.all_reduce``, after the first step and
    whenever they log. Until the next time each decides by that and by its own rows since. What the
    envelope had seen before training counts once, as rank 0 has it. Metrics are those of all
    processes since they were last logged, over valid rows only, read by one wait.

    Every process saves what it has seen in the checkpoint's folder, so that training goes on with
    the same decisions. With another number of processes it goes on with all that was seen.

    Parameters
    ----------
    envelope : Envelope
        Decides the batches. It stays the same object; what it has seen changes.
    seed : int
        Of the decisions.
    prefix : str
        Put before each name of :data:`rskernels.integrations.metrics.NAMES` in the logs.
    resume_from_checkpoint : str or Path, optional
        The folder that training goes on from, where it does not lie in the trainer's
        ``output_dir``.

    Raises
    ------
    TypeError
        If ``envelope`` is no Envelope.
    """

    def __init__(
        self,
        envelope: Envelope,
        *,
        seed: int = 0,
        prefix: str = "rejection/",
        resume_from_checkpoint: str | Path | None = None,
    ) -> None:
        if not isinstance(envelope, Envelope):
            raise TypeError(f"envelope must be an Envelope, got {type(envelope).__name__}")
        self.envelope, self.seed, self.prefix = envelope, seed, prefix
        self.resume_from_checkpoint = resume_from_checkpoint
        self.batches = 0
        self.run = ""
        # What this process alone has seen, to be added up over processes; of one, the envelope.
        self._own = envelope
        self._sums: list[Tensor] = []

    def draws(self) -> dict[str, Any]:
        """Return ``seed`` and ``row_offset`` of the next batch, which no other batch or rank has.

        For at most 2**32 rows a batch.
        """
        rank, ranks = _place()
        place = self.batches * ranks + rank
        return {"seed": self.seed, "row_offset": place * IDS_A_BATCH}

    def bernoulli(self, log_ratio: Tensor, mask: Tensor | None = None) -> Acceptance:
        """Decide a batch as ``Envelope.bernoulli`` of one group, by :meth:`draws`.

        Parameters
        ----------
        log_ratio, mask : Tensor
            As of ``Envelope.bernoulli``.
        """
        return self.envelope.bernoulli(log_ratio, mask=mask, **self.draws())

    def accept_sequences(self, log_ratio: Tensor, mask: Tensor, statistic: str = "sum") -> Any:
        """Decide a batch as ``Envelope.accept_sequences`` of one group; else as :meth:`bernoulli`.

        Parameters
        ----------
        log_ratio, mask, statistic
            As of ``Envelope.accept_sequences``.

        Returns
        -------
        SequenceAcceptance
        """
        return self.envelope.accept_sequences(
            log_ratio, mask=mask, statistic=statistic, **self.draws()
        )

    def record(
        self,
        seen: Acceptance | SequenceAcceptance,
        groups: Tensor | None = None,
        ignored: Tensor | None = None,
    ) -> Acceptance | SequenceAcceptance:
        """Count a batch that the envelope has decided, and return it; waits for no device.

        Parameters
        ----------
        seen : Acceptance or SequenceAcceptance
            What a method of :attr:`envelope` returned.
        groups : Tensor, optional
            Those of its rows, where the envelope has several.
        ignored : Tensor, optional
            bool, of the shape of ``seen.mask``: rows that were left out. Needed to count invalid
            rows in the right groups; without it the first rows without a ratio pass for them.
        """
        self.batches += 1
        # log M comes in when it is logged: to read it may wait for the device.
        sums = metrics.decision_sums(seen)
        # Those of a checkpoint lie on the CPU.
        self._sums = [metrics.combine([*(old.to(sums.device) for old in self._sums), sums])]
        if self._own is not self.envelope:
            self._learn(seen, groups, ignored)
        return seen

    def _learn(
        self,
        seen: Acceptance | SequenceAcceptance,
        groups: Tensor | None,
        ignored: Tensor | None,
    ) -> None:
        if isinstance(seen, SequenceAcceptance):
            self._own.update(seen, groups)
            return
        if ignored is None:
            # Neither ignored nor invalid rows have a ratio, and no sum depends on which is which.
            without = seen.log_ratio.isnan()
            nth = without.flatten().cumsum(0).reshape(without.shape)
            ignored = without & (nth <= seen.counts[IGNORED])
        self._own.update(seen.log_ratio, groups, accepted=seen.mask, ignored=ignored)

    def reduce(self) -> None:
        """Let all processes share what they have seen; each must call it."""
        if self._own is self.envelope:
            return
        everything = Envelope.from_bytes(self._own.to_bytes()).all_reduce()
        self.envelope.load_bytes(everything.to_bytes())

    def take_metrics(self) -> metrics.DecisionMetrics:
        """Return the metrics of all processes since the last call; each must call it.

        ``log_M`` is NaN where there is none, and where the policy "tail" finds none that is finite.
        """
        device = self._sums[0].device if self._sums else torch.device("cpu")
        sums = metrics.combine([metrics.no_sums(device), *(s.to(device) for s in self._sums)])
        self._sums = []
        sums = metrics.all_reduce_sums(sums)
        sums[-1] = metrics.largest_log_M(self.envelope, device)
        return metrics.metrics_of(sums)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore what was seen where training goes on from a checkpoint."""
        rank, ranks = _place()
        if ranks > 1 and self._own is self.envelope:
            before = self.envelope.to_bytes()
            self._own = Envelope.from_bytes(before) if rank == 0 else empty_like(self.envelope)
        if state.global_step > 0:
            folder = self._folder_of(args, state, rank)
            self._load(folder, rank, ranks)
            if self.run != state.stateful_callbacks.get(KEY):
                raise ValueError(
                    f"the envelope in {folder} was saved by another run than the one that goes on: "
                    "give the checkpoint's folder as EnvelopeCallback(resume_from_checkpoint=...)"
                )
        # In the trainer's own state it tells which run has saved a checkpoint.
        self.run = state.stateful_callbacks[KEY] = _shared_name()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Share M after the first step, before which nobody may have one."""
        if state.global_step == 1:
            self.reduce()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        """Put the metrics of a training step into the logs, and into the trainer's history."""
        if "loss" not in logs:  # of an evaluation, or of the whole training
            return
        self.reduce()
        found = self.take_metrics().to_dict(self.prefix)
        # JSON has no NaN, and logs of other libraries end at it.
        found = {name: value for name, value in found.items() if math.isfinite(value)}
        logs.update(found)
        state.log_history[-1].update(found)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what this process has seen into the checkpoint's folder."""
        rank, ranks = _place()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.state_dict(ranks), folder / FILE.format(rank))

    def state_dict(self, ranks: int = 1) -> dict[str, Any]:
        """Return what a checkpoint holds, for ``torch.load(weights_only=True)``."""
        return {
            "ranks": ranks,
            "run": self.run,
            "batches": self.batches,
            "own": self._own.to_bytes(),
            "envelope": self.envelope.to_bytes(),
            "sums": [sums.cpu() for sums in self._sums],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict` of as many processes."""
        self.envelope.load_bytes(state["envelope"])
        if self._own is not self.envelope:
            self._own.load_bytes(state["own"])
        self.batches, self.run = state["batches"], state["run"]
        self._sums = list(state["sums"])

    def _folder_of(self, args: Any, state: Any, rank: int) -> Path:
        given = self.resume_from_checkpoint
        if given is None and isinstance(args.resume_from_checkpoint, str):
            given = args.resume_from_checkpoint
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        folder = folder if given is None else Path(given)
        if not any((folder / FILE.format(one)).exists() for one in (rank, 0)):
            raise FileNotFoundError(
                f"{folder} holds no envelope to go on with: give the checkpoint's folder as "
                "EnvelopeCallback(resume_from_checkpoint=...), one that was saved with the callback"
            )
        return folder

    def _load(self, folder: Path, rank: int, ranks: int) -> None:
        # A node may have only the files of its own ranks.
        is_own = (folder / FILE.format(rank)).exists()
        first = _read(folder, rank if is_own else 0)
        if first["ranks"] == ranks:
            if not is_own:  # what rank 0 has seen would count twice
                raise FileNotFoundError(
                    f"{folder} is of {ranks} ranks and lacks {FILE.format(rank)}, what rank {rank} "
                    "of them has seen: copy it there from the node that saved it"
                )
            self.load_state_dict(first)
            return
        # Other ranks than saved it: each takes some of their parts.
        states = [_read(folder, other) for other in range(first["ranks"])]
        own, self.run = empty_like(self.envelope), first["run"]
        for state in states[rank::ranks]:
            own.merge(Envelope.from_bytes(state["own"]))
        self.batches = max(math.ceil(state["batches"] * first["ranks"] / ranks) for state in states)
        self._sums = [sums for state in states[rank::ranks] for sums in state["sums"]]
        if self._own is self.envelope:
            self.envelope.load_bytes(own.to_bytes())
        else:
            self._own.load_bytes(own.to_bytes())
            self.reduce()


def attach(trainer: Trainer, callback: EnvelopeCallback) -> EnvelopeCallback:
    """Add the callback to a trainer, before those that report its logs, and return it."""
    trainer.add_callback(callback)
    callbacks = trainer.callback_handler.callbacks
    callbacks.insert(0, callbacks.pop())
    return callback


def ranks_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return a loss whose gradient, averaged over the ranks, is that of the mean over all masks.

    ``masked_mean`` times this rank's share of what all ranks accepted, times their number; on one
    rank ``masked_mean``. Every rank must call it: it makes a collective, which waits for no device.

    Parameters
    ----------
    values : Tensor
        Floating ``[...]``, of this rank.
    mask : Tensor
        bool ``[...]``.
    """
    mean = masked_mean(values, mask)
    _, ranks = _place()
    if ranks == 1:
        return mean
    count = mask.sum().to(mean.dtype)
    total = count.clone()
    dist.all_reduce(total)
    return mean * (count * ranks / total.clamp(min=1))


def empty_like(envelope: Envelope) -> Envelope:
    """Return an envelope of the same options that has seen nothing."""
    options = envelope.state_dict()
    del options["state"]
    return Envelope(**options)


def _place() -> tuple[int, int]:
    """Return this process's rank and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _shared_name() -> str:
    """Return a name that no other run has, and all processes of this one."""
    names = [uuid.uuid4().hex]
    if _place()[1] > 1:
        dist.broadcast_object_list(names)
    return names[0]


def _read(folder: Path, rank: int) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / FILE.format(rank), weights_only=True)
    return state
