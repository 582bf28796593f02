"""Decisions and training by other instruction sets than the host's best.

Given the same logits a decision is the same: sums are taken in a fixed order, and what another
level rounds otherwise is far below the distance of these rows from their thresholds. Logits are
torch's, whose matrix products round otherwise on each level: of training only the first decisions
are equal, and its course is alike.
"""

import json
from pathlib import Path

import pytest

from ..support.processes import run_python

CPUINFO = Path("/proc/cpuinfo").read_text(encoding="utf-8")
# Instructions it needs, NUMBA_CPU_NAME, ATEN_CPU_CAPABILITY; the first is the host's own.
LEVELS = {
    "host": ("", {}),
    "avx2": ("avx2", {"NUMBA_CPU_NAME": "haswell", "ATEN_CPU_CAPABILITY": "avx2"}),
    "avx512": ("avx512f", {"NUMBA_CPU_NAME": "skylake-avx512", "ATEN_CPU_CAPABILITY": "avx512"}),
    "least": ("avx2", {"NUMBA_CPU_NAME": "haswell", "ATEN_CPU_CAPABILITY": "default"}),
}
HERE = [name for name, (needed, _) in LEVELS.items() if needed in CPUINFO]

DECIDE = """
import hashlib, json, os, torch, rskernels
generator = torch.Generator().manual_seed(0)
logits = torch.randint(-64, 64, (512, 1001), generator=generator).float() / 16  # exact
targets = torch.randint(1001, (512,), generator=generator)
decided = {}
for name in os.environ["DTYPES"].split():
    z = logits.to(getattr(torch, name))
    seen = rskernels.accept(z, 1e-3, 4.0, targets=targets, seed=1)
    mask = rskernels.verify_mask(z, 1e-3, 2.0, targets=targets, seed=2)
    dense = rskernels.accept_mask(z[:64], 1e-3, 4.0, seed=3)
    decided[name] = [seen.mask.tolist(), seen.counts.tolist(), mask.tolist()]
    decided[name] += [hashlib.sha256(dense.numpy().tobytes()).hexdigest()]
ratios = torch.randint(-64, 64, (4096,), generator=generator) / 32
decided["bernoulli"] = rskernels.bernoulli_mask(ratios, seed=4).tolist()
decided["uniforms"] = rskernels.uniforms((64,), seed=5).tolist()
envelope = rskernels.Envelope("budget", rate=0.5)
envelope.update(ratios)
print(json.dumps([decided, seen.log_prob.tolist(), float(envelope.M())]))
"""

TRAIN = """
import json, pathlib, sys, tempfile
from rskernels.experiments import GradientConfig, run
seen = {}
for method in ("accept", "control", "importance"):
    with tempfile.TemporaryDirectory() as folder:
        summary = run(GradientConfig(method=method, epochs=10, lr=0.02), pathlib.Path(folder))
        lines = (pathlib.Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        first = json.loads(lines[0])
    names = ("acceptance", "violations", "invalid")
    seen[method] = [[first[name] for name in names], summary["balanced_accuracy"]]
print(json.dumps(seen))
"""

COMPARE = """
import sys, tempfile
from rskernels.cli import main
with tempfile.TemporaryDirectory() as out:
    sys.argv = ["rskernels", "compare", "--quick", "--seeds", "1", "--out", out]
    main()
"""


def assert_same_decisions(levels, dtypes):
    first, *others = (
        json.loads(run_python(DECIDE, DTYPES=dtypes, **LEVELS[level][1])) for level in levels
    )
    for other in others:
        assert other[0] == first[0]
        assert other[1:] == [pytest.approx(first[1], rel=1e-6), pytest.approx(first[2], rel=1e-12)]


@pytest.mark.process
@pytest.mark.skipif("least" not in HERE, reason="needs AVX2")
def test_decisions_are_those_of_the_host():
    assert_same_decisions(["host", "least"], "float32")


@pytest.mark.slow
@pytest.mark.process
def test_decisions_are_equal_on_every_level():
    assert_same_decisions(HERE, "float32 bfloat16 float16 float64")


@pytest.mark.slow
@pytest.mark.process
def test_training_begins_with_the_same_decisions_and_ends_alike():
    first, *others = (json.loads(run_python(TRAIN, **LEVELS[level][1])) for level in HERE)
    for other in others:
        for method, (decided, accuracy) in first.items():
            assert other[method][0] == decided
            assert other[method][1] == pytest.approx(accuracy, abs=0.1)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("level", HERE)
def test_a_comparison_ends(level):
    assert "report: " in run_python(COMPARE, timeout=900, **LEVELS[level][1])
