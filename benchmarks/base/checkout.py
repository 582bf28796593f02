"""An earlier revision, built once into ``build/base``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

BUILD = "build/base"


def site_of(revision: str, root: Path) -> Path:
    """Return a folder that holds a revision's rskernels with its extension, building it if need be.

    Raises
    ------
    ValueError
        If the repository at ``root`` has no such revision.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if commit.returncode:
        raise ValueError(f"{root} has no revision {revision!r}")
    folder = root / BUILD / commit.stdout.decode().strip()[:12]
    site = folder / "site"
    if not site.exists():
        source, part = folder / "source", folder / "part"
        for unfinished in (source, part):
            shutil.rmtree(unfinished, ignore_errors=True)
        source.mkdir(parents=True)
        archive = _git(root, "archive", commit.stdout.decode().strip()).stdout
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
        install(source, part)
        part.rename(site)
        shutil.rmtree(source)
    return site


def install(source: Path, site: Path) -> None:
    """Build a source tree and put its package, without dependencies, into a folder."""
    # Relative, because pip splits these at spaces.
    pins = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), "constraints.txt")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
    ]
    subprocess.run([*command, "."], cwd=source, env={**os.environ, **pins}, check=True)


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", root, *arguments], stdout=subprocess.PIPE)
