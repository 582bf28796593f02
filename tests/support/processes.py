"""Processes: forks of this one, and Python processes that know nothing of it."""

import ctypes
import json
import os
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

from .package import FOLDER

PR_CAPBSET_DROP, CAPABILITIES = 24, 64  # of linux/prctl.h, and more than there are


def drop_privileges():
    """Leave root what any user may do: a folder without write permission is not written."""
    libc = ctypes.CDLL(None)
    for capability in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def forked(main):
    """Call ``main`` in a child that has all that was imported here, and return its process."""
    if child := os.fork():
        return child
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def run_python(code, timeout=120, *, cwd=None, preexec_fn=None, **environment):
    """Run code in a fresh interpreter and return what it printed."""
    path = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=cwd,
        preexec_fn=preexec_fn,
        capture_output=True,
        text=True,
        timeout=timeout,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_for_each(script, targets, cache):
    """Run a script that compiles for a target, two side by side; return what each printed as JSON.

    ``cache`` is Triton's, so that nothing compiled before is taken for a success now.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)

    def run(target):
        done = subprocess.run(
            [sys.executable, script, target],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(targets, pool.map(run, targets), strict=True))
