"""Run the tests that need a GPU, in a process of their own and a limited time."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable, "-m", "pytest", "tests", "-m", "gpu and not slow", "-q",
    "-p", "no:cacheprovider",
]  # fmt: skip
PATIENCE = 10  # seconds to end in, once asked to
LAST_LINES = 400


def run(seconds: float, command: list[str] = COMMAND) -> dict[str, Any]:
    """Return how the tests ended, passing their output on; they are stopped when time is up."""
    begin = time.perf_counter()
    lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        encoding="utf-8",
    ) as process:
        reader = threading.Thread(target=_pass_on, args=(process.stdout, lines))
        reader.start()
        try:
            status = process.wait(seconds)
            outcome = "passed" if status == 0 else "failed"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {seconds:.0f} s"
            # With whatever the tests started, which would hold the output open.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        reader.join()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {
        "outcome": outcome,
        "summary": lines[-1] if lines else "",
        "failed": failed,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _pass_on(stream: Any, lines: collections.deque[str]) -> None:
    for line in stream:
        print(line, end="", flush=True)
        if line.strip():
            lines.append(line.strip())
