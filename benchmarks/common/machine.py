"""What a measurement was made on and with."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from benchmarks.common import affinity

PACKAGES = ("torch", "numba", "triton", "numpy", "pyarrow")


def cpu() -> dict[str, str | int]:
    return {
        "processor": _cpu_name(),
        "architecture": platform.machine(),
        "cores": len(affinity.cores()),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "memory_GiB": round(_memory() / 2**30),
        "system": platform.system(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def gpu() -> dict[str, str | int]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_GiB": round(properties.total_memory / 2**30),
        "runtime": f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}",
    }


def versions() -> dict[str, str]:
    packages = {"python": platform.python_version()}
    for package in (*PACKAGES, "rskernels"):
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "not installed"
    if packages["rskernels"] == "not installed":
        import rskernels

        packages["rskernels"] = rskernels.__version__
    return packages


def today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
