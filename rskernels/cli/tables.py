"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

# Heading, name in the summary, format: the order of every table.
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("balanced accuracy", "balanced_accuracy", "{:.3f}".format),
    ("3 rarest classes", "rarest_accuracy", "{:.3f}".format),
    ("gradient samples", "gradient_samples", "{:,.0f}".format),
    ("acceptance", "acceptance", "{:.2f}".format),
    ("skipped steps", "skipped_steps", "{:.1f}".format),
    ("violations", "violations_share", "{:.1%}".format),
    ("δ̂", "delta", "{:.3f}".format),
    ("worst class", "worst_accuracy", "{:.3f}".format),
    ("calibration error", "calibration_error", "{:.3f}".format),
    ("effective samples", "gradient_ess", "{:,.0f}".format),
    ("seconds", "seconds", "{:.2f}".format),
)

# What some methods measure besides.
MORE: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("balanced accuracy before", "balanced_accuracy_before", "{:.3f}".format),
    ("accuracy, images", "accuracy_image", "{:.3f}".format),
    ("accuracy, speech", "accuracy_speech", "{:.3f}".format),
    ("accuracy, words", "accuracy_word", "{:.3f}".format),
    ("gradient samples, images", "gradient_samples_image", "{:,.0f}".format),
    ("gradient samples, speech", "gradient_samples_speech", "{:,.0f}".format),
    ("gradient samples, words", "gradient_samples_word", "{:,.0f}".format),
    ("acceptance of the draws", "draw_acceptance", "{:.3f}".format),
    ("distinct rows of an epoch", "distinct_rows", "{:,.0f}".format),
    ("acceptance at the start", "acceptance_start", "{:.4f}".format),
    ("log M at the start", "log_M_start", "{:.3f}".format),
    ("log M", "log_M", "{:.3f}".format),
    ("draws per second at the start", "draws_per_second_start", "{:,.0f}".format),
    ("draws per second", "draws_per_second", "{:,.0f}".format),
    ("parameters", "parameters", "{:,.0f}".format),
    ("σ", "sigma", "{:.4g}".format),
    ("split R̂", "r_hat", "{:.3f}".format),
    ("effective sample size", "ess", "{:,.0f}".format),
)


def make_table(rows: Iterable[Sequence[str]], headings: Sequence[str]) -> Table:
    """Return a terminal table; the first column is text, the others numbers."""
    table = Table()
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


def summary_table(summary: Mapping[str, Any], title: str) -> Table:
    """Return the table of one run from its summary, a measure a line."""
    columns = [column for column in (*COLUMNS, *MORE) if column[1] in summary]
    rows = [(heading, show(summary[name])) for heading, name, show in columns]
    return make_table(rows, ("", title))
