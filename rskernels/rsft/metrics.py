"""What is measured, and where it is written: JSON lines and TensorBoard events."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rskernels.rsft.checkpoint import CheckpointError
from rskernels.rsft.data import Images
from rskernels.rsft.extras import train_extra

Record = Mapping[str, Any]


class Scores(NamedTuple):
    """Accuracy on a test set.

    Attributes
    ----------
    balanced_accuracy : float
        Mean over the classes of the share of their images that is recognised.
    rarest_accuracy : float
        The same mean over the rarest classes of the training pool alone.
    """

    balanced_accuracy: float
    rarest_accuracy: float


@torch.no_grad()
def evaluate(model: nn.Module, test: Images, counts: Tensor, rarest: int = 3) -> Scores:
    """Score a model on a test set.

    Parameters
    ----------
    model : nn.Module
        Images ``[N, 1, H, W]`` to logits ``[N, C]``.
    test : Images
        The test set, with at least one image of every class.
    counts : Tensor
        int64 ``[C]``, images of each class in the training pool.
    rarest : int
        How many of the least frequent classes make up `rarest_accuracy`.
    """
    with train_extra():
        from sklearn.metrics import recall_score
    recall = recall_score(
        test.labels.numpy(),
        model(test.images).argmax(-1).numpy(),
        labels=range(len(counts)),
        average=None,
        zero_division=0,
    )
    rare = counts.argsort(stable=True)[:rarest].numpy()
    return Scores(float(recall.mean()), float(recall[rare].mean()))


class MetricsWriter:
    """Append records to ``metrics.jsonl`` and their numbers to TensorBoard events.

    Parameters
    ----------
    folder : Path
        Where both are written.
    position : int
        Bytes of ``metrics.jsonl`` to keep: what the checkpoint being resumed knew of.
    step : int
        Step being resumed; events of later steps are purged.

    Raises
    ------
    CheckpointError
        If ``metrics.jsonl`` is shorter than `position`.
    """

    def __init__(self, folder: Path, *, position: int = 0, step: int = 0) -> None:
        with train_extra():
            from torch.utils.tensorboard import SummaryWriter
        path = folder / "metrics.jsonl"
        self._file = path.open("ab")
        if self._file.tell() < position:
            held = self._file.tell()
            self._file.close()
            raise CheckpointError(f"{path} holds {held} bytes, the checkpoint knew of {position}")
        self._file.truncate(position)
        self._events = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, record: Record) -> None:
        """Append one record; numbers are plotted under ``kind/name`` at ``record["step"]``."""
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                self._events.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def position(self) -> int:
        """Bring what was written to the disk and return its length in bytes."""
        self._events.flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._events.close()
