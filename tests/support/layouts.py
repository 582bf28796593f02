"""One tensor's values in other layouts."""

from types import SimpleNamespace

import torch


def layouts(values):
    """Return the same values in other layouts, by name."""
    wide = torch.full((*values.shape[:-1], 2 * values.shape[-1] + 3), 1e30).to(values.dtype)
    sliced = wide[..., 1 : 1 + values.shape[-1]]
    stepped = wide.clone()[..., 3::2]
    swapped = values.transpose(0, -1).contiguous().transpose(0, -1)
    for view in (sliced, stepped):
        view.copy_(values)
    return SimpleNamespace(sliced=sliced, stepped=stepped, transposed=swapped)
