"""Measure this tree against an earlier revision of it, in two processes that take turns.

    make bench-base BASE=main                          # every case, about ten minutes
    python -m benchmarks.base.run main --quick         # a few sizes of each operation
    python -m benchmarks.base.run main --only verify   # the cases whose name holds a text

The revision is built once into ``build/base``. Prints a table of medians and of this tree's time
over the base's, the slowest case first, and what was left out; keeps nothing but with ``--out``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.base.checkout import site_of
from benchmarks.base.report import markdown
from benchmarks.base.turns import ROOT, Comparison, Worker, compare

ROUNDS = (5, 200)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="a git revision")
    parser.add_argument("--quick", action="store_true", help="a few sizes of each operation")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds TEXT")
    parser.add_argument("--seconds", type=float, default=4.0, help="of rounds for each case")
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    arguments = parser.parse_args(argv)
    passed = ["--size", "quick" if arguments.quick else "all", "--only", arguments.only]
    if arguments.threads is not None:
        passed += ["--threads", str(arguments.threads)]
    text = measure(site_of(arguments.base, ROOT), None, passed, arguments.seconds, ROUNDS)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


def measure(
    base: Path, this: Path | None, passed: list[str], seconds: float, rounds: tuple[int, int]
) -> str:
    """Return the table of two trees; ``this`` is a folder too, or None for the working tree."""
    comparisons, failures = [], []
    with Worker(base, passed) as old, Worker(this, passed) as new:
        print(f"base: {old.package}\nthis: {new.package}", flush=True)
        for name in new.names:
            result = compare(name, old, new, seconds, rounds)
            if isinstance(result, Comparison):
                comparisons.append(result)
                print(f"{result.ratio:6.3f} {name}", flush=True)
            else:
                failures.append(result)
                print(f"     – {result}", flush=True)
    return markdown(comparisons, failures)


if __name__ == "__main__":
    main()
