import pytest


@pytest.fixture(autouse=True)
def no_figure(request, monkeypatch):
    """Draw no figures, which take longer than the selection, but where a test asks for one."""
    if "figure" not in request.node.name:
        monkeypatch.setattr("rskernels.pipeline.report.draw", lambda report, path: False)
