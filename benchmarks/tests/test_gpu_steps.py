"""What a GPU run is made of: its budget, the GPU's own tests, and the compiler's table."""

import contextlib
import sys

import pytest

from benchmarks.gpu import compile_ahead, device_tests, linear
from benchmarks.gpu.budget import Budget


def test_a_budget_knows_what_steps_cost():
    now = 0.0
    budget = Budget(20.0, {"shape": 2.0, "compile": 5.0}, lambda: now)
    assert budget.allows("compile", shape=7)
    assert not budget.allows("compile", shape=8)
    for seconds in (1.0, 1.0, 4.0):
        with contextlib.suppress(ValueError), budget.step("shape"):
            now += seconds
            raise ValueError
    assert (budget.cost("shape"), budget.cost("compile")) == (1.0, 5.0)
    assert (budget.spent, budget.left) == (6.0, 14.0)
    assert budget.allows("compile", shape=9)
    assert not budget.allows("compile", shape=10)


def test_the_compilers_table_shows_what_every_target_compiled():
    loop = {"instructions": 320, "barriers": 3, "logits": 64.0}
    decided = {"instructions": 240, "barriers": 0, "logits": 8.0}

    def launch(name, registers, load_bits=128, loops=()):
        return {
            "kernel": "target", "launch": name, "dtype": "float16", "registers": registers,
            "spills": 4, "shared": 32, "load_bits": load_bits, "loops": loops,
        }  # fmt: skip

    targets = {
        "sm_90": [
            launch("mask", 39, loops=[loop]),
            launch("dense mask", 9, loops=[loop, decided]),
            launch("decide", 41, None),
            launch("mask, odd", 50),
        ],
        "gfx942": [
            launch("mask", 29, loops=[loop]),
            launch("dense mask", 9, loops=[loop, decided]),
            launch("decide", 31, None),
        ],
    }
    header = {"date": "", "command": "", "versions": {}}
    text = compile_ahead.markdown({**header, "targets": targets})
    assert "| kernel | launch | sm_90 | gfx942 |" in text
    assert "| target | mask | 39 · 4 · 32 · 128 | 29 · 4 · 32 · 128 |" in text
    assert "| target | decide | 41 · 4 · 32 | 31 · 4 · 32 |" in text
    assert "odd" not in text
    # 5 instructions a logit: 132 units of 128 lanes at 1.755 GHz, two bytes each.
    assert "| float16 | H100, 3.35 TB/s | H200, 4.8 TB/s | MI300X, 5.3 TB/s |" in text
    assert "| mask | 5.0 · 3 · ≤ 11.9 | 5.0 · 3 · ≤ 11.9 | 5.0 · 3 · ≤ 16.3 |" in text
    # 5 and 30 more, for two bytes read and one written.
    assert "| dense mask | 35.0 · 3 · ≤ 2.5 | 35.0 · 3 · ≤ 2.5 | 35.0 · 3 · ≤ 3.5 |" in text


@pytest.mark.parametrize(
    ("code", "outcome", "status"),
    [("print('3 passed')", "passed", 0), ("print('FAILED x'); exit(1)", "failed", 1)],
)
def test_the_tests_outcome_is_kept(code, outcome, status, monkeypatch, capsys):
    seen = device_tests.run(60.0, [sys.executable, "-c", code])
    assert seen["outcome"] == outcome
    assert seen["failed"] == (["FAILED x"] if status else [])
    assert seen["summary"] in capsys.readouterr().out


def test_tests_that_take_too_long_are_stopped_with_what_they_started():
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    seen = device_tests.run(2.0, [sys.executable, "-c", code])
    assert seen["outcome"] == "stopped after 2 s"
    assert seen["summary"] == "begun"
    assert seen["seconds"] < 30.0


def test_the_schedule_of_products_is_counted_in_tiles():
    # Tiles of 128 rows and 256 columns, blocks of 1024 columns.
    one = linear.schedule_of(linear.Shape(128, 64, 1024), 1)
    assert (one.padding, one.last_turn, one.targets) == (1.0, 1.0, 1)
    assert one.reduction == 1.0 + 2048 / (16 * 64)
    assert one.cached == 4 * (128 + 256) * 64 * 2
    assert one.partials == 128 * 2 * 2 * 4
    # Two row tiles at a block of four tiles, then at one of a single tile.
    uneven = linear.schedule_of(linear.Shape(129, 64, 1025), 4)
    assert uneven.last_turn == 4 * 4 / 10
    assert uneven.padding == pytest.approx(10 * 128 * 256 / (129 * 1025))
    # Each group of 32 row tiles reads the weight again.
    again = linear.schedule_of(linear.Shape(33 * 128, 64, 1024), 40)
    assert again.read_again == 2 * 1024 * 64 * 2 + 33 * 128 * 64 * 2


def test_the_bound_of_products_is_that_of_the_datasheet():
    text = "\n".join(linear.bound_tables())
    small = "| [1,024, 768] × [50,257, 768] | H100 | 79 | 79 | 0.0799 | 0.0235 | 1.003 |"
    large = "| [8,192, 4,096] × [131,072, 4,096] | H200 | 8,796 | 1,141 | 8.89 | 0.238 | 1.000 |"
    assert small in text
    assert large in text


def test_the_launches_of_products_show_their_instructions():
    def launch(kernel, registers, products):
        return {
            "kernel": kernel, "launch": "mask", "dtype": "float16", "registers": registers,
            "spills": 0, "shared": 64, "products": products,
        }  # fmt: skip

    targets = {
        "sm_90": [
            launch("sums", 200, {"wgmma": {"m64": 4, "m32": 2}}),
            launch("sums", 220, {"wgmma": {"m64": 4}}),
            launch("look", 40, {}),
        ],
        "gfx942": [launch("sums", 90, {}), launch("pack", 30, {})],
    }
    text = "\n".join(linear.launch_tables(targets))
    assert "| sums | mask | 220 · 0 · 64 · 4 wgmma | 90 · 0 · 64 · none |" in text
    assert "multiply nothing (look, pack)\ntake at most 40 registers, and spill none." in text
