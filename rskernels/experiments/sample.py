"""``rskernels sample``: a softmax regression whose parameters are drawn, without gradients."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rskernels.experiments.config import SampleConfig
from rskernels.experiments.networks import SoftmaxRegression
from rskernels.rsft import run
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.artifacts.figures import draw_trace
from rskernels.rsft.artifacts.metrics import MetricsWriter, evaluate
from rskernels.rsft.data.samples import Data
from rskernels.rsft.methods.metropolis import chain
from rskernels.rsft.methods.posterior import Loss, batched_loss, independent

KEPT = 200  # parameters that predict
RECORDED = 100  # steps in the metrics
STARTING_SIGMA = 0.1
LEAST_ACCEPTANCE = 1e-4  # each proposal is a pass over the pool
BLOCKS = 10  # of a run, after each of which it can be resumed


class Drawn(NamedTuple):
    """What has been drawn."""

    parameters: Tensor
    """``[n, d]``, those that predict."""
    trace: Tensor
    """``[steps, chains]``, the loss of each step."""
    measures: dict[str, Any]
    """For the summary."""


Keep = Callable[[dict[str, Any]], None]


def sample_parameters(
    config: SampleConfig, out: Path, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Draw parameters by rejection, predict by their mean, and write what came of it.

    Arguments and errors are those of `rskernels.experiments.families.run`. A run is resumed after
    its last block of steps or draws.
    """
    generator = torch.Generator().manual_seed(config.seed)
    data, digest, _ = config.load(generator)
    with run.locked_folder(out, resume=resume):
        saved: dict[str, Any] = {"state": None, "seconds": 0.0}
        if resume:
            saved = run.restore(config, out, digest, needed=frozenset(saved))
        else:
            run.start_afresh(out, overwrite=overwrite)

        def save(state: dict[str, Any]) -> None:
            run.save(config, out, digest, state)

        return _sample(config, out, data, generator, saved, save)


def _sample(
    config: SampleConfig,
    out: Path,
    data: Data,
    generator: torch.Generator,
    saved: Mapping[str, Any],
    save: Keep,
) -> dict[str, Any]:
    """Draw from where a run was saved, and write its files."""
    model = SoftmaxRegression(len(data.counts), data.pool.inputs[0].numel())
    size = sum(p.numel() for p in model.parameters())
    loss = batched_loss(model, data.pool, chunk=256)
    seed = int(torch.randint(1 << 62, (), generator=generator))
    started = time.perf_counter() - saved["seconds"]

    def keep(state: dict[str, Any]) -> None:
        save({"state": state, "seconds": time.perf_counter() - started})

    with MetricsWriter(out) as writer:
        if config.form == "chain":
            start = config.prior * torch.randn(config.chains or 1, size, generator=generator)
            drawn = walk(loss, start, config, seed, saved["state"], keep)
        else:
            drawn = draw(loss, size, config, seed, saved["state"], keep)
        seconds = time.perf_counter() - started
        trace = drawn.trace
        for step in range(0, len(trace), -(-len(trace) // RECORDED)):
            mean = float(trace[step].mean())
            writer.write({"kind": "step", "step": step + 1, "loss": mean})
    scores = evaluate(Mean(model, drawn.parameters), data.test, data.counts)
    summary: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "pool": data.counts.tolist(),
        "parameters": size,
        "loss": float(trace.mean()),
        **scores._asdict(),
        "gradient_samples": 0,
        **drawn.measures,
        "seconds": seconds,
    }
    samples = {"config": summary["config"], "samples": drawn.parameters}
    checkpoint.save(out / "samples.pt", samples)
    title = f"{config.title}, seed {config.seed}"
    draw_trace(trace, out / run.CURVES, title=title, label="mean loss of the pool")
    run.write_summary(summary, out)
    return summary


def walk(
    loss: Loss,
    start: Tensor,
    config: SampleConfig,
    seed: int,
    state: dict[str, Any] | None,
    keep: Keep,
) -> Drawn:
    """Draw parameters by `chain`, half of whose steps are burn-in."""
    steps, chains = (config.steps + 1) // 2, len(start)
    result = chain(
        with_prior(loss, config),
        start,
        steps=steps,
        burn_in=config.steps // 2,
        sigma=STARTING_SIGMA,
        acceptance=config.acceptance,
        # Of many chains, the fewest draws of each that tell whether they agree.
        thin=max(1, min(config.steps * chains // (2 * KEPT), steps // 4)),
        seed=seed,
        resume=state,
        keep=keep,
        every=-(-config.steps // BLOCKS),
    )
    measures = {
        "acceptance": result.acceptance_rate,
        "sigma": result.sigma,
        "r_hat": result.r_hat,
        "ess": result.ess,
    }
    return Drawn(result.samples.flatten(0, 1), result.losses, measures)


def draw(
    loss: Loss,
    size: int,
    config: SampleConfig,
    seed: int,
    state: dict[str, Any] | None,
    keep: Keep,
) -> Drawn:
    """Draw parameters by `independent`, a block at a time, each of its own seed.

    Parameters
    ----------
    loss : callable
        As `batched_loss` returns it, of ``size`` parameters.
    size : int
        Number of parameters d.
    config : SampleConfig
        Says steps, prior and tau.
    seed : int
        Decides the seeds of the blocks.
    state : dict, optional
        What ``keep`` was last called with: drawing continues there.
    keep : callable
        Called after each block with what has been drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = state or {"samples": torch.empty(0, size), "proposals": 0, "log_M": 0.0}
    block = -(-config.steps // BLOCKS)
    for first in range(0, config.steps, block):
        own = int(torch.randint(1 << 62, (), generator=generator))
        if first < len(drawn["samples"]):
            continue
        result = independent(
            loss,
            min(block, config.steps - first),
            centre=torch.zeros(size),
            prior=config.prior,
            tau=config.tau,
            min_acceptance=LEAST_ACCEPTANCE,
            seed=own,
        )
        drawn = {
            "samples": torch.cat([drawn["samples"], result.samples]),
            "proposals": drawn["proposals"] + result.proposals,
            "log_M": result.report.log_M,
        }
        keep(drawn)
    samples, proposals = drawn["samples"], drawn["proposals"]
    measures = {
        "acceptance": config.steps / proposals,
        "log_M": drawn["log_M"],
        "proposals": proposals,
        "ess": float(config.steps),
    }
    return Drawn(samples[:KEPT], loss(samples)[:, None], measures)


def with_prior(loss: Loss, config: SampleConfig) -> Loss:
    """Return −log of the posterior, but for a constant: L/tau and the normal prior's square."""
    return lambda theta: (
        loss(theta).double() / config.tau
        + theta.double().square().sum(dim=1) / (2 * config.prior**2)
    )


class Mean(nn.Module):
    """The mean probability over many parameters of one model, as logits.

    Parameters
    ----------
    model : Module
        Inputs to logits.
    parameters : Tensor
        ``[n, d]``.
    """

    def __init__(self, model: nn.Module, parameters: Tensor) -> None:
        super().__init__()
        self.shapes = {name: p.shape for name, p in model.named_parameters()}
        self.model = model
        self.draws = parameters

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the log of the mean probabilities, ``[N, C]``."""
        sizes = [shape.numel() for shape in self.shapes.values()]

        def one(theta: Tensor) -> Tensor:
            parts = zip(self.shapes.items(), theta.split(sizes), strict=True)
            named = {name: part.view(shape) for (name, shape), part in parts}
            logits: Tensor = functional_call(self.model, named, (inputs,))
            return logits.softmax(-1)

        probability: Tensor = vmap(one, chunk_size=16)(self.draws)
        return probability.mean(dim=0).log()
