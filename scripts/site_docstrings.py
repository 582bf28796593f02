"""What a docstring needs to be read as Markdown: definition lists, and no Sphinx roles."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

ROLE = re.compile(r":(?:class|func|meth|mod):`~?([\w.]+)`")
TERM = re.compile(r"^(``\w+``(?:, ``\w+``)*)\n {4}", re.MULTILINE)


class PlainDocstrings(Extension):
    """Rewrites docstrings as they are collected."""

    def on_object(self, *, obj: Any, **context: Any) -> None:
        """Turn ``term``, then indented lines, into a definition list, and roles into code."""
        if obj.docstring:
            text = TERM.sub(r"\n\1\n:   ", obj.docstring.value)
            obj.docstring.value = ROLE.sub(r"`\1`", text)
