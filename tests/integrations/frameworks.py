"""verl itself, stand-ins with the signatures of other frameworks, and a law to decide by.

verl is 0.9.1, also where only its signature stands in. slime and prime-rl are in no index:
prime-rl's ``LossInputs`` and ``LossOutputs`` and slime's call of its hook are those of September
2026.
"""

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

APART = Path(sys.prefix) / "frameworks"  # where `make test` installs what verl.txt lists


@dataclass
class LossInputs:
    trainer_logprobs: torch.Tensor
    inference_logprobs: torch.Tensor
    ref_logprobs: torch.Tensor | None
    advantages: torch.Tensor
    loss_mask: torch.Tensor
    loss_weights: torch.Tensor | None = field(default=None)
    trainer_mask_logprobs: torch.Tensor | None = field(default=None)
    inference_mask_logprobs: torch.Tensor | None = field(default=None)


@dataclass
class LossOutputs:
    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]


def put_modules(monkeypatch, **modules):
    """Put modules in the place of packages; a double underscore in a name stands for a dot."""
    for name, attributes in modules.items():
        parts = name.replace("__", ".").split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules or end == len(parts):
                monkeypatch.setitem(sys.modules, path, ModuleType(path))
            if end > 1:
                parent = sys.modules[".".join(parts[: end - 1])]
                monkeypatch.setattr(parent, parts[end - 1], sys.modules[path], raising=False)
        vars(sys.modules[path]).update(attributes)
    return path


def installed_verl(monkeypatch):
    """Return verl's own two modules, as ``core_algos, helper``; skip where it is not installed."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(APART)])
    reason = "verl is not installed, as make test does for Python below 3.13"
    pytest.importorskip("verl", reason=reason)
    core = importlib.import_module("verl.trainer.ppo.core_algos")
    helper = importlib.import_module("verl.trainer.ppo.rollout_corr_helper")
    name = "compute_rollout_rejection_mask"
    monkeypatch.setattr(helper, name, getattr(helper, name))
    for registry in ("POLICY_LOSS_REGISTRY", "ADV_ESTIMATOR_REGISTRY"):
        monkeypatch.setattr(core, registry, dict(getattr(core, registry)))
    return core, helper


def recorded_verl(monkeypatch):
    """Return verl's two modules with what an adapter touches, as ``core_algos, helper``."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "verl"]:
        monkeypatch.delitem(sys.modules, name)
    losses, estimators = {}, {}

    def register(registry):
        def named(name):
            return lambda function: registry.setdefault(name, function)

        return named

    def agg_loss(loss_mat, loss_mask, loss_agg_mode, dp_size=1, batch_num_tokens=None, **rest):
        assert loss_agg_mode == "token-mean"
        tokens = loss_mask.sum() if batch_num_tokens is None else batch_num_tokens
        return (loss_mat * loss_mask).sum() / tokens * dp_size

    def thresholds(log_ratio, response_mask, rollout_rs="token_k1", rollout_rs_threshold=None):
        assert rollout_rs == "token_k2"
        kept = log_ratio.square() / 2 <= float(rollout_rs_threshold)
        return response_mask * kept.to(response_mask.dtype), {"rollout_rs_masked_fraction": 0.5}

    core = {
        "POLICY_LOSS_REGISTRY": losses,
        "ADV_ESTIMATOR_REGISTRY": estimators,
        "register_policy_loss": register(losses),
        "register_adv_est": register(estimators),
        "get_policy_loss_fn": losses.__getitem__,
        "get_adv_estimator_fn": estimators.__getitem__,
        "agg_loss": agg_loss,
    }
    put_modules(
        monkeypatch,
        verl__trainer__ppo__core_algos=core,
        verl__trainer__ppo__rollout_corr_helper={"compute_rollout_rejection_mask": thresholds},
    )
    ppo = sys.modules["verl.trainer.ppo"]
    return ppo.core_algos, ppo.rollout_corr_helper


def actor_config(rollout_rs=None, threshold=None):
    """Return what a policy loss reads of verl's ``ActorConfig``."""
    correction = {"rollout_rs": rollout_rs, "rollout_rs_threshold": threshold}
    return SimpleNamespace(policy_loss={"rollout_correction": correction}, global_batch_info={})


class Law:
    """Sequences of two tokens out of three: a proposal q, a target p, and draws from q."""

    def __init__(self, size, seed=5):
        generator = torch.Generator().manual_seed(seed)
        tables = torch.randn(2, 4, 3, generator=generator).double().log_softmax(-1)
        self.q, self.p = tables
        first = torch.multinomial(self.q[0].exp(), size, True, generator=generator)
        rest = torch.rand(size, 1, generator=generator)
        cumulative = self.q[1 + first].exp().cumsum(-1)
        second = (rest > cumulative).sum(-1).clamp(max=2)
        self.first, self.second = first, second
        self.log_q, self.log_p = (
            torch.stack([table[0][first], table[1 + first, second]], 1)
            for table in (self.q, self.p)
        )
        joint = [table[0][:, None] + table[1:] for table in (self.q, self.p)]
        self.M = (joint[1] - joint[0]).exp().max().item()
        self.target = joint[1].exp().flatten()

    def chi_squared(self, kept):
        """Return the p-value of the accepted sequences being draws of p."""
        from scipy.stats import chisquare

        seen = torch.bincount((3 * self.first + self.second)[kept], minlength=9)
        return chisquare(seen.numpy(), (self.target * seen.sum()).double().numpy()).pvalue
