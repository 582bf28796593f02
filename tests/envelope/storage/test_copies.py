"""Copies, pickles and subclasses: nothing that belongs to an object is lost, nothing is shared."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from rskernels import ColumnOrder
from rskernels.envelope import Envelope


class Named(Envelope):
    """With an argument and attributes of its own."""

    def __init__(self, *arguments, name, **options):
        super().__init__(*arguments, **options)
        self.name, self.log = name, [1, 2]
        self.itself = self


class Slotted(Envelope):
    """With a slot, which is none of its ``__dict__``."""

    __slots__ = ("slot",)


def assert_kept(twin, envelope):
    assert type(twin) is Named
    assert (twin.name, twin.log) == ("mine", [1, 2])
    assert (twin.policy, twin.on_violation, twin.half_life) == ("budget", "thin", 7.0)
    assert twin.to_bytes() == envelope.to_bytes()
    before = envelope.to_bytes()
    twin.update(torch.tensor([9.0]))
    assert envelope.to_bytes() == before != twin.to_bytes()


def named():
    envelope = Named("budget", rate=0.5, half_life=7, on_violation="thin", name="mine")
    envelope.update(torch.randn(50))
    return envelope


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_keeps_what_a_subclass_adds(protocol):
    envelope = named()
    twin = pickle.loads(pickle.dumps(envelope, protocol))
    assert twin.itself is twin
    assert_kept(twin, envelope)


def test_a_deep_copy_keeps_what_a_subclass_adds():
    envelope = named()
    twin = copy.deepcopy(envelope)
    assert twin.itself is twin
    assert twin.log is not envelope.log
    assert_kept(twin, envelope)


def test_a_copy_shares_attributes_and_no_state():
    envelope = named()
    twin = copy.copy(envelope)
    assert twin.log is envelope.log
    assert_kept(twin, envelope)


def test_slots_are_kept():
    envelope = Slotted()
    envelope.slot = [1]
    for twin in (
        copy.copy(envelope),
        copy.deepcopy(envelope),
        pickle.loads(pickle.dumps(envelope)),
    ):
        assert twin.slot == [1]


def test_torch_saves_an_envelope_whole():
    file = io.BytesIO()
    torch.save(named(), file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    assert twin.name == "mine"
    assert twin.seen.item() == 50


def test_a_pickle_of_before_is_read():
    """It called ``from_bytes`` with the bytes."""
    envelope = Envelope("quantile", level=0.9)
    envelope.update(torch.randn(50))

    class Before:
        def __reduce__(self):
            return Envelope.from_bytes, (envelope.to_bytes(),)

    assert pickle.loads(pickle.dumps(Before())).to_bytes() == envelope.to_bytes()


def test_a_module_and_its_copy_have_an_envelope_each():
    module = torch.nn.Linear(2, 2)
    module.envelope = named()
    assert_kept(copy.deepcopy(module).envelope, module.envelope)


def test_a_state_dict_of_numpys_names_is_loaded_as_weights():
    envelope = Envelope(np.str_("max"), groups=np.int64(2), on_violation=np.str_("thin"))
    file = io.BytesIO()
    torch.save(envelope.state_dict(), file)
    file.seek(0)
    twin = Envelope(groups=2, on_violation="thin")
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert twin.to_bytes() == envelope.to_bytes()


@pytest.mark.parametrize("groups", [1, 3])
def test_reports_are_compared_by_identity(groups):
    envelope = Envelope(groups=groups)
    report = envelope.report()
    assert report == report
    assert report != envelope.report()
    assert len({report, report, envelope.report()}) == 2
    assert str(pickle.loads(pickle.dumps(report))) == str(copy.deepcopy(report)) == str(report)


class Labelled(ColumnOrder):
    """An order with attributes."""

    label = ""


def test_a_column_order_is_moved_and_copied_whole():
    order = Labelled.by_weight(torch.arange(3000.0))
    assert type(order) is Labelled
    order.label = "mine"
    for twin in (
        order.to("cpu"),
        copy.copy(order),
        copy.deepcopy(order),
        pickle.loads(pickle.dumps(order)),
    ):
        assert type(twin) is Labelled
        assert (twin.label, twin.V) == ("mine", 3000)
        assert torch.equal(twin.blocks, order.blocks)


def test_a_column_order_takes_numpys_integers():
    order = ColumnOrder(torch.tensor([1, 0]), np.int64(2000))
    assert type(order.V) is int
    with pytest.raises(TypeError, match="V must be an int, got bool"):
        ColumnOrder(torch.tensor([0]), True)
