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
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from rskernels.envelope import Envelope
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.artifacts.figures import Bar, describe, draw_curves, write_summary
from rskernels.rsft.artifacts.metrics import MetricsWriter, evaluate
from rskernels.rsft.balance import Balance
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.methods.config import Config, make_envelope
from rskernels.rsft.methods.gradient import make_task
from rskernels.rsft.rules import State, log_ratio


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
    DataError
        If the data, the imbalance or the test fraction cannot be had.
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
    Σ(w/M − 1)₊ / Σ w/M, and its mean over the steps; ``gradient_ess`` is (Σv)²/Σv² over all
    gradient samples, v the share that each had in the gradient of its step; ``envelope`` is
    ``Envelope.report`` of the run so far with the pilot pass, null where the rule rejects nothing.
    A batch of which nothing is accepted is a skipped step: its loss is null and the parameters and
    momentum stay as they are.

    Where the data have several modalities, an epoch's line tells the accuracy on each and how many
    of its rows were used. A rule that balances them raises the M of the envelope, whose report
    stays that of its own M; ``log_M_image`` and the like are what was decided with.
    """
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(config.threads)

        generator = torch.Generator().manual_seed(config.seed)
        task, rule = make_task(config, generator), config.rule
        pool, model = task.pool, task.model
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum)
        balance = Balance(task.modality, task.modalities, has_M=rule.balances)
        text, half_life = rule.envelope or config.envelope, config.half_life
        envelope = make_envelope(
            text,
            None if rule.envelope else half_life,
            default=balance.fewest(len(task.pilot)),
            groups=balance.groups,
        )
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
            "squared_weights": 0.0,
            "seconds": 0.0,
        }

        if resume:
            saved = checkpoint.load(
                out / "checkpoint.pt",
                expected=dataclasses.asdict(config),
                free=frozenset({"epochs"}),
                needed=frozenset(
                    {
                        *("model", "optimizer", "envelope", "balance"),
                        *("generator", "epoch", "position", "total"),
                    }
                ),
            )
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            if config.freeze:
                envelope = Envelope("fixed", M=saved["envelope"]["M"])
            envelope.load_state_dict(saved["envelope"])
            balance.load_state_dict(saved["balance"])
            generator.set_state(saved["generator"])
            first_epoch, position, total = saved["epoch"], saved["position"], saved["total"]
            if first_epoch > config.epochs:
                raise checkpoint.CheckpointError(
                    f"{out} has trained {first_epoch} epochs, more than epochs={config.epochs}"
                )
        else:
            start_afresh(out, overwrite=overwrite)
            if rule.rejects and rule.envelope is None:
                # q of the untrained model, so that the first batch does not decide its own M.
                started = time.perf_counter()
                with torch.no_grad():
                    pilot = torch.cat(
                        [
                            log_ratio(
                                model(pool.inputs[rows]), pool.labels[rows], task.log_density[rows]
                            )
                            for rows in torch.split(task.pilot, config.batch_size)
                        ]
                    )
                # One update: what comes after it counts as decided with its M.
                envelope.update(pilot, balance.group(task.pilot))
                balance.update(task.pilot, pilot)
                if config.freeze:
                    envelope = Envelope("fixed", M=float(envelope.M()))
                total["seconds"] += time.perf_counter() - started

        bar = stack.enter_context(Bar(config.epochs, done=first_epoch, on=progress))
        writer = stack.enter_context(MetricsWriter(out, position=position, step=total["step"]))

        for epoch in range(first_epoch, config.epochs):
            losses = []
            order, drawn, moved = task.order(epoch, generator)
            log_densities = task.log_density if moved is None else moved
            batches = torch.split(order, config.batch_size)
            for rows in batches:
                started = time.perf_counter()
                inputs, labels = pool.inputs[rows], pool.labels[rows]
                targets, log_density = task.targets[rows], log_densities[rows]
                if task.logits is None:
                    with torch.set_grad_enabled(not rule.rejects):
                        logits = model(inputs)  # [N, C]
                else:
                    logits = task.logits[rows]
                group, ratios = balance.group(rows), None
                if rule.rejects and envelope.policy == "leave_one_out":
                    ratios = log_ratio(logits, targets, log_density)
                log_M = envelope.log_M(group, log_ratio=ratios)  # [N], or one of all
                if group is not None:
                    log_M = log_M.maximum(balance.log_M(envelope.log_M())[group])
                state = State(log_M, config.seed, total["rows"])
                chosen = rule.select(logits.detach(), targets, log_density, state)
                accepted, violations, invalid, _ = chosen.counts.tolist()
                total["step"] += 1
                total["rows"] += len(rows)
                if invalid == len(rows):
                    raise TrainingError(
                        f"step {total['step']}: no row of the logits is finite; a smaller lr than "
                        f"{config.lr} may help"
                    )
                largest = float(log_M.max())
                if rule.rejects and math.isnan(largest):
                    raise TrainingError(
                        f"step {total['step']}: the envelope {text!r} has seen too few rows to "
                        "know an M for all of these; another policy needs fewer"
                    )
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
                    kept = model(inputs[keep]) if rule.rejects else logits[keep]
                    weights = chosen.weights[keep]
                    each = F.cross_entropy(kept, labels[keep], reduction="none")
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
                    share = weights / weights.sum()
                    total["squared_weights"] += float(share.square().sum())
                if rule.rejects:
                    # After the decision: a batch that sets its own M biases the accepted law.
                    envelope.update(chosen.log_ratio, group, accepted=chosen.mask)
                balance.update(rows, chosen.log_ratio, chosen.mask)
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
                acceptance = total["gradient_samples"] / total["rows"]
                bar.advance(1 / len(batches), loss=loss, acceptance=acceptance, M=M)

            scores = evaluate(model, task.test, task.counts)
            taken = total["step"] - total["skipped_steps"]
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
                "gradient_ess": taken**2 / total["squared_weights"] if taken else 0.0,
                "M": M,
                "envelope": envelope.report().to_dict() if rule.rejects else None,
                **balance.told(),
                **task.tell(model),
                **drawn,
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
                    "balance": balance.state_dict(),
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
        "pool": task.counts.tolist(),
        **task.about,
        "rows": total["rows"],
        "violations_share": total["violations"] / total["rows"],
        **{name: value for name, value in last.items() if name != "kind"},
    }
    draw_curves(
        records, out / "curves.png", title=f"{describe(summary['config'])}, seed {config.seed}"
    )
    write_summary(summary, out)
    return summary


def start_afresh(out: Path, *, overwrite: bool) -> None:
    """Make `out` ready for a new run, deleting an earlier run's files only when told to."""
    out.mkdir(parents=True, exist_ok=True)
    names = (
        "metrics.jsonl",
        "checkpoint.pt",
        "samples.pt",
        "proposal.pt",
        "curves.png",
        "summary.json",
        "events.out.tfevents.*",
    )
    earlier = [path for name in names for path in out.glob(name)]
    if earlier and not overwrite:
        raise FileExistsError(f"{out} already holds a run: resume it, overwrite it or name another")
    for path in earlier:
        path.unlink()
