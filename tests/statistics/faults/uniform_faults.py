"""Faults in the uniforms, and in which of them a decision takes."""

from functools import partial

from ..laws.test_ends import check_half_unit, check_upper_end
from ..laws.test_t2_tiny_rate import (
    check_resolution,
    check_resolution_of_entries,
    check_tiny_rate,
)
from ..laws.test_t6_independence import check_ids, check_keys
from ..laws.test_t7_content import check_content
from ..laws.test_t10_reference import check_flips, check_uniforms
from . import in_cpu, in_gpu, in_reference
from .fault import Fault

# At sizes that the float64 reference and the Triton interpreter decide in about a second.
keys = partial(check_keys, form="bernoulli", draws=1 << 13)
keys_of_targets = partial(check_keys, form="target", draws=1 << 12)
keys_of_entries = partial(check_keys, form="dense", draws=1 << 15)
content = partial(check_content, draws=1 << 12)
flips_of_entries = partial(check_flips, form="dense", shape=(20, 500))

# What each backend makes of two words, and the words themselves.
OF_WORDS, OF_ROWS = "law.philox.word_uniform", "law.philox.row_uniforms"
WORDS = "law.philox._words"
CPU = "kernels.cpu.simd.uniforms"
OF_WORDS_CPU, WORDS_CPU = f"{CPU}._emit_uniforms", f"{CPU}._emit_words"
GPU = "kernels.gpu.law"
OF_WORDS_GPU, COUNTER_GPU = f"{GPU}.word_uniform", f"{GPU}.row_counter"
OF_24_BITS_CPU = {WORDS_CPU: in_cpu.of_24_bits, OF_WORDS_CPU: in_cpu.without_trailing}
# Which rows those of a batch are.
ROW_IDS, ROW_IDS_GPU = "kernels.reference.rows.row_ids", "kernels.gpu.law.row_id_of"
ROW_IDS_CPU = "kernels.cpu.law.draw_rows"

UNIFORM_LAW = [
    Fault(
        "u is 0",
        check_uniforms,
        reference={OF_WORDS: in_reference.zero},
        cpu={OF_WORDS_CPU: in_cpu.zero},
        gpu={OF_WORDS_GPU: in_gpu.zero},
    ),
    Fault(
        "u has 24 bits",
        check_resolution,
        reference={OF_WORDS: in_reference.of_24_bits},
        cpu=OF_24_BITS_CPU,
        gpu={OF_WORDS_GPU: in_gpu.of_24_bits},
        nightly=("gpu",),
    ),
    Fault(
        "u has 24 bits, which the rate shows",
        check_tiny_rate,
        cpu=OF_24_BITS_CPU,
        nightly=("cpu",),
    ),
    Fault(
        "u has 24 bits, which T10 shows",
        check_uniforms,
        gpu={OF_WORDS_GPU: in_gpu.of_24_bits},
    ),
    Fault(
        "u has 24 bits and is above 0",
        check_resolution,
        reference={OF_WORDS: in_reference.of_24_bits_above_0},
    ),
    Fault(
        "u has 32 bits",
        check_resolution,
        reference={OF_WORDS: in_reference.of_32_bits},
        cpu={OF_WORDS_CPU: in_cpu.of_32_bits},
    ),
    Fault(
        "u is rounded twice",
        check_uniforms,
        reference={OF_WORDS: in_reference.rounded_twice},
        cpu={OF_WORDS_CPU: in_cpu.rounded_twice},
        gpu={OF_WORDS_GPU: in_gpu.rounded_twice},
    ),
    Fault(
        "u can be 0",
        check_half_unit,
        reference={OF_WORDS: in_reference.at_times_0},
        cpu={OF_WORDS_CPU: in_cpu.at_times_0},
        gpu={OF_WORDS_GPU: in_gpu.at_times_0},
    ),
    Fault(
        "u cannot be 1",
        check_upper_end,
        reference={OF_WORDS: in_reference.never_1},
        cpu={OF_WORDS_CPU: in_cpu.never_1},
        gpu={OF_WORDS_GPU: in_gpu.never_1},
    ),
    Fault(
        "the high word of the seed is ignored",
        keys,
        reference={"law.philox.seed_words": in_reference.low_word},
        cpu={WORDS_CPU: in_cpu.of_low_seed},
        gpu={f"{GPU}.philox_words": in_gpu.of_low_seed},
        nightly=("gpu",),
    ),
    Fault(
        "the high word of the row is ignored",
        keys,
        reference={OF_ROWS: in_reference.of_low_rows},
        cpu={f"{CPU}.row_words": in_cpu.of_low_rows},
        gpu={COUNTER_GPU: in_gpu.of_low_rows},
        nightly=("gpu",),
    ),
    Fault(
        "the stream is ignored: one seed serves two streams",
        keys,
        reference={OF_ROWS: in_reference.of_stream_0},
        cpu={f"{CPU}.row_words": in_cpu.of_stream_0},
        gpu={COUNTER_GPU: in_gpu.of_stream_0},
    ),
    Fault(
        "the column is ignored",
        keys_of_entries,
        reference={OF_ROWS: in_reference.of_column_0},
        cpu={f"{CPU}._following": in_cpu.of_column_0},
        gpu={f"{GPU}.column_words": in_gpu.of_first_columns},
        nightly=("gpu",),
    ),
    Fault(
        "four entries share one word",
        keys_of_entries,
        reference={WORDS: in_reference.of_first_word},
        cpu={f"{CPU}._emit_columns": in_cpu.of_first_words},
        gpu={f"{GPU}.column_words": in_gpu.of_first_words},
    ),
    Fault(
        "the trailing word is of the leading stream",
        check_resolution,
        reference={WORDS: in_reference.of_leading_stream},
        cpu={"kernels.cpu.law.draw_trailing": in_cpu.of_leading_stream},
        gpu={COUNTER_GPU: in_gpu.of_leading_stream},
    ),
    Fault(
        "the trailing word is of the leading stream for entries",
        check_resolution_of_entries,
        cpu={f"{CPU}.draw_trailing_columns": in_cpu.of_leading_columns},
        nightly=("cpu",),
    ),
    Fault(
        "sixteen counters are one",
        keys_of_entries,
        cpu={f"{CPU}._following": in_cpu.of_first_column},
        nightly=("cpu",),
    ),
    Fault(
        "row and column change places",
        flips_of_entries,
        reference={OF_ROWS: in_reference.transposed},
    ),
]

ROWS = [
    Fault(
        "row_offset is ignored",
        keys,
        reference={ROW_IDS: in_reference.without_offset},
        cpu={ROW_IDS_CPU: in_cpu.without_offset},
        gpu={ROW_IDS_GPU: in_gpu.without_offset},
        nightly=("gpu",),
    ),
    Fault(
        "the draw is keyed by the place in its block of rows",
        keys,
        reference={ROW_IDS: in_reference.in_blocks},
        cpu={ROW_IDS_CPU: in_cpu.in_blocks},
        gpu={ROW_IDS_GPU: in_gpu.in_blocks},
    ),
    Fault(
        "row_offset is ignored for targets",
        keys_of_targets,
        reference={ROW_IDS: in_reference.without_offset},
        cpu={ROW_IDS_CPU: in_cpu.without_offset},
        nightly=("cpu",),
    ),
    Fault(
        "the draw is keyed by the place in its block of targets",
        keys_of_targets,
        cpu={ROW_IDS_CPU: in_cpu.in_sixteens},
        nightly=("cpu",),
    ),
    Fault(
        "rows with ids draw from another stream",
        check_ids,
        cpu={"kernels.cpu.law.decide_ids": in_cpu.of_another_stream},
    ),
    Fault(
        "rows with ids draw by their places",
        check_ids,
        reference={"kernels.reference.rows.bernoulli": in_reference.without_ids},
        cpu={"kernels.cpu.ratios.bernoulli": in_reference.without_ids},
        gpu={"kernels.gpu.ratios.bernoulli": in_reference.without_ids},
    ),
    Fault(
        "half of the ids are not read",
        check_ids,
        cpu={"kernels.cpu.simd.memory.load_ids": in_cpu.of_half_the_lanes},
        nightly=("cpu",),
    ),
    Fault(
        "the high word of an id is ignored",
        check_ids,
        reference={OF_ROWS: in_reference.of_low_rows},
        gpu={COUNTER_GPU: in_gpu.of_low_rows},
    ),
    Fault(
        "two rows of entries share their draws",
        keys_of_entries,
        cpu={f"{CPU}.draw_block": in_cpu.of_two_rows},
        nightly=("cpu",),
    ),
    Fault(
        "the draw is keyed by what is in the row",
        content,
        reference={"kernels.reference.rows.draw": in_reference.keyed_by_content},
    ),
]
