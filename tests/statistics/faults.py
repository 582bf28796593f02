"""Faults that a maintainer would fear, as changes of the source, and the checks that find them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from .test_ends import check_lower_end, check_upper_end
from .test_t1_rate import check_rate
from .test_t2_tiny_rate import check_resolution
from .test_t4_waiting_time import check_waiting
from .test_t6_independence import check_keys
from .test_t7_content import check_content
from .test_t8_violated_envelope import check_violated
from .test_t9_fresh_ratio import check_law_of_batches
from .test_t10_reference import check_flips, check_uniforms

# At sizes that the float64 reference and the Triton interpreter decide in about a second.
rate = partial(check_rate, form="bernoulli", draws=1 << 16)
rate_of_targets = partial(check_rate, form="target", draws=1 << 15)
rate_of_entries = partial(check_rate, form="dense_verify", draws=1 << 16)
waiting = partial(check_waiting, wanted=4_000)
keys = partial(check_keys, form="bernoulli", draws=1 << 13)
keys_of_targets = partial(check_keys, form="target", draws=1 << 12)
keys_of_entries = partial(check_keys, form="dense", draws=1 << 15)
content = partial(check_content, draws=1 << 12)
violated = partial(check_violated, draws=1 << 14)
flips_of_entries = partial(check_flips, form="dense", shape=(20, 500))
upper_end_of_targets = partial(check_upper_end, form="target")
upper_end_of_entries = partial(check_upper_end, form="dense")

Change = tuple[str, str, str]

LAW, REFERENCE = "random.py", "kernels/reference.py"
LANES, DECIDE, DENSE = "kernels/lanemath.py", "kernels/cpu_decide.py", "kernels/cpu_dense.py"
TRITON = "kernels/gpu_kernels.py"

# What each backend makes of two words.
UNIFORM = {
    "reference": "return torch.where(w0 < SMALL_WORD, small, large)",
    "cpu": "return builder.fmul(builder.sitofp(integer, float_type), scale)",
    "gpu": "return tl.where(small, u_small, u_large)",
}
SECOND_WORD = {
    "reference": "2 * w1 + 1",
    "cpu": "builder.add(builder.shl(w1, number(1)), number(1))",
    "gpu": "(w1.to(tl.int64) << 1) + 1",
}
COLUMNS = "builder.add(broadcast(builder, column), offsets)"
# How each backend compares, and which row's uniform it takes, where the ratio is given.
COMPARISON = {
    "reference": "log_ratio - log_M >= u.double().log()",
    "cpu": "value - log_M >= log_u",
    "gpu": "log_w - log_m >= tl.log(u.to(tl.float64))",
}
ROW_IDS = {
    "reference": "row_offset + torch.arange(log_ratio.numel(), device=log_ratio.device)",
    "cpu": "row_uniform(row_offset + n, stream, seed)",
    "gpu": "_uniform(row_offset.to(tl.int64) + rows,",
}


class Fault(NamedTuple):
    """What is wrong, the check that finds it, and (file, text, replacement) for each backend."""

    name: str
    check: Callable[..., None]
    reference: tuple[Change, ...] = ()
    cpu: tuple[Change, ...] = ()
    gpu: tuple[Change, ...] = ()
    nightly: tuple[str, ...] = ()
    """Backends in which it takes seconds, and that are spared it in an ordinary run."""


def of_uniform(name, check, *, where=UNIFORM, nightly=(), **replacements):
    """Return the fault that replaces a text of the uniform law in several backends."""
    files = {"reference": LAW, "cpu": LANES, "gpu": TRITON}
    return _of(name, check, files, where, nightly, replacements)


def of_bernoulli(name, check, *, where=COMPARISON, nightly=(), **replacements):
    """Return the fault that replaces a text of the decision on given ratios."""
    files = {"reference": REFERENCE, "cpu": DECIDE, "gpu": TRITON}
    return _of(name, check, files, where, nightly, replacements)


def _of(name, check, files, where, nightly, replacements):
    changes = {at: ((files[at], where[at], new),) for at, new in replacements.items()}
    return Fault(name, check, **changes, nightly=nightly)


UNIFORM_LAW = [
    of_uniform(
        "u is 0",
        rate,
        reference="return torch.zeros_like(large)",
        cpu="return _same_shape(float_type, 0.0)",
        gpu="return u_large * 0.0",
    ),
    Fault(
        "u has 24 bits",
        check_resolution,
        reference=((LAW, UNIFORM["reference"], "return (w0 >> 8).float() * 2.0**-24"),),
        cpu=(
            (LANES, "number(random.SMALL_WORD)", "number(0)"),
            (LANES, "builder.or_(w0, number(1))", "builder.and_(w0, number(0xFFFFFF00))"),
        ),
        gpu=((TRITON, UNIFORM["gpu"], "return (w0 >> 8).to(tl.float32) * 256 * LARGE_UNIT"),),
        nightly=("gpu",),
    ),
    of_uniform(
        "u has 24 bits, which T10 sees too",
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
        cpu="number(2**32)",
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
        cpu="builder.shl(w1, number(1))",
        gpu="(w1.to(tl.int64) << 1)",
    ),
    of_uniform(
        "u cannot be 1",
        check_upper_end,
        reference=UNIFORM["reference"] + ".clamp(max=1 - 2**-24)",
        gpu="return tl.minimum(tl.where(small, u_small, u_large), 0.99999994)",
    ),
    Fault(
        "the high word of the seed is ignored",
        keys,
        reference=((LAW, "(seed >> 32) & WORD], dtype", "0], dtype"),),
        cpu=((LANES, "builder.lshr(seed, half)", "I64(0)"),),
        gpu=((TRITON, "tl.philox(seed, low", "tl.philox(seed & 0xFFFFFFFF, low"),),
        nightly=("gpu",),
    ),
    Fault(
        "the high word of the row is ignored",
        keys,
        reference=((LAW, "(rows >> 32) & WORD", "rows * 0"),),
        cpu=((LANES, "builder.lshr(row, half)", "I64(0)"),),
        gpu=((TRITON, "(row_id >> 32).to(tl.uint32)", "(row_id * 0).to(tl.uint32)"),),
        nightly=("gpu",),
    ),
    Fault(
        "the stream is ignored: one seed serves two streams",
        keys,
        reference=((LAW, "stream & WORD)", "0)"),),
        cpu=((LANES, "builder.and_(stream, mask)", "I64(0)"),),
        gpu=((TRITON, "stream.to(tl.uint32)", "(stream * 0).to(tl.uint32)"),),
    ),
    Fault(
        "the column is ignored",
        keys_of_entries,
        reference=((LAW, "column_ids & WORD, streams", "column_ids * 0, streams"),),
        cpu=((LANES, COLUMNS, "broadcast(builder, I64(0))"),),
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
        cpu="row_uniform(n, stream, seed)",
        gpu="_uniform(rows,",
        nightly=("gpu",),
    ),
    of_bernoulli(
        "the draw is keyed by the place in its block of rows",
        keys,
        where=ROW_IDS,
        reference="row_offset + torch.arange(log_ratio.numel()) % 1024",
        cpu="row_uniform(row_offset + n % unit_rows, stream, seed)",
        gpu="_uniform(row_offset.to(tl.int64) + rows % BLOCK,",
    ),
    Fault(
        "row_offset is ignored for targets",
        keys_of_targets,
        reference=((REFERENCE, "row_offset + torch.arange(row_is_bad", "torch.arange(row_is_bad"),),
        cpu=((DECIDE, "row_uniform(row_offset + n, 0", "row_uniform(n, 0"),),
        nightly=("cpu",),
    ),
    Fault(
        "the draw is keyed by the place in its block of targets",
        keys_of_targets,
        cpu=(
            (DECIDE, "row_uniform(row_offset + n, 0", "row_uniform(row_offset + n % unit_rows, 0"),
        ),
        nightly=("cpu",),
    ),
    Fault(
        "the draw is keyed by its block of entries",
        keys_of_entries,
        cpu=((DENSE, "row, row_offset + n, stride", "row, row_offset + n // unit_rows, stride"),),
        nightly=("cpu",),
    ),
    Fault(
        "the draw is keyed by what is in the row",
        content,
        reference=(
            (
                REFERENCE,
                "row_uniforms(rows, 0, seed, ACCEPT_STREAM)",
                "row_uniforms((1e6 * log_q[..., 0]).long(), 0, seed, ACCEPT_STREAM)",
            ),
        ),
    ),
]

DECISION = [
    of_bernoulli(
        "the comparison is the wrong way round",
        rate,
        reference="log_ratio - log_M <= u.double().log()",
        cpu="value - log_M <= log_u",
        gpu="log_w - log_m <= tl.log(u.to(tl.float64))",
    ),
    of_bernoulli(
        "an equal ratio is rejected",
        check_upper_end,
        reference="log_ratio - log_M > u.double().log()",
        cpu="value - log_M > log_u",
        gpu="log_w - log_m > tl.log(u.to(tl.float64))",
    ),
    Fault(
        "an equal ratio is rejected for targets",
        upper_end_of_targets,
        reference=((REFERENCE, "log_r >= u.double().log()", "log_r > u.double().log()"),),
        cpu=((DECIDE, "accepted = log_r >= math.log(u)", "accepted = log_r > math.log(u)"),),
        nightly=("cpu",),
    ),
    Fault(
        "an equal ratio is rejected for entries",
        upper_end_of_entries,
        cpu=((DENSE, "log_r >= log(u)", "log_r > log(u)"),),
        gpu=((TRITON, "log_r >= tl.log(u.to(WIDE))", "log_r > tl.log(u.to(WIDE))"),),
        nightly=("cpu",),
    ),
    of_bernoulli(
        "log u is of float32",
        check_uniforms,
        reference="log_ratio - log_M >= u.log()",
        cpu="value - log_M >= float32(log_u)",
        gpu="log_w - log_m >= tl.log(u)",
    ),
    of_bernoulli(
        "M is read the wrong way round",
        waiting,
        reference="log_ratio + log_M >= u.double().log()",
        cpu="value + log_M >= log_u",
        gpu="log_w + log_m >= tl.log(u.to(tl.float64))",
    ),
    of_bernoulli(
        "M is ignored",
        rate,
        reference="log_ratio >= u.double().log()",
        cpu="value >= log_u",
        gpu="log_w >= tl.log(u.to(tl.float64))",
    ),
    Fault(
        "M is ignored for targets",
        rate_of_targets,
        reference=((REFERENCE, "log_r = log_ratio - log_M", "log_r = log_ratio"),),
        cpu=((DECIDE, "log_r = log_ratio - log_M", "log_r = log_ratio"),),
        nightly=("cpu",),
    ),
    Fault(
        "M is ignored for entries",
        rate_of_entries,
        cpu=((DENSE, "log_r = log_w - log_m", "log_r = log_w"),),
        nightly=("cpu",),
    ),
    Fault(
        "M is the largest ratio of its batch",
        check_law_of_batches,
        reference=(
            (
                REFERENCE,
                "natural_log(M, log_space, log_ratio)",
                "log_ratio.amax(-1, keepdim=True)",
            ),
        ),
    ),
    Fault(
        "the model's roles are swapped",
        rate_of_targets,
        reference=(
            (REFERENCE, "(log_prob, log_density) if model", "(log_prob, log_density) if not model"),
        ),
        cpu=(
            (DECIDE, "numerator = log_q if model", "numerator = log_q if not model"),
            (
                DECIDE,
                "denominator = log_density if model",
                "denominator = log_density if not model",
            ),
        ),
    ),
    Fault(
        "the model's roles are swapped for entries",
        rate_of_entries,
        cpu=(
            (DENSE, "numerator = log_q if model", "numerator = log_q if not model"),
            (DENSE, "denominator = log_d if model", "denominator = log_d if not model"),
        ),
        gpu=((TRITON, '("-inf"), log_q - log_density)', '("-inf"), log_density - log_q)'),),
        nightly=("cpu",),
    ),
    Fault(
        "the temperature is ignored",
        rate_of_targets,
        reference=((REFERENCE, "log_softmax((z - top) / temperature, -1)", "log_softmax(z, -1)"),),
        cpu=(
            (DECIDE, "scale = scale_of(temperature)", "scale = scale_of(1.0)"),
            (DECIDE, "reference) / temperature - math.log", "reference) - math.log"),
        ),
    ),
    Fault(
        "the temperature is ignored in the numerator",
        rate_of_targets,
        cpu=((DECIDE, "reference) / temperature - math.log", "reference) - math.log"),),
        nightly=("cpu",),
    ),
    Fault(
        "a ratio above M is rejected",
        violated,
        reference=((REFERENCE, "mask = valid & (log_r", "mask = valid & (log_r <= 0) & (log_r"),),
        cpu=((DECIDE, "accepted = log_r >= math.log(u)", "accepted = 0 >= log_r >= math.log(u)"),),
        nightly=("cpu",),
    ),
    Fault(
        "the excess of ratios below M is subtracted",
        violated,
        reference=((REFERENCE, "(r - 1).clamp(min=0).sum()", "(r - 1).sum()"),),
        cpu=((DECIDE, "max(r - 1.0, 0.0)", "r - 1.0"),),
        nightly=("cpu",),
    ),
]

FAULTS = [*UNIFORM_LAW, *ROWS, *DECISION]
