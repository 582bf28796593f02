"""Two trees in turns: who has the turn, what the table says, and that a slower tree is seen."""

import functools
import importlib
import shutil
import subprocess
import sys

import pytest
import torch

from benchmarks.base import cases, checkout, report, run, worker
from benchmarks.base.turns import Comparison, compare, geometric_mean


class Stand:
    """Answers as a process would, and writes down when it was asked."""

    def __init__(self, label, log, seconds=1.0, digest="a", error=None):
        self.label, self.log, self.seconds, self.error = label, log, seconds, error
        self.digest = digest

    def ask(self, **request):
        self.log.append((self.label, *request.items()))
        if "prepare" not in request:
            return {"seconds": self.seconds}
        if self.error:
            return {"error": self.error}
        return {"seconds": self.seconds, "digest": self.digest}


def test_turns_alternate_and_both_take_samples_of_one_length():
    log = []
    old, new = Stand("old", log, 2.0), Stand("new", log, 3.0)
    result = compare("case", old, new, seconds=0.0, rounds=(3, 9))
    assert log[:2] == [("old", ("prepare", "case")), ("new", ("prepare", "case"))]
    assert [label for label, _ in log[2:]] == ["old", "new", "new", "old", "old", "new"]
    assert {request for _, request in log[2:]} == {("sample", 3.0)}
    assert (result.old, result.new, result.ratio) == ([2.0] * 3, [3.0] * 3, 1.5)
    assert result.same


def test_rounds_end_at_the_most_and_other_bits_are_seen():
    old, new = Stand("old", []), Stand("new", [], digest="b")
    result = compare("case", old, new, seconds=60.0, rounds=(2, 4))
    assert len(result.old) == len(result.new) == 4
    assert not result.same


@pytest.mark.parametrize(("broken", "whose"), [(0, "base"), (1, "this tree")])
def test_a_case_that_one_tree_lacks_is_told(broken, whose):
    error = {broken: "AttributeError: no accept"}
    old, new = (Stand(str(at), [], error=error.get(at)) for at in (0, 1))
    reason = compare("accept", old, new, seconds=0.0, rounds=(2, 2))
    assert reason == f"accept: {whose}: AttributeError: no accept"


def test_the_table_has_the_slowest_first_and_a_summary():
    def case(name, ratio, same=True):
        return Comparison(
            name, [1e-3, 2e-3, 3e-3], [1e-3 * ratio, 2e-3 * ratio, 3e-3 * ratio], same
        )

    text = report.markdown([case("fast", 0.5), case("slow", 2.0), case("other", 1.0, False)], ["x"])
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2] == "| slow | 2 | 4 | **2.000** | 2.000–2.000 | 3 | yes |"
    assert rows[3] == "| other | 2 | 2 | 1.000 | 1.000–1.000 | 3 | **no** |"
    assert rows[4].startswith("| fast | 2 | 1 | 0.500 |")
    assert (
        "3 cases: geometric mean 1.000, worst 2.000 (slow), 1 above 1.03, 1 with other bits."
        in text
    )
    assert "Not measured:\n\n- x\n" in text
    assert report.markdown([], ["x"]) == "Not measured:\n\n- x\n"


def test_the_geometric_mean_is_that_of_ratios():
    assert geometric_mean([4.0, 0.25, 8.0]) == pytest.approx(2.0)


def test_a_digest_tells_bits_apart():
    acceptance = torch.tensor([True, False]), torch.tensor([0.5], dtype=torch.bfloat16), 2.0
    assert worker.digest(acceptance) == worker.digest((acceptance[0].clone(), *acceptance[1:]))
    assert worker.digest(acceptance) != worker.digest((~acceptance[0], *acceptance[1:]))
    assert worker.digest((torch.tensor(0.0),)) != worker.digest((torch.tensor(-0.0),))
    assert worker.digest(None) == ""


@pytest.mark.parametrize("size", ["quick", "all"])
def test_the_cases_are_those_of_every_benchmark(size):
    names = list(cases.calls(size))
    assert len(names) == len(set(names))
    for part in ("accept_mask [4, 10]", "accept_mask dense", "0.1 % accepted", "estimate_M",
                 "target_log_prob [", "target_log_prob forward", "bernoulli_mask",
                 "Envelope max, update", "10000 groups", "M learnt"):  # fmt: skip
        assert any(part in name for name in names), part
    assert list(cases.calls(size, "100 % accepted")) == [n for n in names if "100 %" in n]


@pytest.mark.parametrize(
    "only", ["[4, 10]", "bernoulli_mask [4]", "[64]", "log_M", "rejection_sample 10,"]
)
def test_every_kind_of_case_can_be_called_and_gives_the_same_bits_again(only):
    for name, bind in cases.calls("quick", only).items():
        call = bind()
        results = []
        for _ in range(2):
            torch.manual_seed(0)
            results.append(worker.digest(call()))
        assert results[0] == results[1], name


TREE = """
import time
import torch

def accept_mask(logits, density, M, targets=None):
    time.sleep({seconds})
    return torch.full(targets.shape, {accepts})

if {has_verify}:
    verify_mask = accept_mask
"""


def write_tree(folder, seconds, accepts=True, has_verify=True):
    (folder / "rskernels").mkdir(parents=True)
    source = TREE.format(seconds=seconds, accepts=accepts, has_verify=has_verify)
    (folder / "rskernels" / "__init__.py").write_text(source, encoding="utf-8")
    return folder


def test_a_slowed_tree_is_seen_and_so_is_one_that_decides_otherwise(tmp_path):
    """By real processes, of which each has a tree of its own."""
    base = write_tree(tmp_path / "base", 0.002)
    this = write_tree(tmp_path / "this", 0.02, accepts=False, has_verify=False)
    passed = ["--size", "quick", "--only", "_mask [4, 10]", "--threads", "1"]
    text = run.measure(base, this, passed, seconds=0.0, rounds=(3, 3))
    row = next(line for line in text.splitlines() if line.startswith("| accept_mask [4, 10]"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert float(cells[3].strip("*")) > 2.0
    assert cells[5:] == ["3", "**no**"]
    assert "1 above 1.03, 1 with other bits" in text
    assert "- verify_mask [4, 10] float32: this tree: AttributeError: " in text


def test_a_folder_without_the_package_is_refused(tmp_path):
    code = (
        "import pathlib, sys; from benchmarks.base.worker import use_site; "
        "use_site(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        cwd=run.ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert f"rskernels should be that of {tmp_path}, is " in done.stderr


class Redirecting:
    """As an editable install's finder: before the path, and sure of where the package is."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        raise AssertionError("asked for the working tree's")


def test_an_editable_install_is_passed_by(tmp_path, monkeypatch):
    site = write_tree(tmp_path, 0.0)
    monkeypatch.setattr(sys, "meta_path", [Redirecting, *sys.meta_path])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with monkeypatch.context() as patch:
        for name in [n for n in sys.modules if n.partition(".")[0] == "rskernels"]:
            patch.delitem(sys.modules, name)
        worker.use_site(site)
        package = importlib.import_module("rskernels")
        assert package.__file__ == str(site / "rskernels" / "__init__.py")
        patch.delitem(sys.modules, "rskernels")


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@needs_git
def test_a_revision_is_built_once_and_as_it_was(tmp_path, monkeypatch):
    git = functools.partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git(["git", "init", "-q"])
    for text in ("old", "new"):
        (tmp_path / "file").write_text(text, encoding="utf-8")
        git(["git", "add", "file"])
        git(["git", *author, "commit", "-q", "-m", text])
    (tmp_path / "file").write_text("edited since", encoding="utf-8")
    built = []

    def install(source, site):
        built.append((source / "file").read_text(encoding="utf-8"))
        site.mkdir()

    monkeypatch.setattr(checkout, "install", install)
    first = checkout.site_of("HEAD~1", tmp_path)
    assert checkout.site_of("HEAD~1", tmp_path) == first
    assert checkout.site_of("HEAD", tmp_path) != first
    assert built == ["old", "new"]
    assert [path.name for path in first.parent.iterdir()] == ["site"]


@needs_git
def test_a_revision_whose_build_fails_leaves_nothing_to_measure(tmp_path, monkeypatch):
    git = functools.partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    git(["git", "init", "-q"])
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git(["git", *author, "commit", "-q", "--allow-empty", "-m", "empty"])

    def install(source, site):
        site.mkdir()
        raise RuntimeError("no compiler")

    monkeypatch.setattr(checkout, "install", install)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no compiler"):
            checkout.site_of("HEAD", tmp_path)
    with pytest.raises(ValueError, match="has no revision 'nowhere'"):
        checkout.site_of("nowhere", tmp_path)
