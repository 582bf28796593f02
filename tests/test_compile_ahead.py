"""Every Triton kernel compiles for four GPU architectures, on a machine that has none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_ahead.py")
KERNELS = {
    f"_{name}_kernel"
    for name in ("partials", "target", "log_prob", "dense", "gradient", "bernoulli", "philox")
}


@pytest.mark.parametrize("dtype", ["bf16", "fp64"])
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_every_kernel_compiles(target, dtype, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    # A cache of its own, so that nothing compiled before is taken for a success now.
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, SCRIPT, target, "--dtype", dtype],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == KERNELS
    assert all(int(line.split()[-2]) > 0 for line in lines)
