"""The assisted generation of ``transformers``, verified by :func:`speculative_sample`.

>>> with speculative_verifier(seed=7) as verified:
...     pass  # model.generate(ids, assistant_model=draft, do_sample=True)
>>> verified.given.item()
0
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from rskernels.integrations.extras import HF_HINT, framework
from rskernels.law.seeds import check_seed
from rskernels.ops import speculative_sample

with framework("speculative_verifier", HF_HINT):
    from transformers.generation import utils

# The function of transformers that is replaced, whose callers look it up by this name.
REPLACED = "_speculative_sampling"


class Verified:
    """What a verifier has decided: draft tokens ``accepted`` of those ``given``, int64 ``[]``.

    They are on the device of the last generation's logits.

    Parameters
    ----------
    seed : int
        Of acceptances and of draws.
    method : {"token", "block"}
        As of :func:`speculative_sample`.
    """

    def __init__(self, seed: int, method: str) -> None:
        self.seed, self.method = seed, method
        self.accepted = torch.zeros((), dtype=torch.int64)
        self.given = torch.zeros((), dtype=torch.int64)

    def verify(
        self,
        candidate_input_ids: Tensor,
        candidate_logits: Tensor,
        candidate_length: int,
        new_logits: Tensor,
        assistant_ensemble_weight: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of a step, ``[1, n + 1]``, and how many were drafted, as transformers.

        Logits are processed already: by the temperature and the cuts of either model. The step's id
        is the length of the text before it, by which each has draws of its own.
        """
        if assistant_ensemble_weight is not None:
            raise ValueError(
                "speculative_verifier draws from the target's law alone, got "
                f"assistant_ensemble_weight={assistant_ensemble_weight}"
            )
        length = candidate_input_ids.shape[1] - candidate_length
        step = speculative_sample(
            new_logits,
            candidate_input_ids[:, length:],
            candidate_logits[:, :candidate_length].to(new_logits.dtype),
            method=self.method,
            draft_is_processed=True,
            seed=self.seed,
            row_offset=length,
        )
        accepted, given, lawless = step.counts.unbind()
        # Generation on the host needs the length in any case.
        count, failed = torch.stack([step.accepted[0], lawless]).tolist()
        if failed:
            raise ValueError(
                f"no token can be drawn at place {length + count}: the logits there hold NaN or "
                "+inf, or nothing but -inf"
            )
        self.accepted = self.accepted.to(accepted.device) + accepted
        self.given = self.given.to(given.device) + given
        return step.tokens[:, : count + 1], step.accepted[0]


_verifying: ContextVar[Verified | None] = ContextVar("verifying", default=None)
_lock = threading.Lock()
_users = 0
_original: Callable[..., Any] | None = None


@contextmanager
def speculative_verifier(seed: int, *, method: str = "token") -> Iterator[Verified]:
    """Verify drafts by :func:`speculative_sample` in each ``generate`` inside of this context.

    For ``model.generate(ids, assistant_model=draft, do_sample=True)``, whose tokens then follow the
    target model's law exactly, as before, with draws that are a function of the seed and of the
    text's length. What the draft proposes is drawn by torch's own generator: seed that too, and the
    same text comes out again. Greedy generation, and drafts without probabilities such as prompt
    look-up, are not concerned.

    Other threads are not either: each enters a context of its own.

    Parameters
    ----------
    seed : int
        64 bits. Generations of one seed from prompts of one length share their draws, so give each
        its own.
    method : {"token", "block"}
        "block" decides on all tokens of a draft together, and accepts no fewer on average.

    Yields
    ------
    Verified
        How many draft tokens there were, and how many were accepted.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; in ``generate``, for an ``assistant_ensemble_weight``, which
        asks for another law, and where a row of logits has no law.
    RuntimeError
        If this version of transformers has no function to replace.
    """
    if method not in ("token", "block"):
        raise ValueError(f'method must be "token" or "block", got {method!r}')
    check_seed(seed)
    verified = Verified(seed, method)
    _enter()
    token = _verifying.set(verified)
    try:
        yield verified
    finally:
        _verifying.reset(token)
        _leave()


def _dispatch(*args: Any, **kwargs: Any) -> Any:
    """Verify by what this thread asked for, or as transformers does."""
    verified = _verifying.get()
    if verified is not None:
        return verified.verify(*args, **kwargs)
    original = _original
    assert original is not None
    return original(*args, **kwargs)


def _enter() -> None:
    global _users, _original
    with _lock:
        if not _users:
            if not hasattr(utils, REPLACED):
                raise RuntimeError(
                    f"this version of transformers has no generation.utils.{REPLACED}, by which "
                    "drafts are verified in versions 4.41 to 5.24"
                )
            _original = getattr(utils, REPLACED)
            setattr(utils, REPLACED, _dispatch)
        _users += 1


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            setattr(utils, REPLACED, _original)
