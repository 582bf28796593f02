"""Fixtures: runs without figures, which are most of a tiny run's time, and on one thread."""

import pytest
import torch

FIGURES = (
    "rsft.run.draw_curves",
    "experiments.tune.draw_trace",
    "experiments.sample.draw_trace",
)


@pytest.fixture
def figures():
    """Keep the figures of runs."""


@pytest.fixture(autouse=True)
def one_thread_and_no_figures(request, monkeypatch):
    if "figures" not in request.fixturenames:
        for name in FIGURES:
            monkeypatch.setattr(f"rskernels.{name}", lambda *_, **__: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
