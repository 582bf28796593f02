"""T1: a probability of 5/16 accepts 5/16 of the decisions."""

import pytest

from ..forms import EACH_FORMS, FORMS, LINEAR_FORMS, LONG_FORMS, PRODUCT, accepts, decisions
from ..intervals import assert_inside, binomial

RATIO = 5 / 16


def check_rate(subject, seed, form="target", draws=1 << 18):
    """Sensitive to a wrong ratio, temperature, M or logarithm: at full size 0.1 % of the rate."""
    form = {**FORMS, **EACH_FORMS, **LONG_FORMS}[form]
    accepted = accepts(form, subject, draws, RATIO, seed=seed)
    assert_inside("T1", accepted, binomial(draws, RATIO))


def check_rates_of_rows(subject, seed, form="linear", draws=1 << 17):
    """Sensitive to a wrong logit: where rows differ, one's rate may make up for another's."""
    masks = decisions(LINEAR_FORMS[form], subject, draws, RATIO, seed=seed)
    for accepted in masks.view(-1, len(PRODUCT.hidden)).sum(0):
        assert_inside("T1", accepted, binomial(draws // len(PRODUCT.hidden), RATIO))


@pytest.mark.parametrize("form", FORMS)
def test_t1_rate(subject, size, seed, form):
    draws = size(1 << 24, reference=1 << 18, interpreted=FORMS[form].interpreted)
    check_rate(subject, seed, form, draws)


@pytest.mark.parametrize("form", EACH_FORMS)
def test_t1_rate_at_a_temperature_of_each_row(subject, size, seed, form):
    draws = size(1 << 20, reference=1 << 18, interpreted=EACH_FORMS[form].interpreted)
    check_rate(subject, seed, form, draws)


@pytest.mark.parametrize("form", LONG_FORMS)
def test_t1_rate_of_rows_read_in_part(subject, size, seed, form):
    draws = size(1 << 17, reference=1 << 10, interpreted=LONG_FORMS[form].interpreted)
    check_rate(subject, seed, form, draws)


@pytest.mark.parametrize("form", LINEAR_FORMS)
def test_t1_rate_from_hidden_states(subject, size, seed, form):
    draws = size(1 << 17, reference=1 << 14, interpreted=LINEAR_FORMS[form].interpreted)
    check_rates_of_rows(subject, seed, form, draws)
