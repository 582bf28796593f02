"""Every argument that is refused, with a message that says what was given and what is accepted."""

import math
import warnings

import pytest
import torch

import rskernels

from ..support.processes import run_python

LOGITS = torch.zeros(2, 3, 5)
TARGETS = torch.zeros(2, 3, dtype=torch.int64)
SPARSE = torch.ones(2, 3).to_sparse()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    NESTED = torch.nested.nested_tensor([torch.zeros(3, 5), torch.zeros(2, 5)])
ON_META = torch.ones(3, device="meta")
GENERATOR = torch.Generator()
NAN, INF = math.nan, math.inf

LOGITS_CASES = [
    (TypeError, r"logits must be a torch.Tensor, got list", [[0.0]]),
    (TypeError, r"logits must be float32, float64, bfloat16 or float16, got torch.int64", TARGETS),
    (TypeError, r"bfloat16 or float16, got torch.complex64", torch.zeros(2, 3, 5).cfloat()),
    (TypeError, r"bfloat16 or float16, got torch.float8_e5m2", LOGITS.to(torch.float8_e5m2)),
    (TypeError, r"strided tensor, got torch.sparse_coo", LOGITS.to_sparse()),
    (TypeError, r"logits must be a strided tensor, got a nested one", NESTED),
    (ValueError, r"shape \[\.\.\., V\] with V of at least 1, got \[\]", torch.tensor(1.0)),
    (ValueError, r"V of at least 1, got \[2, 0\]", torch.zeros(2, 0)),
]
TARGETS_CASES = [
    (TypeError, r"targets must be a torch.Tensor.*, got list", [[0] * 3] * 2),
    (TypeError, r"targets must be a torch.Tensor.*, got int", 0),
    (TypeError, r"targets must be int64 or int32, got torch.float32", TARGETS.float()),
    (TypeError, r"targets must be int64 or int32, got torch.bool", TARGETS.bool()),
    (TypeError, r"targets must be int64 or int32, got torch.int16", TARGETS.short()),
    (ValueError, r"leading shape \[2, 3\], got \[3, 2\]", TARGETS.T),
    (ValueError, r"leading shape \[2, 3\], got \[1, 3\]", TARGETS[:1]),
    (ValueError, r"leading shape \[2, 3\], got \[2, 3, 1\]", TARGETS[..., None]),
    (ValueError, r"targets are on meta, logits on cpu", TARGETS.to("meta")),
]
TEMPERATURE_CASES = [
    (ValueError, r"temperature must be in \[1e-30, 1e30\], got 0.0", 0.0),
    (ValueError, r"in \[1e-30, 1e30\], got -1.0", -1),
    (ValueError, r"in \[1e-30, 1e30\], got nan", NAN),
    (ValueError, r"in \[1e-30, 1e30\], got inf", INF),
    (ValueError, r"in \[1e-30, 1e30\], got 1e-31", 1e-31),
    (ValueError, r"in \[1e-30, 1e30\], got 1e\+31", 1e31),
    (ValueError, r"temperature must fit a float64, got an int of 2001 bits", 2**2000),
    (TypeError, r"temperature must be a number or a tensor, got str", "1"),
    (TypeError, r"temperature must be a number or a tensor, got bool", True),
    (TypeError, r"temperature must be float32, .*, got torch.int64", TARGETS),
    (TypeError, r"temperature must be a number or a tensor, got NoneType", None),
]
# (argument, error, message, value) for the functions that decide with targets.
LAW_CASES = [
    *(("logits", *case) for case in LOGITS_CASES),
    *(("targets", *case) for case in TARGETS_CASES),
    *(("temperature", *case) for case in TEMPERATURE_CASES),
    ("density", TypeError, r"_hat must be a number or a tensor, got str", "0.5"),
    ("density", TypeError, r"_hat must be a number or a tensor, got list", [0.5]),
    ("density", TypeError, r"_hat must be a number or a tensor, got NoneType", None),
    ("density", TypeError, r"_hat must be a number or a tensor, got bool", True),
    ("density", TypeError, r"_hat must be float32, .*, got torch.int64", TARGETS),
    ("density", ValueError, r"_hat must be a finite number of at least 0, got -0.5", -0.5),
    ("density", ValueError, r"_hat must be a finite number of at least 0, got nan", NAN),
    ("density", ValueError, r"_hat must be a finite number of at least 0, got inf", INF),
    ("density", TypeError, r"_hat must be a strided tensor, got torch.sparse_coo", SPARSE),
    ("density", ValueError, r"_hat must fit a float64, got an int of 2001 bits", 2**2000),
    ("density", ValueError, r"_hat is on meta, the decisions on cpu", ON_META),
    ("density", ValueError, r"_hat must broadcast .* shape \[2, 3\], got \[2\]", torch.zeros(2)),
    ("density", ValueError, r"_hat must broadcast .*, got \[1, 2, 3\]", torch.zeros(1, 2, 3)),
    ("density", ValueError, r"_hat must broadcast .*, got \[2, 3, 5\]", torch.zeros(2, 3, 5)),
    ("density", ValueError, r"_hat must broadcast .*, got \[0\]", torch.zeros(0)),
    ("M", TypeError, r"M must be a number or a tensor, got str", "2"),
    ("M", TypeError, r"M must be a number or a tensor, got bool", True),
    ("M", TypeError, r"M must be float32, .*, got torch.int32", torch.ones(3, dtype=torch.int32)),
    ("M", TypeError, r"M must be a strided tensor, got torch.sparse_coo", SPARSE),
    ("M", ValueError, r"M must be above 0, got 0.0", 0),
    ("M", ValueError, r"M must be above 0, got -2.0", -2.0),
    ("M", ValueError, r"M must be above 0, got nan", NAN),
    ("M", ValueError, r"M is on meta, the decisions on cpu", ON_META),
    ("M", ValueError, r"M must broadcast to .* \[2, 3\], got \[4\]", torch.ones(4)),
    ("seed", TypeError, r"seed must be an int or an int64 tensor, got float", 1.0),
    ("seed", TypeError, r"seed must be an int or an int64 tensor, got bool", True),
    ("seed", TypeError, r"seed must be an int or an int64 tensor, got str", "1"),
    ("seed", TypeError, r"a seed tensor must be int64, got torch.int32", torch.ones(1).int()),
    ("seed", ValueError, r"one element, got shape \[2\]", torch.ones(2).long()),
    ("seed", ValueError, r"one element, got shape \[0\]", torch.ones(0).long()),
    ("seed", ValueError, r"seed tensor is on meta, the logits on cpu", ON_META[0].long()),
    ("seed", ValueError, r"must fit 64 bits .*, got 18446744073709551616", 2**64),
    ("seed", ValueError, r"must fit 64 bits .*, got -9223372036854775809", -(2**63) - 1),
    ("generator", TypeError, r"generator must be a torch.Generator, got int", 3),
    ("row_offset", TypeError, r"row_offset must be an int, got float", 0.0),
    ("row_offset", TypeError, r"row_offset must be an int, got bool", False),
    ("row_offset", TypeError, r"row_offset must be an int, got Tensor", torch.tensor(1)),
    ("row_offset", ValueError, r"row_offset must be in \[0, 2\*\*63\), got -1", -1),
    ("row_offset", ValueError, r"row_offset must be in .*, got 9223372036854775808", 2**63),
    ("ignore_index", TypeError, r"ignore_index must be an int, got float", -100.0),
    ("ignore_index", TypeError, r"ignore_index must be an int, got NoneType", None),
    ("ignore_index", TypeError, r"ignore_index must be an int, got str", "-100"),
    ("ignore_index", ValueError, r"must fit 64 bits, got 9223372036854775808", 2**63),
]  # fmt: skip
LOG_SPACE_CASES = [
    ("density", ValueError, r"_hat must be below \+inf, got inf", INF),
    ("density", ValueError, r"_hat must be below \+inf, got nan", NAN),
    ("M", ValueError, r"M must be the logarithm of a number above 0, got -inf", -INF),
    ("M", ValueError, r"M must be the logarithm of a number above 0, got nan", NAN),
]
DECIDERS = [rskernels.accept_mask, rskernels.accept, rskernels.verify_mask, rskernels.verify]


def call_with(function, argument, value, **law):
    name = "p_hat" if "accept" in function.__name__ else "q_hat"
    arguments = {
        "logits": LOGITS,
        "density": 0.5,
        "M": 1.0,
        "targets": TARGETS,
        **law,
        argument: value,
    }
    arguments[name] = arguments.pop("density")
    return function(**arguments)


@pytest.mark.parametrize(("argument", "error", "message", "value"), LAW_CASES)
def test_law(argument, error, message, value):
    for function in DECIDERS:
        with pytest.raises(error, match=message):
            call_with(function, argument, value)


@pytest.mark.parametrize(("argument", "error", "message", "value"), LOG_SPACE_CASES)
def test_log_space(argument, error, message, value):
    for function in DECIDERS:
        with pytest.raises(error, match=message):
            call_with(function, argument, value, log_space=True)


def test_the_density_is_called_by_its_name():
    with pytest.raises(ValueError, match=r"^p_hat must"):
        rskernels.accept_mask(LOGITS, -1.0, 1.0, targets=TARGETS)
    with pytest.raises(ValueError, match=r"^q_hat must"):
        rskernels.verify_mask(LOGITS, -1.0, 1.0, targets=TARGETS)


@pytest.mark.parametrize("name", ["density", "M"])
def test_dense_form_broadcasts_to_the_logits(name):
    for function in DECIDERS:
        for shape in ((3,), (3, 1, 5), (1, 2, 3, 5), (2, 5)):
            message = rf"broadcast to the decisions' shape \[2, 3, 5\], got {list(shape)}"
            with pytest.raises(ValueError, match=message.replace("got [", r"got \[")):
                call_with(function, name, torch.ones(shape), targets=None)


@pytest.mark.parametrize("function", DECIDERS)
def test_seed_and_generator_exclude_each_other(function):
    with pytest.raises(ValueError, match="seed and generator are both given"):
        call_with(function, "seed", 1, generator=GENERATOR)


def test_verify_needs_to_be_told_of_targets():
    with pytest.raises(TypeError, match="targets"):
        rskernels.verify_mask(LOGITS, 0.5)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("seed", 2**64 - 1),
        ("seed", -(2**63)),
        ("seed", torch.tensor(5)),
        ("row_offset", 2**63 - 1),
        ("generator", GENERATOR),
        ("density", 0),
        ("density", torch.zeros(())),
        ("density", torch.rand(3, dtype=torch.float64)),
        ("M", None),
        ("M", INF),
        ("M", 3),
        ("M", torch.ones(2, 1).half()),
        ("temperature", 2),
        ("temperature", 1e-30),
        ("temperature", 1e30),
        ("ignore_index", 0),
        ("ignore_index", -(2**63)),
        ("targets", TARGETS.int()),
        ("targets", None),
        ("logits", LOGITS.double()),
    ],
)
def test_what_is_accepted(argument, value):
    for function in DECIDERS:
        call_with(function, argument, value)


def test_numpy_numbers_are_numbers():
    np = pytest.importorskip("numpy")
    mask = rskernels.accept_mask(LOGITS, np.float32(0.5), np.float64(2), targets=TARGETS, seed=0)
    assert torch.equal(mask, rskernels.accept_mask(LOGITS, 0.5, 2.0, targets=TARGETS, seed=0))


def test_numpy_integers_are_integers():
    np = pytest.importorskip("numpy")
    one = np.int64(1)
    for argument in ("seed", "row_offset", "ignore_index"):
        law = {"seed": 0} | {argument: 1}
        expected = rskernels.accept_mask(LOGITS, 0.1, 1.0, targets=TARGETS, **law)
        law |= {argument: one}
        assert torch.equal(
            rskernels.accept_mask(LOGITS, 0.1, 1.0, targets=TARGETS, **law), expected
        )
    ratio = torch.zeros(4)
    assert torch.equal(
        rskernels.bernoulli_mask(ratio, 2.0, seed=np.uint64(2**64 - 1), stream=np.uint8(3)),
        rskernels.bernoulli_mask(ratio, 2.0, seed=2**64 - 1, stream=3),
    )
    assert torch.equal(
        rskernels.uniforms(
            (np.int32(2), np.int16(3)), seed=one, row_offset=one, columns=np.int64(4)
        ),
        rskernels.uniforms((2, 3), seed=1, row_offset=1, columns=4),
    )
    ignored = TARGETS - torch.eye(2, 3, dtype=torch.int64)
    assert torch.equal(
        rskernels.target_log_prob(LOGITS, ignored, ignore_index=np.int32(-1)),
        rskernels.target_log_prob(LOGITS, ignored, ignore_index=-1),
    )
    assert type(rskernels.ColumnOrder(torch.tensor([0]), np.int64(5)).V) is int


def test_a_column_order_holds_a_plain_tensor():
    blocks = torch.nn.Parameter(torch.tensor([1, 0]), requires_grad=False)
    assert type(rskernels.ColumnOrder(blocks, 1025).blocks) is torch.Tensor
    masked = torch.masked.masked_tensor(torch.ones(5), torch.arange(5) > 2)
    with pytest.raises(TypeError, match=r"weights must hold all its values .* MaskedTensor"):
        rskernels.ColumnOrder.by_weight(masked)


BERNOULLI_CASES = [
    *(("log_ratio", error, message.replace("logits", "log_ratio"), value)
      for error, message, value in LOGITS_CASES[:5]),
    *(case for case in LAW_CASES
      if case[0] in ("seed", "generator", "row_offset") and "the logits" not in case[2]),
    ("M", ValueError, r"M must be above 0, got 0.0", 0.0),
    ("M", ValueError, r"M must broadcast to .* \[4\], got \[3\]", torch.ones(3)),
    ("M", ValueError, r"M is on meta", torch.ones(4, device="meta")),
    ("seed", ValueError, r"seed tensor is on meta", ON_META[0].long()),
    ("stream", TypeError, r"stream must be an int, got float", 0.0),
    ("stream", TypeError, r"stream must be an int, got bool", False),
    ("stream", ValueError, r"stream must be in \[0, 2\*\*31\), got -1", -1),
    ("stream", ValueError, r"stream must be in .*, got 2147483648", 2**31),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "error", "message", "value"), BERNOULLI_CASES)
def test_bernoulli_mask(argument, error, message, value):
    with pytest.raises(error, match=message):
        rskernels.bernoulli_mask(**{"log_ratio": torch.zeros(4), argument: value})
    with pytest.raises(ValueError, match=r"logarithm of a number above 0, got -inf"):
        rskernels.bernoulli_mask(torch.zeros(4), -INF, log_space=True)


TARGET_LOG_PROB_CASES = [
    case for case in LAW_CASES if case[0] in ("logits", "targets", "temperature", "ignore_index")
]


@pytest.mark.parametrize(("argument", "error", "message", "value"), TARGET_LOG_PROB_CASES)
def test_target_log_prob(argument, error, message, value):
    with pytest.raises(error, match=message):
        rskernels.target_log_prob(**{"logits": LOGITS, "targets": TARGETS, argument: value})


def test_target_log_prob_needs_targets():
    with pytest.raises(TypeError, match=r"targets must be a torch.Tensor, got NoneType"):
        rskernels.target_log_prob(LOGITS, None)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, r"shape must hold ints of at least 0, got \(2, -1\)", {"shape": (2, -1)}),
        (TypeError, r"shape must be an int or ints, got float", {"shape": (2.0,)}),
        (TypeError, r"shape must be an int or ints, got bool", {"shape": True}),
        (TypeError, r"shape must be an int or ints, got float", {"shape": 1.5}),
        (TypeError, r"shape must be an int or ints, got NoneType", {"shape": None}),
        (ValueError, r"columns must be None or at least 1, got 0", {"columns": 0}),
        (TypeError, r"columns must be None or an int, got float", {"columns": 2.0}),
        (ValueError, r"stream must be in \[0, 2\*\*31\), got -1", {"stream": -1}),
        (ValueError, r"row_offset must be in \[0, 2\*\*63\), got -1", {"row_offset": -1}),
        (TypeError, r"seed must be an int or an int64 tensor, got NoneType", {"seed": None}),
        (ValueError, r"one element, got shape \[2\]", {"seed": torch.ones(2).long()}),
    ],
)
def test_uniforms(error, message, change):
    with pytest.raises(error, match=message):
        rskernels.uniforms(**{"shape": 1, "seed": 0, **change})


@pytest.mark.parametrize(
    ("error", "message", "counter", "key"),
    [
        (TypeError, r"counter must be int64, got torch.int32", torch.zeros(4).int(), None),
        (TypeError, r"key must be int64, got torch.float32", None, torch.zeros(2)),
        (TypeError, r"counter must be an int64 tensor, got list", [0] * 4, None),
        (ValueError, r"counter must have shape \[..., 4\], got \[3\]", torch.zeros(3).long(), None),
        (ValueError, r"key must have shape \[..., 2\], got \[4\]", None, torch.zeros(4).long()),
        (ValueError, r"counter must have shape \[..., 4\], got \[\]", torch.tensor(0), None),
    ],
)
def test_philox(error, message, counter, key):
    counter = torch.zeros(4).long() if counter is None else counter
    with pytest.raises(error, match=message):
        rskernels.philox4x32(counter, torch.zeros(2).long() if key is None else key)


def test_a_device_without_kernels_is_named():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        elsewhere = torch.empty(2, 5, device="xpu")
    with pytest.raises(ValueError, match=r"logits is on xpu.*there are kernels for CPU and CUDA"):
        rskernels.accept_mask(elsewhere, 0.5, 1.0)


@pytest.mark.process
@pytest.mark.parametrize(
    ("package", "load", "advice"),
    [
        ("numba", "cpu_kernels", "pip install numba"),
        ("triton", "gpu_kernels", "pip install triton"),
    ],
)
def test_a_missing_compiler_says_what_to_install(package, load, advice):
    code = f"""
import sys
sys.modules[{package!r}] = None
from rskernels._torch import devices
try:
    devices.{load}()
except ImportError as error:
    print(error)
"""
    message = run_python(code)
    assert package.capitalize() in message
    assert advice in message
