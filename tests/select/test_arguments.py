"""What ``tilt`` takes, and what it says of what it does not."""

import math

import numpy as np
import pytest
import torch

from rskernels import Envelope
from rskernels.select import tilt

REWARDS = [0.0, 1.0, 1.0, 0.0, 1.0]
CASES = [
    ({"form": "best"}, ValueError, "form must be one of verifier, bounded, .*, got 'best'"),
    ({"beta": -1.0}, ValueError, "beta must be finite and at least 0 .*, got -1.0"),
    ({"beta": math.nan}, ValueError, "beta must be finite"),
    ({"beta": None}, TypeError, "beta must be a number, got NoneType"),
    ({"beta": True}, TypeError, "beta must be a number, got bool"),
    ({"form": "quantile", "beta": 0.0, "pilot": [1.0]}, ValueError, "beta must be .* above 0"),
    ({"form": "bounded"}, ValueError, "'bounded' needs bound"),
    ({"form": "bounded", "bound": math.inf}, ValueError, "bound must be finite, got inf"),
    ({"bound": 1.0}, ValueError, "'verifier' takes no bound"),
    ({"form": "quantile"}, ValueError, "'quantile' needs pilot"),
    ({"form": "quantile", "pilot": []}, ValueError, "pilot must hold a reward at least"),
    ({"form": "quantile", "pilot": [1.0, math.nan]}, ValueError, "without NaN and .inf, got 1"),
    ({"form": "quantile", "pilot": [1.0], "groups": [1] * 5}, ValueError, "pilot_groups must say"),
    ({"form": "quantile", "pilot": [1.0], "pilot_groups": [1]}, ValueError, "pilot_groups must"),
    ({"pilot_groups": [1]}, ValueError, "pilot_groups is given without a pilot"),
    ({"form": "best_of", "n": 2, "pilot": [1.0]}, ValueError, "n in place of beta, got beta=1.0"),
    ({"form": "best_of", "beta": None, "n": 0, "pilot": [1.0]}, ValueError, "n must be at least 1"),
    ({"form": "best_of", "beta": None, "n": 2.5, "pilot": [1.0]}, TypeError, "n must be an int"),
    ({"form": "learnt"}, ValueError, "'learnt' needs envelope"),
    ({"form": "learnt", "envelope": 2.0}, TypeError, "must be an Envelope, got float"),
    ({"form": "learnt", "envelope": Envelope("leave_one_out")}, ValueError, "must not learn from"),
    ({"form": "learnt", "envelope": Envelope(groups=2), "groups": [2] * 5}, IndexError, "2"),
    ({"form": "learnt", "envelope": Envelope(groups=2)}, ValueError, "needs the group of every"),
    ({"rewards": [[0.0]]}, ValueError, r"rewards must have shape \[N\], got \[1, 1\]"),
    ({"rewards": "01"}, TypeError, "rewards must be a tensor, an array or a sequence .*, got str"),
    ({"rewards": ["a"]}, TypeError, "rewards must be numbers, got 'a' in an array of <U1"),
    ({"rewards": [None, 1.0]}, TypeError, "rewards must be numbers, got None in an array of obj"),
    ({"rewards": np.zeros(0, object)}, TypeError, "in an array of object"),
    ({"groups": ["p"] * 5}, TypeError, "groups must be integers, got 'p'"),
    ({"rewards": torch.ones(2, dtype=torch.complex64)}, TypeError, "rewards must be real"),
    ({"groups": [1, 2]}, ValueError, r"groups must have the shape .* \[5\], got \[2\]"),
    ({"groups": [1.0] * 5}, TypeError, "groups must be int64 or int32, got torch.float64"),
    ({"ids": [1, 2, 3, 2, 1]}, ValueError, "ids must differ, got 2 of 5 a second time"),
    ({"seed": None}, TypeError, "seed must be an int or an int64 tensor, got NoneType"),
    ({"seed": 2**64}, ValueError, "seed must fit 64 bits"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "message"), CASES)
def test_what_is_refused(changes, error, message):
    arguments = {"rewards": REWARDS, "beta": 1.0, "form": "verifier", "seed": 0, **changes}
    with pytest.raises(error, match=message):
        tilt(arguments.pop("rewards"), arguments.pop("beta"), **arguments)


def test_kinds_of_rewards_groups_and_ids():
    def kept(rewards, groups, ids):
        return tilt(rewards, 0.5, form="verifier", groups=groups, ids=ids, seed=1)

    groups, ids = [3, 3, -1, -1, -1], [2**62, -(2**62), 5, 6, 7]
    want = kept(REWARDS, groups, ids)
    for kind in (np.array, torch.tensor):
        got = kept(kind(REWARDS), kind(groups), kind(ids))
        assert torch.equal(got.mask, want.mask)
        assert got.overall == want.overall
    half = kept(torch.tensor(REWARDS).half().requires_grad_(), torch.tensor(groups).int(), ids)
    assert torch.equal(half.log_ratio, want.log_ratio)
    assert not half.log_ratio.requires_grad
    assert torch.equal(kept([0, 1, 1, 0, 1], groups, ids).mask, want.mask)
    plain = tilt(REWARDS, 0.5, form="verifier", seed=torch.tensor([1]))
    numbered = tilt(REWARDS, 0.5, form="verifier", ids=range(5), seed=1)
    assert torch.equal(plain.mask, numbered.mask)


def test_rewards_of_python_are_not_rounded():
    kept = tilt([1.0 + 1e-12], 1e-12, form="bounded", bound=1.0, seed=0)
    assert kept.log_ratio.item() == pytest.approx(1.0, abs=1e-3)
