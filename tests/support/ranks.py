"""Processes of one group of torch.distributed, and scripts that start them."""

import datetime
import os
import subprocess
import sys
import traceback
from pathlib import Path

import torch.distributed as dist

REPOSITORY = Path(__file__).parents[2]
LIMIT = datetime.timedelta(seconds=120)


def run_script(script, *arguments):
    """Run a script that starts ranks, each with one thread of torch."""
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def run_ranks(count, store, main):
    """Call ``main`` in ranks that meet at the file ``store``, and say whether all ended well."""
    children = [_start(rank, count, f"file://{store}", main) for rank in range(count)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return not any(statuses)


def _start(rank, count, store, main):
    """Fork a rank, so that all have torch from one import, and return its process."""
    if child := os.fork():
        return child
    status = 1
    try:
        dist.init_process_group("gloo", store, LIMIT, count, rank)
        main()
        dist.destroy_process_group()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
