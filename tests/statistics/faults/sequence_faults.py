"""Faults in decisions about sequences, and the functions that are wrong, of every backend.

``original`` is what each replaces.
"""

import sys
from functools import partial

import triton.language as tl

from rskernels.kernels.cpu.simd.vectors import minimum, splat

from ..laws.test_t11_sequences import check_prefix_ids, check_prefixes, check_sequences
from . import in_gpu
from .fault import Fault

original = None  # bound where a function is planted
MOST = tl.constexpr(0.0)

sequences = check_sequences
sequences_of_few = partial(check_sequences, proposals=1 << 10, tokens=2, length=3)
prefixes = check_prefixes
prefixes_of_few = partial(check_prefixes, B=1 << 8, r=0.8)


# kernels.reference.sequences.terms_of
def clamped(log_ratio, of):
    return original(log_ratio.clamp(max=0.2), of)


# kernels.cpu.sequences.amounts.take
def take_clamped(total, bad, values, inside, statistic):
    return original(total, bad, minimum(values, splat(0.2)), inside, statistic)


# kernels.gpu.sequences.programs.terms_of
def clamped_on_gpu(values, TERM: tl.constexpr):
    return original(tl.minimum(values, MOST), TERM)


# kernels.reference.sequences.statistic_of
def mean_of(log_ratio, statistic):
    return original(log_ratio, "mean")


# codes_of, in both launches
def codes_of_mean(statistic):
    return original("mean")


# decide_sequences, of every backend
def by_tokens(log_ratio, M, seed, row_offset, stream, log_space, *layout):
    seen = original(log_ratio, M, seed, row_offset, stream, log_space, *layout)
    accept_prefix = sys.modules[original.__module__].accept_prefix
    kept = accept_prefix(log_ratio, 1.0, seed, row_offset, stream, False, *layout[:2])
    return kept == seen[3], *seen[1:]


# kernels.reference.sequences.places_of, kernels.gpu.sequences.launch._laid_out
def without_mask(log_ratio, mask, cu_seqlens):
    return original(log_ratio, None, cu_seqlens)


# kernels.cpu.sequences.amounts.tokens_at
def tokens_without_mask(tokens, at, end):
    address, code, _ = tokens
    return original((address, code, 0), at, end)


# decide_ratios, of the reference
def by_place(log_ratio, M, seed, row_offset, stream, log_space, ids=None):
    return original(log_ratio, M, seed, 0, stream, log_space, ids)


# kernels.cpu.sequences.decide.decide_sixteen
def by_place_in_part(log_ratio, M, shared_M, log_space, draw, n, inside):
    seed, row_offset, stream, ids = draw
    return original(
        log_ratio, M, shared_M, log_space, (seed, row_offset * 0, stream, ids), n, inside
    )


# kernels.reference.sequences.row_uniforms
def of_first_column(rows, columns, seed, stream):
    return original(rows, columns * 0, seed, stream)


# kernels.cpu.sequences.prefix.count_accepted
def of_first_columns(line, held, column, row, seed, log_M):
    return original(line, held, column * 0, row, seed, log_M)


# accept_prefix, of every backend
def without_ids(log_ratio, M, seed, row_offset, stream, log_space, mask, cu_seqlens, ids=None):
    return original(log_ratio, M, seed, row_offset, stream, log_space, mask, cu_seqlens)


REFERENCE = "kernels.reference.sequences"
CPU = "kernels.cpu.sequences"
PROGRAMS, GPU = "kernels.gpu.sequences.programs", "kernels.gpu.sequences.launch"

SEQUENCES = [
    Fault(
        "a token's ratio is clamped",
        sequences,
        reference={f"{REFERENCE}.terms_of": clamped},
        cpu={f"{CPU}.amounts.take": take_clamped},
    ),
    Fault(
        "a token's ratio is clamped on a GPU",
        sequences_of_few,
        gpu={f"{PROGRAMS}.terms_of": clamped_on_gpu},
        nightly=("gpu",),
    ),
    Fault(
        "a sequence's ratio is the mean of its tokens'",
        sequences,
        reference={f"{REFERENCE}.statistic_of": mean_of},
        cpu={f"{CPU}.launch.codes_of": codes_of_mean},
    ),
    Fault(
        "each token has a uniform of its own",
        partial(check_sequences, proposals=1 << 10),
        reference={f"{REFERENCE}.decide_sequences": by_tokens},
        cpu={f"{CPU}.launch.decide_sequences": by_tokens},
    ),
    Fault(
        "padding is counted",
        sequences,
        reference={f"{REFERENCE}.places_of": without_mask},
        cpu={f"{CPU}.amounts.tokens_at": tokens_without_mask},
    ),
    Fault(
        "padding is counted on a GPU",
        sequences_of_few,
        gpu={f"{GPU}._laid_out": without_mask},
        nightly=("gpu",),
    ),
    Fault(
        "ids are places in a part of the batch",
        sequences,
        reference={f"{REFERENCE}.decide_ratios": by_place},
        cpu={f"{CPU}.decide.decide_sixteen": by_place_in_part},
    ),
    Fault(
        "tokens of a prefix share their uniform",
        prefixes_of_few,
        reference={f"{REFERENCE}.row_uniforms": of_first_column},
        gpu={"kernels.gpu.law.column_words": in_gpu.of_first_columns},
        nightly=("gpu",),
    ),
    Fault(
        "tokens of a prefix share uniforms after a while",
        prefixes,
        cpu={f"{CPU}.prefix.count_accepted": of_first_columns},
    ),
    Fault(
        "a prefix's draws are of its place, not of its id",
        check_prefix_ids,
        reference={f"{REFERENCE}.accept_prefix": without_ids},
        cpu={f"{CPU}.launch.accept_prefix": without_ids},
        gpu={f"{GPU}.accept_prefix": without_ids},
        nightly=("cpu", "gpu"),
    ),
]
