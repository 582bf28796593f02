"""T4: with M = 4 and equal densities every fourth proposal is accepted, in the order proposed."""

import numpy as np
import pytest

from ..forms import FORMS, decisions
from ..intervals import assert_inside, waiting

M = 4.0


def check_waiting(subject, seed, form="bernoulli", requested=20_000):
    """Sensitive to acceptances that cluster and to M being read the wrong way round."""
    form = FORMS[form]
    interval = waiting(requested, 1 / M)
    proposed = -(-interval[1] // form.width) * form.width
    # A ratio of densities of 1.
    mask = decisions(form, subject, proposed, 1 / M, M, seed=seed)
    accepted = np.flatnonzero(mask)
    assert len(accepted) >= requested, f"T4: {len(accepted)} accepted of {proposed} proposed"
    assert_inside("T4", accepted[requested - 1] + 1, interval)


@pytest.mark.parametrize("form", FORMS)
def test_t4_waiting_time(subject, kind, size, seed, form):
    if kind == "interpreted" and FORMS[form].interpreted < 1 << 10:
        pytest.skip("interpreted Triton takes milliseconds a row")
    requested = size(100_000, reference=50_000, interpreted=10_000)
    check_waiting(subject, seed, form, requested)
