"""What is measured, and where it is written: JSON lines and TensorBoard events."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rskernels._python.extras import train_extra
from rskernels.rsft.data.samples import Samples
from rskernels.rsft.errors import CheckpointError, TrainingError

Record = Mapping[str, Any]

# Rows that are scored together.
EVALUATED = 1024

# Of equal width, over [0, 1]: those of the calibration error.
BINS = 15


class Scores(NamedTuple):
    """How good a model is on a test set.

    Attributes
    ----------
    balanced_accuracy : float
        Mean over the classes of the test set of the share of their rows that is recognised.
    rarest_accuracy : float
        The same mean over those alone that are rarest in the training pool.
    worst_accuracy : float
        The least of those shares.
    calibration_error : float
        As `calibration_error`.
    """

    balanced_accuracy: float
    rarest_accuracy: float
    worst_accuracy: float
    calibration_error: float


@torch.no_grad()
def evaluate(model: nn.Module, test: Samples, counts: Tensor, rarest: int = 3) -> Scores:
    """Score a model on a test set.

    Parameters
    ----------
    model : nn.Module
        Inputs ``[N, ...]`` to logits ``[N, C]``.
    test : Samples
        The test set, of at least one row. A class of which it has none is not scored.
    counts : Tensor
        int64 ``[C]``, rows of each class in the training pool.
    rarest : int
        How many of the least frequent classes make up `rarest_accuracy`.

    Raises
    ------
    TrainingError
        If logits are NaN or infinite.
    """
    with train_extra():
        from sklearn.metrics import recall_score
    # A few rows at a time: a convolution's activations are many times its images.
    logits = torch.cat([model(inputs) for inputs in test.inputs.split(EVALUATED)])
    broken = int((~logits.amax(-1).isfinite()).sum())  # a probability of 0 is none of these
    if broken:
        raise TrainingError(
            f"no probability follows from the logits of {broken} of {len(logits)} test rows, which "
            "are NaN or infinite; a smaller lr may help"
        )
    scored = test.labels.unique()
    recall = recall_score(
        test.labels.numpy(),
        logits.argmax(-1).numpy(),
        labels=scored.numpy(),
        average=None,
        zero_division=0,
    )
    rare = counts[scored].argsort(stable=True)[:rarest].numpy()
    return Scores(
        float(recall.mean()),
        float(recall[rare].mean()),
        float(recall.min()),
        calibration_error(logits, test.labels),
    )


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Return how far the probability of the predicted class is from its accuracy.

    The expected calibration error ``Σ_b n_b/n·|accuracy_b − confidence_b|`` over 15 bins of equal
    width, ``((b−1)/15, b/15]``, of the largest probability (Guo, Pleiss, Sun & Weinberger, "On
    calibration of modern neural networks", ICML 2017).

    Parameters
    ----------
    logits : Tensor
        Floating ``[N, C]``.
    labels : Tensor
        int64 ``[N]``.
    """
    confidence, predicted = logits.double().softmax(-1).max(-1)
    inside = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gap = (predicted == labels).double() - confidence
    return float(gap.new_zeros(BINS).index_add(0, inside, gap).abs().sum() / len(labels))


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
    OSError
        If the folder cannot be written to, or its name holds bytes that are no text.
    """

    def __init__(self, folder: Path, *, position: int = 0, step: int = 0) -> None:
        with train_extra():
            from torch.utils.tensorboard import SummaryWriter
        path = folder / "metrics.jsonl"
        held = path.stat().st_size if path.exists() else 0
        if held < position:
            raise CheckpointError(f"{path} holds {held} bytes, the checkpoint knew of {position}")
        self._file = path.open("ab")
        self._file.truncate(position)
        try:
            self._events = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        except UnicodeEncodeError as error:
            self._file.close()
            raise OSError(
                f"TensorBoard needs a folder whose name is text, got {os.fsencode(folder)!r}"
            ) from error

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
