"""What estimate_M refuses: arguments that mean nothing, and tensors that hold no values."""

import math
import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rskernels.envelope import estimate_M

NO_VALUES = "no values to take M from"
Z = torch.zeros(2, 3, 4)
T = torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "logits must be a torch.Tensor, got list", ([0.0], 1.0)),
        (TypeError, "float32, float64, bfloat16 or float16, got torch.int64", (T, 1.0)),
        (TypeError, "strided tensor, got torch.sparse_coo", (Z.to_sparse(), 1.0)),
        (ValueError, "[..., V] with V of at least 1, got []", (torch.tensor(1.0), 1.0)),
        (ValueError, "[..., V] with V of at least 1, got [2, 0]", (torch.zeros(2, 0), 1.0)),
        (ValueError, "logits hold no values", (Z.to("meta"), 1.0)),
        (TypeError, "p_hat must be a number or a tensor, got str", (Z, "1")),
        (TypeError, "p_hat must be a number or a tensor, got bool", (Z, True)),
        (TypeError, "p_hat must be float32, float64, bfloat16 or float16, got torch.int64", (Z, T)),
        (ValueError, "p_hat must be a finite number of at least 0, got -1.0", (Z, -1.0)),
        (ValueError, "p_hat must be below +inf, got nan", (Z, math.nan, {"log_space": True})),
        (ValueError, "p_hat is on meta, the decisions on cpu", (Z, Z.to("meta"))),
        (ValueError, "shape [2, 3, 4], got [2, 3]", (Z, T.float())),
        (ValueError, "shape [2, 3, 4], got [1, 2, 3, 4]", (Z, Z[None])),
        (ValueError, "shape [2, 3], got [4]", (Z, torch.ones(4), {"targets": T})),
        (TypeError, "targets must be a torch.Tensor or None, got int", (Z, 1.0, {"targets": 3})),
        (
            TypeError,
            "targets must be int64 or int32, got torch.int16",
            (Z, 1.0, {"targets": T.short()}),
        ),
        (ValueError, "leading shape [2, 3], got [3]", (Z, 1.0, {"targets": T[0]})),
        (ValueError, "targets are on meta", (Z, 1.0, {"targets": T.to("meta")})),
        (
            ValueError,
            "method must be 'max' or 'quantile', got 'mean'",
            (Z, 1.0, {"method": "mean"}),
        ),
        (
            ValueError,
            "'quantile' needs a level in (0, 1], got none",
            (Z, 1.0, {"method": "quantile"}),
        ),
        (ValueError, "got level=0.5 with 'max'", (Z, 1.0, {"level": 0.5})),
        (ValueError, "(0, 1], got 0", (Z, 1.0, {"method": "quantile", "level": 0})),
        (ValueError, "(0, 1], got nan", (Z, 1.0, {"method": "quantile", "level": math.nan})),
        (TypeError, "level must be a float", (Z, 1.0, {"method": "quantile", "level": "x"})),
        (ValueError, "[1e-30, 1e30], got 0.0", (Z, 1.0, {"temperature": 0.0})),
        (ValueError, "[1e-30, 1e30], got nan", (Z, 1.0, {"temperature": math.nan})),
        (ValueError, "[1e-30, 1e30], got inf", (Z, 1.0, {"temperature": math.inf})),
        (TypeError, "temperature must be a number or a tensor", (Z, 1.0, {"temperature": "1"})),
        (ValueError, "leading shape [2, 3], got [4]", (Z, 1.0, {"temperature": torch.ones(4)})),
        (TypeError, "ignore_index must be an int, got float", (Z, 1.0, {"ignore_index": 1.0})),
        (ValueError, "ignore_index must fit 64 bits", (Z, 1.0, {"ignore_index": 2**63})),
    ],
)
def test_errors_say_what_was_given_and_what_is_accepted(error, message, arguments):
    *positional, keywords = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(error, match=re.escape(message)):
        estimate_M(*positional, **keywords)


def test_zero_tensors_hold_no_values():
    with pytest.raises(ValueError, match=f"logits hold {NO_VALUES}"):
        estimate_M(torch._efficientzerotensor((2, 3)), 1.0)
    with pytest.raises(ValueError, match=f"p_hat holds {NO_VALUES}"):
        estimate_M(torch.zeros(2, 3), torch._efficientzerotensor((2, 3)))
    targets = torch._efficientzerotensor((2,), dtype=torch.int64)
    with pytest.raises(ValueError, match=f"targets hold {NO_VALUES}"):
        estimate_M(torch.zeros(2, 3), 1.0, targets=targets)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_fake_tensors_hold_no_values():
    with FakeTensorMode():
        logits = torch.randn(2, 3)
        with pytest.raises(ValueError, match=f"logits hold {NO_VALUES}: FakeTensor on cpu"):
            estimate_M(logits, 1.0)
    with pytest.raises(ValueError, match=f"p_hat holds {NO_VALUES}"):
        estimate_M(torch.zeros(2, 3), logits)


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad, torch.func.functionalize])
def test_transformed_tensors_hold_no_values(transform):
    with pytest.raises(ValueError, match=f"logits hold {NO_VALUES}"):
        transform(lambda z: estimate_M(z, 1.0))(torch.zeros(4, 2, 3))
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=f"p_hat holds {NO_VALUES}"):
        transform(lambda p_hat: estimate_M(logits, p_hat))(torch.ones(2, 3))
