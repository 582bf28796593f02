"""Compile, for a GPU that need not be present, every kernel of ``gpu/speculative`` as launched.

    python tests/kernels/gpu/compile_speculative.py sm_90

(or ``few``: for sm_90, one call) prints a JSON list as ``compile_ahead.py`` does: an object a
launch, with its resources.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from compile_ahead import TARGETS, Launch, resources
from compile_linear import describe_calls
from triton.backends.compiler import GPUTarget

from rskernels.kernels.gpu import speculative
from rskernels.kernels.product import Product
from rskernels.law.speculation import Speculation

R, K, V = 64, 5, 16384
ODD = 50257
FEW = "few"


def calls() -> Iterator[tuple[str, torch.dtype, Callable[[], Any]]]:
    """Yield what is compiled: a name, the dtype, the call."""
    wide, whole = torch.empty(R, dtype=torch.float64), torch.empty(R, dtype=torch.int64)
    tokens, lengths = torch.empty(R, K, dtype=torch.int64), torch.empty(R, dtype=torch.int64)
    numbers = Speculation(0.7, 50, 0.9, 7)
    tensors = Speculation(wide, whole, wide, whole, whole)
    one = Speculation(seed=torch.empty(1, dtype=torch.int64))
    for dtype in (torch.bfloat16, torch.float32):
        target, draft = (torch.empty(R, rows, V, dtype=dtype) for rows in (K + 1, K))
        step = partial(speculative.speculate, target, tokens, draft)
        yield "of tensors", dtype, partial(step, lengths, tensors._replace(is_block=True))
        yield "plain", dtype, partial(step, None, one)
        yield "cut", dtype, partial(step, lengths, numbers)
    target, draft = (torch.empty(R, rows, ODD, dtype=torch.bfloat16) for rows in (K + 1, K))
    step = partial(speculative.speculate, target, tokens)
    yield "certain", torch.bfloat16, partial(step, None, None, Speculation(seed=3))
    yield "greedy", torch.bfloat16, partial(step, draft, None, Speculation(0.0, seed=3))
    processed = tensors._replace(is_processed=True)
    yield "processed", torch.bfloat16, partial(step, draft, lengths, processed)
    yield "block", torch.bfloat16, partial(step, draft, None, one._replace(is_block=True))
    certain = Speculation(wide, seed=3, is_block=True)
    yield "certain block", torch.bfloat16, partial(step, None, lengths, certain)
    rows = torch.empty(R, 1, V)
    forced = partial(speculative.run_steps, rows, tokens[:, :1])
    yield "forced", torch.float32, partial(forced, rows, lengths, one, whole)
    forced = partial(speculative.run_steps, rows.half(), tokens[:, :1])
    yield "forced", torch.float16, partial(forced, None, lengths, numbers, whole)
    product = Product(torch.empty(R * (K + 1), 64), torch.empty(V, 64), None, 1.0, 0.0, None)
    of_product = partial(speculative.speculate_product, product, tokens, None, None)
    yield "product", torch.float32, partial(of_product, one._replace(top_k=3))
    doubles = torch.empty(R, K + 1, 1000, dtype=torch.float64)
    step = partial(speculative.speculate, doubles, tokens, doubles[:, :K], lengths)
    yield "of tensors", torch.float64, partial(step, tensors)


def describe(launch: Launch, target: GPUTarget) -> dict[str, Any]:
    """Return a launch's resources."""
    loads, facts = resources(launch, target)
    return {
        "kernel": launch.kernel.__name__.removesuffix("_kernel"),
        **facts,
        "loads": {str(bits): count for bits, count in loads.items()},
        "is_fused": launch.result.metadata.enable_fp_fusion,
        "flags": launch.flags,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=[*TARGETS, FEW])
    given = parser.parse_args().target
    target = TARGETS["sm_90" if given == FEW else given]
    chosen = islice(calls(), 1 if given == FEW else None)
    print(json.dumps(describe_calls(target, chosen, describe)))


if __name__ == "__main__":
    main()
