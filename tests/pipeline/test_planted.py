"""Faults planted in the selection of files, one at a time: a test of it must catch each."""

import numpy as np
import pytest

from rskernels.pipeline import decide, job
from rskernels.pipeline.rows import hashing
from rskernels.pipeline.store import duplicates, runs
from rskernels.rsft.errors import DataError

from . import test_faults as faults
from . import test_pairs as pairs
from . import test_select as select
from . import test_together as together

named_keys, numbered, drawn = job.named_keys, job.numbered, decide.bernoulli_mask
until, list_bounds = runs._Run.until, hashing.list_bounds


def by_place(piece, found, work):
    keys = named_keys(piece, found, work)
    return keys._replace(id=np.arange(len(keys.id)))


def without_those_before(hashes, before=None):
    return numbered(hashes)


def by_another_stream(log_ratio, *, stream, **law):
    return drawn(log_ratio, stream=0, **law)


def parted(self, cut):
    is_odd = int(self._path.stem) % 2
    return until(self, None if cut is None else cut + is_odd * (1 << 62))


def without_last(column):
    starts, ends = list_bounds(column)
    return starts, np.maximum(starts, ends - 1)


def one_by_one(runs_of_pieces):
    return sum(_duplicates([run])[0] for run in runs_of_pieces), []


_duplicates = duplicates.duplicates_in


def orders(naming):
    return lambda tmp_path: select.test_order_and_files_change_nothing(naming, tmp_path)


FAULTS = {
    "ids by place": (job, "named_keys", by_place, orders("id")),
    "equal rows counted a piece": (job, "numbered", without_those_before, orders("count")),
    "another stream": (
        decide, "bernoulli_mask", by_another_stream, select.test_what_is_kept_is_what_tilt_keeps,
    ),
    "lists without their last": (
        hashing, "list_bounds", without_last,
        select.test_fields_beside_role_and_content_make_another_prompt,
    ),
    "ids that come twice in two pieces": (
        "rskernels.pipeline.run", "duplicates_in", one_by_one,
        lambda path: faults.test_ids_that_come_twice_are_refused("numbers", path),
    ),
    "pairs whose first is not better": (
        pairs, "pair_up", lambda rows, most: (np.zeros(len(rows), int), rows["kept"].astype(int)),
        lambda path: pairs.test_no_row_is_in_two_pairs_and_none_of_nothing(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name, tmp_path, monkeypatch):
    place, attribute, fault, check = FAULTS[name]
    if isinstance(place, str):
        monkeypatch.setattr(f"{place}.{attribute}", fault)
    else:
        monkeypatch.setattr(place, attribute, fault)
    # By a test, or by the selection itself, which refuses ids that come twice.
    with pytest.raises((AssertionError, DataError, pytest.fail.Exception)):
        check(tmp_path)


def test_prompts_that_are_parted_are_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(runs._Run, "until", parted)
    with pytest.raises(AssertionError), monkeypatch.context() as patch:
        together.test_as_in_memory("top_k", False, tmp_path, patch)
