"""Fresh memory that holds what no kernel would write."""

import contextlib
import functools

import pytest
import torch


@contextlib.contextmanager
def poisoned():
    """Fill what ``torch.empty`` and its kin return, so that an unwritten element is seen."""
    # torch.device as a context knows the functions that it found when first used.
    with torch.device("meta"):
        torch.empty(0)
    with pytest.MonkeyPatch.context() as patch:
        for owner, names in (
            (torch, ("empty", "empty_like", "empty_strided")),
            (torch.Tensor, ("new_empty", "new_empty_strided")),
        ):
            for name in names:
                patch.setattr(owner, name, _poisoned(getattr(owner, name)))
        yield


def _poisoned(make):
    @functools.wraps(make)
    def call(*args, **kwargs):
        fresh = make(*args, **kwargs)
        if fresh.is_meta or fresh.layout != torch.strided or fresh.is_complex():
            return fresh
        with torch.no_grad():
            if fresh.is_floating_point():
                fresh.fill_(float("nan"))
            elif fresh.dtype == torch.bool:
                fresh.fill_(True)
            else:
                fresh.fill_(torch.iinfo(fresh.dtype).max)
        return fresh

    return call
