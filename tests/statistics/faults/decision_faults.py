"""Faults in the decision: the ratio, M, the comparison and what is counted."""

from functools import partial

from ..laws.test_ends import check_upper_end
from ..laws.test_t1_rate import check_rate
from ..laws.test_t3_categorical import check_cells
from ..laws.test_t4_waiting_time import check_waiting
from ..laws.test_t5_continuous_law import check_law
from ..laws.test_t8_violated_envelope import check_violated
from ..laws.test_t9_fresh_ratio import check_law_of_batches
from ..laws.test_t10_reference import check_flips, check_uniforms
from .fault import (
    COMPARISON,
    DECIDE,
    LANE_LAW,
    LANES,
    REFERENCE,
    ROW,
    SOFTMAX,
    TRITON,
    Fault,
    of_bernoulli,
)

# At sizes that the float64 reference and the Triton interpreter decide in about a second.
rate = partial(check_rate, form="bernoulli", draws=1 << 16)
rate_of_targets = partial(check_rate, form="target", draws=1 << 15)
rate_of_verified = partial(check_rate, form="verify", draws=1 << 15)
rate_of_long_targets = partial(check_rate, form="long_verify", draws=1 << 14)
rate_of_entries = partial(check_rate, form="dense_verify", draws=1 << 16)
cells = partial(check_cells, wanted=1 << 13, cells=8)
law = partial(check_law, wanted=10_000)
waiting = partial(check_waiting, wanted=4_000)
violated = partial(check_violated, draws=1 << 14)
flips_of_targets = partial(check_flips, form="target", shape=(10_000, 50))
upper_end_of_targets = partial(check_upper_end, form="target")
upper_end_of_entries = partial(check_upper_end, form="dense")

SWAPPED = (
    (LANE_LAW, "numerator = log_q if model", "numerator = log_q if not model"),
    (LANE_LAW, "denominator = log_density if model", "denominator = log_density if not model"),
)

DECISION = [
    of_bernoulli(
        "the comparison is the wrong way round",
        rate,
        reference="log_ratio - log_M <= u.double().log()",
        cpu="log_M - values, valid, words",
        gpu="log_w - log_m <= tl.log(u.to(tl.float64))",
    ),
    Fault(
        "an equal ratio is rejected",
        check_upper_end,
        reference=(
            (REFERENCE, "log_ratio - log_M >= u.double()", "log_ratio - log_M > u.double()"),
        ),
        cpu=((LANE_LAW, "log_r >= log_of_normal(", "log_r > log_of_normal("),),
        gpu=((TRITON, COMPARISON["gpu"], "log_w - log_m > tl.log(u.to(tl.float64))"),),
    ),
    Fault(
        "an equal ratio is rejected for targets",
        upper_end_of_targets,
        reference=((REFERENCE, "log_r >= u.double().log()", "log_r > u.double().log()"),),
        cpu=((LANE_LAW, "log_r >= log_u", "log_r > log_u"),),
        nightly=("cpu",),
    ),
    Fault(
        "an equal ratio is rejected for entries",
        upper_end_of_entries,
        cpu=((LANE_LAW, "log_r >= log_of_normal(", "log_r > log_of_normal("),),
        gpu=((TRITON, "log_r >= tl.log(u.to(WIDE))", "log_r > tl.log(u.to(WIDE))"),),
        nightly=("cpu",),
    ),
    Fault(
        "log u is of float32",
        check_uniforms,
        reference=((REFERENCE, COMPARISON["reference"], "log_ratio - log_M >= u.log()"),),
        cpu=(
            (
                LANE_LAW,
                "log_of_normal(as_lanes(uniforms(words), log_r))",
                "as_lanes(log_of_normal(uniforms(words)), log_r)",
            ),
        ),
        gpu=((TRITON, COMPARISON["gpu"], "log_w - log_m >= tl.log(u)"),),
    ),
    of_bernoulli(
        "small ratios are rounded up",
        law,
        reference="(log_ratio - log_M).clamp(min=-2.5) >= u.double().log()",
        cpu="select(values - log_M > splat(-2.5), values - log_M, splat(-2.5)), valid, words",
        gpu="tl.maximum(log_w - log_m, -2.5) >= tl.log(u.to(tl.float64))",
    ),
    of_bernoulli(
        "M is read the wrong way round",
        waiting,
        reference="log_ratio + log_M >= u.double().log()",
        cpu="values + log_M, valid, words",
        gpu="log_w + log_m >= tl.log(u.to(tl.float64))",
    ),
    of_bernoulli(
        "M is ignored",
        rate,
        reference="log_ratio >= u.double().log()",
        cpu="values, valid, words",
        gpu="log_w >= tl.log(u.to(tl.float64))",
    ),
    Fault(
        "M is ignored for targets",
        rate_of_targets,
        reference=((REFERENCE, "log_r = log_ratio - log_M", "log_r = log_ratio"),),
        cpu=((LANE_LAW, "log_r = log_ratio - log_M", "log_r = log_ratio"),),
        nightly=("cpu",),
    ),
    Fault(
        "M is ignored for entries",
        rate_of_entries,
        cpu=((LANE_LAW, "log_r = log_ratio - log_M", "log_r = log_ratio"),),
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
        reference=((REFERENCE, "if law.model_is_target:", "if not law.model_is_target:"),),
        cpu=SWAPPED,
    ),
    Fault(
        "the model's roles are swapped for entries",
        rate_of_entries,
        cpu=SWAPPED,
        gpu=((TRITON, '("-inf"), log_q - log_density)', '("-inf"), log_density - log_q)'),),
        nightly=("cpu",),
    ),
    Fault(
        "the temperature is ignored",
        rate_of_targets,
        reference=((REFERENCE, "log_softmax((z - top) / temperature, -1)", "log_softmax(z, -1)"),),
        cpu=(
            (DECIDE, "scale = scale_of(temperature)", "scale = scale_of(1.0)"),
            (LANE_LAW, "references) / splat(temperature)", "references)"),
        ),
        nightly=("cpu",),
    ),
    Fault(
        "the temperature is ignored in the numerator",
        rate_of_targets,
        cpu=((LANE_LAW, "references) / splat(temperature)", "references)"),),
        nightly=("cpu",),
    ),
    Fault(
        "q is that of the next class",
        cells,
        reference=(
            (
                REFERENCE,
                "        log_prob = log_q.gather(-1, index[..., None]).squeeze(-1)",
                "        log_prob = log_q.roll(-1, -1).gather(-1, index[..., None])[..., 0]",
            ),
        ),
        cpu=(
            (
                ROW,
                "load_logit(row[lane] + target *",
                "load_logit(row[lane] + (target + 1) % V *",
            ),
        ),
        nightly=("cpu",),
    ),
    Fault(
        "log q is of bfloat16",
        flips_of_targets,
        reference=(
            (
                REFERENCE,
                "        log_prob = log_q.gather(-1, index[..., None]).squeeze(-1)",
                "        log_prob = log_q.gather(-1, index[..., None])[..., 0].bfloat16().double()",
            ),
        ),
    ),
    Fault(
        "a lazy decision is taken half an octave early",
        rate_of_long_targets,
        cpu=(
            (
                LANE_LAW,
                "(room + margin) * splat(LOG2_E)",
                "(room + margin) * splat(LOG2_E) - splat(0.5)",
            ),
        ),
        nightly=("cpu",),
    ),
    Fault(
        "a decision without reading takes q to be a fiftieth",
        rate_of_verified,
        cpu=((LANE_LAW, "decide(splat(0.0), log_density", "decide(splat(-4.0), log_density"),),
        nightly=("cpu",),
    ),
    Fault(
        "a part's sum replaces that of the parts before",
        rate_of_long_targets,
        cpu=((SOFTMAX, "            total += added", "            total = added"),),
        nightly=("cpu",),
    ),
    Fault(
        "a row that goes on begins anew",
        rate_of_long_targets,
        cpu=((ROW, "state = reference[lane], total[lane], bound[lane]", "state = UNREAD"),),
        nightly=("cpu",),
    ),
    Fault(
        "the last logit of a short row is left out",
        rate_of_targets,
        cpu=((SOFTMAX, "block_sum(row[lane], V, top", "block_sum(row[lane], V - 1, top"),),
        nightly=("cpu",),
    ),
    Fault(
        "rough logarithms of uniforms are an octave high",
        rate_of_entries,
        cpu=((LANES, "(-127 - 32) * math", "(-127 - 31) * math"),),
        nightly=("cpu",),
    ),
    Fault(
        "a ratio above M is rejected",
        violated,
        reference=((REFERENCE, "mask = valid & (log_r", "mask = valid & (log_r <= 0) & (log_r"),),
        cpu=((LANE_LAW, "log_r >= log_u)", "log_r >= log_u) & (log_r <= splat(0.0))"),),
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
