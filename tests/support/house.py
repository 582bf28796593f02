"""The rules of the house, read from the source: who imports whom, and how large things are.

Every function takes the folder of a package or of the repository and returns what breaks a rule,
one sentence each.
"""

import ast
import graphlib
from pathlib import Path

# From the bottom up: a package imports from its own line and those above it in this list.
LAYERS = (
    ("_python",),
    ("law",),
    ("distributed", "kernels"),
    ("_torch",),
    ("ops",),
    ("envelope",),
    ("sampling",),
    ("integrations", "rsft", "select"),
    ("pipeline",),
    ("language",),
    ("experiments",),
    ("cli",),
)
LEVEL = {package: level for level, line in enumerate(LAYERS) for package in line}
EXTENSION = "_core"  # the compiled core: for the envelope and what is below it
ROOMS = ("benchmarks", "csrc", "docs", "examples", "python", "rskernels", "scripts", "tests")
SOURCES = {".py", ".pyi", ".cpp", ".hpp"}
MOST_FILES = 14
MOST_LINES = 350
MOST_FUNCTION_LINES = 80
MOST_POSITIONAL = 8
BINARY = ("rb", "wb", "ab", "xb", "r+b", "w+b", "x+b")
NO_TEXT = ("Image", "os", "wave")  # whose open takes no encoding
STARTS = ("run", "Popen", "check_output")
PRIVATE_TORCH = ("torch.library", "torch._C")


def modules(package: Path) -> dict[str, Path]:
    """Return the files of a package by module name."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports(module: str, path: Path) -> list[tuple[int, str, str | None]]:
    """Return (line, module, name or None) of every import, also those inside functions."""
    imported = []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            imported += [(node.lineno, alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                source = ".".join(parts + ([source] if source else []))
            imported += [(node.lineno, source, alias.name) for alias in node.names]
    return imported


def upward_imports(package: Path) -> list[str]:
    """Find imports of a higher layer, of the root, and of the extension from above the envelope."""
    root, files, faults = package.name, modules(package), []
    for module, path in files.items():
        room = _room(module)
        is_root = room in ("", "__main__")
        if not is_root and room not in LEVEL:
            faults.append(f"{module} is in no layer")
            continue
        for line, source, name in imports(module, path):
            if source.partition(".")[0] != root:
                continue
            there = _room(_target(source, name, files)) or (name if source == root else None)
            where = f"{path.relative_to(package.parent)}:{line}"
            if there == EXTENSION:
                if is_root or LEVEL[room] > LEVEL["envelope"]:
                    faults.append(f"{where} imports the extension from above the envelope")
            elif is_root:
                if there is None or there.startswith("_"):
                    faults.append(f"{where} imports {there or root}, which is not public")
            elif source == root:
                faults.append(f"{where} imports from the root, {root}")
            elif there not in LEVEL:
                faults.append(f"{where} imports {there}, which is in no layer")
            elif LEVEL[there] > LEVEL[room]:
                faults.append(f"{where} imports upward, {there} from {room}")
    return list(dict.fromkeys(faults))


def import_circles(package: Path) -> list[str]:
    """Find a circle of modules that import each other, at whatever time."""
    files = modules(package)
    graph = {
        module: {
            _target(source, name, files)
            for _, source, name in imports(module, path)
            if name != EXTENSION
        }
        & set(files)
        for module, path in files.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        # graphlib walks against the arrows.
        return [" imports ".join(reversed(error.args[1]))]
    return []


def faceless_packages(package: Path) -> list[str]:
    """Find packages without a docstring, or whose ``__all__`` does not list what they have."""
    faults, files = [], modules(package)
    for path in sorted({path.parent for path in files.values()}):
        face = path / "__init__.py"
        where = face.relative_to(package.parent)
        if not face.exists():
            faults.append(f"{where} is missing")
            continue
        tree = _parse(face)
        if not ast.get_docstring(tree):
            faults.append(f"{where} has no docstring")
        names = _all_names(tree)
        if not names:
            faults.append(f"{where} lists no names in __all__")
            continue
        below = {child.stem for child in path.iterdir() if child.suffix == ".py" or child.is_dir()}
        bound = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        defined = {
            getattr(target, "id", None)
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        }
        functions = {node.name for node in tree.body if hasattr(node, "name")}
        faults += [
            f"{where} lists {name}, which it does not have"
            for name in names
            if name not in bound | below | defined | functions
        ]
        faults += [
            f"{where} imports {name}, which __all__ leaves out"
            for name in sorted(bound - set(names) - {"annotations"})
            if not name.startswith("_")
        ]
    return faults


def private_torch(package: Path) -> list[str]:
    """Find uses of torch.library and torch._C outside of ``_torch``."""
    faults = []
    for module, path in modules(package).items():
        if _room(module) == "_torch":
            continue
        uses = {
            (node.lineno, f"{node.value.id}.{node.attr}")
            for node in ast.walk(_parse(path))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        uses |= {(line, f"{source}.{name}") for line, source, name in imports(module, path)}
        faults += [
            f"{path.relative_to(package.parent)}:{line} uses {use}"
            for line, use in sorted(uses)
            if f"{use}.".startswith(tuple(f"{private}." for private in PRIVATE_TORCH))
        ]
    return faults


def crowded_folders(root: Path) -> list[str]:
    """Find folders with too many source files of their own."""
    faults = []
    for folder in sorted({path.parent for path in _sources(root)}):
        count = sum(path.suffix in SOURCES for path in folder.iterdir())
        if count > MOST_FILES:
            faults.append(f"{folder.relative_to(root)} has {count} source files")
    return faults


def long_files(root: Path) -> list[str]:
    """Find Python files with too many lines."""
    return [
        f"{path.relative_to(root)} has {lines} lines"
        for path in _python(root)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    ]


def long_functions(root: Path) -> list[str]:
    """Find functions outside of the kernels with too many lines; a docstring does not count."""
    return [
        f"{path.relative_to(root)}:{node.lineno} {node.name} has {lines} lines"
        for path in _python(root)
        if not _is_kernel(path, root)
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _length(node)) > MOST_FUNCTION_LINES
    ]


def long_calls(root: Path) -> list[str]:
    """Find calls by too many places; ``*these`` is one, and a kernel's launch may have more."""
    return [
        f"{path.relative_to(root)}:{node.lineno} gives {len(node.args)} positional arguments"
        for path in _python(root)
        if not _is_kernel(path, root)
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.Call)
        and len(node.args) > MOST_POSITIONAL
        and not isinstance(node.func, ast.Subscript)
    ]


def unsaid_encodings(root: Path) -> list[str]:
    """Find text that is read or written in whatever encoding the locale has."""
    return [
        f"{path.relative_to(root)}:{node.lineno} says no encoding"
        for path in _python(root)
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.Call) and _lacks_encoding(node)
    ]


def _lacks_encoding(call):
    """Say whether a call opens, reads or writes text, or decodes a process's, without encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = {keyword.arg for keyword in call.keywords}
    if None in given or "encoding" in given:
        return False
    if name in ("open", "fdopen"):
        whose = getattr(getattr(call.func, "value", None), "id", "")
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [v.value for v in values if isinstance(v, ast.Constant)]
        is_binary = any(mode in BINARY for mode in modes)
        return whose not in NO_TEXT and not is_binary
    is_text = any(
        keyword.arg == "text" and getattr(keyword.value, "value", True) for keyword in call.keywords
    )
    return name in ("read_text", "write_text") or (name in STARTS and is_text)


def _parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _room(module):
    """Return the package below the root, or the empty string for the root itself."""
    return (module or "").partition(".")[2].partition(".")[0]


def _target(source, name, files):
    """Return the module that an import reads: the name itself where it is one."""
    return full if (full := f"{source}.{name}") in files else source


def _all_names(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return ast.literal_eval(node.value)
    return None


def _length(node):
    lines = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def _sources(root):
    rooms = (root / room for room in ROOMS)
    return [
        path
        for room in rooms
        for path in sorted(room.rglob("*"))
        if path.suffix in SOURCES and "__pycache__" not in path.parts
    ]


def _python(root):
    return [path for path in _sources(root) if path.suffix == ".py"]


def _is_kernel(path, root):
    return path.relative_to(root).parts[:2] == ("rskernels", "kernels")
