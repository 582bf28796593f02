"""The ranks of test_checkpoint.py: ``checkpoint_ranks.py SAVING LOADING FOLDER`` forks them."""

import functools
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint

from rskernels.envelope import Envelope
from tests.support.ranks import run_ranks

OPTIONS = [
    {},
    {"policy": "decayed", "half_life": 9.0, "groups": 3},
    {"policy": "quantile", "level": 0.9, "groups": 3},
    {"policy": "budget", "rate": 0.4},
    {"policy": "tail"},
]


def fill(options, rank):
    """Return what a rank has seen, of another length on each."""
    envelope = Envelope(**options)
    rows = 300 * (rank + 1)
    log_ratio = torch.randn(rows, generator=torch.Generator().manual_seed(rank))
    envelope.update(log_ratio, torch.arange(rows) % envelope.groups, accepted=log_ratio > 0)
    return envelope


def common(options, ranks):
    whole = fill(options, 0)
    for rank in range(1, ranks):
        whole.merge(fill(options, rank))
    return whole


def save(saved, folder):
    rank, states = dist.get_rank(), {}
    for i, options in enumerate(OPTIONS):
        own = fill(options, rank)
        # An entry of one name holds one rank's, whole; reduced, it is that of all.
        states[f"any_{i}"] = own.state_dict()
        states[f"all_{i}"] = Envelope.from_bytes(own.to_bytes()).all_reduce().state_dict()
        states[f"own_{i}_{rank}"] = own.state_dict()
    checkpoint.save(states, checkpoint_id=folder)


def load(saved, folder):
    for i, options in enumerate(OPTIONS):
        names = [f"any_{i}", f"all_{i}", *(f"own_{i}_{other}" for other in range(saved))]
        envelopes = {name: fill(options, 7) for name in names}
        states = {name: envelope.state_dict() for name, envelope in envelopes.items()}
        checkpoint.load(states, checkpoint_id=folder)
        for name, envelope in envelopes.items():
            envelope.load_state_dict(states[name])
        owns = [fill(options, other) for other in range(saved)]
        for other, own in enumerate(owns):
            assert envelopes[f"own_{i}_{other}"].to_bytes() == own.to_bytes()
        assert envelopes[f"any_{i}"].to_bytes() in [own.to_bytes() for own in owns]
        assert torch.equal(envelopes[f"all_{i}"].seen, common(options, saved).seen)
        got, want = (
            envelope.report().groups["log_M"]
            for envelope in (envelopes[f"all_{i}"], common(options, saved))
        )
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9, equal_nan=True)


if __name__ == "__main__":
    saving, loading, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for action, ranks in ((save, saving), (load, loading)):
        work = functools.partial(action, saving, f"{folder}/checkpoint")
        if not run_ranks(ranks, f"{folder}/{action.__name__}", work):
            sys.exit(1)
