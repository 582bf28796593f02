"""DTensors between real processes; what each of them checks is sharded_ranks.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from ..support.processes import run_python

RANKS = Path(__file__).with_name("sharded_ranks.py")


@pytest.mark.process
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
def test_ranks_decide_their_rows_as_one_process_decides_all():
    paths = [str(RANKS.parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(RANKS), "4"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_calls_on_plain_tensors_do_not_load_dtensors():
    run_python(
        "import sys, torch, rskernels\n"
        "logits = torch.nn.Parameter(torch.randn(2, 3))\n"
        "rskernels.accept_mask(logits, 0.2, 1.0, targets=torch.tensor([0, 1]), seed=0)\n"
        "rskernels.target_log_prob(logits, torch.tensor([0, 1])).sum().backward()\n"
        "rskernels.accepted_mean(logits[0], torch.ones(3).bool(), torch.ones(3)).backward()\n"
        "assert 'torch.distributed.tensor' not in sys.modules\n"
    )
