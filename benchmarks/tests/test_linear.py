"""The measurements from hidden states: all forms do the same, and the report hides nothing."""

import json
import math
import sys

import pytest
import torch

from benchmarks.common import affinity, results
from benchmarks.linear import decisions, losses, report, run, step

ALLOWED = 5.0  # standard errors
CASES = step.Case(64, False), step.Case(64, True)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make shapes small, and leave out what only takes time."""
    for module, sizes in (
        (decisions, {"N": 400, "D": 16, "V": 300, "ACCEPTED": (0.1, 1.0)}),
        (losses, {"N": 60, "D": 16, "V": 300}),
        (step, {"V": 300, "LAYERS": 1, "SEQUENCES": 2, "LENGTH": 16, "CASES": CASES}),
        (run, {"SECONDS": 0.0, "ROUNDS": (2, 2), "STEPS": 3}),
    ):
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(affinity, "bind", lambda: None)


@pytest.mark.parametrize("dtype", run.DTYPES)
def test_every_form_accepts_the_share_that_a_decision_names(dtype):
    inputs = decisions.draw(dtype)
    for accepted in decisions.ACCEPTED:
        forms = decisions.calls(inputs, accepted)
        assert forms.pop("product")() is None
        masks = {name: form() for name, form in forms.items()}
        masks["verify"] = masks["verify"].mask
        assert {*masks} == {"verify_mask", "verify", "eager", "compiled", "stored, verify_mask"}
        # Stored logits are rounded, which in bfloat16 moves every row's probability.
        log_q = decisions.stored(inputs).double().log_softmax(-1)
        log_q = log_q.gather(-1, inputs.targets[:, None])[:, 0]
        rounded = (log_q - inputs.log_prob + math.log(accepted)).clamp(max=0.0).exp()
        exact = torch.full_like(rounded, accepted)
        for name, mask in masks.items():
            chance = exact if name.startswith("verify") else rounded
            error = (chance * (1 - chance)).sum().sqrt().item()
            assert abs(mask.sum().item() - chance.sum().item()) < ALLOWED * error + 0.5, name


@pytest.mark.parametrize("dtype", run.DTYPES)
def test_the_gradients_agree(dtype):
    inputs = losses.draw(dtype)
    forms = losses.calls(inputs)
    forms.pop("products")()
    hidden, weight = forms.pop("ours")()
    part = forms.pop("ours, 30 % accepted")()
    kept = part[0].abs().sum(-1) > 0
    share = kept.float().mean().item()
    assert abs(share - losses.ACCEPTED) < ALLOWED * math.sqrt(0.21 / losses.N)
    # A mean over fewer rows.
    torch.testing.assert_close(part[0][kept], hidden[kept] / share, rtol=2e-2, atol=1e-6)
    close = {"rtol": 1e-4, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 0.1, "atol": 1e-4}
    assert "eager" in forms
    for form in forms.values():
        for got, want in zip(form(), (hidden, weight), strict=True):
            torch.testing.assert_close(got, want, **close)


def test_the_report_is_written(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the step's model is one of transformers")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "DTYPES", run.DTYPES[:1])
    monkeypatch.setattr(sys, "argv", ["run"])
    run.main()
    assert {path.name for path in tmp_path.iterdir()} == {"linear.json", "linear.md"}
    record = json.loads((tmp_path / "linear.json").read_text(encoding="utf-8"))
    text = (tmp_path / "linear.md").read_text(encoding="utf-8")
    for heading in ("Decision: verify_mask", "Loss and gradients", "A training step"):
        assert f"## {heading}" in text
    whats = [case["what"] for case in record["cases"]]
    assert whats == ["decision"] * 2 + ["loss", "step", "step"]
    for case in record["cases"][-2:]:
        curves = case["curves"].values()
        assert [len(curve) for curve in curves] == [len(next(iter(curves)))] * 2
        for a, b in zip(*curves, strict=True):
            assert a == pytest.approx(b, rel=1e-4)


def test_a_part_is_written_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "DTYPES", run.DTYPES[:1])
    monkeypatch.setattr(sys, "argv", ["run", "--only", "loss"])
    run.main()
    assert {path.name for path in tmp_path.iterdir()} == {"linear-part.json", "linear-part.md"}
    assert "## Decision" not in (tmp_path / "linear-part.md").read_text(encoding="utf-8")


def test_what_is_not_met_is_marked():
    names = "verify_mask", "verify", "eager", "compiled", "stored, verify_mask", "product"
    case = {
        "what": "decision", "dtype": "float32", "accepted": 0.01,
        "seconds": {**dict.fromkeys(names, 1.0), "eager": 24.0},
        "memory": dict.fromkeys(names, 2.0**20),
    }  # fmt: skip
    record = {
        "machine": {}, "versions": {}, "command": "", "date": "", "seconds": 1, "cases": [case],
    }  # fmt: skip
    assert "| float32, 1 %: × eager | ≥ 25 | 24 | **not met** |" in report.markdown(record)
    case["seconds"]["eager"] = 25.0
    assert "**not met**" not in report.markdown(record)
