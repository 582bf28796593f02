"""A language model from a folder: its tokens, its next-token law, and log-probabilities of text."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rskernels._python.extras import LANGUAGE_HINT, framework
from rskernels.language.config import LanguageConfig
from rskernels.ops import LinearLogits, target_log_prob
from rskernels.rsft.errors import DataError

ROUNDING = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.25}


class Scorer(nn.Module):
    """A causal language model that returns log-probabilities of some of its targets.

    The product of hidden states and head is made block by block, and only for the places that are
    asked about: no tensor ``[batch, length, vocabulary]`` exists. It stands inside of `forward`, so
    that FSDP has gathered the head's weight when it is read.

    Parameters
    ----------
    causal : PreTrainedModel
        With an output layer ``get_output_embeddings()`` on what ``base_model`` returns.
    """

    def __init__(self, causal: Any) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, ids: Tensor, mask: Tensor, at: Tensor, targets: Tensor) -> Tensor:
        """Return log-probabilities, float32 or wider ``[n]``.

        Parameters
        ----------
        ids, mask : Tensor
            int64 ``[batch, length]``: tokens, filled up at the right, and 1 where there is one.
        at : Tensor
            int64 ``[n]``: places in ``ids.flatten()`` whose next token is asked about.
        targets : Tensor
            int64 ``[n]``: those next tokens.
        """
        hidden = self.causal.base_model(
            input_ids=ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return target_log_prob(self.logits(hidden.flatten(0, 1)[at]), targets)

    def logits(self, hidden: Tensor) -> LinearLogits:
        """Return the logits of hidden states ``[n, D]``, which are not stored."""
        head, config = self.causal.get_output_embeddings(), self.causal.config
        weight, lora = head.weight, None
        if hasattr(head, "lora_A"):  # a linear layer of peft
            (name,) = head.active_adapters
            lora = (head.lora_A[name].weight, head.lora_B[name].weight, float(head.scaling[name]))
        # As Gemma, Cohere and Granite have them; `check_head` finds what else a model may do.
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        return LinearLogits(
            hidden,
            weight,
            getattr(head, "bias", None),
            scale=scale,
            softcap=getattr(config, "final_logit_softcapping", None),
            lora=lora,
        )


@dataclass
class Policy:
    """A model and its tokenizer.

    Attributes
    ----------
    scorer : Scorer
        Around the causal language model.
    tokenizer : PreTrainedTokenizer
        With a token that ends answers.
    adapter : PeftModel or None
        Around the same model, where LoRA is trained.
    ends : tuple of int
        The tokens that end an answer.
    pad : int
        The token that fills up.
    device : torch.device
        Where the model is.
    """

    scorer: Scorer
    tokenizer: Any
    adapter: Any
    ends: tuple[int, ...]
    pad: int
    device: torch.device

    @property
    def causal(self) -> Any:
        """The causal language model."""
        return self.scorer.causal

    def encode(self, prompt: str, chat: bool) -> list[int]:
        """Return the tokens of a prompt."""
        if chat:
            if not self.tokenizer.chat_template:
                raise DataError("chat: the tokenizer has no chat template; leave it out")
            prompt = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            )
        # A chat template writes the special tokens itself.
        tokens: list[int] = self.tokenizer(prompt, add_special_tokens=not chat)["input_ids"]
        # Tokenizers of translation models end a text that they are given.
        while tokens and not chat and tokens[-1] in self.ends:
            tokens = tokens[:-1]
        if not tokens:
            raise DataError(f"the prompt {prompt!r} has no tokens")
        return tokens

    def decode(self, tokens: list[int]) -> str:
        """Return the text of an answer, without the token that ends it."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def outline(self) -> Policy:
        """Return the same without the parameters' numbers, on the device ``meta``."""
        held = {
            id(one): nn.Parameter(torch.empty_like(one, device="meta"), one.requires_grad)
            for one in self.scorer.parameters()
        }
        scorer, adapter = copy.deepcopy((self.scorer, self.adapter), held)
        return replace(self, scorer=scorer, adapter=adapter)

    def fill(self, state: dict[str, Any]) -> None:
        """Give an outline the numbers of the scorer's parameters, on their device."""
        self.scorer.load_state_dict(state, assign=True)
        self.causal.tie_weights()

    def save(self, folder: Path) -> None:
        """Write the model, adapters merged, and the tokenizer as transformers reads them.

        Parameters
        ----------
        folder : Path
            Made if it is not there.
        """
        with quiet():
            self._save(folder)
        self.tokenizer.save_pretrained(folder)

    def _save(self, folder: Path) -> None:
        if self.adapter is not None:
            self.adapter.save_pretrained(folder.with_name("adapter"))
            self.adapter.merge_adapter()
            base = self.adapter.get_base_model()
            state = {
                name.replace(".base_layer.", "."): tensor
                for name, tensor in base.state_dict().items()
                if ".lora_" not in name
            }
            self.causal.save_pretrained(folder, state_dict=state)
            self.adapter.unmerge_adapter()
        else:
            self.causal.save_pretrained(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the progress bars of transformers, which a run has its own for."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def load(config: LanguageConfig, device: torch.device) -> Policy:
    """Read a model and its tokenizer from a folder.

    Raises
    ------
    DataError
        If the folder lacks one, or the tokenizer has no token that ends a text.
    ModuleNotFoundError
        If transformers, or with LoRA peft, is not installed.
    """
    if config.model is None:
        raise DataError("model: the folder of a causal language model is needed")
    if not (Path(config.model) / "config.json").is_file():
        raise DataError(
            f"{config.model} holds no model: needed is a folder that save_pretrained wrote, with "
            "config.json, the weights and the tokenizer"
        )
    with framework("fine-tuning of language models", LANGUAGE_HINT):
        from transformers import AutoModelForCausalLM, AutoTokenizer
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(config.model)
            causal = AutoModelForCausalLM.from_pretrained(
                config.model, dtype=getattr(torch, config.dtype)
            )
    except (OSError, ValueError) as error:
        raise DataError(f"{config.model} cannot be read: {error}") from error
    return policy_of(causal, tokenizer, config, device)


def policy_of(causal: Any, tokenizer: Any, config: LanguageConfig, device: torch.device) -> Policy:
    """Return a policy of a model and its tokenizer, with LoRA where that is asked for.

    Raises
    ------
    DataError
        If no token ends a text, or the logits are not head times hidden state.
    """
    causal = causal.to(device)
    ends = causal.generation_config.eos_token_id if causal.can_generate() else None
    if ends is None:
        ends = tokenizer.eos_token_id
    if ends is None:
        raise DataError(
            "no token ends an answer: the model's generation_config or the tokenizer needs an eos "
            "token"
        )
    ends = tuple(ends) if isinstance(ends, (list, tuple)) else (int(ends),)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    adapter = None
    if config.lora_rank:
        with framework("LoRA", LANGUAGE_HINT):
            from peft import LoraConfig, get_peft_model
        targets = config.lora_targets
        # peft draws A from torch's generator.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            adapter = get_peft_model(
                causal,
                LoraConfig(
                    r=config.lora_rank,
                    lora_alpha=config.lora_alpha,
                    target_modules=targets if targets == "all-linear" else targets.split(","),
                    task_type="CAUSAL_LM",
                ),
            )
    scorer = Scorer(causal)
    check_head(scorer, device)
    return Policy(scorer, tokenizer, adapter, ends, pad, device)


@torch.no_grad()
def check_head(scorer: Scorer, device: torch.device) -> None:
    """Raise DataError unless log-probabilities from hidden states are those of the logits."""
    causal = scorer.causal
    was_training = causal.training
    causal.eval()
    V = causal.get_output_embeddings().weight.shape[0]
    ids = (torch.arange(10, device=device) * 7919 % V).view(2, 5)
    mask = torch.ones_like(ids)
    at = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8], device=device)
    targets = ids[:, 1:].flatten()
    got = scorer(ids, mask, at, targets)
    logits = causal(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    want = logits.flatten(0, 1).float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    causal.train(was_training)
    largest = float((got - want).abs().max())
    allowed = ROUNDING[causal.dtype] * (1.0 + float(want.abs().max()) / 10)
    if not largest <= allowed:
        raise DataError(
            f"the logits of {type(causal).__name__} are not its output layer times the hidden "
            f"states of its base model: log-probabilities differ by {largest:.3g}"
        )
