"""``rskernels warm``: what it compiles, finds, prints and refuses."""

import os
import platform
import re
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rskernels import _core
from rskernels.cli.app import app
from rskernels.kernels.warm import DTYPES, FORMS

from ..support.kernel_cache import kept, run_with_cache
from ..support.package import FOLDER
from ..support.processes import drop_privileges

RUN = "import sys; from rskernels.cli import main; sys.argv[1:] = {}; main()"
ROW = re.compile(r"cpu +(\w+) +(\w+) +(\d+\.\d\d)  (compiled|was there)")
QUICK = ["warm", "--forms", "bernoulli", "--dtypes", "float32"]


def warm(folder, *arguments, **environment):
    """Run the command on the kernels of a folder; return its rows and the lines after them."""
    output = run_with_cache(folder, RUN.format(list(arguments)), **environment)
    heading, *lines = output.splitlines()
    assert heading.split() == ["device", "form", "dtype", "seconds"]
    rows = [match.groups() for match in map(ROW.fullmatch, lines) if match]
    return rows, lines[len(rows) :]


@pytest.mark.process
def test_a_second_run_finds_what_the_first_compiled(tmp_path):
    for outcome in ("compiled", "was there"):
        rows, rest = warm(tmp_path, *QUICK)
        assert [(form, dtype, said) for form, dtype, _, said in rows] == [
            ("bernoulli", "float32", outcome)
        ]
        kernel, team = sorted(kept(tmp_path))
        assert "bernoulli" in kernel.name
        assert "on_team" in team.name
        assert rest[0] == f"kept in {kernel.parent}"
        assert rest[1].startswith("processor: ")


@pytest.mark.process
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of the levels of x86-64")
def test_another_processor_compiles_its_own_unless_both_take_one_level(tmp_path):
    level = {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""}
    for environment, outcome in (
        ({}, "compiled"), (level, "compiled"), (level, "was there"), ({}, "was there"),
    ):  # fmt: skip
        rows, rest = warm(tmp_path, *QUICK, **environment)
        assert rows[0][-1] == outcome
        assert ("x86-64-v2" in rest[1]) == bool(environment)
    # The name alone leaves the features those of the machine: it is no level that others share.
    rows, _ = warm(tmp_path, *QUICK, NUMBA_CPU_NAME="x86-64-v2")
    assert rows[0][-1] == "compiled"
    assert len(kept(tmp_path)) == 3 * 2


EVERY_CALL = """
import sys, torch, rskernels
from rskernels.cli import main
from rskernels.kernels.cpu import threads

torch.set_num_threads(2)
threads.SERIAL_WORK = 0  # what large calls come to as well

for logits in (torch.randn(6, 700), torch.randn(700, 6).T, torch.randn(2, 3, 20000)):
    shape, V = logits.shape[:-1], logits.shape[-1]
    targets = torch.zeros(shape, dtype=torch.long)
    order = rskernels.ColumnOrder(torch.arange(-(-V // 1024)), V)
    tenth = torch.full(shape, 0.1)
    for p, M in (
        (0.1, 2), (tenth, torch.tensor(2.0)), (tenth.double(), torch.full(shape, 2.0))
    ):
        for seed in (1, torch.tensor([1]), -(2**62)):
            for more in (
                {}, {"log_space": True}, {"temperature": 2, "row_offset": 1 << 40},
                {"temperature": tenth}, {"temperature": tenth.double()},
            ):
                more = {**more, "seed": seed, "targets": targets}
                rskernels.accept_mask(logits, p, M, **more)
                rskernels.accept_mask(logits, p, M, assume_finite=True, **more)
                rskernels.verify_mask(logits, p, M, **more)
                rskernels.accept(logits, p, M, **more)
                rskernels.verify(logits, p, M, **more)
                dense = {**more, "targets": None}
                entries = p.unsqueeze(-1) if isinstance(p, torch.Tensor) else p
                of_rows = M.unsqueeze(-1) if isinstance(M, torch.Tensor) and M.dim() else M
                rskernels.accept_mask(logits, entries, of_rows, **dense)
                rskernels.accept(logits, torch.full((V,), 0.1), of_rows, **dense)
    rskernels.verify_mask(logits, 0.1, 2.0, targets=targets, order=order, seed=1)
    leaf = logits.clone().requires_grad_()
    rskernels.target_log_prob(leaf, targets).sum().backward()
    rskernels.target_log_prob(leaf, targets, temperature=tenth).sum().backward()
    parts = [torch.randn(*shape, 9), torch.randn(V, 9), torch.randn(V)]
    for z in (
        rskernels.LinearLogits(*parts),
        rskernels.LinearLogits(
            *(part.requires_grad_() for part in parts), scale=0.5, softcap=3.0,
            lora=(torch.randn(2, 9), torch.randn(V, 2), 1.0),
        ),
    ):
        rskernels.verify_mask(z, 0.1, 2.0, targets=targets, order=order, seed=1)
        rskernels.accept_mask(z, tenth, 2.0, targets=targets, temperature=tenth)
        seen = rskernels.accept(z, tenth.double(), M, targets=targets, seed=torch.tensor([1]))
        if seen.log_prob.requires_grad:
            seen.log_prob.sum().backward()
            rskernels.target_log_prob(z, targets).sum().backward()
    steps = torch.randn(3, 3, V), torch.zeros(3, 2, dtype=torch.int64), torch.randn(3, 2, V)
    each = {"temperature": torch.rand(3), "seed": torch.arange(3), "lengths": torch.arange(3)}
    hidden = rskernels.LinearLogits(torch.randn(3, 3, 9), torch.randn(V, 9), torch.randn(V))
    for target in (steps[0], hidden):
        rskernels.speculative_sample(target, *steps[1:], top_k=3, method="block", seed=1)
        rskernels.speculative_sample(target, steps[1], top_p=0.5, **each)
        rskernels.speculative_sample(target, *steps[1:])
    for ratios in (logits[..., 0], logits[..., 0].double(), logits[..., 0].bfloat16()):
        rskernels.bernoulli_mask(ratios, M, seed=1)
        rskernels.bernoulli(ratios, M, seed=1)
print([kernel.__name__ for kernel in made() if sum(kernel.stats.cache_misses.values())])
"""


@pytest.mark.slow
@pytest.mark.process
def test_what_is_warm_leaves_no_call_anything_to_compile(tmp_path):
    rows, _ = warm(tmp_path, "warm", "--dtypes", "float32")
    assert [row[0] for row in rows] == list(FORMS)
    assert run_with_cache(tmp_path, EVERY_CALL) == "[]\n"


def installed(tmp_path):
    """Return a copy of the package, as an image has it."""
    package = tmp_path / "installed" / "rskernels"
    shutil.copytree(FOLDER, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(_core.__file__, package)
    return package


IN_COPY = """
import sys
# An editable install would give the tree that the tests run in.
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")]
from rskernels.cli import main
sys.argv[1:] = {}
main()
"""


@pytest.mark.process
@pytest.mark.unprivileged
def test_a_user_who_may_write_nowhere_finds_what_the_image_was_built_with(tmp_path):
    package = installed(tmp_path)
    environment = {
        **os.environ, "PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": "",
        "HOME": "/nonexistent", "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path / "tmp"),
    }  # fmt: skip
    (tmp_path / "tmp").mkdir()
    said = []
    for prepare in (None, drop_privileges):
        done = subprocess.run(
            [sys.executable, "-c", IN_COPY.format(QUICK)],
            cwd=tmp_path,
            env=environment,
            preexec_fn=prepare,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        said.append(done.stdout)
        for path in (package, *package.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (package, *package.rglob("*")):
        path.chmod(0o755)
    assert ["compiled" in said[0], "was there" in said[1]] == [True, True]
    assert all(f"kept in {package / 'kernels' / 'cpu' / '__pycache__'}" in text for text in said)


NOWHERE = """
import tempfile
Path({folder!r}, "package").write_text("a file, and no folder")
tempfile.tempdir = "/nonexistent"
"""


@pytest.mark.process
def test_what_cannot_be_kept_is_an_error(tmp_path):
    (tmp_path / "kernels").write_text("a file, and no folder", encoding="utf-8")
    (tmp_path / "home").write_text("a file, and no folder", encoding="utf-8")
    code = NOWHERE.format(folder=str(tmp_path)) + (
        "import io, contextlib\n"
        "said = io.StringIO()\n"
        "try:\n"
        "    with contextlib.redirect_stderr(said):\n"
        f"        {RUN.format(QUICK)}\n"
        "except SystemExit as end:\n"
        "    print(end.code, said.getvalue().splitlines()[-1])\n"
    )
    last = run_with_cache(tmp_path, code).splitlines()[-1]
    assert last == "1 error: what was compiled cannot be kept"


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("--dtypes", "float32,float8", DTYPES),
        ("--forms", "sparse", FORMS),
        ("--devices", "tpu", ["cpu"]),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(monkeypatch, option, value, accepted):
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, ["warm", option, value])
    assert result.exit_code == 2
    assert value.split(",")[-1] in result.output
    assert all(name in result.output for name in accepted)
