"""Faults in the uniforms, and in which of them a decision takes."""

from functools import partial

from ..laws.test_ends import check_lower_end, check_upper_end
from ..laws.test_t2_tiny_rate import check_resolution, check_tiny_rate
from ..laws.test_t6_independence import check_keys
from ..laws.test_t7_content import check_content
from ..laws.test_t10_reference import check_flips, check_uniforms
from .fault import (
    DECIDE,
    DENSE,
    LANES,
    LAW,
    REFERENCE,
    ROW_IDS,
    SECOND_WORD,
    TRITON,
    UNIFORM,
    Fault,
    of_bernoulli,
    of_uniform,
)

# At sizes that the float64 reference and the Triton interpreter decide in about a second.
keys = partial(check_keys, form="bernoulli", draws=1 << 13)
keys_of_targets = partial(check_keys, form="target", draws=1 << 12)
keys_of_entries = partial(check_keys, form="dense", draws=1 << 15)
content = partial(check_content, draws=1 << 12)
flips_of_entries = partial(check_flips, form="dense", shape=(20, 500))

WORDS = "return builder.xor(product, builder.shl(builder.xor(c1, k0), number(32)))"
TWENTY_FOUR_BITS = (
    (
        LANES,
        WORDS,
        f"{WORDS.replace('return', 'both =')}\n"
        "    return builder.and_(both, number(0xFFFFFF << 40))",
    ),
)
COLUMNS = "_following(builder, column)"

UNIFORM_LAW = [
    of_uniform(
        "u is 0",
        check_uniforms,
        reference="return torch.zeros_like(large)",
        cpu="return constant(floats, 0.0)",
        gpu="return u_large * 0.0",
    ),
    Fault(
        "u has 24 bits",
        check_resolution,
        reference=((LAW, UNIFORM["reference"], "return (w0 >> 8).float() * 2.0**-24"),),
        cpu=TWENTY_FOUR_BITS,
        gpu=((TRITON, UNIFORM["gpu"], "return (w0 >> 8).to(tl.float32) * 256 * LARGE_UNIT"),),
        nightly=("gpu",),
    ),
    Fault(
        "u has 24 bits, which the rate shows",
        check_tiny_rate,
        cpu=TWENTY_FOUR_BITS,
        nightly=("cpu",),
    ),
    of_uniform(
        "u has 24 bits, which T10 shows",
        check_uniforms,
        gpu="return (w0 >> 8).to(tl.float32) * 256 * LARGE_UNIT",
    ),
    of_uniform(
        "u has 24 bits and is above 0",
        check_resolution,
        reference="return ((w0 >> 8) + 1).float() * 2.0**-24",
    ),
    of_uniform(
        "u has 32 bits",
        check_resolution,
        where=SECOND_WORD,
        reference="2**32",
        cpu="builder.or_(builder.shl(w0, number(33)), number(2**32))",
    ),
    Fault(
        "u is rounded twice",
        check_uniforms,
        reference=((LAW, "(w0 | 1).to(torch.float32)", "w0.to(torch.float32)"),),
        cpu=((LANES, "builder.or_(w0, number(1))", "w0"),),
        gpu=((TRITON, "(w0 | 1).to(tl.float32)", "w0.to(tl.float32)"),),
    ),
    of_uniform(
        "u can be 0",
        check_lower_end,
        where=SECOND_WORD,
        reference="2 * w1",
        cpu="builder.shl(both, number(1))",
        gpu="(w1.to(tl.int64) << 1)",
    ),
    of_uniform(
        "u cannot be 1",
        check_upper_end,
        reference=UNIFORM["reference"] + ".clamp(max=1 - 2**-24)",
        cpu="u = builder.fmul(builder.sitofp(integer, floats), scale)\n"
        "    top = constant(floats, 1 - 2**-24)\n"
        "    return builder.select(builder.fcmp_ordered('<', u, top), u, top)",
        gpu="return tl.minimum(tl.where(small, u_small, u_large), 0.99999994)",
    ),
    Fault(
        "the high word of the seed is ignored",
        keys,
        reference=((LAW, "(seed >> 32) & WORD], dtype", "0], dtype"),),
        cpu=((LANES, "builder.ashr(key, I64(32))", "I64(0)"),),
        gpu=((TRITON, "tl.philox(seed, low", "tl.philox(seed & 0xFFFFFFFF, low"),),
        nightly=("gpu",),
    ),
    Fault(
        "the high word of the row is ignored",
        keys,
        reference=((LAW, "(rows >> 32) & WORD", "rows * 0"),),
        cpu=((LANES, "builder.ashr(rows, constant(wide(I64), 32))", "constant(wide(I64), 0)"),),
        gpu=((TRITON, "(row_id >> 32).to(tl.uint32)", "(row_id * 0).to(tl.uint32)"),),
        nightly=("gpu",),
    ),
    Fault(
        "the stream is ignored: one seed serves two streams",
        keys,
        reference=((LAW, "stream & WORD)", "0)"),),
        cpu=((LANES, "broadcast(builder, stream)", "constant(wide(I64), 0)"),),
        gpu=((TRITON, "stream.to(tl.uint32)", "(stream * 0).to(tl.uint32)"),),
    ),
    Fault(
        "the column is ignored",
        keys_of_entries,
        reference=((LAW, "column_ids & WORD, streams", "column_ids * 0, streams"),),
        cpu=((LANES, COLUMNS, "constant(wide(I64), 0)"),),
        gpu=((TRITON, "_uniform(row_id, columns, ", "_uniform(row_id, columns * 0, "),),
        nightly=("gpu",),
    ),
    Fault(
        "sixteen columns share a draw",
        keys_of_entries,
        cpu=((LANES, COLUMNS, "broadcast(builder, column)"),),
        nightly=("cpu",),
    ),
    Fault(
        "row and column change places",
        flips_of_entries,
        reference=(
            (LAW, "torch.stack((rows & WORD", "torch.stack((column_ids & WORD"),
            (LAW, "column_ids & WORD, streams", "rows & WORD, streams"),
        ),
    ),
]

ROWS = [
    of_bernoulli(
        "row_offset is ignored",
        keys,
        where=ROW_IDS,
        reference="torch.arange(log_ratio.numel())",
        cpu="row_words(n, stream, seed)",
        gpu="_uniform(rows,",
        nightly=("gpu",),
    ),
    of_bernoulli(
        "the draw is keyed by the place in its block of rows",
        keys,
        where=ROW_IDS,
        reference="row_offset + torch.arange(log_ratio.numel()) % 1024",
        cpu="row_words(row_offset + n % unit_rows, stream, seed)",
        gpu="_uniform(row_offset.to(tl.int64) + rows % BLOCK,",
    ),
    Fault(
        "row_offset is ignored for targets",
        keys_of_targets,
        reference=((REFERENCE, "law.row_offset + torch.arange(", "torch.arange("),),
        cpu=((DECIDE, "row_words(row_offset + start, 0", "row_words(start, 0"),),
        nightly=("cpu",),
    ),
    Fault(
        "the draw is keyed by the place in its block of targets",
        keys_of_targets,
        cpu=((DECIDE, "words(row_offset + start, 0", "words(row_offset + start % 16, 0"),),
        nightly=("cpu",),
    ),
    Fault(
        "two rows of entries share their draws",
        keys_of_entries,
        cpu=((DENSE, "row, row_offset + n, stride", "row, row_offset + n // 2, stride"),),
        nightly=("cpu",),
    ),
    Fault(
        "the draw is keyed by what is in the row",
        content,
        reference=(
            (
                REFERENCE,
                "row_uniforms(rows, 0, law.seed, ACCEPT_STREAM)",
                "row_uniforms((1e6 * log_q[..., 0]).long(), 0, law.seed, ACCEPT_STREAM)",
            ),
        ),
    ),
]
