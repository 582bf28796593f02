"""The README and the reference leave nothing out and point at what exists."""

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ..support.house import LAYERS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "package",
    [
        "rskernels",
        "rskernels.envelope",
        "rskernels.language",
        "rskernels.pipeline",
        "rskernels.rsft",
        "rskernels.sampling",
        "rskernels.select",
    ],
)
def test_every_public_name_is_in_the_reference(package):
    pages = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")
    )
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}
    assert set(importlib.import_module(package).__all__) <= shown


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_what_a_page_outside_of_the_site_links_to_exists(name):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_what_the_maps_of_the_house_name_exists():
    maps = ("README.md", "CONTRIBUTING.md", "docs/design/architecture.md")
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in maps)
    named = re.findall(r"`((?:rskernels|csrc|docs|tests|benchmarks|examples)/[\w/.]+)`", text)
    assert len(named) > 25
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_contributing_names_every_package_and_its_layer():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "rskernels").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `rskernels/(\w+)` \|", text, re.MULTILINE)) == packages
    chain = re.search(r"^cli → .*$", text, re.MULTILINE)[0]
    layers = [[name for name in layer if name in packages] for layer in reversed(LAYERS)]
    assert [sorted(layer.split(", ")) for layer in chain.split(" → ")] == layers


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    described = re.findall(r"^([\w-]+):.*## .", makefile, re.MULTILINE)
    assert sorted(phony) == sorted(described)


def test_the_architecture_names_every_package():
    text = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "rskernels").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    picture = re.search(r"^!\[(.*?)\]", text, re.MULTILINE)[1]
    drawn = (ROOT / "docs" / "figures" / "architecture.svg").read_text(encoding="utf-8")
    for package in packages:
        assert re.search(rf"\b{package}\b", picture)
        assert f"<!-- {package} -->" in drawn


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_what_is_told_to_pytest_is_not_told_to_the_soak():
    made = subprocess.run(
        ["make", "--dry-run", "nightly", "ARGS=-k lazy", "RSKERNELS_TEST_SEED=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout.splitlines()
    assert any("-m pytest" in line and line.endswith("-k lazy") for line in made)
    [soak] = [line for line in made if "-m tests.soak.run" in line]
    assert soak.split()[-4:] == ["--seconds", "3600", "--seed", "1"]
