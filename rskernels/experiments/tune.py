"""``rskernels tune``: a proposal fine-tuned to draw what the data look like."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from rskernels.experiments.config import TuneConfig
from rskernels.rsft import run
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.artifacts.figures import draw_trace
from rskernels.rsft.artifacts.metrics import MetricsWriter
from rskernels.rsft.data.samples import Samples, as_float
from rskernels.rsft.data.splits import rows_of_each_class
from rskernels.rsft.errors import CheckpointError
from rskernels.rsft.methods.proposals import CouplingProposal, FamilyProposal
from rskernels.rsft.methods.tuning import Round, Tuned, tune

COMPONENTS = 5
# Of the first proposal, as multiples of the target's.
SPREAD = 2.0
# Of a class's covariance, taken from that of all: a class may have fewer rows than components.
SHRUNK = 0.2


def tune_proposal(
    config: TuneConfig, out: Path, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Fine-tune a proposal towards the density of the data, and write what came of it.

    The target is a mixture of a normal for each class of the pool, in the space of its first
    principal components. Arguments and errors are those of `rskernels.experiments.families.run`;
    of a run that is resumed only ``rounds`` may differ. The summary has M, acceptance and draws per
    second at the start and at the end.
    """
    generator = torch.Generator().manual_seed(config.seed)
    data, digest, _ = config.load(generator)
    with run.locked_folder(out, resume=resume):
        saved: dict[str, Any] = {"position": 0, "state": None}
        done = 0
        if resume:
            saved = run.restore(config, out, digest, needed=frozenset(saved))
            done = len(saved["state"]["rounds"]) - 1
            if done > config.rounds:
                raise CheckpointError(
                    f"{out} has tuned {done} rounds, more than rounds={config.rounds}"
                )
        else:
            run.start_afresh(out, overwrite=overwrite)
        target = class_mixture(data.pool)
        start = first_proposal(target, config.proposal, generator)
        with MetricsWriter(out, position=saved["position"], step=done) as writer:

            def keep(state: dict[str, Any]) -> None:
                measures = Round(*state["rounds"][-1])._asdict()
                record = {k: None if math.isnan(float(v)) else v for k, v in measures.items()}
                writer.write({"kind": "round", "step": len(state["rounds"]) - 1, **record})
                kept = {"state": state, "position": writer.position()}
                run.save(config, out, digest, kept)

            tuned = tune(
                target.log_prob,
                start,
                rounds=config.rounds,
                draws=config.draws,
                seed=int(torch.randint(1 << 62, (), generator=generator)),
                resume=saved["state"],
                keep=keep,
            )
        return finish(config, tuned, data.counts, out)


def finish(config: TuneConfig, tuned: Tuned, counts: Tensor, out: Path) -> dict[str, Any]:
    """Write the proposal, the curves and the summary, and return the latter."""
    first = tuned.rounds[0]
    best = max((r for r in tuned.rounds if r.is_kept), key=lambda r: r.acceptance_rate)
    summary: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "pool": counts.tolist(),
        "log_M_start": first.log_M,
        "log_M": best.log_M,
        "acceptance_start": first.acceptance_rate,
        "acceptance": best.acceptance_rate,
        "gain": tuned.gain,
        "draws_per_second_start": first.draws_per_second,
        "draws_per_second": best.draws_per_second,
        "draws": len(tuned.samples),
    }
    checkpoint.save(
        out / "proposal.pt",
        {"config": summary["config"], "proposal": tuned.proposal.state_dict()},
    )
    title = f"{config.title}, seed {config.seed}"
    trace = torch.tensor([[r.acceptance_rate] for r in tuned.rounds])
    draw_trace(trace, out / run.CURVES, title=title, label="acceptance rate", axis="round")
    run.write_summary(summary, out)
    return summary


def class_mixture(pool: Samples) -> MixtureSameFamily:
    """Return a normal for each class, by its share, in the pool's first principal components.

    Parameters
    ----------
    pool : Samples
        Every class needs a row.

    Returns
    -------
    MixtureSameFamily
        Of draws float32 ``[k]``, k of at most 5, each component of variance 1 over the pool.
    """
    rows = as_float(pool.inputs).flatten(1).double()
    left, singular, _ = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    held = int((singular > 1e-6 * singular[0]).sum())
    x = left[:, : min(COMPONENTS, held)] * math.sqrt(len(rows))  # [N, k]
    whole = torch.eye(x.shape[1], dtype=x.dtype)
    means, covariances, shares = [], [], []
    for members in rows_of_each_class(pool.labels):
        own = x[members]
        centred = own - own.mean(dim=0)
        covariance = centred.T @ centred / len(own)
        means.append(own.mean(dim=0))
        covariances.append((1 - SHRUNK) * covariance + SHRUNK * whole)
        shares.append(len(own) / len(x))
    normals = MultivariateNormal(
        torch.stack(means).float(),
        scale_tril=torch.linalg.cholesky(torch.stack(covariances)).float(),
    )
    return MixtureSameFamily(Categorical(torch.tensor(shares)), normals)


def first_proposal(target: MixtureSameFamily, kind: str, generator: torch.Generator) -> nn.Module:
    """Return a normal that is wider than the target, or couplings on top of it."""
    mean: Tensor = target.mean
    scale_tril = torch.diag(SPREAD * target.variance.sqrt())
    if kind == "normal":
        return FamilyProposal(MultivariateNormal, loc=mean, scale_tril=scale_tril)
    return CouplingProposal(MultivariateNormal(mean, scale_tril=scale_tril), generator=generator)
