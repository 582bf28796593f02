"""The speculative step as a torch operator: its kernels, its form without values, its record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rskernels._torch.devices import PARTS, cpu_kernels, gpu_kernels, of_product
from rskernels._torch.operations import operation_of, product_fields
from rskernels._torch.schemas import LIBRARY, split
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Product
from rskernels.law.speculation import COUNTS, Speculation


def _kernel(name: str, kernels: Callable[[], Any]) -> Callable[..., Any]:
    def step(
        source: Tensor | Product,
        draft_tokens: Tensor,
        draft_logits: Tensor | None,
        lengths: Tensor | None,
        temperature: Tensor | None,
        temperature_value: float,
        top_k: Tensor | None,
        top_k_value: int,
        top_p: Tensor | None,
        top_p_value: float,
        seed: Tensor | None,
        seed_value: int,
        row_offset: Tensor | None,
        row_offset_value: int,
        is_block: bool,
        is_processed: bool,
    ) -> Any:
        law = Speculation(
            temperature_value if temperature is None else temperature,
            top_k_value if top_k is None else top_k,
            top_p_value if top_p is None else top_p,
            seed_value if seed is None else seed,
            row_offset_value if row_offset is None else row_offset,
            is_block,
            is_processed,
        )
        given = (source, draft_tokens, draft_logits, lengths, law)
        return getattr(kernels().speculative, name)(*given)

    return step


for _device, _kernels in (("CPU", cpu_kernels), ("CUDA", gpu_kernels)):
    LIBRARY.impl("speculate", _kernel("speculate", _kernels), _device)
    _step = of_product(_kernel("speculate_product", _kernels))
    LIBRARY.impl("linear_speculate", _step, _device)


@torch.library.register_fake("rskernels::speculate", lib=LIBRARY)
def _(logits: Tensor, draft_tokens: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _speculated(logits, draft_tokens)


@torch.library.register_fake("rskernels::linear_speculate", lib=LIBRARY)
def _(*fields: Any) -> tuple[Tensor, ...]:
    return _speculated(fields[0], fields[PARTS])


def _speculated(values: Tensor, draft_tokens: Tensor) -> tuple[Tensor, ...]:
    R, K = draft_tokens.shape
    return (
        values.new_empty((R, K + 1), dtype=torch.int64),
        values.new_empty(R, dtype=torch.int64),
        values.new_empty((R, K + 1), dtype=wide_dtype(values)),
        values.new_empty(COUNTS, dtype=torch.int64),
    )


def _fields(
    logits: Tensor,
    draft_tokens: Tensor,
    draft_logits: Tensor | None,
    lengths: Tensor | None,
    law: Speculation,
) -> tuple[Any, ...]:
    return (logits.detach(), *_step_fields(draft_tokens, draft_logits, lengths, law))


def _linear_fields(product: Product, *step: Any) -> tuple[Any, ...]:
    parts = product_fields(product)
    return (
        *(part.detach() if isinstance(part, Tensor) else part for part in parts),
        *_step_fields(*step),
    )


def _step_fields(
    draft_tokens: Tensor, draft_logits: Tensor | None, lengths: Tensor | None, law: Speculation
) -> tuple[Any, ...]:
    return (
        draft_tokens, None if draft_logits is None else draft_logits.detach(), lengths,
        *split(law.temperature, 1.0), *split(law.top_k, 0), *split(law.top_p, 1.0),
        *split(law.seed, 0), *split(law.row_offset, 0), law.is_block, law.is_processed,
    )  # fmt: skip


_LINEAR_SPECULATE = operation_of(
    "linear_speculate", _linear_fields, "speculative.speculate_product"
)
SPECULATE = operation_of("speculate", _fields, "speculative.speculate", linear=_LINEAR_SPECULATE)
