"""T3: proposals that are accepted follow the target, cell by cell."""

import pytest
import torch

from ..forms import row_blocks
from ..intervals import assert_inside, binomial, waiting

CELLS = 64


def check_cells(
    subject, seed, requested=1 << 14, *, cells=CELLS, dtype=torch.float32, model_is_target=False
):
    """Sensitive to log q: at full size to an error of 5 % in one cell of 64.

    The target has equal cells. The proposal, which has not, is the model or, where the model is
    the target, a draft that the caller knows.
    """
    uneven = (1.2 * torch.sin(torch.arange(float(cells)))).to(dtype)
    q = uneven.double().softmax(0)
    logits = torch.zeros(cells, dtype=dtype) if model_is_target else uneven
    M = (1 / (cells * q)).max().item()
    targets = draw_cells(q, waiting(requested, 1 / M)[1], seed)
    density = q[targets] if model_is_target else torch.full((len(targets),), 1 / cells)
    mask = torch.cat(
        [
            subject.mask(
                logits.expand(len(targets[rows]), -1),
                targets[rows],
                density[rows],
                M,
                seed=seed,
                row_offset=rows.start,
                model_is_target=model_is_target,
            )
            for rows in row_blocks(len(targets), cells)
        ]
    )
    counts = targets[mask][:requested].bincount(minlength=cells)
    assert counts.sum() == requested, f"T3: {counts.sum()} accepted of {len(targets)} proposed"
    interval = binomial(requested, 1 / cells, tests=cells)
    for count in (counts.min(), counts.max()):
        assert_inside("T3", count, interval)


def draw_cells(weights, rows, seed):
    """Draw ``rows`` cells with probabilities ``weights``, by torch's generator."""
    u = torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.searchsorted(weights.double().cumsum(0), u).clamp(max=len(weights) - 1)


@pytest.mark.parametrize("model_is_target", [False, True], ids=["accept", "verify"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_t3_categorical(subject, kind, size, seed, dtype, model_is_target):
    if kind in ("reference", "interpreted") and dtype == torch.bfloat16:
        pytest.skip("widening is exact; T10 compares it")
    requested = size(1 << 20, reference=1 << 16, interpreted=1 << 5)
    # As many accepted as the interpreter gives tell of few cells only.
    cells = size(CELLS, reference=CELLS, interpreted=3)
    check_cells(subject, seed, requested, cells=cells, dtype=dtype, model_is_target=model_is_target)
