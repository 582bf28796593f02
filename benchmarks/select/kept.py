"""What is measured, kept in a file, so that a long measurement can be made in several calls."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.common.results import RESULTS

BEGIN = time.monotonic()


def options_of(about: str, rows: int) -> argparse.ArgumentParser:
    """Return the options that both programs have."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument(
        "--folder", type=Path, help="for the data, and what is measured until it is all"
    )
    parser.add_argument(
        "--seconds", type=float, default=float("inf"),
        help="after which nothing more is begun; the same command goes on, with --folder",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def kept_in(
    path: Path, names: Iterable[str], make: Callable[[str], Any], seconds: float
) -> dict[str, Any]:
    """Return what is made of each name; what is made is kept in a file, and not made again.

    Raises
    ------
    SystemExit
        If ``seconds`` of this process have gone and something is left.
    """
    made: dict[str, Any] = {}
    if path.exists():
        made = dict(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
    left = [name for name in names if name not in made]
    for name in left:
        if time.monotonic() - BEGIN > seconds:
            raise SystemExit(f"left, for the same command: {name} and what follows")
        print(name, file=sys.stderr)
        made[name] = make(name)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, made[name]]) + "\n")
    return made
