"""The progress bar: what it shows, and where it is silent."""

import sys

import pytest

from rskernels.sampling.progress import ProgressBar

TEXTS = ("epoch {task.completed:.1f}/{task.total}", "loss {task.fields[loss]}")


def run(**options):
    with ProgressBar(4, TEXTS, completed=1, loss="–", **options) as bar:
        bar.advance(0.5, loss="0.25")
    return bar


def test_an_earlier_part_and_the_fields_are_shown_on_stderr(capsys):
    run()
    shown = capsys.readouterr()
    assert "epoch 1.5/4" in shown.err
    assert "loss 0.25" in shown.err
    assert shown.out == ""


def test_what_is_done_can_be_set(capsys):
    with ProgressBar(4, TEXTS, loss="–") as bar:
        bar.update(3, loss="1")
        bar.update(2, loss="2")
    shown = capsys.readouterr().err
    assert "epoch 2.0/4" in shown
    assert "loss 2" in shown


@pytest.mark.parametrize("options", [{"on": False}, {"only_on_terminal": True}])
def test_it_can_be_silent(options, capsys):
    run(**options)
    shown = capsys.readouterr()
    assert shown.err.strip() == shown.out == ""


def test_only_a_bar_that_is_on_needs_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    run(on=False)
    with pytest.raises(ModuleNotFoundError, match="progress=True needs rich, which is not inst"):
        run()


def test_the_samplers_bar_shows_draws_and_their_rate(table, capsys):
    table.draw(log_M=3.0, progress=True)
    shown = capsys.readouterr()
    assert "500/500 draws" in shown.err
    assert "acceptance" in shown.err
    assert shown.out == ""
