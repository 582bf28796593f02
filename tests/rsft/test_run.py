"""The gradient loop on a model and data of one's own, and its state."""

import itertools

import pytest
import torch
from torch import nn

from rskernels import rsft
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.loop import Loop
from rskernels.rsft.state import Step, Totals

PRIOR = torch.tensor([0.9, 0.1])


def make_task(seed=0):
    """Return two classes of points, one of which is rare, a linear model, and p̂ even."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(PRIOR, 200, replacement=True, generator=generator)
    inputs = labels[:, None] * 2 - 1 + torch.randn(200, 3, generator=generator)
    pool, test = (
        rsft.Samples(inputs[part], labels[part]) for part in (slice(150), slice(150, 200))
    )
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    counts = pool.labels.bincount()
    return rsft.Task.from_samples(pool, test, model, rsft.log_class_balance(counts)[pool.labels])


def config(**options):
    return rsft.LoopConfig(**{"epochs": 3, "batch_size": 25, "envelope": "max", **options})


def test_a_model_of_ones_own_is_trained_and_resumed(tmp_path):
    straight = rsft.train(make_task(), config(), tmp_path / "a", progress=False)
    assert straight["rows"] == 450
    assert 0 < straight["gradient_samples"] < 450
    assert straight["balanced_accuracy"] > 0.7
    rsft.train(make_task(), config(epochs=1), tmp_path / "b", progress=False)
    resumed = rsft.train(make_task(), config(), tmp_path / "b", resume=True, progress=False)
    assert {**resumed, "seconds": 0} == {**straight, "seconds": 0}


def test_the_state_is_saved_and_restored_whole(tmp_path):
    first = Loop(make_task(), config(), torch.Generator().manual_seed(3))
    first.pilot()
    first.epoch(lambda step, part: None)
    checkpoint.save(tmp_path / "state", first.state.state_dict())
    second = Loop(make_task(), config(), torch.Generator().manual_seed(4))
    second.load_state_dict(checkpoint.read(tmp_path / "state"))
    records = [loop.epoch(lambda step, part: None) for loop in (first, second)]
    assert all(record.pop("seconds") > 0 for record in records)
    assert records[0] == records[1]
    assert records[0]["epoch"] == 2
    for one, other in zip(
        *(loop.state.model.parameters() for loop in (first, second)), strict=True
    ):
        assert torch.equal(one, other)


def changed(**fields):
    return make_task()._replace(**fields)


OTHERS = {
    "other values": lambda: make_task(seed=1),
    "other shape": lambda: changed(test=rsft.Samples(*(t[:20] for t in make_task().test))),
    "other density": lambda: changed(log_density=make_task().log_density + 1),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_is_resumed_on_its_own_data_alone(tmp_path, other):
    rsft.train(make_task(), config(epochs=1), tmp_path, progress=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(rsft.CheckpointError, match="holds a run on other data"):
        rsft.train(OTHERS[other](), config(), tmp_path, resume=True, progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 2).double(), r"weight was .*float32.*, is .*float64"),
        (nn.Linear(3, 2, bias=False), r"bias was .*, is None"),
        (nn.Sequential(nn.Linear(3, 2)), "weight was .*, is None"),
    ],
)
def test_a_run_is_resumed_with_its_own_model_alone(tmp_path, model, message):
    rsft.train(make_task(), config(epochs=1), tmp_path, progress=False)
    with pytest.raises(rsft.CheckpointError, match=f"does not fit the model: {message}"):
        rsft.train(changed(model=model), config(), tmp_path, resume=True, progress=False)


def test_a_model_of_which_other_parts_learn_is_not_resumed(tmp_path):
    rsft.train(make_task(), config(epochs=1), tmp_path, progress=False)
    task = make_task()
    task.model.bias.requires_grad_(False)
    with pytest.raises(rsft.CheckpointError, match="does not fit the model: "):
        rsft.train(task, config(), tmp_path, resume=True, progress=False)


def test_what_else_bits_depend_on_is_said(tmp_path, capsys, monkeypatch):
    rsft.train(make_task(), config(epochs=1), tmp_path, progress=False)
    monkeypatch.setattr("torch.__version__", "9.9.9")
    rsft.train(make_task(), config(), tmp_path, resume=True, progress=False)
    assert "perhaps not bit-identically: torch was 2." in capsys.readouterr().err


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path):
    class Intruder(nn.Linear):
        def forward(self, inputs):
            for resume in (False, True):
                with pytest.raises(rsft.CheckpointError, match=r"another run|nothing to resume"):
                    rsft.train(make_task(), config(), tmp_path, resume=resume, overwrite=not resume)
            return super().forward(inputs)

    task = changed(model=Intruder(3, 2))
    assert rsft.train(task, config(epochs=2), tmp_path, progress=False)["epoch"] == 2


def test_the_beginnings_of_a_run_are_not_to_be_resumed(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(FileExistsError, match="already holds a run: overwrite it or name another"):
        rsft.train(make_task(), config(), tmp_path, progress=False)


ONE = torch.zeros(50, dtype=torch.long)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test": rsft.Samples(torch.zeros(50, 3), ONE)}, "all 50 rows of test are of class 0"),
        ({"test": rsft.Samples(torch.zeros(0, 3), ONE[:0])}, "test has 0 inputs and 0 labels"),
        ({"test": rsft.Samples(torch.zeros(9, 3), ONE)}, "test has 9 inputs and 50 labels"),
        ({"test": rsft.Samples(torch.zeros(50, 3), ONE + 7)}, "labels 7 to 7, the counts are of 2"),
        ({"log_density": torch.zeros(151)}, "log_density has 151 rows, the pool 150"),
        ({"targets": ONE}, "targets has 50 rows, the pool 150"),
    ],
)
def test_a_task_that_does_not_fit_together_is_refused(tmp_path, fields, message):
    with pytest.raises(rsft.DataError, match=message):
        rsft.train(changed(**fields), config(), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_steps_of_the_loop_by_hand():
    """Score, decide, step and learn: plain uses every row, and the loss is their mean."""
    task = make_task()
    loop = Loop(task, rsft.LoopConfig(method="plain", lr=0.1), torch.Generator())
    batch = loop.score(torch.arange(10), task.log_density)
    decided = loop.decide(batch)
    assert decided.selection.mask.all()
    assert decided.M is None
    loss, squared_weights = loop.step(batch, decided.selection)
    assert loss == pytest.approx(torch.tensor(2.0).log())
    assert squared_weights == pytest.approx(1 / 10)
    gradient = (0.5 - nn.functional.one_hot(batch.labels, 2).float()).mean(0)
    torch.testing.assert_close(task.model.bias.detach(), -0.1 * gradient)


# A w/M too large for a float64 is divergence, for the rules that reject and so tell of w/M.
@pytest.mark.parametrize(
    ("method", "spread"),
    [
        *itertools.product(["accept", "control"], [100.0, 691.0]),
        *itertools.product(["importance", "reweight"], [100.0, 691.0, 1e4, 1e37]),
    ],
)
def test_training_goes_on_whatever_the_ratios(tmp_path, method, spread):
    task = make_task()
    logits = torch.zeros(150, 2)
    logits[torch.arange(150), 1 - task.pool.labels] = torch.linspace(0, spread, 150)
    envelope = "fixed:2" if method in ("accept", "control") else None
    if method == "reweight":
        task = task._replace(log_density=torch.linspace(-spread, spread, 150))
    options = config(method=method, envelope=envelope)
    summary = rsft.train(task._replace(logits=logits), options, tmp_path, progress=False)
    assert summary["skipped_steps"] == 0
    assert 0 <= summary["delta"] <= 1
    assert all(p.isfinite().all() for p in task.model.parameters())


def test_totals_are_sums_of_the_steps():
    totals = Totals()
    first = Step(10, 5, 1, 2, loss=0.7, delta=0.25, M=3.0, squared_weights=0.2, seconds=1.5)
    totals.add(first)
    totals.add(first._replace(accepted=0, violations=0, invalid=0, loss=None, squared_weights=0.0))
    assert (totals.steps, totals.rows, totals.gradient_samples) == (2, 20, 5)
    assert (totals.skipped_steps, totals.violations, totals.invalid) == (1, 1, 2)
    assert (totals.delta, totals.seconds) == (0.5, 3.0)
    assert totals.acceptance == 0.25
    assert totals.gradient_ess == pytest.approx(1 / 0.2)
