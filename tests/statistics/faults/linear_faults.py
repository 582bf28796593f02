"""Faults in decisions from hidden states: in the product, in its blocks, in packing rows."""

from functools import partial

from ..laws.test_t1_rate import check_rates_of_rows
from . import in_cpu, in_gpu, in_reference
from .fault import Fault

rate = partial(check_rates_of_rows, form="linear", draws=1 << 13)
rate_of_verified = partial(check_rates_of_rows, form="linear_verify", draws=1 << 13)

LOGITS = "kernels.reference.linear.logits_of"
BLOCKS, FOLD = "kernels.cpu.linear.blocks", "kernels.cpu.linear.fold"

LINEAR = [
    Fault(
        "a block of columns is left out",
        rate,
        reference={LOGITS: in_reference.without_a_block},
        cpu={f"{BLOCKS}.blocks_of": in_cpu.without_a_block},
        nightly=("cpu",),
    ),
    Fault(
        "other rows are packed than are left",
        rate_of_verified,
        cpu={f"{BLOCKS}._packed": in_cpu.of_rows_before},
        nightly=("cpu",),
    ),
    Fault(
        "logits bend before they are scaled",
        rate,
        reference={LOGITS: in_reference.bent_before_scaled},
        cpu={f"{FOLD}.finish_of": in_cpu.bent_before_scaled},
        nightly=("cpu",),
    ),
    Fault(
        "logits do not bend",
        rate,
        gpu={"kernels.gpu.linear.product.tanh": in_gpu.unbent},
        nightly=("gpu",),
    ),
    Fault(
        "a low-rank change is added once",
        rate_of_verified,
        reference={LOGITS: in_reference.of_low_rank_once},
        cpu={f"{BLOCKS}.low_rank_of": in_cpu.of_low_rank_once},
        gpu={"kernels.gpu.linear.launch.low_rank_of": in_gpu.of_low_rank_once},
        nightly=("cpu", "gpu"),
    ),
    Fault(
        "a block's sum replaces that of the blocks before",
        rate,
        cpu={f"{FOLD}.parts_total_of": in_cpu.begun_anew},
        nightly=("cpu",),
    ),
]
