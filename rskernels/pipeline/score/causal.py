"""Causal language models of transformers: read from a folder, their ends, and their logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from rskernels._python.extras import LANGUAGE_HINT, framework
from rskernels.ops import LinearLogits
from rskernels.rsft.errors import DataError


def check_folder(folder: str) -> None:
    """Raise DataError if a folder holds no model."""
    if not (Path(folder) / "config.json").is_file():
        raise DataError(
            f"{folder} holds no model: needed is a folder that save_pretrained wrote, with "
            "config.json, the weights and the tokenizer"
        )


def read_causal(folder: str, dtype: Any, what: str) -> tuple[Any, Any]:
    """Return the causal language model of a folder and its tokenizer.

    Parameters
    ----------
    folder : str
        As ``save_pretrained`` writes it.
    dtype : torch.dtype or str
        Of the weights; "auto" as they are stored.
    what : str
        What needs transformers, for the error where it is missing.

    Raises
    ------
    DataError
        If the folder cannot be read.
    ModuleNotFoundError
        If transformers is not installed.
    """
    with framework(what, LANGUAGE_HINT):
        from transformers import AutoModelForCausalLM, AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), tokenizer
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read: {error}") from error


def ends_of(causal: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that end an answer; none, if neither model nor tokenizer has one."""
    ends = causal.generation_config.eos_token_id if causal.can_generate() else None
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        return ()
    return tuple(ends) if isinstance(ends, list | tuple) else (int(ends),)


def linear_logits(causal: Any, hidden: Tensor) -> LinearLogits:
    """Return a model's logits of hidden states ``[n, D]``, which are not stored."""
    head, config = causal.get_output_embeddings(), causal.config.get_text_config()
    lora = None
    if hasattr(head, "lora_A"):  # a linear layer of peft
        (name,) = head.active_adapters
        lora = (head.lora_A[name].weight, head.lora_B[name].weight, float(head.scaling[name]))
    # As Gemma, Cohere and Granite have them; callers check that a model does nothing else.
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    bias = getattr(head, "bias", None)
    return LinearLogits(hidden, head.weight, bias, scale=scale, softcap=softcap, lora=lora)
