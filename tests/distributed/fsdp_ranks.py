"""The ranks of test_fsdp.py: ``fsdp_ranks.py COUNT`` forks as many and runs each."""

import copy
import functools
import sys
import tempfile

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

import rskernels
import rskernels.kernels.cpu  # before the fork: it takes longer than most checks
from rskernels import LinearLogits
from tests.support.ranks import run_ranks

V, D, LENGTH, STEPS = 301, 24, 7, 3
ROWS = 4  # sequences of a rank
LAW = {"seed": 3, "temperature": 0.8, "log_space": True}


class Model(nn.Module):
    """A head behind two blocks; what it returns is of logits that are not stored."""

    def __init__(self, is_checkpointed=False):
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D)) for _ in range(2)
        )
        self.head = nn.Linear(D, V)
        self.is_checkpointed = is_checkpointed

    def forward(self, ids, row_offset=0):
        """Return log q of the next tokens, and which of them are verified."""
        hidden = self.embedding(ids[:, :-1])
        for block in self.blocks:
            hidden = hidden + block(hidden)
        targets = ids[:, 1:].contiguous()
        z = LinearLogits(hidden, self.head.weight, self.head.bias, softcap=9.0)
        draft = -5.5 + 0.1 * (targets % 7)
        with torch.no_grad():
            mask = rskernels.verify_mask(z, draft, targets=targets, row_offset=row_offset, **LAW)
        of = functools.partial(rskernels.target_log_prob, z, targets)
        if self.is_checkpointed:
            return checkpoint(of, use_reentrant=False), mask
        return of(), mask


def learn(model, ids, row_offset):
    """Return the losses and masks of a few steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses, masks = [], []
    for batch in ids:
        log_prob, mask = model(batch, row_offset)
        loss = -log_prob.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        masks.append(mask)
    return torch.stack(losses), torch.stack(masks)


def check(is_checkpointed):
    ranks, rank = dist.get_world_size(), dist.get_rank()
    torch.manual_seed(0)
    alone = Model()
    sharded = copy.deepcopy(alone)
    sharded.is_checkpointed = is_checkpointed
    mesh = init_device_mesh("cpu", (ranks,))
    for block in sharded.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    ids = torch.randint(V, (STEPS, ranks * ROWS, LENGTH + 1))
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    want_losses, want_masks = learn(alone, ids, 0)
    losses, masks = learn(sharded, ids[:, own], rank * ROWS * LENGTH)
    dist.all_reduce(losses)
    torch.testing.assert_close(losses / ranks, want_losses, rtol=1e-5, atol=0)
    assert torch.equal(masks, want_masks[:, own])
    assert 0.2 < want_masks.float().mean() < 0.8
    for (name, got), want in zip(sharded.named_parameters(), alone.parameters(), strict=True):
        largest = float(want.grad.abs().max())
        assert largest > 0
        torch.testing.assert_close(
            got.grad.full_tensor(), want.grad, rtol=1e-5, atol=1e-5 * largest, msg=name
        )
        torch.testing.assert_close(got.full_tensor(), want, rtol=1e-5, atol=1e-5)


def check_weight_that_is_not_gathered():
    """A head that is sharded by itself is not whole in the forward of what holds it."""
    model = Model()
    fully_shard(model.head, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    torch.manual_seed(dist.get_rank())
    with pytest.raises(IndexError, match="and the same on every rank"):
        model(torch.randint(V, (ROWS, LENGTH + 1)))


def main():
    check(is_checkpointed=False)
    check(is_checkpointed=True)
    check_weight_that_is_not_gathered()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not run_ranks(int(sys.argv[1]), f"{folder}/store", main))
