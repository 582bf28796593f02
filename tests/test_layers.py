"""The house keeps its rules: imports run down, packages have a face, nothing grows too large."""

from pathlib import Path

import pytest

import rskernels

from .support import house

PACKAGE = Path(rskernels.__file__).parent
REPOSITORY = Path(__file__).parents[1]


def test_imports_run_down_the_layers():
    assert house.upward_imports(PACKAGE) == []


def test_no_modules_import_each_other_in_a_circle():
    assert house.import_circles(PACKAGE) == []


def test_every_package_has_a_docstring_and_lists_its_names():
    assert house.faceless_packages(PACKAGE) == []


def test_only_the_torch_side_uses_what_torch_keeps_apart():
    assert house.private_torch(PACKAGE) == []


def test_no_folder_is_crowded():
    assert house.crowded_folders(REPOSITORY) == []


def test_no_python_file_is_long():
    assert house.long_files(REPOSITORY) == []


def test_no_function_is_long():
    assert house.long_functions(REPOSITORY) == []


def test_no_call_is_by_many_places():
    assert house.long_calls(REPOSITORY) == []


def test_text_is_read_and_written_in_an_encoding_that_is_said():
    assert house.unsaid_encodings(REPOSITORY) == []


# A house in order, and for each rule what breaks it.
CLEAN = {
    "rskernels/__init__.py": '"""All."""\nfrom rskernels.ops import decide\n__all__ = ["decide"]',
    "rskernels/law/__init__.py": '"""Laws."""\n__all__ = ["seeds"]',
    "rskernels/law/seeds.py": "import torch\nfrom .streams import Stream",
    "rskernels/law/streams.py": "import enum",
    "rskernels/ops/__init__.py": '"""Ops."""\nfrom .decide import decide\n__all__ = ["decide"]',
    "rskernels/ops/decide.py": "from rskernels.law import seeds\n\ndef decide(): pass",
    "rskernels/envelope/__init__.py": '"""M."""\nfrom rskernels import _core\n__all__ = ["store"]',
    "rskernels/envelope/store.py": "import math",
    "rskernels/_torch/__init__.py": '"""Torch."""\nimport torch.library\n__all__ = ["fakes"]',
    "rskernels/_torch/fakes.py": "import torch\nis_tracing = torch._C._is_tracing",
    "rskernels/kernels/__init__.py": '"""Kernels."""\n__all__ = ["launch"]',
    "rskernels/kernels/launch.py": "def launch(f):\n    f(1, 2, 3, 4, 5, 6, 7, 8, 9)" + "\n" * 90,
    "tests/support/files.py": 'open(p, "rb")\np.read_text(encoding="utf-8")\nrun(c, text=False)',
    "tests/test_decide.py": "f(1, 2, 3, 4, 5, 6, 7, *rest)\nk[grid](1, 2, 3, 4, 5, 6, 7, 8, 9)",
}
LATE = "def late():\n    from rskernels.{} import it"
TYPED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rskernels.{} import it"
FORTY = "    x = 1\n" * 40
BROKEN = {
    "late upward": ("upward_imports", "law/seeds.py", LATE.format("ops.decide"), "ops from law"),
    "typed upward": ("upward_imports", "law/seeds.py", TYPED.format("ops.decide"), "ops from law"),
    "relative upward": ("upward_imports", "law/seeds.py", "from ..ops import decide", "ops from"),
    "root by name": ("upward_imports", "ops/decide.py", "from rskernels import law", "the root"),
    "root": ("upward_imports", "ops/decide.py", "import rskernels", "from the root"),
    "extension": (
        "upward_imports", "sampling/run.py", "from rskernels import _core", "above the envelope",
    ),
    "private at the root": (
        "upward_imports", "__init__.py", "from rskernels._torch import fakes", "not public",
    ),
    "no layer": ("upward_imports", "attic/box.py", "", "rskernels.attic.box is in no layer"),
    "into no layer": (
        "upward_imports", "ops/decide.py", "import rskernels.attic.box", "attic, which is in no",
    ),
    "late circle": (
        "import_circles", "law/streams.py", LATE.format("law.seeds"),
        "rskernels.law.seeds imports rskernels.law.streams imports rskernels.law.seeds",
    ),
    "typed circle": (
        "import_circles", "law/streams.py", TYPED.format("law.seeds"), "imports rskernels.law.str",
    ),
    "circle through a face": (
        "import_circles", "ops/decide.py", "from rskernels.ops import decide", "rskernels.ops.dec",
    ),
    "no docstring": ("faceless_packages", "law/__init__.py", '__all__ = ["seeds"]', "no docstring"),
    "no names": ("faceless_packages", "law/__init__.py", '"""Laws."""', "lists no names"),
    "unknown name": (
        "faceless_packages", "law/__init__.py", '"""Laws."""\n__all__ = ["dice"]', "lists dice",
    ),
    "name left out": (
        "faceless_packages", "law/__init__.py",
        '"""Laws."""\nfrom .seeds import draw\n__all__ = ["seeds"]', "imports draw, which __all__",
    ),
    "no face": ("faceless_packages", "attic/box.py", "", "attic/__init__.py is missing"),
    "private attribute": (
        "private_torch", "ops/decide.py", "import torch\ntorch._C._is_tracing()", "torch._C",
    ),
    "private import": (
        "private_torch", "ops/decide.py", LATE.replace("rskernels.{}", "torch.library"), "library",
    ),
    "private name": ("private_torch", "ops/decide.py", "from torch import _C as c", "torch._C"),
    "long file": ("long_files", "kernels/launch.py", "\n" * 351, "has 351 lines"),
    "long function": (
        "long_functions", "ops/decide.py", f"def decide():\n{FORTY}{FORTY}", "decide has 81 lines",
    ),
    "long method": (
        "long_functions", "ops/decide.py",
        f"class A:\n  async def decide():\n{FORTY}{FORTY}", "decide has 81 lines",
    ),
    "many places": (
        "long_calls", "ops/decide.py", "f(1, 2, 3, 4, 5, 6, 7, 8, *rest)", "9 positional arguments",
    ),
    "locale's text": ("unsaid_encodings", "ops/decide.py", "p.read_text()", "decide.py:1 says no"),
    "locale's file": ("unsaid_encodings", "ops/decide.py", "open(p, 'w')", "decide.py:1 says no"),
    "locale's process": (
        "unsaid_encodings", "ops/decide.py", "run(command, text=True)", "decide.py:1 says no",
    ),
}  # fmt: skip


def lay_out(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def look(rule, repository):
    in_package = rule in (
        "upward_imports", "import_circles", "faceless_packages", "private_torch",
    )  # fmt: skip
    return getattr(house, rule)(repository / "rskernels" if in_package else repository)


@pytest.mark.parametrize("rule", sorted({rule for rule, *_ in BROKEN.values()}))
def test_a_house_in_order_breaks_no_rule(rule, tmp_path):
    lay_out(tmp_path, CLEAN)
    assert look(rule, tmp_path) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(name, tmp_path):
    rule, file, text, message = BROKEN[name]
    lay_out(tmp_path, CLEAN | {f"rskernels/{file}": text})
    (fault,) = look(rule, tmp_path)
    assert message in fault


@pytest.mark.parametrize("room", house.ROOMS)
def test_a_crowded_folder_is_found(room, tmp_path):
    lay_out(tmp_path, {f"{room}/a/{i}.cpp": "" for i in range(14)} | {f"{room}/a/data.json": ""})
    assert house.crowded_folders(tmp_path) == []
    lay_out(tmp_path, {f"{room}/a/more.py": ""})
    assert house.crowded_folders(tmp_path) == [f"{room}/a has 15 source files"]


def test_a_docstring_makes_no_function_long(tmp_path):
    text = f'def decide():\n    """One.\n{FORTY}    """\n{FORTY}' + "    return x\n" * 39
    lay_out(tmp_path, {"rskernels/ops/decide.py": text})
    assert house.long_functions(tmp_path) == []
