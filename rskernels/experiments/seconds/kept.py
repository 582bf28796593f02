"""A forward pass that is kept: its products are not computed again for the rows that are accepted.

Scoring computes every product of the network. The step on the accepted rows needs the same numbers,
and autograd's record of how they came about. So the products are kept while rows are scored, and
the step's forward pass takes its rows of them: what is left of it are activations and norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {
    torch.ops.aten.addmm.default: 1,
    torch.ops.aten.mm.default: 0,
    torch.ops.aten.convolution.default: 0,
}
"""What is kept, and which of its arguments is the input, as the output a row or part of a row after
the other."""


class _Kept(NamedTuple):
    product: Tensor
    mark: Tensor
    """The first number of each row of the input, by which rows are known again."""


class KeptForward:
    """The products of a forward pass, from one `scoring` to the next.

    ``with kept.scoring(): logits = model(inputs)``, then, before a weight changes, ``with
    kept.training(mask): logits = model(inputs[mask])``, whose backward pass is the usual one. The
    model must treat every row apart, in the same order of products both times: no batch norm, no
    dropout. Memory: the outputs of all products, as long as they are kept.
    """

    def __init__(self) -> None:
        self._kept: list[_Kept] = []

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Keep the products of a forward pass, without autograd."""
        self._kept = []

        def keep(entry: Tensor, compute: Callable[[], Tensor]) -> Tensor:
            product = compute()
            self._kept.append(_Kept(product, entry.flatten(1)[:, 0].clone()))
            return product

        with torch.no_grad(), _Products(keep):
            yield

    @contextmanager
    def training(self, mask: Tensor) -> Iterator[None]:
        """Take the products of accepted rows, bool ``[N]``, in place of computing them.

        Raises
        ------
        RuntimeError
            If the forward pass has other products than that which was kept.
        """
        rows = mask.nonzero()[:, 0]
        left = iter(self._kept)

        def take(entry: Tensor, compute: Callable[[], Tensor]) -> Tensor:
            kept = next(left, None)
            if kept is not None and len(kept.product) % len(mask) == 0:
                mark = _rows_of(kept.mark, rows, len(mask))
                if len(mark) == len(entry) and mark.allclose(entry.flatten(1)[:, 0], 1e-3, 1e-4):
                    return _rows_of(kept.product, rows, len(mask))
            raise RuntimeError(
                f"this forward pass is not that of {len(mask)} rows of which {len(self._kept)} "
                "products were kept: it must have the same, each row after the other"
            )

        with _Products(take):
            yield


def _rows_of(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """Return the parts ``[m · k, ...]`` that belong to some of n rows, of ``[n · k, ...]``."""
    if len(values) == n:
        return values[rows]
    return values.view(n, -1, *values.shape[1:])[rows].flatten(0, 1)


class _Products(TorchDispatchMode):
    """Below autograd: what computes a product is handed to a function, with the input."""

    def __init__(self, handle: Callable[[Tensor, Callable[[], Tensor]], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._handle = handle

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def compute() -> Any:
            return func(*args, **(kwargs or {}))

        return self._handle(args[PRODUCTS[func]], compute) if func in PRODUCTS else compute()
