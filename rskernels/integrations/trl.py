"""TRL trainers that decide by rejection: which tokens or samples are learnt from, which rollouts.

:class:`RSFTTrainer` fine-tunes on what is accepted; :class:`RejectionGRPOTrainer` corrects stale
rollouts exactly, before their advantages are computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels._python.extras import HF_HINT, framework
from rskernels.envelope import Envelope
from rskernels.integrations.extras import WithColumn, warn_of_cuts
from rskernels.integrations.hf_trainer import EnvelopeCallback, attach, ranks_mean
from rskernels.ops import Acceptance, SequenceAcceptance, target_log_prob

with framework("RSFTTrainer", HF_HINT):
    from trl import GRPOTrainer, SFTTrainer


class RSFTTrainer(SFTTrainer):
    """Supervised fine-tuning on the tokens, or samples, that an envelope accepts.

    The model being trained is the proposal: a token, or sample, of probability q is accepted with
    probability min(1, p̂/(M·q)), by the forward pass that the loss is of; M is that of earlier
    batches. The loss is the mean of -log q over what was accepted, of all ranks; 0 where that is
    nothing, as in the first batch, from which M is learnt, unless the envelope has seen ratios
    before or is "fixed". Evaluation decides nothing. With gradient accumulation it is the mean of
    these means: a token of a micro-batch of which little was accepted weighs more.

    log p̂ of a token is the reference's log-probability of it, or 0 without a reference; to it
    comes ``log_density``. Of a sample it is the sum over its tokens:

    ==================================  ==========================================================
    you want                            give
    ==================================  ==========================================================
    no more of what is known already    nothing: where q is high, rows are rejected
    what a teacher would say            ``reference=teacher``
    a reference tilted by a reward r    ``reference``, ``log_density="column"`` of r/β,
                                        ``level="sequence"``
    ==================================  ==========================================================

    Parameters
    ----------
    *args, **kwargs
        As of TRL's ``SFTTrainer``.
    envelope : Envelope
        Of one group; of tokens' ratios or, with ``level="sequence"``, of the statistic.
    level : {"token", "sequence"}
        What is decided.
    log_density : float or str
        What is added to log p̂: a number for each token or sample, or the name of a column of the
        training data with a number a sample.
    reference : torch.nn.Module, optional
        A causal language model of the same vocabulary, with ``.logits`` in its output.
    statistic : str
        As of :func:`accept_sequences`, for sequences. With a ``log_density`` "sum" alone.
    rejection_seed : int
        Of the decisions.
    rejection_resume_from : str, optional
        A checkpoint to go on from that does not lie in ``output_dir``.

    Attributes
    ----------
    rejection : EnvelopeCallback
        Which keeps the envelope in checkpoints and its metrics in the logs.
    seen : Acceptance or SequenceAcceptance
        What was decided about the last batch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or needs what is not decided here: packing, padding-free
        batches, label smoothing, a loss of yours or "dft".
    """

    def __init__(
        self,
        *args: Any,
        envelope: Envelope,
        level: str = "token",
        log_density: float | str = 0.0,
        reference: torch.nn.Module | None = None,
        statistic: str = "sum",
        rejection_seed: int = 0,
        rejection_resume_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        if level not in ("token", "sequence"):
            raise ValueError(f'level must be "token" or "sequence", got {level!r}')
        if statistic != "sum" and log_density != 0.0:
            raise ValueError(f"log_density needs statistic='sum', got {statistic!r}")
        self.rejection = _callback(envelope, rejection_seed, rejection_resume_from)
        self.level, self.statistic, self.log_density = level, statistic, log_density
        self.seen: Acceptance | SequenceAcceptance | None = None
        super().__init__(*args, **kwargs)
        self._refuse_odd()
        attach(self, self.rejection)
        if isinstance(log_density, str):
            collator: Any = self.data_collator
            self.data_collator: Any = WithColumn(collator, log_density)
        self.reference = None
        if reference is not None:
            prepared = self.accelerator.prepare_model(reference, evaluation_mode=True)
            self.reference = prepared.eval()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean of -log q over what is accepted of a batch."""
        column = inputs.pop(self.log_density, None) if isinstance(self.log_density, str) else None
        if not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if isinstance(self.log_density, str) and column is None:
            raise KeyError(f"the training data has no column {self.log_density!r}, the log_density")
        read = _Outputs(model)
        # For TRL's own metrics, of all tokens; its loss is of all of them too.
        super().compute_loss(read, inputs, False, num_items_in_batch)
        outputs = read.first
        with torch.no_grad():
            density = self._log_density(inputs, outputs.label_mask, column)
            ratios = density - outputs.log_probs.detach()
            self.seen = self._decide(ratios, outputs.label_mask)
            self.rejection.record(self.seen)
        mask: Any = getattr(self.seen, "token_mask", self.seen.mask)
        loss = ranks_mean(-outputs.log_probs, mask)
        if num_items_in_batch is not None:  # then the loss is to account for the accumulation
            loss = loss / self.current_gradient_accumulation_steps
        if self.aux_loss_enabled:
            steps = (
                self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            )
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / steps
        return (loss, outputs) if return_outputs else loss

    def _decide(self, ratios: Tensor, mask: Tensor) -> Acceptance | SequenceAcceptance:
        if self.level == "token":
            return self.rejection.bernoulli(ratios, mask)
        seen: SequenceAcceptance = self.rejection.accept_sequences(ratios, mask, self.statistic)
        return seen

    def _log_density(self, inputs: dict[str, Any], mask: Tensor, column: Tensor | None) -> Tensor:
        """Return log p̂ of each token, float64 ``[B, T - 1]``."""
        density: Tensor = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
        if self.reference is not None:
            known = ("input_ids", "attention_mask", "position_ids")
            logits = self.reference(**{k: v for k, v in inputs.items() if k in known}).logits
            density = density + target_log_prob(logits[:, :-1], inputs["labels"][:, 1:])
        added: Any = self.log_density if column is None else column.double()[:, None]
        if self.level == "sequence":  # one more factor of the sample's ratio, at its first token
            added = torch.where(mask & (mask.cumsum(1) == 1), added, 0.0)
        density = density + added
        return density

    def _refuse_odd(self) -> None:
        """Raise where the loss would not be the one that is documented."""
        args = self.args
        odd = {
            "packing": args.packing,
            "padding_free": args.padding_free,
            "label_smoothing_factor": args.label_smoothing_factor > 0,
            "compute_loss_func": self.compute_loss_func is not None,
            "loss_type": args.loss_type != "nll",
        }
        if found := [name for name, is_odd in odd.items() if is_odd]:
            raise ValueError(f"RSFTTrainer decides padded batches of loss 'nll', got {found}")

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns
        if isinstance(self.log_density, str) and self.log_density not in columns:
            columns.append(self.log_density)


class RejectionGRPOTrainer(GRPOTrainer):
    """GRPO whose rollouts are made those of the policy being trained, by exact rejection.

    A rollout of probability q where it was sampled and p now is accepted with probability
    min(1, w/M), of w the ``statistic`` of its tokens' p/q: with "sum", w = p/q, and an M that no w
    exceeds, what is accepted is exactly a sample of p, of any age and engine. What is rejected
    counts nowhere: not in its group's baseline or scale, as its reward is left out before
    advantages are computed; nor, with advantage 0 and masked tokens, in the loss or the KL term.
    A group of which nothing is left has advantage 0.

    No M makes up for tokens that the sampler cuts off: sample with all of them, without ``top_p``,
    ``top_k``, ``min_p`` and a repetition penalty; of these it warns. TRL's own correction, by
    truncated or masked weights, takes no part. With ``loss_type="grpo"``, "dr_grpo" or "luspo" a
    rejected rollout stays in the number that losses are divided by.

    Parameters
    ----------
    *args, **kwargs
        As of TRL's ``GRPOTrainer``. The log-probabilities of rollouts come from vLLM, then with
        ``vllm_importance_sampling_correction=False``, or from ``rollout_func``.
    envelope : Envelope
        Of one group and of the statistic. Rollouts of the first batch are its pilot and are all
        rejected, unless it has seen ratios or is "fixed".
    statistic : str
        As of :func:`accept_sequences`.
    rejection_seed, rejection_resume_from
        As of :class:`RSFTTrainer`.

    Attributes
    ----------
    rejection : EnvelopeCallback
    seen : SequenceAcceptance
        What was decided about the last rollouts of this rank.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, rollouts come without log-probabilities, or with images.
    """

    def __init__(
        self,
        *args: Any,
        envelope: Envelope,
        statistic: str = "sum",
        rejection_seed: int = 0,
        rejection_resume_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.rejection = _callback(envelope, rejection_seed, rejection_resume_from)
        self.statistic = statistic
        self.seen: SequenceAcceptance | None = None
        self._rollouts: _Rollouts | None = None
        super().__init__(*args, **kwargs)
        if self.use_vllm and self.vllm_importance_sampling_correction:
            raise ValueError(
                "rejection takes the place of vllm_importance_sampling_correction: give False"
            )
        attach(self, self.rejection)
        warn_of_cuts(self.args)

    def _generate(self, prompts: list[Any]) -> Any:
        made = super()._generate(prompts)
        prompt_ids, completion_ids, tool_mask, _, log_probs, _, images, _ = made
        if images is not None:
            raise ValueError("RejectionGRPOTrainer takes text alone, and rollouts came with images")
        self._rollouts = _Rollouts(prompt_ids, completion_ids, tool_mask, log_probs)
        return made

    def _calculate_rewards(self, *args: Any) -> Tensor:
        """Leave the rewards of rejected rollouts out of what baselines are made of."""
        rewards: Tensor = super()._calculate_rewards(*args)
        if not self.model.training:
            return rewards
        self.seen = self._decide()
        self.rejection.record(self.seen)
        kept = self.accelerator.gather(self.seen.mask)
        # TRL leaves a rollout that no function could score out of all it computes.
        return torch.where(kept[:, None], rewards, torch.nan)

    def _generate_and_score_completions(self, inputs: list[Any]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.model.training and self.seen is not None:
            mask = output["completion_mask"] * self.seen.mask[:, None]
            output["completion_mask"] = mask
            counted = mask * output["tool_mask"] if "tool_mask" in output else mask
            output["num_items_in_batch"] = self.accelerator.gather(counted.sum()).sum()
        return output

    def _decide(self) -> SequenceAcceptance:
        """Decide rollouts by their log-probabilities now and where they were sampled."""
        made, device = self._rollouts, self.accelerator.device
        if made is None or made.log_probs is None:
            raise ValueError(
                "rollouts came without log-probabilities: sample them by vLLM, or by a "
                "rollout_func that returns 'logprobs'"
            )
        prompts, attended = _pad(made.prompt_ids, torch.int64, left=True)
        completions, mask = _pad(made.completion_ids, torch.int64)
        tokens = mask
        if made.tool_mask is not None:  # what a tool said has no ratio
            tokens = mask & _pad(made.tool_mask, torch.bool)[0]
        # TRL has None for a NaN of vLLM.
        rows = [[torch.nan if p is None else p for p in row] for row in made.log_probs]
        sampled, _ = _pad(rows, torch.float64)
        with torch.no_grad():
            now, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([prompts, completions], 1).to(device),
                torch.cat([attended, mask], 1).long().to(device),
                completions.shape[1],
                batch_size=self.args.per_device_train_batch_size,
            )
        seen: SequenceAcceptance = self.rejection.accept_sequences(
            now.double() - sampled.to(device), tokens.to(device), self.statistic
        )
        return seen


class _Rollouts(NamedTuple):
    """What was sampled, a list a rollout of this rank."""

    prompt_ids: list[Any]
    completion_ids: list[Any]
    tool_mask: list[Any] | None
    log_probs: list[Any] | None


class _Outputs:
    """A model whose first outputs are kept."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.first: Any = None

    def __call__(self, **inputs: Any) -> Any:
        outputs = self.model(**inputs)
        self.first = outputs if self.first is None else self.first
        return outputs


def _callback(envelope: Envelope, seed: int, resume_from: str | None) -> EnvelopeCallback:
    callback = EnvelopeCallback(envelope, seed=seed, resume_from_checkpoint=resume_from)
    if envelope.groups != 1:
        raise ValueError(f"envelope must have one group, got {envelope.groups}")
    return callback


def _pad(rows: list[Any], dtype: torch.dtype, left: bool = False) -> tuple[Tensor, Tensor]:
    """Return rows as ``[B, T]`` with 0 behind or before them, and where they are, bool."""
    side = "left" if left else "right"
    values, places = (
        torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_side=side)
        for parts in (
            (torch.as_tensor(row, dtype=dtype) for row in rows),
            (torch.ones(len(row), dtype=torch.bool) for row in rows),
        )
    )
    return values, places
