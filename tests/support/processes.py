"""Python processes that know nothing of this one."""

import os
import subprocess
import sys

from .package import FOLDER


def run_python(code, timeout=120, **environment):
    """Run code in a fresh interpreter and return what it printed."""
    path = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
