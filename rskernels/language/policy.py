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
from rskernels.ops import target_log_prob
from rskernels.pipeline.score.causal import check_folder, ends_of, linear_logits, read_causal
from rskernels.rsft.errors import DataError

WHAT = "fine-tuning of language models"
ROUNDING = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.25}


class Scorer(nn.Module):
    """A causal language model that returns log-probabilities of some of its targets.

    The product of hidden states and head is made block by block, and only for the places that are
    asked about: no tensor ``[batch, length, vocabulary]`` exists. It is made inside of `forward`,
    where FSDP has gathered the head's weight.

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
        return target_log_prob(linear_logits(self.causal, hidden.flatten(0, 1)[at]), targets)


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
    """Hold back the progress bars of transformers: a run has its own."""
    with framework(WHAT, LANGUAGE_HINT):
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
    check_folder(config.model)
    with quiet():
        causal, tokenizer = read_causal(config.model, getattr(torch, config.dtype), WHAT)
    return policy_of(causal, tokenizer, config, device)


def policy_of(causal: Any, tokenizer: Any, config: LanguageConfig, device: torch.device) -> Policy:
    """Return a policy of a model and its tokenizer, with LoRA where that is asked for.

    Raises
    ------
    DataError
        If no token ends a text, or the logits are not head times hidden state.
    """
    causal = causal.to(device)
    ends = ends_of(causal, tokenizer)
    if not ends:
        raise DataError(
            "no token ends an answer: the model's generation_config or the tokenizer needs an eos "
            "token"
        )
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
