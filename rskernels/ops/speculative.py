"""The speculative step: draft tokens accepted or rejected, and the token that follows drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels._python.integers import as_integer
from rskernels._torch import SPECULATE, Call
from rskernels._torch.fast_path import is_idle, is_plain
from rskernels._torch.sharded import is_sharded
from rskernels.kernels.product import Product
from rskernels.law.seeds import check_row_offset, check_seed, draw_seed
from rskernels.law.speculation import Speculation
from rskernels.ops.arguments import (
    FLOAT_DTYPES,
    FLOAT_NAMES,
    INDEX_DTYPES,
    check_floating,
    check_strided,
    may_be_odd,
    number_argument,
    refuse_odd,
)
from rskernels.ops.linear import LinearLogits, is_cut, parts_of

METHODS = ("token", "block")


class SpeculativeResult(NamedTuple):
    """What a speculative step returns for each of R requests of up to K draft tokens."""

    tokens: Tensor
    """int64 ``[R, K + 1]``: the draft tokens that were accepted, the one token that was drawn after
    them, and -1 behind."""
    accepted: Tensor
    """int64 ``[R]``: how many draft tokens were accepted; so the request has one token more."""
    log_prob: Tensor
    """``[R, K + 1]``: log p of each token under the target's law after all settings, without
    gradient; NaN behind. float64 for float64 logits, else float32."""
    counts: Tensor
    """int64 ``[3]``: how many draft tokens were accepted, how many were given, and how many
    requests ended at a row that has no law."""


def speculative_sample(
    target_logits: Tensor | LinearLogits,
    draft_tokens: Tensor,
    draft_logits: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    temperature: Tensor | float = 1.0,
    top_k: Tensor | int | None = None,
    top_p: Tensor | float | None = None,
    method: str = "token",
    draft_is_processed: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int | Tensor = 0,
) -> SpeculativeResult:
    """Verify draft tokens and draw the token that follows, so that all of them follow the target.

    With p the target's and q the draft's law of a place: accept its draft token with probability
    min(1, p/q); at the first rejection draw from (p - q)+, normalised; after the last acceptance
    draw one token more, from p (Leviathan et al., "Fast inference from transformers via speculative
    decoding", 2023; Chen et al., "Accelerating large language model decoding with speculative
    sampling", 2023). The tokens are distributed as if drawn from p alone, one after the other; a
    draft token is accepted with probability 1 - TV(p, q).

    The laws are softmax(logits / T), then cut to top_k, then to top_p, and normalised. That holds
    for both: the draft must have been drawn from the law that these settings make of its logits.
    If it was not, give what it was drawn from as ``draft_logits``, with -inf where it was cut, and
    say ``draft_is_processed``. Samplers cut ties in their own ways: here the last logits that top_k
    or top_p keep stay together with all that equal them, while ``transformers`` parts those of
    top_p, and 16-bit logits nearly always have such ties. So a draft that another sampler cut by
    top_p is to be given as it was cut.

    Parameters
    ----------
    target_logits : Tensor or LinearLogits
        float32, float64, bfloat16 or float16 ``[R, K + 1, V]``, CPU or CUDA: the target's rows at
        each draft token, and one after the last. Or a ``LinearLogits`` of that shape: no tensor of
        its size is then made, but rows where a token is drawn, a few at a time. With top_k, top_p,
        ``method="block"`` or greedy requests all rows are made so.
    draft_tokens : Tensor
        int64 or int32 ``[R, K]``.
    draft_logits : Tensor, optional
        ``[R, K, V]``, of the dtype of ``target_logits`` or of the hidden states. A narrower dtype
        is another law: where the dtypes differ, widen the target, do not round the draft. None:
        the draft was certain of its tokens, q is 1 there.
    lengths : Tensor, optional
        int64 or int32 ``[R]``, in [0, K]: how many draft tokens each request has. Others, and the
        rows behind, are not looked at. None: all have K.
    temperature : Tensor or float
        T in [1e-30, 1e30], or 0: greedy, a draft token is accepted exactly if it is the largest
        logit, of equal ones the first, which is drawn otherwise. A tensor is ``[R]``.
    top_k : Tensor or int, optional
        Keep the k largest logits, and all that equal the k-th. None or 0 keeps all. A tensor is
        int64 or int32 ``[R]``.
    top_p : Tensor or float, optional
        Of what top_k leaves, keep the fewest largest logits whose probabilities sum to at least
        this, in (0, 1], and all that equal the last of them. None or 1 keeps all. A tensor is
        ``[R]``.
    method : str
        "token", or "block": decide on all draft tokens of a request together (Sun et al., "Block
        verification accelerates speculative decoding", 2024). The law is the same, and on average
        no fewer are accepted; but each request's rows are all read, twice.
    draft_is_processed : bool
        Whether q is the softmax of ``draft_logits`` as they are.
    seed : int or Tensor, optional
        64 bits, or an int64 tensor of one element, or of one for each request, ``[R]``. None draws
        one from ``generator``, or from torch's default generator.
    generator : torch.Generator, optional
        Where a seed is drawn from; on the logits' device.
    row_offset : int or Tensor
        Id of the first request; those of the others follow. Where each request has a seed, all have
        this id. An int64 tensor ``[R]`` holds the ids themselves, such as how long each text is: a
        generation with one seed then draws anew in every step. Requests that share a seed must not
        share an id.

    Returns
    -------
    SpeculativeResult
        ``tokens``, ``accepted``, ``log_prob`` and ``counts``. A request depends on its own rows,
        seed and id alone. It ends, without a token drawn, at a row that has no law: one of the
        target or the draft with a NaN or +inf or only -inf, or of a request whose setting in a
        tensor is out of range. On CUDA so do a draft token outside ``[0, V)`` and a length outside
        [0, K], at place 0. A draft token of q = 0, which cannot have been drawn, is rejected;
        a p or q below e**-708 counts as 0.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above; for lengths on
        the CPU outside [0, K]; for DTensors and MaskedTensors, and a vocabulary over ranks.
    IndexError
        If a draft token on the CPU lies outside ``[0, V)``.

    Notes
    -----
    The acceptance of place k compares with the uniform of (seed, id, k, stream 7). What is drawn at
    place k is the first token by which the weights, in the order of the vocabulary, sum to a
    64-bit uniform of (seed, id, k, stream 8) of their total. Where (p - q)+ is 0 everywhere within
    rounding, it is drawn from p. Which tokens top_p keeps is decided by float32 sums.

    Examples
    --------
    >>> p, q = torch.tensor([[[0.0, 0.0], [0.0, 9.0]]]), torch.tensor([[[0.0, 0.0]]])
    >>> step = speculative_sample(p, torch.tensor([[1]]), q, seed=0)
    >>> step.tokens, step.accepted
    (tensor([[1, 1]]), tensor([1]))
    """
    source: Tensor | Product
    shape = _check_target(target_logits)
    if isinstance(target_logits, LinearLogits):
        source = target_logits.product()
        parts: tuple[Any, ...] = parts_of(source)
    else:
        source, parts = target_logits, (target_logits,)
    R, K, device = shape[0], shape[1] - 1, target_logits.device
    _check_index("draft_tokens", draft_tokens, (R, K), device)
    _check_draft(draft_logits, (R, K, shape[2]), parts[0])
    if lengths is not None:
        _check_index("lengths", lengths, (R,), device)
    if method not in METHODS:
        raise ValueError(f'method must be "token" or "block", got {method!r}')
    idle = is_idle()
    law = Speculation(
        _setting("temperature", temperature, R, device),
        0 if top_k is None else _top_k(top_k, R, device),
        1.0 if top_p is None else _setting("top_p", top_p, R, device),
        _seed(seed, generator, R, device, idle),
        _ids(row_offset, R, device),
        method == "block",
        bool(draft_is_processed),
    )
    tensors = {
        "draft_tokens": draft_tokens, "draft_logits": draft_logits, "lengths": lengths,
        "temperature": law.temperature, "top_k": law.top_k, "top_p": law.top_p, "seed": law.seed,
        "row_offset": law.row_offset,
    }  # fmt: skip
    if may_be_odd(*parts, *tensors.values()):
        _refuse_odd({"target_logits": parts[0], **tensors})
    is_direct = idle and is_plain(*parts, *tensors.values())
    call = Call((source, draft_tokens, draft_logits, lengths, law), is_direct)
    return SpeculativeResult(*SPECULATE(call))


def _check_target(logits: Tensor | LinearLogits) -> torch.Size:
    """Return the shape of the target's rows, [R, K + 1, V]."""
    if is_cut(logits):
        raise ValueError(
            "target_logits are LinearLogits of a vocabulary over ranks, of which no rank could "
            "draw a token; gather the weight, or the logits"
        )
    if not isinstance(logits, LinearLogits):
        check_floating("target_logits", logits)
    shape = logits.shape
    if len(shape) != 3 or shape[1] == 0 or shape[2] == 0:
        raise ValueError(
            "target_logits must have shape [R, K + 1, V] with V of at least 1, and a row after "
            f"the last draft token, got {list(shape)}"
        )
    return shape


def _check_index(name: str, value: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    check_strided(name, value)
    if value.dtype not in INDEX_DTYPES:
        raise TypeError(f"{name} must be int64 or int32, got {value.dtype}")
    _check_place(name, value, shape, device)


def _check_place(name: str, value: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(value.shape)}")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}, the target's logits on {device}")


def _check_draft(draft: Tensor | None, shape: tuple[int, ...], like: Tensor) -> None:
    if draft is None:
        return
    check_floating("draft_logits", draft)
    if draft.dtype != like.dtype:
        raise TypeError(
            f"draft_logits are {draft.dtype}, the target's {like.dtype}; give one dtype"
        )
    _check_place("draft_logits", draft, shape, like.device)


def _setting(name: str, value: Tensor | float, R: int, device: torch.device) -> Tensor | float:
    """Return a temperature or top_p: a number in range, or float64 [R]."""
    if isinstance(value, Tensor):
        check_strided(name, value)
        if value.dtype not in FLOAT_DTYPES:
            raise TypeError(f"{name} must be {FLOAT_NAMES}, got {value.dtype}")
        _check_place(name, value, (R,), device)
        return value.detach().double().contiguous()
    number = number_argument(name, value)
    if name == "top_p" and not 0.0 < number <= 1.0:
        raise ValueError(f"top_p must be in (0, 1] or None, got {number}")
    if name == "temperature" and not (number == 0.0 or 1e-30 <= number <= 1e30):
        raise ValueError(f"temperature must be 0 or in [1e-30, 1e30], got {number}")
    return number


def _top_k(value: Tensor | int, R: int, device: torch.device) -> Tensor | int:
    """Return top_k: an int of at least 0, or int64 [R]."""
    if isinstance(value, Tensor):
        _check_index("top_k", value, (R,), device)
        return value.long().contiguous()
    number = as_integer("top_k", value, "an int, a tensor or None")
    if not 0 <= number < 1 << 63:
        raise ValueError(f"top_k must be at least 0 and fit 64 bits, got {number}")
    return number


def _seed(
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    R: int,
    device: torch.device,
    idle: bool,
) -> Tensor | int:
    """Return a seed, or int64 [R]; draw one where none is given."""
    if seed is None:
        return draw_seed(generator, device, idle)
    if generator is not None:
        raise ValueError("seed and generator are both given; at most one of them is accepted")
    if not isinstance(seed, Tensor):
        return check_seed(seed)
    check_strided("the seed tensor", seed)
    if seed.dtype != torch.int64:
        raise TypeError(f"a seed tensor must be int64, got {seed.dtype}")
    if seed.numel() != 1 and seed.shape != (R,):
        raise ValueError(
            f"a seed tensor must have one element, or shape [{R}], got {list(seed.shape)}"
        )
    if seed.device != device:
        raise ValueError(f"the seed tensor is on {seed.device}, the target's logits on {device}")
    return seed.contiguous()


def _ids(row_offset: int | Tensor, R: int, device: torch.device) -> Tensor | int:
    """Return the first id, or the ids, int64 [R]."""
    if not isinstance(row_offset, Tensor):
        return check_row_offset(row_offset)
    check_strided("row_offset", row_offset)
    if row_offset.dtype != torch.int64:
        raise TypeError(f"a tensor of row_offset must be int64, got {row_offset.dtype}")
    _check_place("row_offset", row_offset, (R,), device)
    return row_offset.contiguous()


def _refuse_odd(values: dict[str, Any]) -> None:
    refuse_odd(values, "by their lengths")
    for name, value in values.items():
        if is_sharded(value):
            raise TypeError(
                f"{name} is a DTensor, which speculative_sample does not take; give what its "
                "to_local() returns, with a row_offset for each rank"
            )
