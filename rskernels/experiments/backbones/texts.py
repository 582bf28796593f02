"""Encoders of texts as backbones: tokens to features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rskernels._python.extras import LANGUAGE_HINT, framework
from rskernels.experiments.backbones.weights import drawn_by, read_model
from rskernels.rsft.errors import DataError

# Of the encoder that is made where none is given: width, layers, heads, and inside a layer.
WIDTH, LAYERS, HEADS, INSIDE = 64, 2, 4, 128


class TextBackbone(nn.Module):
    """An encoder of token sequences, and the mean of what it makes of a text's tokens.

    Parameters
    ----------
    model : Module
        Of transformers; reads ``input_ids`` and ``attention_mask``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return features ``[N, width]`` of tokens, int64 ``[N, L]``, −1 behind their ends."""
        mask = tokens >= 0
        longest = int(mask.sum(dim=1).max())  # no text of the batch reaches further
        tokens, mask = tokens[:, :longest], mask[:, :longest]
        output = self.model(input_ids=tokens.clamp(min=0), attention_mask=mask.long())
        hidden: Tensor = output.last_hidden_state * mask[:, :, None]
        return hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def width(self) -> int:
        """Return the number of features."""
        with torch.no_grad():
            return int(self(torch.zeros(1, 1, dtype=torch.int64)).shape[1])


def read_text_backbone(
    folder: Path, tokens: int, generator: torch.Generator, *, from_scratch: bool
) -> TextBackbone:
    """Return the encoder of a folder.

    Parameters
    ----------
    folder : Path
        As transformers saves it; without weights if the encoder is trained from scratch.
    tokens : int
        How many different ones there may be.
    generator : torch.Generator
        Source of weights that the folder does not hold.
    from_scratch : bool
        Whether a folder without weights is accepted.

    Raises
    ------
    DataError
        If the folder holds no encoder, or one of fewer tokens.
    """
    model = read_model(folder, generator, from_scratch=from_scratch)
    known = getattr(model.config, "vocab_size", 0)
    if known < tokens:
        raise DataError(f"the model of {folder} knows {known} tokens, the texts have {tokens}")
    return TextBackbone(model)


def small_encoder(tokens: int, longest: int, generator: torch.Generator) -> TextBackbone:
    """Return a new encoder: BERT of two layers of 64, without dropout.

    Parameters
    ----------
    tokens : int
        How many different ones there are.
    longest : int
        Tokens of the longest text.
    generator : torch.Generator
        Source of the weights.

    Raises
    ------
    ModuleNotFoundError
        If transformers is not installed.
    """
    with framework("an encoder of texts", LANGUAGE_HINT):
        from transformers import BertConfig, BertModel
    config = BertConfig(
        vocab_size=tokens,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INSIDE,
        max_position_embeddings=longest,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with drawn_by(generator):
        return TextBackbone(BertModel(config, add_pooling_layer=False))
