"""Logits that are not stored: what they are made of, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

from rskernels._torch.sharded import is_sharded
from rskernels._torch.vocabulary import held
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Lora, Product
from rskernels.ops.arguments import (
    check_floating,
    integer_argument,
    may_be_odd,
    number_argument,
    refuse_odd,
)

NO_ORDER_OF_CUT = (
    "order is given, but LinearLogits with a group, or with a DTensor as weight, are read to their "
    "end; leave it out"
)


@dataclass(frozen=True, eq=False, repr=False)
class LinearLogits:
    """Logits ``hidden @ weight.T`` that are never stored, in place of ``logits``.

    ``z = softcap tanh((scale (h W^T + s (h A^T) B^T) + bias) / softcap)``, or the argument of
    ``softcap tanh(x / softcap)`` without a softcap. ``accept_mask``, ``verify_mask``, ``accept``,
    ``verify``, ``target_log_prob`` and ``estimate_M`` take it with targets. They multiply by a
    block of the weight's rows at a time and add it to each row's softmax while it lies in the
    cache, so that no ``[..., V]`` tensor exists. Where a decision ends early, the rest of the
    product is not computed.

    Parameters
    ----------
    hidden : Tensor
        h, float32, float64, bfloat16 or float16 ``[..., D]``, any strides, CPU or CUDA.
    weight : Tensor
        W ``[V, D]``, of the dtype and device of ``hidden``, as ``torch.nn.Linear`` has it. Or a
        DTensor that is sharded by rows, ``Shard(0)``, on one dimension of its mesh: ``group`` and
        ``offset`` follow from it, and the parts here are then this rank's.
    bias : Tensor, optional
        floating ``[V]``.
    scale : float
        What the product is multiplied by: 0, or of a size that is a normal number of the dtype that
        sums are made in, float64 where ``hidden`` is, else float32.
    softcap : float, optional
        Above 0 and such a number: the bound of the logits.
    lora : tuple of (Tensor, Tensor, float), optional
        (A, B, s) with A ``[r, D]`` and B ``[V, r]`` of the dtype of ``hidden``, and s a number as
        ``scale`` is: the weight is ``W + s B A``.
    group : torch.distributed.ProcessGroup, optional
        The ranks over which the vocabulary is cut: ``weight``, ``bias`` and B are this rank's rows,
        and every rank has the same ``hidden``, targets, densities and M. All decide alike, with
        the seed of the first rank; each operation is one collective. All rows are then read to
        their end, and ``order`` is refused, as are graphs of torch.compile and torch.export. Not
        given beside a DTensor. All ranks must call alike: where one raises, or only some have a
        hidden or A that requires grad, the others wait.
    offset : int
        With a ``group``: the column that this rank's first row of ``weight`` is.

    Attributes
    ----------
    shape : torch.Size
        ``[..., V]``, that of the logits.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or number is not as above; of MaskedTensors; of
        DTensors unless ``bias`` and B are placed as ``weight`` is, and ``hidden`` and A are
        replicated or plain tensors.

    Notes
    -----
    Products are accumulated in float32, or float64 where ``hidden`` is, and are not rounded to
    bfloat16 or float16 after: a decision may differ from one about logits that were. Results do
    not depend on the batch, on where a row stands in it, or on the number of threads.
    ``target_log_prob``, and the log_prob of ``accept`` and ``verify``, have a gradient with respect
    to each tensor here that requires one; the product is made again for it, block by block. Sums
    are made in float32, or float64, and rounded to the part's dtype once. Rows whose upstream
    gradient is 0 cost nothing, and what requires no gradient costs no product.

    An ``order`` is of blocks of the weight's rows: 1024 of them, as it is of columns.

    On a CPU torch's own operators convert some of the parts, as all of float16, and what a gradient
    is made of. In a child of fork they may wait for ever for the threads that only its parent has,
    unless it calls ``torch.set_num_threads(1)`` before. Processes that spawn or forkserver starts
    have threads of their own.

    Examples
    --------
    >>> z = LinearLogits(hidden, lm_head.weight)
    >>> mask = verify_mask(z, q_hat, targets=tokens)
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    scale: float = field(default=1.0, kw_only=True)
    softcap: float | None = field(default=None, kw_only=True)
    lora: tuple[Tensor, Tensor, float] | None = field(default=None, kw_only=True)
    group: dist.ProcessGroup | None = field(default=None, kw_only=True)
    offset: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        """Raise unless all are as the class says."""
        check_floating("hidden", self.hidden)
        if self.hidden.dim() == 0 or self.hidden.shape[-1] == 0:
            shape = list(self.hidden.shape)
            raise ValueError(f"hidden must have shape [..., D] with D of at least 1, got {shape}")
        D = self.hidden.shape[-1]
        self._check("weight", self.weight, ("V", D))
        V = self.weight.shape[0]
        if self.bias is not None:
            self._check("bias", self.bias, (V,), is_any_dtype=True)
        if self.lora is not None:
            self._check_lora(V, D)
        self._check_number("scale", self.scale)
        if self.softcap is not None and not self._check_number("softcap", self.softcap) > 0.0:
            raise ValueError(f"softcap must be above 0 or None, got {self.softcap}")
        self._check_group()
        if may_be_odd(*self.tensors().values()):
            refuse_odd(self.tensors(), "by ignore_index as their target, or by a density of 0")
            if is_sharded(*self.tensors().values()):
                self._take_held()

    @property
    def shape(self) -> torch.Size:
        """That of the logits, ``[..., V]``; with a ``group``, of this rank's columns."""
        return torch.Size((*self.hidden.shape[:-1], self.weight.shape[0]))

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        return self.hidden.device

    @property
    def requires_grad(self) -> bool:
        """Whether a part does."""
        return any(part.requires_grad for part in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that these logits are made of, by name."""
        A, B = (None, None) if self.lora is None else self.lora[:2]
        named = {"hidden": self.hidden, "weight": self.weight, "bias": self.bias, "A": A, "B": B}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def product(self) -> Product:
        """Return the parts as kernels take them, with the rows along one dimension."""
        lora = None
        if self.lora is not None:
            A, B, scale = self.lora
            lora = Lora(A, B, float(scale))
        return Product(
            self.hidden.reshape(-1, self.hidden.shape[-1]),
            self.weight,
            self.bias,
            float(self.scale),
            0.0 if self.softcap is None else float(self.softcap),
            lora,
        )

    def __repr__(self) -> str:
        """Say what they are, without the values."""
        parts = ", ".join(f"{name} {list(part.shape)}" for name, part in self.tensors().items())
        return f"LinearLogits({parts}, {self.hidden.dtype}, device={self.device})"

    def _check_group(self) -> None:
        group, offset = self.group, integer_argument("offset", self.offset)
        if group is None:
            if offset != 0:
                raise ValueError(f"offset must be 0 without a group, got {offset}")
            return
        if not isinstance(group, dist.ProcessGroup):
            kind = type(group).__name__
            raise TypeError(f"group must be a torch.distributed.ProcessGroup or None, got {kind}")
        if offset < 0:
            raise ValueError(f"offset must be at least 0, got {offset}")

    def _check_lora(self, V: int, D: int) -> None:
        lora = self.lora
        if not isinstance(lora, tuple) or len(lora) != 3:
            given = f"{len(lora)} of them" if isinstance(lora, tuple) else type(lora).__name__
            raise TypeError(f"lora must be a tuple of (A, B, s) or None, got {given}")
        A, B, scale = lora
        self._check("A of lora", A, ("r", D))
        self._check("B of lora", B, (V, A.shape[0]))
        self._check_number("s of lora", scale)

    def _check(
        self, name: str, part: Tensor, shape: tuple[int | str, ...], is_any_dtype: bool = False
    ) -> None:
        """Raise unless a part has a shape, where a letter is any number of at least 1."""
        check_floating(name, part)
        if part.dtype != self.hidden.dtype and not is_any_dtype:
            raise TypeError(f"{name} is {part.dtype}, hidden {self.hidden.dtype}; give one dtype")
        if part.device != self.device:
            raise ValueError(f"{name} is on {part.device}, hidden on {self.device}")
        if part.dim() != len(shape) or any(
            size == 0 if isinstance(wanted, str) else size != wanted
            for size, wanted in zip(part.shape, shape, strict=True)
        ):
            wanted = "[" + ", ".join(map(str, shape)) + "]"
            raise ValueError(f"{name} must have shape {wanted}, got {list(part.shape)}")

    def _check_number(self, name: str, value: float) -> float:
        """Return a number that sums can be made with, or 0."""
        number = number_argument(name, value, "a number")
        # Comparisons that a NaN fails; torch.compile does not trace math.isfinite of what changes.
        if not -math.inf < number < math.inf:
            raise ValueError(f"{name} must be finite, got {number}")
        dtype = wide_dtype(self.hidden)
        least, most = torch.finfo(dtype).tiny, torch.finfo(dtype).max
        if not (least <= number <= most or -most <= number <= -least or number == 0.0):
            raise ValueError(
                f"{name} must be of a size in [{least:.5g}, {most:.5g}], the normal numbers of "
                f"{dtype}, in which sums are made for {self.hidden.dtype} hidden, got {number}"
            )
        return number

    def _take_held(self) -> None:
        """Put what this rank holds in the place of DTensors, and where its columns stand."""
        if self.group is not None:
            raise ValueError("group is given beside a DTensor, whose mesh says which ranks it has")
        parts, group, offset = held(self.tensors())
        for name in {"hidden", "weight", "bias"} & parts.keys():
            object.__setattr__(self, name, parts[name])
        if self.lora is not None:
            object.__setattr__(self, "lora", (parts["A"], parts["B"], self.lora[2]))
        object.__setattr__(self, "group", group)
        object.__setattr__(self, "offset", offset)


def is_cut(logits: object) -> TypeGuard[LinearLogits]:
    """Say whether logits are those of a vocabulary that is cut over ranks."""
    return isinstance(logits, LinearLogits) and logits.group is not None


def of_targets(logits: LinearLogits, targets: Tensor | None) -> Product:
    """Return the product of logits whose rows are decided at their targets, as they must be."""
    if targets is None:
        raise ValueError(
            "LinearLogits need targets: the dense form decides and returns every entry, [..., V] "
            "of them, which LinearLogits are there not to store; give hidden @ weight.T instead"
        )
    return logits.product()


def parts_of(product: Product) -> tuple[Tensor | float | None, ...]:
    """Return the tensors of a product, and None where there is none; the first are the rows."""
    return (*product[:3], *(product.lora or ()))
