"""The Triton kernels on products compile for four GPU architectures, and use their tensor cores.

What is compiled is what the host code launches, see ``compile_linear.py``. Two of the architectures
are for the nightly run.
"""

from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

from ...support.processes import run_for_each

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).with_name("compile_linear.py")
ALWAYS, NIGHTLY = ("sm_90", "gfx942"), ("sm_80", "sm_100")
# What multiplies half precision on each, and float64: a B200's tensor cores know no such product.
PRODUCTS = {"sm_80": "mma", "sm_90": "wgmma", "sm_100": "tcgen05", "gfx942": "mfma"}
DOUBLE_PRODUCTS = {"sm_80": "mma", "sm_90": "mma", "sm_100": None, "gfx942": "mfma"}
KERNELS = {
    "low_rank",
    "reference",
    "open",
    "open_mask",
    "pack",
    "sums",
    "look",
    "decide",
    "log_prob",
    "slope",
    "band",
    "rows",
    "columns",
    "bias",
}
OF_TILES = ("reference", "sums", "low_rank", "band", "rows", "columns")
SHARED = {"sm_80": 99, "sm_90": 227, "sm_100": 227, "gfx942": 64}  # KiB a program may have
TENSOR_MEMORY = 512  # columns; of a launch that needs more, no code is left


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return what the compilers of two targets made of every launch."""
    return run_for_each(SCRIPT, ALWAYS, tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def compiled_nightly(tmp_path_factory):
    return run_for_each(SCRIPT, NIGHTLY, tmp_path_factory.mktemp("triton"))


@pytest.fixture(params=[*ALWAYS, *(pytest.param(name, marks=pytest.mark.slow) for name in NIGHTLY)])
def target(request):
    return request.param


@pytest.fixture
def launches(request, target):
    name = "compiled_nightly" if target in NIGHTLY else "compiled"
    return request.getfixturevalue(name)[target]


def test_every_kernel_and_flag_is_compiled(compiled):
    seen = defaultdict(set)
    for launch in chain.from_iterable(compiled.values()):
        assert launch["code"] > 0
        assert not launch["is_fused"] or launch["kernel"] not in OF_TILES
        seen[launch["kernel"]].add(launch["dtype"])
        for flag, value in launch["flags"].items():
            seen[launch["kernel"], flag].add(value)
    assert {name for name in seen if isinstance(name, str)} == KERNELS
    once = {key for key, values in seen.items() if isinstance(key, tuple) and len(values) == 1}
    assert once == set()


def test_nothing_is_spilled_and_everything_fits(launches, target):
    assert [launch for launch in launches if launch["spills"]] == []
    for launch in launches:
        assert launch["shared"] <= SHARED[target] * 1024, launch
        assert launch["tensor_memory"] <= TENSOR_MEMORY, launch


def test_products_are_the_tensor_cores(launches, target):
    for launch in launches:
        if launch["kernel"] not in OF_TILES:
            assert launch["products"] == {}
            continue
        is_double = launch["dtype"] == "float64"
        unit = (DOUBLE_PRODUCTS if is_double else PRODUCTS)[target]
        assert set(launch["products"]) == ({unit} if unit else set()), launch
        for instruction in launch["products"].get(unit, ()):
            is_of = {"bfloat16": ("bf16", "kind::f16"), "float16": ("f16",), "float32": ("f32",)}
            of_dtype = is_of.get(launch["dtype"], ("f64",))
            assert any(name in instruction for name in of_dtype), launch


def test_tiles_are_loaded_sixteen_bytes_at_a_time(launches, target):
    of_tiles = [one for one in launches if one["kernel"] in ("sums", "reference")]
    assert len(of_tiles) > 10
    for launch in of_tiles:
        if "narrow" in launch["launch"]:
            continue
        wide = launch["loads"].get("128", 0) + launch["copies"].get("16", 0)
        assert wide >= 3, launch
        # Copied while the tiles before are multiplied, where the product is not made once a row.
        is_copied = target != "gfx942" and launch["kernel"] == "sums"
        assert set(launch["copies"]) == ({"16"} if is_copied else set()), launch


def test_a_row_is_summed_in_one_order_by_every_launch(launches):
    # Which thread adds which columns settles a sum's last bit, and with it decisions (law 3).
    layouts = defaultdict(set)
    for launch in launches:
        if launch["kernel"] == "sums":
            flags = launch["flags"]
            form = tuple(flags[name] for name in ("HAS_BIAS", "HAS_SOFTCAP", "HAS_LORA"))
            (layout,) = launch["row_sums"]
            layouts[launch["dtype"], form, "narrow" in launch["launch"]].add(layout)
    assert all(len(found) == 1 for found in layouts.values()), layouts
