"""The schemas of the torch operators: arguments in reading order, and two operators of each."""

import pytest
import torch

import rskernels
from rskernels._torch.schemas import SCHEMAS, split

OPS = torch.ops.rskernels
PRODUCT = (
    "Tensor hidden, Tensor weight, Tensor? bias, float scale, float softcap, Tensor? A, "
    "Tensor? B, float lora_scale, Tensor targets, "
)
NUMBERS = ("scale", "softcap", "lora_scale", "density_value", "M_value", "temperature_value",
           "top_p_value")  # fmt: skip
STEP = (
    "Tensor draft_tokens, Tensor? draft_logits, Tensor? lengths, Tensor? temperature, "
    "float temperature_value, Tensor? top_k, SymInt top_k_value, Tensor? top_p, float top_p_value, "
    "Tensor? seed, SymInt seed_value, Tensor? row_offset, SymInt row_offset_value, bool is_block, "
    "bool is_processed) -> (Tensor, Tensor, Tensor, Tensor)"
)
DECLARED = {
    "speculate": f"(Tensor logits, {STEP}",
    "linear_speculate": f"({PRODUCT.replace('Tensor targets, ', '')}{STEP}",
    "mask": (
        "(Tensor logits, Tensor? targets, Tensor? density, float density_value=1., "
        "Tensor? M=None, float M_value=1., Tensor? seed=None, SymInt seed_value=0, "
        "SymInt row_offset=0, Tensor? temperature=None, float temperature_value=1., "
        "bool log_space=False, bool model_is_target=False, int ignore_index=-100, "
        "bool is_lazy=False, Tensor? order=None) -> Tensor"
    ),
    "decide": (
        "(Tensor logits, Tensor? targets, Tensor? density, float density_value=1., "
        "Tensor? M=None, float M_value=1., Tensor? seed=None, SymInt seed_value=0, "
        "SymInt row_offset=0, Tensor? temperature=None, float temperature_value=1., "
        "bool log_space=False, bool model_is_target=False, int ignore_index=-100) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "decide_with_totals": (
        "(Tensor logits, Tensor targets, Tensor? density, float density_value=1., "
        "Tensor? M=None, float M_value=1., Tensor? seed=None, SymInt seed_value=0, "
        "SymInt row_offset=0, Tensor? temperature=None, float temperature_value=1., "
        "bool log_space=False, bool model_is_target=False, int ignore_index=-100) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "bernoulli": (
        "(Tensor log_ratio, Tensor? M, float M_value, Tensor? seed, SymInt seed_value, "
        "SymInt row_offset, int stream, bool log_space, Tensor? ids=None) -> Tensor"
    ),
    "decide_ratios": (
        "(Tensor log_ratio, Tensor? M, float M_value, Tensor? seed, SymInt seed_value, "
        "SymInt row_offset, int stream, bool log_space, Tensor? ids=None) "
        "-> (Tensor, Tensor, Tensor, Tensor)"
    ),
    "decide_sequences": (
        "(Tensor log_ratio, Tensor? M, float M_value, Tensor? seed, SymInt seed_value, "
        "SymInt row_offset, int stream, bool log_space, Tensor? mask, Tensor? cu_seqlens, "
        "str statistic, Tensor? ids=None) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "accept_prefix": (
        "(Tensor log_ratio, Tensor? M, float M_value, Tensor? seed, SymInt seed_value, "
        "SymInt row_offset, int stream, bool log_space, Tensor? mask, Tensor? cu_seqlens, "
        "Tensor? ids=None) -> Tensor"
    ),
    "linear_mask": (
        f"({PRODUCT}Tensor? density, float density_value=1., "
        "Tensor? M=None, float M_value=1., Tensor? seed=None, SymInt seed_value=0, "
        "SymInt row_offset=0, Tensor? temperature=None, float temperature_value=1., "
        "bool log_space=False, bool model_is_target=False, int ignore_index=-100, "
        "bool is_lazy=False, Tensor? order=None) -> Tensor"
    ),
    "linear_decide": (
        f"({PRODUCT}Tensor? density, float density_value=1., "
        "Tensor? M=None, float M_value=1., Tensor? seed=None, SymInt seed_value=0, "
        "SymInt row_offset=0, Tensor? temperature=None, float temperature_value=1., "
        "bool log_space=False, bool model_is_target=False, int ignore_index=-100) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "linear_decide_with_totals": (
        f"({PRODUCT}Tensor? density, float density_value=1., "
        "Tensor? M=None, float M_value=1., Tensor? seed=None, SymInt seed_value=0, "
        "SymInt row_offset=0, Tensor? temperature=None, float temperature_value=1., "
        "bool log_space=False, bool model_is_target=False, int ignore_index=-100) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "linear_target_log_prob_backward": (
        f"(Tensor upstream, {PRODUCT}Tensor totals, bool[] wanted, Tensor? temperature=None, "
        "float temperature_value=1., int ignore_index=-100) -> Tensor[]"
    ),
    "linear_target_log_prob": (
        f"({PRODUCT}Tensor? temperature=None, float temperature_value=1., "
        "int ignore_index=-100) -> (Tensor, Tensor)"
    ),
    "target_log_prob": (
        "(Tensor logits, Tensor targets, Tensor? temperature=None, float temperature_value=1., "
        "int ignore_index=-100) -> (Tensor, Tensor)"
    ),
    "target_log_prob_backward": (
        "(Tensor upstream, Tensor logits, Tensor targets, Tensor totals, "
        "Tensor? temperature=None, float temperature_value=1., int ignore_index=-100) -> Tensor"
    ),
}


def test_every_operation_is_declared():
    assert set(SCHEMAS) == set(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_arguments_stand_in_reading_order(name):
    assert str(getattr(OPS, name).default._schema) == f"rskernels::{name}{DECLARED[name]}"


@pytest.mark.parametrize("name", DECLARED)
def test_the_dynamic_operator_takes_the_same_after_its_numbers(name):
    static = getattr(OPS, name).default._schema
    dynamic = getattr(OPS, f"dynamic_{name}").default._schema
    numbers, *rest = dynamic.arguments
    assert (numbers.name, str(numbers.type)) == ("numbers", "Tensor")
    assert [(one.name, str(one.type)) for one in rest] == [
        (one.name, str(one.type)) for one in static.arguments
    ]
    assert not any(one.has_default_value() for one in rest)
    assert [str(one.type) for one in dynamic.returns] == [str(one.type) for one in static.returns]


@pytest.mark.parametrize("name", DECLARED)
def test_what_may_be_dynamic_is_every_float(name):
    names = [SCHEMAS[name].fields[place].name for place in SCHEMAS[name].number_places]
    floats = [one.name for one in getattr(OPS, name).default._schema.arguments]
    assert names == [one for one in floats if one in NUMBERS]


def test_a_number_and_a_tensor_have_fields_of_their_own():
    tensor = torch.tensor(2.0)
    assert split(0.5, 1.0) == (None, 0.5)
    assert split(7, 0) == (None, 7)
    assert split(tensor, 1.0) == (tensor, 1.0)


def test_an_operator_that_is_left_its_defaults_takes_them():
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(40) % 5
    density = torch.full((40,), 0.3)
    mask = OPS.mask(logits, targets, density)
    assert torch.equal(mask, rskernels.accept_mask(logits, density, 1.0, targets=targets, seed=0))
    assert 0 < mask.sum() < 40
