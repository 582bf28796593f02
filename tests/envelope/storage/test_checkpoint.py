"""Envelopes in checkpoints: of torch.distributed, between other numbers of ranks, and in a Module.

What each rank checks is checkpoint_ranks.py.
"""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rskernels.envelope import Envelope

from ...support.ranks import run_script

checkpoint = pytest.importorskip("torch.distributed.checkpoint")
pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed"),
    pytest.mark.filterwarnings("ignore:torch.distributed is"),
]
RANKS = Path(__file__).with_name("checkpoint_ranks.py")

OPTIONS = [
    {},
    {"policy": "fixed", "M": 1.5, "on_violation": "control"},
    {"policy": "leave_one_out", "groups": 3},
    {"policy": "decayed", "half_life": 9.0, "groups": 3, "on_violation": "thin"},
    {"policy": "quantile", "level": 0.9, "groups": 3},
    {"policy": "quantile", "level": 0.9, "confidence": 0.8},
    {"policy": "budget", "rate": 0.4, "half_life": 30.0},
    {"policy": "tail"},
]


def fill(options, rows=500, seed=0):
    envelope = Envelope(**options)
    generator = torch.Generator().manual_seed(seed)
    log_ratio = torch.randn(rows, generator=generator)
    ids = torch.randint(envelope.groups, (rows,), generator=generator)
    envelope.update(log_ratio, ids, accepted=log_ratio > 0)
    return envelope


@pytest.mark.parametrize("options", OPTIONS)
def test_a_state_dict_is_loaded_whatever_was_seen_before(options, tmp_path):
    saved, loaded = fill(options), fill(options, rows=20, seed=1)
    checkpoint.save({"envelope": saved.state_dict(), "step": 3}, checkpoint_id=tmp_path)
    state = {"envelope": loaded.state_dict(), "step": 0}
    checkpoint.load(state, checkpoint_id=tmp_path)
    loaded.load_state_dict(state["envelope"])
    assert loaded.to_bytes() == saved.to_bytes()
    assert state["step"] == 3


@pytest.mark.parametrize("options", OPTIONS)
def test_an_envelope_itself_is_saved_and_loaded(options, tmp_path):
    saved, loaded = fill(options), Envelope(**options)
    checkpoint.save({"envelope": saved}, checkpoint_id=tmp_path)
    checkpoint.load({"envelope": loaded}, checkpoint_id=tmp_path)
    assert loaded.to_bytes() == saved.to_bytes()


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    checkpoint.save({"envelope": fill({"policy": "max", "groups": 3})}, checkpoint_id=tmp_path)
    other = fill({"policy": "leave_one_out", "groups": 3})
    before = other.to_bytes()
    with pytest.raises(ValueError, match="the envelopes differ"):
        checkpoint.load({"envelope": other}, checkpoint_id=tmp_path)
    assert other.to_bytes() == before


class Filter(torch.nn.Module):
    """A module that saves its envelope, as the guide says."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.envelope = Envelope("quantile", level=0.9)

    def get_extra_state(self):
        return self.envelope.state_dict()

    def set_extra_state(self, state):
        self.envelope.load_state_dict(state)


def test_a_module_saves_its_envelope(tmp_path):
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        set_model_state_dict,
    )

    module = Filter()
    module.envelope.update(torch.randn(300))
    torch.save(module.state_dict(), tmp_path / "module.pt")
    plain, split = Filter(), Filter()
    plain.load_state_dict(torch.load(tmp_path / "module.pt", weights_only=True))
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save(get_model_state_dict(module, options=options), checkpoint_id=tmp_path)
        state = get_model_state_dict(split, options=options)
        checkpoint.load(state, checkpoint_id=tmp_path)
    set_model_state_dict(split, state, options=options)
    for other in (plain, split):
        assert other.envelope.to_bytes() == module.envelope.to_bytes()
        assert torch.equal(other.linear.weight, module.linear.weight)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, "state['state'] must be bytes, got Tensor", {"state": torch.zeros(3)}),
        (TypeError, "state['state'] must be bytes, got bytearray", {"state": bytearray(3)}),
        (ValueError, "these 3 bytes are no envelope", {"state": b"abc"}),
        (ValueError, "the envelopes differ", {"state": fill({"groups": 2}).to_bytes()}),
        (ValueError, "unknown entries ['seen']", {"seen": torch.zeros(1, dtype=torch.int64)}),
        (ValueError, "the envelopes differ", {"on_violation": "thin"}),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(error, message, change):
    envelope = fill({})
    before = envelope.to_bytes()
    with pytest.raises(error) as raised:
        envelope.load_state_dict({**envelope.state_dict(), **change})
    assert message in str(raised.value)
    with pytest.raises(ValueError, match=r"state lacks \['state'\]"):
        envelope.load_state_dict({k: v for k, v in envelope.state_dict().items() if k != "state"})
    assert envelope.to_bytes() == before


@pytest.mark.process
@pytest.mark.parametrize(("saving", "loading"), [(2, 1), (1, 2)])
def test_ranks_save_and_another_number_loads(saving, loading, tmp_path):
    run_script(RANKS, saving, loading, tmp_path)
