"""One of the two processes that take turns: it measures where it is asked to, and waits else.

Requests and answers are lines of JSON on stdin and stdout; turns.py has the other end. With
``--site`` its rskernels is that folder's, so that torch and rskernels are imported only then.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import affinity, timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path)
    parser.add_argument("--size", choices=("quick", "all"), default="all")
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    # What anything else prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if arguments.site is not None:
        use_site(arguments.site)
    import torch

    import rskernels
    from benchmarks.base.cases import calls

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    bindings = calls(arguments.size, arguments.only)
    call: Callable[[], Any] | None = None

    def answer(**fields: object) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    answer(names=list(bindings), package=str(Path(rskernels.__file__).parent))
    for line in sys.stdin:
        request = json.loads(line)
        if "sample" in request:
            assert call is not None
            answer(seconds=timing.sample(call, request["sample"]))
            continue
        call = None
        gc.enable()
        gc.collect()
        try:
            call = bindings[request["prepare"]]()
            torch.manual_seed(0)
            result = digest(call())
            affinity.bind_workers()
            answer(seconds=timing.once(call), digest=result)
        except Exception as error:  # whatever a tree lacks or refuses is told, and ends no run
            first = str(error).strip().splitlines() or [""]
            answer(error=f"{type(error).__name__}: {first[0]}")
        gc.disable()


def use_site(site: Path) -> None:
    """Make rskernels that of a folder, also where the environment's is an editable one."""
    # The finders of editable installs come before the path and know the file of every module.
    ordinary = (
        importlib.machinery.BuiltinImporter,
        importlib.machinery.FrozenImporter,
        importlib.machinery.PathFinder,
    )
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder in ordinary]
    sys.path.insert(0, str(site))
    spec = importlib.util.find_spec("rskernels")
    origin = None if spec is None else spec.origin
    if origin is None or not Path(origin).is_relative_to(site):
        raise ImportError(f"rskernels should be that of {site}, is {origin}")


def digest(result: Any) -> str:
    """Return a text that two results share if they have the same bits; "" for no result."""
    if result is None:
        return ""
    total = hashlib.blake2b(digest_size=16)
    for part in result if isinstance(result, (tuple, list)) else (result,):
        if hasattr(part, "detach"):
            import torch

            part = part.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            total.update(memoryview(part))
        else:
            total.update(repr(part).encode())
    return total.hexdigest()


if __name__ == "__main__":
    main()
