"""Every Triton kernel compiles for four GPU architectures, on a machine that has none.

What is compiled is what the host code launches, see ``compile_ahead.py``. Three of the
architectures are for the nightly run.
"""

from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

from ...support.processes import run_for_each

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).with_name("compile_ahead.py")
ALWAYS, NIGHTLY = ("sm_90",), ("gfx942", "sm_80", "sm_100")
DTYPES = {"bfloat16", "float16", "float32", "float64"}
KERNELS = {
    "partials", "target", "log_prob", "dense", "gradient", "bernoulli", "philox",
    "pack", "reduce", "spread", "prefix",
}  # fmt: skip
EVEN = 16384  # columns; rows begin where a vector does
UNALIGNED = ("sliced", "transposed")
OTHER_LOADS = 8  # a row's target, density, M, seed and the like


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return what the compiler made of every launch."""
    return run_for_each(SCRIPT, ALWAYS, tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def compiled_nightly(tmp_path_factory):
    return run_for_each(SCRIPT, NIGHTLY, tmp_path_factory.mktemp("triton"))


@pytest.fixture(params=[*ALWAYS, *(pytest.param(name, marks=pytest.mark.slow) for name in NIGHTLY)])
def launches(request):
    is_nightly = request.param in NIGHTLY
    return request.getfixturevalue("compiled_nightly" if is_nightly else "compiled")[request.param]


def test_every_kernel_compiles_for_every_dtype(launches):
    assert {launch["kernel"] for launch in launches} == KERNELS
    assert {launch["dtype"] for launch in launches} == DTYPES
    assert all(launch["code"] > 0 for launch in launches)


def test_every_flag_is_compiled_both_ways(compiled):
    seen = defaultdict(set)
    for launch in chain.from_iterable(compiled.values()):
        for flag, value in launch["flags"].items():
            seen[launch["kernel"], flag].add(value)
    assert {key for key, values in seen.items() if len(values) == 1} == set()
    assert len(seen) > len(KERNELS)


def test_no_register_is_spilled(launches):
    assert all(launch["registers"] > 0 for launch in launches)
    assert [launch for launch in launches if launch["spills"]] == []


def test_aligned_logits_are_read_sixteen_bytes_at_a_time(launches):
    read = [
        launch
        for launch in launches
        if launch["columns"] == EVEN and not any(name in launch["launch"] for name in UNALIGNED)
    ]
    read = [launch for launch in read if launch["load_bits"] is not None]
    kernels = {launch["kernel"] for launch in read}
    assert kernels == {"partials", "target", "log_prob", "dense", "gradient"}
    for launch in read:
        assert launch["load_bits"] >= 128, launch
        # In an order, a thread loads the block of each of its logits: one word for many.
        assert launch["other_loads"] <= OTHER_LOADS or launch["flags"].get("HAS_ORDER"), launch


def test_no_compiler_chooses_the_order_of_a_sum(launches):
    # Which thread adds which logits would settle a sum's last bit, and with it decisions (law 3).
    for launch in launches:
        if launch["kernel"] in ("partials", "target", "log_prob", "reduce"):
            # Of two terms there is one order. A look only asks whether a total is large.
            assert launch["flags"].get("IS_LAZY") or set(launch["sums"]) <= {1, 2}, launch
            assert not launch["is_fused"]


# Machine instructions a logit on sm_90, in the loops over a row.
MOST = {
    "mask": 6.0, "lazy mask": 6.8, "decide": 6.0, "decide with totals": 6.0,
    "target_log_prob": 6.0, "gradient": 12.0, "dense mask": 40.0,
}  # fmt: skip
ELSEWHERE = 1.25


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_logit_costs_few_instructions(launches, request, dtype):
    most = 1.0 if "sm_90" in request.node.name else ELSEWHERE
    seen = set()
    for launch in launches:
        name = launch["launch"]
        if name not in MOST or launch["dtype"] != dtype:
            continue
        cost = sum(loop["instructions"] / loop["logits"] for loop in launch["loops"])
        assert 1.0 < cost <= most * MOST[name], (launch, cost)
        assert len(launch["loops"]) == (2 if name == "dense mask" else 1)
        for loop in launch["loops"]:
            assert loop["doubles"] == 0, launch
            assert loop["barriers"] == 0 or launch["flags"].get("IS_LAZY"), launch
        seen.add(name)
    left_out = {"decide", "decide with totals"} if dtype == "float16" else set()
    assert seen == set(MOST) - left_out
