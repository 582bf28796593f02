"""The Triton kernels of speculative steps compile for four GPU architectures.

What is compiled is what the host code launches, see ``compile_speculative.py``.
"""

from collections import defaultdict
from pathlib import Path

import pytest

from ...support.processes import run_for_each

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).with_name("compile_speculative.py")
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
KERNELS = {"open", "weigh", "draw", "filter", "logits"}
SPILLED = 64  # bytes a thread, of the kernels that look at a row again and again


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return what each target's compiler made of every launch."""
    return run_for_each(SCRIPT, TARGETS, tmp_path_factory.mktemp("triton"))


def assert_is_whole(launches):
    """Check that little is spilled, and nothing fused."""
    for launch in launches:
        most = SPILLED if launch["kernel"] in ("filter", "draw") else 0
        assert launch["code"] > 0
        assert launch["spills"] <= most, launch
        assert not launch["is_fused"], launch


def test_a_step_compiles(tmp_path):
    (launches,) = run_for_each(SCRIPT, ("few",), tmp_path).values()
    assert {launch["kernel"] for launch in launches} >= KERNELS - {"logits"}
    assert_is_whole(launches)


@pytest.mark.slow
def test_every_kernel_and_flag_compiles_for_every_target(compiled):
    for launches in compiled.values():
        seen = defaultdict(set)
        for launch in launches:
            for flag, value in launch["flags"].items():
                seen[launch["kernel"], flag].add(value)
        assert {launch["kernel"] for launch in launches} >= KERNELS
        own = {key for key in seen if key[0] in ("open", "weigh", "draw", "filter")}
        assert len(own) > 20
        assert {key for key in own if len(seen[key]) == 1} == set()
        assert_is_whole(launches)
