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
from . import in_cpu, in_gpu, in_reference
from .fault import Fault

# At sizes that the float64 reference and the Triton interpreter decide in about a second.
rate = partial(check_rate, form="bernoulli", draws=1 << 16)
rate_of_targets = partial(check_rate, form="target", draws=1 << 15)
rate_of_verified = partial(check_rate, form="verify", draws=1 << 15)
rate_of_long_targets = partial(check_rate, form="long_verify", draws=1 << 14)
rate_of_targets_each = partial(check_rate, form="target_each", draws=1 << 15)
rate_of_entries_each = partial(check_rate, form="dense_each", draws=1 << 16)
rate_of_entries = partial(check_rate, form="dense_verify", draws=1 << 16)
cells = partial(check_cells, requested=1 << 13, cells=8)
law = partial(check_law, requested=10_000)
waiting = partial(check_waiting, requested=4_000)
violated = partial(check_violated, draws=1 << 14)
violated_entries = partial(check_violated, form="dense", draws=1 << 16)
violated_ratios = partial(check_violated, form="ratios", draws=1 << 14)
flips_of_targets = partial(check_flips, form="target", shape=(10_000, 50))
upper_end_of_targets = partial(check_upper_end, form="target")
upper_end_of_entries = partial(check_upper_end, form="dense")

ROWS, LAW, GPU = "kernels.reference.rows", "kernels.cpu.law", "kernels.gpu.law"
# How each backend compares.
ACCEPTS, ACCEPTS_GPU = f"{ROWS}.accepts", f"{GPU}.accepts"
FACTOR_CPU = "kernels.cpu.dense.rough.rough_factor"
ROUGHLY_CPU, EXACTLY_CPU = f"{LAW}.decide_roughly", f"{LAW}.decide_exactly"
# Where M is read; on a GPU, a number is read by the host.
LOG_M, LOG_M_CPU = f"{ROWS}.natural_log", f"{LAW}.natural_logs"
LOG_M_GPU, LOG_M_HOST = f"{GPU}.natural_log", "kernels.gpu.launch._natural_log"
RATIOS, RATIOS_CPU = f"{ROWS}.ratios", f"{LAW}.ratios"

DECISION = [
    Fault(
        "the comparison is the wrong way round",
        rate,
        reference={ACCEPTS: in_reference.at_most},
        cpu=dict.fromkeys((ROUGHLY_CPU, EXACTLY_CPU), in_cpu.of_inverse),
        gpu={ACCEPTS_GPU: in_gpu.at_most},
    ),
    Fault(
        "an equal ratio is rejected",
        check_upper_end,
        reference={ACCEPTS: in_reference.above},
        cpu={EXACTLY_CPU: in_cpu.above},
        gpu={ACCEPTS_GPU: in_gpu.above},
    ),
    Fault(
        "an equal ratio is rejected for targets",
        upper_end_of_targets,
        reference={ACCEPTS: in_reference.above},
        cpu={f"{LAW}.decide": in_cpu.rows_above},
        nightly=("cpu",),
    ),
    Fault(
        "an equal ratio is rejected for entries",
        upper_end_of_entries,
        cpu={EXACTLY_CPU: in_cpu.above},
        gpu={"kernels.gpu.dense.decide_words": in_gpu.entries_above},
        nightly=("cpu",),
    ),
    Fault(
        "log u is of float32",
        check_uniforms,
        reference={ACCEPTS: in_reference.by_float32_log},
        cpu={EXACTLY_CPU: in_cpu.by_float32_log},
        gpu={ACCEPTS_GPU: in_gpu.by_float32_log},
    ),
    Fault(
        "small ratios are rounded up",
        law,
        reference={ACCEPTS: in_reference.small_rounded_up},
        cpu=dict.fromkeys((ROUGHLY_CPU, EXACTLY_CPU), in_cpu.small_rounded_up),
        gpu={ACCEPTS_GPU: in_gpu.small_rounded_up},
    ),
    Fault(
        "M is read the wrong way round",
        waiting,
        reference={LOG_M: in_reference.negative},
        cpu={LOG_M_CPU: in_cpu.negative},
        gpu={LOG_M_GPU: in_gpu.negative, LOG_M_HOST: in_gpu.negative_number},
    ),
    Fault(
        "M is ignored",
        rate,
        reference={LOG_M: in_reference.none},
        cpu={LOG_M_CPU: in_cpu.none},
        gpu={LOG_M_GPU: in_gpu.none, LOG_M_HOST: in_gpu.no_number},
    ),
    Fault(
        "M is ignored for targets",
        rate_of_targets,
        reference={RATIOS: in_reference.without_M},
        cpu={RATIOS_CPU: in_cpu.without_M},
        nightly=("cpu",),
    ),
    Fault(
        "M is ignored for entries",
        rate_of_entries,
        cpu={FACTOR_CPU: in_cpu.rough_without_M},
        nightly=("cpu",),
    ),
    Fault(
        "M is the largest ratio of its batch",
        check_law_of_batches,
        reference={LOG_M: in_reference.largest_of_the_batch},
    ),
    Fault(
        "the model's roles are swapped",
        rate_of_targets,
        reference={RATIOS: in_reference.of_swapped_roles},
        cpu={RATIOS_CPU: in_cpu.of_swapped_roles},
    ),
    Fault(
        "the model's roles are swapped for entries",
        rate_of_entries,
        cpu={FACTOR_CPU: in_cpu.rough_of_swapped_roles},
        gpu={f"{GPU}.log_difference": in_gpu.of_swapped_roles},
        nightly=("cpu",),
    ),
    Fault(
        "the temperature is ignored",
        rate_of_targets,
        reference={f"{ROWS}.log_softmax": in_reference.at_temperature_1},
        cpu={f"{LAW}.scales_of": in_cpu.scales_at_1, f"{LAW}.log_probs": in_cpu.at_temperature_1},
        nightly=("cpu",),
    ),
    Fault(
        "the temperature of a row is ignored",
        rate_of_entries_each,
        reference={f"{ROWS}.log_softmax": in_reference.at_temperature_1},
        cpu={f"{LAW}.temperature_of": in_cpu.temperature_1},
        gpu={f"{GPU}.temperature_of": in_gpu.temperature_1},
        nightly=("cpu",),
    ),
    Fault(
        "every row takes the first one's temperature",
        rate_of_entries_each,
        reference={f"{ROWS}.log_softmax": in_reference.at_first_temperature},
        cpu={f"{LAW}.temperature_of": in_cpu.first_temperature},
        gpu={f"{GPU}.temperature_of": in_gpu.first_temperature},
        nightly=("cpu",),
    ),
    Fault(
        "every target takes the first one's temperature",
        rate_of_targets_each,
        cpu={f"{LAW}.row_temperatures": in_cpu.first_temperatures},
        nightly=("cpu",),
    ),
    Fault(
        "the temperature is ignored in the numerator",
        rate_of_targets,
        cpu={f"{LAW}.log_probs": in_cpu.at_temperature_1},
        nightly=("cpu",),
    ),
    Fault(
        "the temperature is ignored for entries",
        rate_of_entries,
        cpu={f"{LAW}.scale_of": in_cpu.scale_at_1},
        nightly=("cpu",),
    ),
    Fault(
        "M is ignored for entries that are counted",
        violated_entries,
        cpu={RATIOS_CPU: in_cpu.without_M},
        nightly=("cpu",),
    ),
    Fault(
        "q is that of another class",
        cells,
        reference={f"{ROWS}.of_targets": in_reference.of_next_class},
        cpu={"kernels.cpu.dtypes.logit_of": in_cpu.of_neighbour},
        nightly=("cpu",),
    ),
    Fault(
        "log q is of bfloat16",
        flips_of_targets,
        reference={f"{ROWS}.of_targets": in_reference.of_bfloat16},
    ),
    Fault(
        "a lazy decision is taken half an octave early",
        rate_of_long_targets,
        cpu={"kernels.cpu.early_exit.headrooms": in_cpu.half_an_octave_early},
        nightly=("cpu",),
    ),
    Fault(
        "a decision without reading takes q to be a fiftieth",
        rate_of_verified,
        cpu={"kernels.cpu.early_exit.decide_unread": in_cpu.with_q_of_a_fiftieth},
        nightly=("cpu",),
    ),
    Fault(
        "a part's sum replaces that of the parts before",
        rate_of_long_targets,
        cpu={"kernels.cpu.softmax.parts_total_of": in_cpu.of_last_part},
        nightly=("cpu",),
    ),
    Fault(
        "a row that goes on begins anew",
        rate_of_long_targets,
        cpu={"kernels.cpu.turns.parts_total_of": in_cpu.begun_anew},
        nightly=("cpu",),
    ),
    Fault(
        "the last logit of a short row is left out",
        rate_of_targets,
        cpu={"kernels.cpu.softmax.short_totals_of": in_cpu.without_last},
        nightly=("cpu",),
    ),
    Fault(
        "rough uniforms of entries are an octave high",
        rate_of_entries,
        cpu={"kernels.cpu.simd.uniforms.words_as_floats": in_cpu.an_octave_high},
        nightly=("cpu",),
    ),
    Fault(
        "a ratio above M is rejected",
        violated,
        reference={ACCEPTS: in_reference.never_above_M},
        cpu={f"{LAW}.decide": in_cpu.never_above_M},
        nightly=("cpu",),
    ),
    Fault(
        "M is ignored in what is counted of ratios",
        violated_ratios,
        reference={f"{ROWS}.rounded": in_reference.of_no_M},
        cpu={"kernels.cpu.bernoulli.round_to_float32": in_cpu.of_no_M},
        gpu={"kernels.gpu.bernoulli.rounded": in_gpu.of_no_M},
    ),
    Fault(
        "the excess of ratios below M is subtracted",
        violated,
        reference={f"{ROWS}.excess_of": in_reference.signed},
        cpu={f"{LAW}.excess_of": in_cpu.signed},
        nightly=("cpu",),
    ),
]
