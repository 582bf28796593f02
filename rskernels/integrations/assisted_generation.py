"""The assisted generation of ``transformers``, verified by :func:`speculative_sample`.

>>> with speculative_verifier(seed=7) as verified:
...     pass  # model.generate(ids, assistant_model=draft, do_sample=True)
>>> verified.given.item()
0
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from rskernels._python.extras import HF_HINT, framework
from rskernels.law.seeds import check_seed
from rskernels.ops import speculative_sample

with framework("speculative_verifier", HF_HINT):
    from transformers.generation import utils

# The function of transformers that is replaced, whose callers look it up by this name.
REPLACED = "_speculative_sampling"
# A step's id is the number of its generation, then the length of its text.
LENGTH_BITS = 32


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
        self._generation, self._length = 0, -1

    def verify(
        self,
        candidate_input_ids: Tensor,
        candidate_logits: Tensor,
        candidate_length: int,
        new_logits: Tensor,
        assistant_ensemble_weight: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of a step, ``[1, n + 1]``, and how many were drafted, as transformers.

        Logits are processed already, by the temperature and the cuts of either model. A step's id
        is made of the number of the generation and the length of the text before it, so that each
        step has draws of its own. A length that is not above the last one begins a new generation,
        since within one the text grows.
        """
        if assistant_ensemble_weight is not None:
            raise ValueError(
                "speculative_verifier draws from the target's law alone, got "
                f"assistant_ensemble_weight={assistant_ensemble_weight}"
            )
        length = candidate_input_ids.shape[1] - candidate_length
        self._generation += length <= self._length
        self._length = length
        step = speculative_sample(
            new_logits,
            candidate_input_ids[:, length:],
            candidate_logits[:, :candidate_length].to(new_logits.dtype),
            method=self.method,
            draft_is_processed=True,
            seed=self.seed,
            row_offset=self._generation << LENGTH_BITS | length,
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
_replacement: Callable[..., Any] | None = None


@contextmanager
def speculative_verifier(seed: int, *, method: str = "token") -> Iterator[Verified]:
    """Verify drafts by :func:`speculative_sample` in each ``generate`` inside of this context.

    For ``model.generate(ids, assistant_model=draft, do_sample=True)``, whose tokens then follow the
    target model's law exactly, as before, with draws that are a function of the seed, of how many
    generations there were in this context, and of the text's length. What the draft proposes is
    drawn by torch's own generator: seed that too, and the same text comes out again. Greedy
    generation, and drafts without probabilities such as prompt look-up, stay as they are.

    So do other threads, unless they enter a context of their own: they draw as transformers does,
    and are warned of it.

    Parameters
    ----------
    seed : int
        64 bits. Generations in one context have draws of their own; those in another context of the
        same seed have the same ones, so give each context its own seed.
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

    Warns
    -----
    RuntimeWarning
        In a thread that assists generation outside of such a context while another one is in it.
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


def _dispatcher(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what verifies by what its thread asked for, or as ``original`` does."""

    def dispatch(*args: Any, **kwargs: Any) -> Any:
        verified = _verifying.get()
        if verified is not None:
            return verified.verify(*args, **kwargs)
        if _users:
            warnings.warn(
                "this thread has not entered speculative_verifier, which another one has: its "
                "drafts are verified as transformers does, by torch's generator",
                RuntimeWarning,
                stacklevel=2,
            )
        return original(*args, **kwargs)

    return dispatch


def _enter() -> None:
    global _users, _original, _replacement
    with _lock:
        if not _users:
            if not hasattr(utils, REPLACED):
                raise RuntimeError(
                    f"this version of transformers has no generation.utils.{REPLACED}, by which "
                    "drafts are verified in versions 4.41 to 5.24"
                )
            _original = getattr(utils, REPLACED)
            _replacement = _dispatcher(_original)
            setattr(utils, REPLACED, _replacement)
        _users += 1


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        # What somebody else has put in its place since is theirs to take away.
        if not _users and getattr(utils, REPLACED) is _replacement:
            setattr(utils, REPLACED, _original)
