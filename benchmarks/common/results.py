"""Where measurements are kept: a table in Markdown, and beside it the numbers it is made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
DIGITS = 6


def write(record: dict[str, Any], text: str, path: Path) -> None:
    """Write a record to a JSON file and its table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(record), encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")


def to_json(record: dict[str, Any]) -> str:
    """Return JSON, a line for every entry and for every item of a list; floats have six digits."""
    entries = []
    for name, value in record.items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(_compact(item) for item in value) + "\n]"
        else:
            text = _compact(value)
        entries.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(_rounded(value), ensure_ascii=False, separators=(",", ":"))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
