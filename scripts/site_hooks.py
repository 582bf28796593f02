"""What MkDocs does not do by itself: pages from files that stand elsewhere, and mathematics.

The benchmarks' results, the changelog and CONTRIBUTING become pages where they lie, the command's
options are read from the command, and LaTeX becomes MathML, which browsers draw without a script.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add what lies outside of docs/ to the site."""
    from mkdocs.structure.files import File

    elsewhere = {
        f"evidence/{path.name}": path
        for path in sorted(RESULTS.glob("*.*"))
        if path.suffix in (".md", ".png", ".svg")
    }
    elsewhere["changelog.md"] = ROOT / "CHANGELOG.md"
    elsewhere["contributing.md"] = ROOT / "CONTRIBUTING.md"
    for uri, path in elsewhere.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Put the command's options where a page asks for them."""
    if "<!-- options -->" not in markdown:
        return markdown
    return markdown.replace("<!-- options -->", "\n".join(command_options()))


def on_page_content(content: str, **context: Any) -> str:
    """Turn LaTeX into MathML."""
    from latex2mathml.converter import convert

    def mathml(match: re.Match[str]) -> str:
        display = "inline" if match[1] == "span" else "block"
        return str(convert(html.unescape(match[2]).strip(), display=display))

    return MATHS.sub(mathml, content)


def command_options() -> Iterator[str]:
    """Describe every subcommand of the command itself, as Markdown."""
    import typer

    from rskernels.cli.app import app

    waiting = [("rskernels", typer.main.get_command(app))]
    while waiting:
        above, command = waiting.pop(0)
        within = getattr(command, "commands", {})
        waiting[:0] = [(f"{above} {name}", of) for name, of in within.items()]
        if above == "rskernels":
            continue
        yield f"\n## {above}\n\n{command.help}\n"
        panels: dict[str, list[Any]] = {}
        for option in command.params:
            panels.setdefault(getattr(option, "rich_help_panel", None) or "Options", []).append(
                option
            )
        for panel, options in panels.items():
            yield f"\n**{panel}**\n\n| option | default | meaning |\n|---|---|---|"
            yield from map(table_row, options)


def table_row(option: Any) -> str:
    """Return an option as a row of a Markdown table."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if isinstance(option.show_default, str):
        default = option.show_default
    else:
        is_off = option.default is None or option.default is False
        default = "" if is_off else f"`{option.default}`"
    text = (getattr(option, "help", None) or "").replace("|", "\\|")
    return f"| {names} | {default} | {text} |"
