"""What is printed where the locale is not UTF-8."""

import io

import pytest
import torch

import rskernels
from rskernels._python.text import never_fail, printable

from ..support.processes import run_python

OF_ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}

PRINTED = """
import sys, torch, rskernels
envelope = rskernels.Envelope("quantile", level=0.9)
envelope.update(torch.linspace(-2, 2, 500))
envelope.update(torch.linspace(-2, 2, 500))
print(envelope.report())
normal = torch.distributions.Normal(0.0, 1.0)
print(rskernels.rejection_sample(normal, normal, 10, seed=0).report)
print(sys.stdout.encoding)
"""


def print_to(encoding, text):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    never_fail(stream)
    stream.write(text)
    stream.flush()
    return stream.buffer.getvalue()


def test_symbols_are_printed_by_their_names():
    text = "δ̂ = 0.2 ± 0.1, TV ≤ 1 – p̂/q → Σ w·χ², 2 × é, 猫"
    assert print_to("ascii", text) == (
        b"delta^ = 0.2 +/- 0.1, TV <= 1 - p^/q -> Sigma w*chi2, 2 x e, ?"
    )
    assert print_to("latin-1", "δ ± 1") == b"delta \xb1 1"
    assert print_to("utf-8", text) == text.encode()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_bytes_of_a_file_name_are_printed_as_they_are(encoding):
    assert print_to(encoding, "run\udcff") == b"run\xff"


def test_streams_that_cannot_be_set_are_left_alone():
    never_fail(None)
    never_fail(io.StringIO())


def test_a_report_is_as_standard_output_can_hold_it(monkeypatch):
    envelope = rskernels.Envelope()
    envelope.update(torch.zeros(9))
    assert "δ̂" in str(envelope.report())
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    text = str(envelope.report())
    assert "delta^" in text
    text.encode("ascii")
    assert len({len(line) for line in text.splitlines()[:2]}) == 1  # still a table
    monkeypatch.setattr("sys.stdout", None)  # as under pythonw
    assert printable("δ") == "δ"


@pytest.mark.process
@pytest.mark.parametrize("environment", [OF_ASCII, {"PYTHONIOENCODING": "ascii"}])
def test_reports_are_printed_whatever_the_locale(environment):
    printed = run_python(PRINTED, **environment)
    assert "delta^" in printed
    assert printed.isascii()
