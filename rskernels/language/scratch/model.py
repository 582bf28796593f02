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
    rotary: bool = False,
) -> Any:
    """Return a GPT for a tokenizer's vocabulary, without dropout, input and output weights tied.

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
    rotary : bool
        Whether places are relative, as rotary embeddings are (``LlamaForCausalLM``), and not
        absolute (``GPT2LMHeadModel``). Such a model learns much sooner to read a prompt token by
        token while it answers.
    """
    import torch

    named = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if rotary:
            return _llama(layers, width, heads, length, named)
        return _gpt2(layers, width, heads, length, named)


def _gpt2(layers: int, width: int, heads: int, length: int, named: dict[str, Any]) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": length}
    dropped = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**shape, **dropped, **named))


def _llama(layers: int, width: int, heads: int, length: int, named: dict[str, Any]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=length,
        tie_word_embeddings=True,
        # From the usual 0.02 so narrow a model takes long to learn to read token by token.
        initializer_range=0.8 / width**0.5,
        **named,
    )
    return LlamaForCausalLM(config)
