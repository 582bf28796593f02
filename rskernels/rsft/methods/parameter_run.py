"""``rskernels train --method parameter``: a softmax regression, its parameters drawn by rejection.

rskernels train --data wine --method parameter --form chain --out runs/chain
rskernels train --data wine --method parameter --form independent --tau 0.5 --out runs/independent
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rskernels.experiments.networks import SoftmaxRegression
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.artifacts.figures import describe, draw_trace, write_summary
from rskernels.rsft.artifacts.metrics import MetricsWriter, evaluate
from rskernels.rsft.loop import start_afresh
from rskernels.rsft.methods.config import Config, load
from rskernels.rsft.methods.parameter import Loss, batched_loss, chain, independent

# Parameters kept for the prediction, and steps told of in the metrics.
KEPT, TOLD = 200, 100
STARTING_SIGMA = 0.1
LEAST_ACCEPTANCE = 1e-4  # each proposal is a pass over the pool
BLOCKS = 10  # of a run, after each of which it can be resumed


def run_parameter(
    config: Config, out: Path, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Draw parameters by rejection, predict by their mean, and write what came of it.

    Parameters
    ----------
    config : Config
        Of method "parameter".
    out : Path
        Folder for ``metrics.jsonl``, TensorBoard events, ``checkpoint.pt``, ``samples.pt``,
        ``curves.png`` and ``summary.json``.
    resume : bool
        Continue after the last block of steps or draws in `out`; the configuration is the same.
    overwrite : bool
        Replace a run that `out` already holds, once the data are there.

    Returns
    -------
    dict
        The summary: the configuration under ``"config"`` and the measurements.

    Raises
    ------
    DataError
        If the data, the imbalance or the test fraction cannot be had.
    FileExistsError
        If `out` holds a run and neither `resume` nor `overwrite` is given.
    CheckpointError
        If there is no checkpoint to resume, or it is damaged or of another configuration.
    RejectionError
        If "independent" accepts next to nothing.
    """
    saved: dict[str, Any] = {"state": None, "seconds": 0.0}
    if resume:
        saved = checkpoint.load(
            out / "checkpoint.pt",
            expected=dataclasses.asdict(config),
            free=frozenset(),
            needed=frozenset(saved),
        )
    generator = torch.Generator().manual_seed(config.seed)
    data = load(config, generator)
    if not resume:
        start_afresh(out, overwrite=overwrite)
    model = SoftmaxRegression(len(data.counts), data.pool.inputs[0].numel())
    size = sum(p.numel() for p in model.parameters())
    loss = batched_loss(model, data.pool, chunk=256)
    seed = int(torch.randint(1 << 62, (), generator=generator))
    started = time.perf_counter() - saved["seconds"]

    def keep(state: dict[str, Any]) -> None:
        checkpoint.save(
            out / "checkpoint.pt",
            {
                "config": dataclasses.asdict(config),
                "state": state,
                "seconds": time.perf_counter() - started,
            },
        )

    with MetricsWriter(out) as writer:
        if config.form == "chain":
            steps = (config.steps + 1) // 2
            start = config.prior * torch.randn(config.chains, size, generator=generator)
            walk = chain(
                with_prior(loss, config),
                start,
                steps=steps,
                burn_in=config.steps // 2,
                sigma=STARTING_SIGMA,
                acceptance=config.acceptance,
                # Of many chains, the fewest draws of each that tell whether they agree.
                thin=max(1, min(config.steps * config.chains // (2 * KEPT), steps // 4)),
                seed=seed,
                resume=saved["state"],
                keep=keep,
                every=-(-config.steps // BLOCKS),
            )
            parameters, trace = walk.samples.flatten(0, 1), walk.losses
            found = {
                "acceptance": walk.acceptance_rate,
                "sigma": walk.sigma,
                "r_hat": walk.r_hat,
                "ess": walk.ess,
            }
        else:
            drawn = draw_in_blocks(loss, size, config, seed, saved["state"], keep)
            samples, proposals = drawn["samples"], drawn["proposals"]
            parameters, trace = samples[:KEPT], loss(samples)[:, None]
            found = {
                "acceptance": config.steps / proposals,
                "log_M": drawn["log_M"],
                "proposals": proposals,
                "ess": float(config.steps),
            }
        seconds = time.perf_counter() - started
        for step in range(0, len(trace), -(-len(trace) // TOLD)):
            told = float(trace[step].mean())
            writer.write({"kind": "step", "step": step + 1, "loss": told})
    scores = evaluate(Mean(model, parameters), data.test, data.counts)
    summary: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "pool": data.counts.tolist(),
        "parameters": size,
        "loss": float(trace.mean()),
        **scores._asdict(),
        "gradient_samples": 0,
        **found,
        "seconds": seconds,
    }
    checkpoint.save(out / "samples.pt", {"config": summary["config"], "samples": parameters})
    title = f"{describe(summary['config'])}, seed {config.seed}"
    draw_trace(trace, out / "curves.png", title=title, label="mean loss of the pool")
    write_summary(summary, out)
    return summary


def draw_in_blocks(
    loss: Loss,
    size: int,
    config: Config,
    seed: int,
    state: dict[str, Any] | None,
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Draw `config.steps` parameters by `independent`, a block at a time, each of its own seed.

    Parameters
    ----------
    loss : callable
        As `batched_loss` returns it, of ``size`` parameters.
    size : int
        Number of parameters d.
    config : Config
        Says steps, prior and tau.
    seed : int
        Decides the seeds of the blocks.
    state : dict, optional
        What ``keep`` was last given: drawing continues there.
    keep : callable
        Called after each block with what has been drawn.

    Returns
    -------
    dict
        ``"samples"`` ``[steps, d]``, ``"proposals"`` and ``"log_M"``.
    """
    generator = torch.Generator().manual_seed(seed)
    found = state or {"samples": torch.empty(0, size), "proposals": 0, "log_M": 0.0}
    block = -(-config.steps // BLOCKS)
    for first in range(0, config.steps, block):
        own = int(torch.randint(1 << 62, (), generator=generator))
        if first < len(found["samples"]):
            continue
        drawn = independent(
            loss,
            min(block, config.steps - first),
            centre=torch.zeros(size),
            prior=config.prior,
            tau=config.tau,
            min_acceptance=LEAST_ACCEPTANCE,
            seed=own,
        )
        found = {
            "samples": torch.cat([found["samples"], drawn.samples]),
            "proposals": found["proposals"] + drawn.proposals,
            "log_M": drawn.report.log_M,
        }
        keep(found)
    return found


def with_prior(loss: Loss, config: Config) -> Loss:
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
