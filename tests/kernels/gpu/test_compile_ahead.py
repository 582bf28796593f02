"""Every Triton kernel compiles for four GPU architectures, on a machine that has none.

What is compiled is what the host code launches, see ``compile_ahead.py``.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).with_name("compile_ahead.py")
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
DTYPES = {"bfloat16", "float16", "float32", "float64"}
KERNELS = {"partials", "target", "log_prob", "dense", "gradient", "bernoulli", "philox"}
EVEN = 8192  # columns; rows begin where a vector does
OTHER_LOADS = 8  # a row's target, density, M, seed and the like


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return what each target's compiler made of every launch."""
    # A cache of its own, so that nothing compiled before is taken for a success now.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))

    def run(target):
        done = subprocess.run(
            [sys.executable, SCRIPT, target],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(TARGETS, pool.map(run, TARGETS), strict=True))


@pytest.fixture(params=TARGETS)
def launches(request, compiled):
    return compiled[request.param]


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
        if launch["columns"] == EVEN and launch["flags"].get("IS_ALIGNED", True)
    ]
    read = [launch for launch in read if launch["load_bits"] is not None]
    kernels = {launch["kernel"] for launch in read}
    assert kernels == {"partials", "target", "log_prob", "dense", "gradient"}
    for launch in read:
        assert launch["load_bits"] >= 128, launch
        # In an order, a thread loads the block of each of its logits: one word for many.
        assert launch["other_loads"] <= OTHER_LOADS or launch["flags"].get("HAS_ORDER"), launch


def test_a_chunk_is_summed_in_one_order_in_every_layout_and_launch(compiled):
    # Which thread adds which logits settles a sum's last bit, and with it decisions (law 3).
    orders, layouts = defaultdict(set), defaultdict(set)
    for target, launch in ((t, launch) for t, launches in compiled.items() for launch in launches):
        if launch["kernel"] in ("partials", "target", "log_prob") and launch["reductions"]:
            is_ordered = launch["flags"].get("HAS_ORDER", False)
            rows = (target, launch["dtype"], launch["columns"], is_ordered)
            orders[rows].add((launch["threads"], *launch["reductions"]))
            layouts[rows].add(launch["launch"])
            assert not launch["is_fused"]
    assert {rows: order for rows, order in orders.items() if len(order) > 1} == {}
    for target in ("sm_90", "gfx942"):
        even, odd = (layouts[target, "bfloat16", columns, False] for columns in (EVEN, EVEN + 1))
        assert even >= {"mask", "lazy mask", "mask, few rows", "mask, sliced", "mask, transposed"}
        ordered = layouts[target, "bfloat16", EVEN, True]
        assert ordered == {"lazy mask in order", "lazy mask in order, few rows"}
        assert odd >= {"mask, odd", "mask, odd, few rows", "mask, odd, padded"}
