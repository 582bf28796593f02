"""The gradient loop: score a batch, select samples by a rule, step on what was selected.

    rskernels train --data digits --method accept --envelope quantile:0.9 --seed 0 --out runs/try
    rskernels train --data digits --method accept --envelope quantile:0.9 --seed 0 --out runs/try \
        --resume

Everything random comes from the seed; a resumed run continues bit-identically.
"""

import dataclasses
import json
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import rskernels
from rskernels.envelope_options import FORGETTING, parse_spec
from rskernels.rsft import checkpoint
from rskernels.rsft.data import DATASETS, load_data, log_class_balance
from rskernels.rsft.metrics import MetricsWriter, evaluate
from rskernels.rsft.model import SmallCNN
from rskernels.rsft.report import Bar, describe, draw_curves
from rskernels.rsft.select import RULES, State, log_ratio

# The most of each that is accepted: what torch takes, and threads that a machine can start.
LIMITS = {"epochs": 2**31 - 1, "batch_size": 2**31 - 1, "threads": 1024}
LARGEST_LR = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Config:
    """What a run is: two runs of equal Config are bit-identical.

    Attributes
    ----------
    data : str
        One of ``rskernels.rsft.data.DATASETS``.
    method : str
        One of ``rskernels.rsft.select.RULES``.
    envelope : str
        Policy of the envelope constant M, as ``Envelope.parse`` reads it. Read by rules that
        reject.
    half_life : float, optional
        Samples after which a quantile, budget or decayed envelope has forgotten half of what it
        saw, since q moves as the model learns. One pass over the pool by default; inf never
        forgets.
    imbalance : float
        Most frequent class of the pool over its rarest.
    test_fraction : float
        Share of the smallest class held out.
    epochs, batch_size : int
        Passes over the pool and samples of a batch.
    lr, momentum : float
        Of SGD.
    seed : int
        Decides split, pool, initial weights, order and draws.
    threads : int
        Of torch; the bits of a convolution depend on it.
    """

    data: str = "digits"
    method: str = "accept"
    envelope: str = "quantile:0.9"
    half_life: float | None = None
    imbalance: float = 20.0
    test_fraction: float = 0.4
    epochs: int = 30
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.data not in DATASETS:
            raise ValueError(f"data={self.data!r}: accepted are {', '.join(DATASETS)}")
        if self.method not in RULES:
            raise ValueError(f"method={self.method!r}: accepted are {', '.join(RULES)}")
        for name, limit in LIMITS.items():
            if not 1 <= getattr(self, name) <= limit:
                raise ValueError(f"{name}={getattr(self, name)}: accepted is 1 to {limit}")
        if not 0 < self.lr <= LARGEST_LR:
            raise ValueError(f"lr={self.lr}: a positive number up to {LARGEST_LR:.2g} is needed")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: accepted is [0, 1)")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed={self.seed}: accepted is 0 to 2**63 - 1")
        # Where none is given the length of the pool, not known yet, will do for any policy.
        make_envelope(self.envelope, self.half_life, default=1.0)


class TrainingError(RuntimeError):
    """Training cannot go on: the loss, the logits or the envelope constant are not finite."""


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a model and write metrics, events, checkpoint, curves and summary.

    Parameters
    ----------
    config : Config
        The run.
    out : Path
        Folder for ``metrics.jsonl``, TensorBoard events, ``checkpoint.pt``, ``curves.png`` and
        ``summary.json``.
    resume : bool
        Continue from the checkpoint in `out`; of the configuration only `epochs` may differ.
    overwrite : bool
        Replace a run that `out` already holds.
    progress : bool
        Show a progress bar where the output is a terminal.

    Returns
    -------
    dict
        The summary: the configuration under ``"config"`` and the final measurements.

    Raises
    ------
    ValueError
        If the imbalance or test fraction cannot be had.
    FileExistsError
        If `out` holds a run and neither `resume` nor `overwrite` is given.
    CheckpointError
        If there is no checkpoint to resume, or it is damaged or of another configuration.
    NoFiniteM
        If the envelope is "tail" and the ratios have no finite M.
    TrainingError
        If the loss, M or a ratio to it, or every logit row of a batch, is not finite.

    Notes
    -----
    ``metrics.jsonl`` has a line for each step, of that batch alone, and a line for each epoch,
    where every count, share and time is that of the run so far; ``delta`` is the batch's
    Σ(w/M − 1)₊ / Σ w/M, and its mean over the steps; ``envelope`` is ``Envelope.report`` of the
    run so far with the pilot pass, null where the rule rejects nothing. A batch of which nothing
    is accepted is a skipped step: its loss is null and the parameters and momentum stay as they
    are.
    """
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(config.threads)

        generator = torch.Generator().manual_seed(config.seed)
        pool, test, counts = load_data(
            config.data,
            imbalance=config.imbalance,
            test_fraction=config.test_fraction,
            generator=generator,
        )
        log_p_hat = log_class_balance(counts)  # [C]
        rule = RULES[config.method]
        model = SmallCNN(len(counts), pool.images.shape[-1], generator)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
        envelope = make_envelope(config.envelope, config.half_life, default=len(pool.labels))
        first_epoch = 0
        position = 0
        total: dict[str, Any] = {
            "step": 0,
            "rows": 0,
            "gradient_samples": 0,
            "skipped_steps": 0,
            "violations": 0,
            "invalid": 0,
            "delta": 0.0,
            "seconds": 0.0,
        }

        if resume:
            saved = checkpoint.load(
                out / "checkpoint.pt",
                expected=dataclasses.asdict(config),
                free=frozenset({"epochs"}),
                needed=frozenset(
                    {"model", "optimizer", "envelope", "generator", "epoch", "position", "total"}
                ),
            )
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            envelope.load_state_dict(saved["envelope"])
            generator.set_state(saved["generator"])
            first_epoch, position, total = saved["epoch"], saved["position"], saved["total"]
            if first_epoch > config.epochs:
                raise checkpoint.CheckpointError(
                    f"{out} has trained {first_epoch} epochs, more than epochs={config.epochs}"
                )
        else:
            start_afresh(out, overwrite=overwrite)
            if rule.rejects:
                # q of the untrained model, so that the first batch does not decide its own M.
                started = time.perf_counter()
                # One update: what comes after it counts as decided with its M.
                with torch.no_grad():
                    pilot = [
                        log_ratio(model(pool.images[rows]), pool.labels[rows], log_p_hat)
                        for rows in torch.split(torch.arange(len(pool.labels)), config.batch_size)
                    ]
                envelope.update(torch.cat(pilot))
                total["seconds"] += time.perf_counter() - started

        batches = math.ceil(len(pool.labels) / config.batch_size)
        bar = stack.enter_context(
            Bar(config.epochs * batches, done=first_epoch * batches, on=progress)
        )
        writer = stack.enter_context(MetricsWriter(out, position=position, step=total["step"]))

        for epoch in range(first_epoch, config.epochs):
            losses = []
            order = torch.randperm(len(pool.labels), generator=generator)
            for rows in torch.split(order, config.batch_size):
                started = time.perf_counter()
                images, targets = pool.images[rows], pool.labels[rows]
                with torch.set_grad_enabled(not rule.rejects):
                    logits = model(images)  # [N, C]
                log_M = envelope.log_M()
                if rule.rejects and envelope.policy == "leave_one_out":
                    ratios = log_ratio(logits, targets, log_p_hat)
                    log_M = envelope.log_M(log_ratio=ratios)  # [N]
                chosen = rule.select(
                    logits.detach(), targets, log_p_hat, State(log_M, config.seed, total["rows"])
                )
                accepted, violations, invalid, _ = chosen.counts.tolist()
                total["step"] += 1
                total["rows"] += len(rows)
                if invalid == len(rows):
                    raise TrainingError(
                        f"step {total['step']}: no row of the logits is finite; a smaller lr than "
                        f"{config.lr} may help"
                    )
                largest = float(log_M.max())
                M = float(log_M.max().exp()) if rule.rejects else None
                over, mass = chosen.excess.tolist()
                if not all(map(math.isfinite, (M or 0.0, over, mass))):
                    raise TrainingError(
                        f"step {total['step']}: training diverged: M, exp({largest:.4g}), or "
                        f"a p̂/q of the batch is too large for a float; a smaller lr than "
                        f"{config.lr} may help"
                    )
                loss = None
                if accepted:
                    keep = chosen.mask
                    kept = model(images[keep]) if rule.rejects else logits[keep]
                    weights = chosen.weights[keep]
                    each = F.cross_entropy(kept, targets[keep], reduction="none")
                    batch_loss = (weights * each).sum() / weights.sum()
                    loss = float(batch_loss.detach())
                    if not math.isfinite(loss):
                        raise TrainingError(
                            f"step {total['step']}: the loss is {loss}; a smaller lr than "
                            f"{config.lr} may help"
                        )
                    optimizer.zero_grad()
                    batch_loss.backward()
                    optimizer.step()
                    losses.append(loss)
                if rule.rejects:
                    # After the decision: a batch that sets its own M biases the accepted law.
                    envelope.update(chosen.log_ratio, accepted=chosen.mask)
                seconds = time.perf_counter() - started

                total["gradient_samples"] += accepted
                total["skipped_steps"] += not accepted
                total["violations"] += violations
                total["invalid"] += invalid
                delta = over / mass if mass else 0.0
                total["delta"] += delta
                total["seconds"] += seconds
                writer.write(
                    {
                        "kind": "step",
                        "step": total["step"],
                        "loss": loss,
                        "acceptance": accepted / len(rows),
                        "violations": violations,
                        "invalid": invalid,
                        "delta": delta,
                        "M": M,
                        "seconds": seconds,
                    }
                )
                bar.advance(loss=loss, acceptance=total["gradient_samples"] / total["rows"], M=M)

            scores = evaluate(model, test, counts)
            epoch_record = {
                "kind": "epoch",
                "step": total["step"],
                "epoch": epoch + 1,
                "loss": sum(losses) / len(losses) if losses else None,
                **scores._asdict(),
                "gradient_samples": total["gradient_samples"],
                "acceptance": total["gradient_samples"] / total["rows"],
                "skipped_steps": total["skipped_steps"],
                "violations": total["violations"],
                "invalid": total["invalid"],
                "delta": total["delta"] / total["step"],
                "M": M,
                "envelope": envelope.report().to_dict() if rule.rejects else None,
                "seconds": total["seconds"],
            }
            writer.write(epoch_record)
            checkpoint.save(
                out / "checkpoint.pt",
                {
                    "config": dataclasses.asdict(config),
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "envelope": envelope.state_dict(),
                    "generator": generator.get_state(),
                    "epoch": epoch + 1,
                    "position": writer.position(),
                    "total": total,
                },
            )

    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = next(record for record in reversed(records) if record["kind"] == "epoch")
    summary = {
        "config": dataclasses.asdict(config),
        "pool": counts.tolist(),
        "rows": total["rows"],
        "violations_share": total["violations"] / total["rows"],
        **{name: value for name, value in last.items() if name != "kind"},
    }
    draw_curves(
        records, out / "curves.png", title=f"{describe(summary['config'])}, seed {config.seed}"
    )
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def make_envelope(text: str, half_life: float | None, *, default: float) -> rskernels.Envelope:
    """Return the envelope of a text; one that forgets does so by `default` if none is given."""
    policy, parameter = parse_spec(text)
    if half_life is None and policy in FORGETTING and "half_life" not in parameter:
        half_life = default
    return rskernels.Envelope.parse(text, half_life=None if half_life == math.inf else half_life)


def start_afresh(out: Path, *, overwrite: bool) -> None:
    """Make `out` ready for a new run, deleting an earlier run's files only when told to."""
    out.mkdir(parents=True, exist_ok=True)
    names = (
        "metrics.jsonl",
        "checkpoint.pt",
        "curves.png",
        "summary.json",
        "events.out.tfevents.*",
    )
    earlier = [path for name in names for path in out.glob(name)]
    if earlier and not overwrite:
        raise FileExistsError(f"{out} already holds a run: resume it, overwrite it or name another")
    for path in earlier:
        path.unlink()
