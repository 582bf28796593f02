"""Processes of one group of torch.distributed, and scripts that start them."""

import datetime
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch.distributed as dist

from .processes import forked

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

    def run(rank):
        dist.init_process_group("gloo", f"file://{store}", LIMIT, count, rank)
        main()
        dist.destroy_process_group()

    children = [forked(partial(run, rank)) for rank in range(count)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return not any(statuses)
