"""How a user is told what was converted, left out or degraded."""

import sys


def say(text: str) -> None:
    """Print a line on the standard error, where it does not mix with results."""
    print(f"note: {text}", file=sys.stderr, flush=True)
