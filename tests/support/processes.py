"""Python processes that know nothing of this one."""

import ctypes
import os
import subprocess
import sys

from .package import FOLDER

PR_CAPBSET_DROP, CAPABILITIES = 24, 64  # of linux/prctl.h, and more than there are


def drop_privileges():
    """Leave root what any user may do: a folder without write permission is not written."""
    libc = ctypes.CDLL(None)
    for capability in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


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
