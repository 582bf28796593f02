"""accept_mask over rows × V, float32 and bfloat16, against torch and the read limit."""

from cases import GRID

CASES = GRID


def test_accept_mask(measure, case, form):
    measure(case, form)
