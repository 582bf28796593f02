"""What is measured: operations, shapes and dtypes, their inputs, and the bytes they must move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ROWS = (1, 16, 64, 512, 4096)
COLUMNS = (10, 1000, 32000, 151936)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

M = 2.0
SPREAD = 4.0  # standard deviation of the logits: near one-hot rows are as rare as flat ones
PATTERN = 1 << 24  # logits that are drawn; more are copies of them


@dataclass(frozen=True)
class Case:
    """One operation on logits ``[rows, columns]``; ``acceptance`` is the mean of min(1, r)."""

    operation: str
    rows: int
    columns: int
    dtype: str = "float32"
    acceptance: float = 0.5

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def logits_bytes(self) -> int:
        return self.rows * self.columns * self.itemsize

    @property
    def bytes(self) -> int:
        """The fewest bytes to move; what is per row (targets, densities, masks) is left out."""
        if self.operation == "accept_mask dense":
            return self.logits_bytes + self.rows * self.columns  # a byte of mask an entry
        if self.operation == "target_log_prob":
            return 3 * self.logits_bytes  # read forward, read backward, gradient written
        return self.logits_bytes

    @property
    def slug(self) -> str:
        """A name for pytest's -k."""
        share = "" if self.acceptance == 0.5 else f"-{100 * self.acceptance:g}%"
        return f"{self.operation}-{self.rows}x{self.columns}-{self.dtype}{share}".replace(" ", "-")

    def __str__(self) -> str:
        text = f"{self.operation} [{self.rows}, {self.columns}] {self.dtype}"
        return text if self.acceptance == 0.5 else f"{text} {100 * self.acceptance:g} % accepted"


class Inputs(NamedTuple):
    """What rskernels and every baseline are given."""

    logits: Tensor  # [N, V]
    density: Tensor  # p_hat or q_hat: float32 [N]; the dense form's p_hat [V]
    M: float
    targets: Tensor  # int64 [N]


class Pool:
    """Logits of all cases as views of one buffer a dtype, so that gigabytes are drawn once."""

    def __init__(self, cases: list[Case], device: str = "cpu"):
        self.device = device
        self.sizes = {
            dtype: max(case.rows * case.columns for case in cases if case.dtype == dtype)
            for dtype in {case.dtype for case in cases}
        }
        self.buffers: dict[str, Tensor] = {}

    def logits(self, case: Case) -> Tensor:
        if case.dtype not in self.buffers:
            self.buffers[case.dtype] = self._draw(case.dtype)
        return self.buffers[case.dtype][: case.rows * case.columns].view(case.rows, case.columns)

    def inputs(self, case: Case) -> Inputs:
        """Draw ratios 2·acceptance·U(0, 1), or 1 + U(0, 1) to accept all, and their densities.

        Up to an acceptance of a half M is never violated. The dense form has one density for all
        rows, as of classes, and is violated now and then.
        """
        logits = self.logits(case)
        generator = torch.Generator(self.device).manual_seed(case.rows * case.columns)
        drawn = {"generator": generator, "device": self.device}
        targets = torch.randint(0, case.columns, (case.rows,), **drawn)
        if case.operation == "accept_mask dense":
            density = torch.randn(case.columns, **drawn).softmax(-1)
            return Inputs(logits, density, M * math.exp(SPREAD), targets)
        log_q = torch.cat([_log_prob(*part) for part in _parts(logits, targets)])
        ratio = torch.rand(case.rows, **drawn, dtype=torch.float64)
        ratio = 1.0 + ratio if case.acceptance == 1.0 else 2.0 * case.acceptance * ratio
        q = log_q.double().exp()
        density = q / (M * ratio) if case.operation == "verify_mask" else ratio * M * q
        return Inputs(logits, density.float(), M, targets)

    def _draw(self, dtype: str) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(0)
        pattern = torch.randn(PATTERN, generator=generator, device=self.device)
        pattern = pattern.mul_(SPREAD).to(DTYPES[dtype])
        buffer = torch.empty(self.sizes[dtype], dtype=DTYPES[dtype], device=self.device)
        for part in buffer.split(PATTERN):
            part.copy_(pattern[: part.numel()])
        return buffer


def _parts(logits: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    rows = max(1, PATTERN // logits.shape[-1])
    return list(zip(logits.split(rows), targets.split(rows), strict=True))


def _log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.float()
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


BAR = Case("accept_mask", 2048, 32000)
BAR_ESTIMATE = Case("estimate_M", 2048, 32000)
BAR_SMALL = Case("accept_mask", 4, 10)
DENSE = [Case("accept_mask dense", *shape) for shape in ((2048, 1000), (256, 32000))]
DENSE_SMALL = [Case("accept_mask dense", rows, 10) for rows in (1, 4, 64, 512)]
LAZY_ACCEPTANCES = (0.001, 0.01, 0.1, 0.5, 1.0)
LAZY_SHAPES = ((2048, 32000), (512, 151936))

GRID = [
    Case("accept_mask", rows, columns, dtype)
    for dtype in DTYPES
    for columns in COLUMNS
    for rows in ROWS
]
FURTHER = [
    BAR,
    BAR_ESTIMATE,
    BAR_SMALL,
    Case("accept_mask", 2048, 32000, "bfloat16"),
    Case("estimate_M", 2048, 32000, "bfloat16"),
    Case("accept", 2048, 32000),
    *(
        Case("verify_mask", *shape, acceptance=share)
        for shape in LAZY_SHAPES
        for share in LAZY_ACCEPTANCES
    ),
    *DENSE,
    *DENSE_SMALL,
    Case("target_log_prob", 2048, 1000),
    Case("target_log_prob", 512, 32000),
    Case("target_log_prob", 512, 32000, "bfloat16"),
]
QUICK = [
    BAR,
    BAR_ESTIMATE,
    BAR_SMALL,
    Case("accept_mask", 64, 32000),
    Case("accept_mask", 64, 32000, "bfloat16"),
    *(Case("verify_mask", 2048, 32000, acceptance=share) for share in LAZY_ACCEPTANCES),
    *DENSE,
    *DENSE_SMALL,
]
