"""Faults planted in copies of the kernels, each of which the check of texts must find."""

from typing import NamedTuple

import pytest

from ..faults.fault import NONE, Replacements
from ..faults.mutants import plant
from . import wrong
from .steps import CASES, check_texts

SIZES = {"reference": 1 << 13, "cpu": 1 << 15, "gpu": 1 << 12}
ORDINARY = ("what is rejected is drawn from p",)  # elsewhere than in the definition


class Fault(NamedTuple):
    """What is wrong, the case and K that find it, and what it replaces in each backend."""

    name: str
    case: str
    K: int
    reference: Replacements = NONE
    cpu: Replacements = NONE
    gpu: Replacements = NONE
    is_block: bool = False


REFERENCE, CPU, GPU = (f"kernels.{name}.speculative" for name in ("reference", "cpu", "gpu"))
FAULTS = [
    Fault(
        ORDINARY[0], "far", 1,
        reference={f"{REFERENCE}.residual_of": wrong.of_p},
        cpu={
            f"{CPU}.weights.sum_weights_of": wrong.sum_of_p,
            f"{CPU}.weights.draw_entry_of": wrong.entry_of_p,
        },
        gpu={f"{GPU}.weights.weights_of_step": wrong.step_of_p},
    ),
    Fault(
        "the nucleus is cut first", "top-k and top-p", 1,
        reference={f"{REFERENCE}.processed": wrong.nucleus_first},
    ),
    Fault(
        "cut before the temperature", "top-k and top-p", 1,
        reference={f"{REFERENCE}.processed": wrong.cut_before_temperature},
    ),
    Fault(
        "one temperature for all requests", "temperatures", 1,
        reference={f"{REFERENCE}.processed": wrong.one_temperature},
        gpu={f"{GPU}.weights.scale_of": wrong.scale_of_first},
    ),
    Fault(
        "the residual has both signs", "far", 1,
        reference={f"{REFERENCE}.residual_of": wrong.of_difference},
    ),
    Fault(
        "a draft token is drawn again", "certain", 1,
        cpu={
            f"{CPU}.weights.sum_weights_of": wrong.sum_without_hole,
            f"{CPU}.weights.draw_entry_of": wrong.entry_without_hole,
        },
    ),
    Fault(
        "accepted by q/p", "near", 1,
        reference={f"{REFERENCE}.accepts": wrong.of_inverse},
        cpu={f"{CPU}.rows.log_p_of": wrong.negative_log_p},
    ),
    Fault(
        "accepted by the residual's word", "far", 1,
        reference={f"{REFERENCE}.row_uniforms": wrong.of_residual_words},
        cpu={f"{CPU}.draws.uniform_at": wrong.word_of_residual},
        gpu={f"{GPU}.draws.residual_uniform": wrong.word_of_acceptance},
    ),
    Fault(
        "one uniform for all places", "far", 3,
        reference={f"{REFERENCE}.row_uniforms": wrong.of_first_place},
        cpu={f"{CPU}.draws.uniform_at": wrong.word_of_first_place},
        gpu={f"{GPU}.draws.place_uniforms": wrong.words_of_first_place},
    ),
    Fault(
        "the bonus is not drawn from its row", "near", 2,
        reference={f"{REFERENCE}.weights_of": wrong.bonus_of_draft},
        cpu={f"{CPU}.decide.row_of": wrong.last_row_before},
    ),
    Fault(
        "a block is accepted by its ratios alone", "far", 3,
        reference={f"{REFERENCE}.certainty_of": wrong.of_factor},
        cpu={f"{CPU}.decide.certainty_of": wrong.of_factor},
        gpu={f"{GPU}.decide.certainty_of": wrong.of_factor},
        is_block=True,
    ),
]  # fmt: skip
PLANTED = [(fault, name) for fault in FAULTS for name in SIZES if getattr(fault, name)]


def nightly(fault, backend):
    is_ordinary = backend == "reference" or fault.name in ORDINARY
    marks = [pytest.mark.triton] if backend == "gpu" else []
    marks += [] if is_ordinary else [pytest.mark.slow]
    return pytest.param(fault, backend, marks=marks, id=f"{backend}-{fault.name}")


@pytest.mark.parametrize(("fault", "backend"), [nightly(*planted) for planted in PLANTED])
def test_a_planted_fault_is_found(tmp_path, monkeypatch, backend_of, seed, fault, backend):
    monkeypatch.syspath_prepend(tmp_path)
    mutant = backend_of(backend, plant(tmp_path, getattr(fault, backend)))
    with pytest.raises(AssertionError, match=r"^speculative"):
        check_texts(
            mutant, seed, CASES[fault.case], fault.K, SIZES[backend], is_block=fault.is_block
        )


@pytest.mark.parametrize(
    "backend", ["reference", *(pytest.param(b, marks=pytest.mark.slow) for b in ("cpu", "gpu"))]
)
def test_the_unchanged_copy_passes(tmp_path, monkeypatch, backend_of, seed, backend):
    monkeypatch.syspath_prepend(tmp_path)
    unchanged = backend_of(backend, plant(tmp_path, NONE))
    cases = {(f.case, f.K, f.is_block) for f in FAULTS if getattr(f, backend)}
    for case, K, is_block in sorted(cases):
        check_texts(unchanged, seed, CASES[case], K, SIZES[backend], is_block=is_block)
