"""GPT-shaped models made from a config, with random weights."""

from __future__ import annotations

from typing import Any


def small_gpt(
    tokenizer: Any,
    *,
    seed: int,
    layers: int = 3,
    width: int = 128,
    heads: int = 4,
    length: int = 64,
) -> Any:
    """Return a ``GPT2LMHeadModel`` for a tokenizer's vocabulary, without dropout.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Whose ids the model reads and writes.
    seed : int
        Decides the weights.
    layers, width, heads : int
        Its shape; ``width`` is a multiple of ``heads``.
    length : int
        The most tokens of a prompt and its answer.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)
