"""The other operations, and the shapes whose speed is required, against torch."""

from cases import FURTHER

CASES = FURTHER


def test_operation(measure, case, form):
    measure(case, form)
