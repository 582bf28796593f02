"""When rejection pays: the forms of the loop, what they cost, and the model of it."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rskernels.experiments.seconds import __main__ as command
from rskernels.experiments.seconds.analysis import Course, course_of, ratio_of
from rskernels.experiments.seconds.costs import Cost, costs_of, seconds_of
from rskernels.experiments.seconds.data import make_pool
from rskernels.experiments.seconds.kept import KeptForward
from rskernels.experiments.seconds.methods import METHODS, Run
from rskernels.experiments.seconds.model import Ideal, smallest_row, speed_up
from rskernels.experiments.seconds.network import (
    NETWORKS,
    ResidualMLP,
    TransformerBlock,
    parameters_of,
)
from rskernels.experiments.seconds.study import FULL, QUICK, run_study
from rskernels.experiments.seconds.train import take_step

COSTS = {
    "step": Cost(10.0, 3.0),
    "score": Cost(0.0, 1.0),
    "bf16": Cost(0.0, 0.5),
    "keep": Cost(0.0, 1.0),
    "resume": Cost(10.0, 2.0),
    "decide": Cost(0.0, 0.0),
    "recall": Cost(0.0, 0.01),
}


@pytest.fixture(scope="module")
def pool():
    return make_pool(largest=200, imbalance=4.0, noise=0.1, test=50, seed=1)


def make_run(pool, batch=32):
    return Run(pool, ResidualMLP(32), 3, torch.Generator().manual_seed(3), batch)


def after_a_pass(pool, method):
    """Return a run whose first pass is over, and the batches that follow."""
    run = make_run(pool)
    batches = METHODS[method].batches(run)
    losses = torch.linspace(0.0, 4.0, run.rows)[torch.randperm(run.rows, generator=run.generator)]
    for _ in range(round(run.rows / run.batch)):
        rows = next(batches).rows
        run.losses[rows] = losses[rows]
    return run, batches


def test_the_pool_is_long_tailed_and_shares_no_image_with_the_test_set(pool):
    counts = pool.labels.bincount().sort(descending=True).values
    assert len(counts) == 10
    assert 150 < counts[0] < 210
    assert 40 < counts[-1] < 80
    # p̂ of a row times its class's share is the same for all.
    shares = pool.labels.bincount()[pool.labels] / len(pool.labels)
    torch.testing.assert_close(pool.log_balance, -(shares * 10).log())
    assert pool.test_labels.bincount().tolist() == [5] * 10
    again = make_pool(largest=200, imbalance=4.0, noise=0.1, test=50, seed=1)
    assert torch.equal(again.inputs, pool.inputs)


def test_the_trained_network_has_five_million_parameters():
    first = NETWORKS[FULL.networks[0]]
    assert parameters_of(first.make()) >= 5_000_000


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (ResidualMLP(16), torch.randn(9, 256)),
        (torch.nn.Sequential(TransformerBlock(8), torch.nn.Flatten(), torch.nn.Linear(40, 10)),
         torch.randn(9, 5, 8)),
        (torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(36, 10)),
         torch.randn(9, 2, 5, 5)),
    ],
)  # fmt: skip
def test_a_kept_forward_pass_has_the_gradients_of_one_that_is_not(model, inputs):
    mask = torch.tensor([True, False, False, True, True, False, True, False, True])
    labels, kept = torch.arange(5), KeptForward()
    with kept.scoring():
        scores = model(inputs)
    with kept.training(mask):
        logits = model(inputs[mask])
    F.cross_entropy(logits, labels).backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    F.cross_entropy(model(inputs[mask]), labels).backward()
    torch.testing.assert_close(logits.detach(), scores[mask])
    for grad, parameter in zip(grads, model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


def test_a_kept_forward_pass_is_of_the_rows_that_were_scored():
    model, inputs, kept = ResidualMLP(16), torch.randn(8, 256), KeptForward()
    with kept.scoring():
        model(inputs)
    mask = torch.arange(8) < 4
    with kept.training(mask), pytest.raises(RuntimeError, match="not that of 8 rows of which 6"):
        model(inputs[~mask])
    with kept.training(mask), pytest.raises(RuntimeError, match="same, each row after the other"):
        model(model(inputs[mask]) @ torch.zeros(10, 256))
    # Batch-first attention of torch has tokens before rows.
    layer, tokens = torch.nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True), (8, 3, 8)
    with kept.scoring():
        layer(torch.randn(tokens))
    with kept.training(mask), pytest.raises(RuntimeError):
        layer(torch.randn(tokens)[mask])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_steps_on_batches_of_one_size(pool, method):
    run = make_run(pool)
    batches = METHODS[method].batches(run)
    optimizer = torch.optim.Adam(run.model.parameters(), lr=1e-3)
    sizes = [take_step(run, next(batches), optimizer) for _ in range(90)]
    assert 24 < np.mean(sizes[-40:]) < 40
    assert (run.scored > 0) == ("fresh" in METHODS[method].forms)
    assert bool(run.losses.isfinite().all()) or method.startswith("oversample-classes")


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_cached_scores_accept_the_budget_and_favour_what_is_not_known(pool, rate):
    run, batches = after_a_pass(pool, f"accept-{rate}-cached")
    expected = round(rate * run.rows / run.batch)
    used = torch.cat([batch.rows for batch in itertools.islice(batches, expected)])
    assert abs(len(used) / run.rows - rate) < 0.08
    assert len(used.unique()) == len(used)
    ratio = run.log_ratio()
    assert ratio[used].mean() > ratio.mean() + 0.5


def test_weighing_back_counts_every_row_once(pool):
    run, batches = after_a_pass(pool, "accept-0.3-back")
    passes, total = 60, 0.0
    while run.decided < run.rows * (passes + 1):
        batch = next(batches)
        if run.decided <= run.rows * passes:
            total += float(batch.weights.sum())
    # E[Σ weights] is the number of rows, whatever M; the variance is that of an M as large as the
    # largest ratio at most, and 5.5 standard errors are left.
    ratio = run.log_ratio()
    spread = math.sqrt(passes * float((ratio.max() - ratio).exp().sum()))
    assert abs(total - passes * run.rows) < 5.5 * spread


def test_M_of_a_half_is_learnt_from_the_other_half(pool):
    masks = []
    for shift in (0.0, 3.0):
        run = make_run(pool)
        batches = METHODS["accept-0.3-cached"].batches(run)
        generator = torch.Generator().manual_seed(3)
        half = torch.randint(2, (run.rows,), generator=generator)
        for _ in range(round(run.rows / run.batch)):
            rows = next(batches).rows
            run.losses[rows] = 1.0 + shift * half[rows]
        used = [next(batches).rows]
        while run.decided == run.rows and len(torch.cat(used)) < 0.28 * run.rows:
            used.append(next(batches).rows)
        masks.append(half[torch.cat(used)].float().mean())
    # Half 1's ratios, e³ times as large, raise M of half 0 alone: it is starved.
    assert 0.4 < masks[0] < 0.6
    assert masks[1] > 0.9


def test_costs_are_lines_through_what_was_timed():
    medians = [["step", n, 0.5 + 0.25 * n] for n in (2, 4, 6)] + [["recall", 8, 4.0]]
    medians += [["score", n, 0.25 * n - 0.2] for n in (2, 4, 6)]
    costs = costs_of({"medians": medians})
    assert costs["step"] == pytest.approx((0.5, 0.25))
    assert costs["recall"] == (0.0, 0.5)
    assert costs["score"].fixed == 0.0
    assert 0.18 < costs["score"].row < 0.25


@pytest.mark.parametrize(
    ("form", "seconds"),
    # 3 steps on 30 rows, the first on the 10 of the pool; 2 scorings of 40 rows in all.
    [("step", 120.4), ("fresh", 160.0), ("bf16", 140.0), ("kept", 140.0)],
)
def test_a_run_costs_what_its_parts_do(form, seconds):
    counts = {"steps": 3, "trained": 30, "scored": 40, "scorings": 2, "decided": 40}
    assert seconds_of(form, counts, COSTS, pool=10) == pytest.approx(seconds)


def test_the_model_of_costs():
    ideal = Ideal(update=0.5)
    assert ideal.row("step", 1.0) == 3.5
    assert ideal.row("fresh", 0.25) == 7.5
    assert ideal.row("bf16", 0.25) == 5.5
    assert ideal.row("kept", 0.25) == 6.5
    assert ideal.speed_up("kept", 0.25, 2.0) == pytest.approx(7 / 6.5)
    assert ideal.speed_up("fresh", 0.25, ideal.needed("fresh", 0.25)) == pytest.approx(1.3)
    # What a score may cost is what brings the speed-up to the one wanted.
    cost = ideal.affordable(0.25, 2.0)
    assert Ideal(update=0.5, bf16=cost).speed_up("bf16", 0.25, 2.0) == pytest.approx(1.3)
    # 10 rows: 40 s; with 20 scored, 60 s; on kept products, 50 s.
    assert speed_up("fresh", 0.5, 1.5, 10, COSTS) == pytest.approx(1.0)
    assert speed_up("kept", 0.5, 1.5, 10, COSTS) == pytest.approx(1.2)
    row = smallest_row(0.5, 2.0, COSTS)
    assert 2.0 * row / (row + 0.01 / 0.5) == pytest.approx(1.3)
    assert smallest_row(0.5, 1.2, COSTS) == math.inf


def test_an_accuracy_is_reached_between_two_judgements():
    piece = {"accuracy": [0.1, 0.1, 0.4, 0.7, 1.0], "rows": 5}
    piece |= {name: [0, 1, 2, 3, 4] for name in ("trained", "scored", "scorings", "decided")}
    course = course_of(piece, every=8)
    assert course.accuracy.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.4, 0.7])
    counts, is_reached = course.at(0.3)
    assert is_reached
    assert counts["steps"] == pytest.approx(20.0)
    assert counts["scored"] == pytest.approx(2.5)
    counts, is_reached = course.at(0.8)
    assert not is_reached
    assert counts["steps"] == 32.0
    flat = Course(np.full(3, 0.5), {"steps": np.arange(3.0)}, 1)
    assert flat.at(0.5)[0]["steps"] == 1.0
    assert ratio_of([2.0, 0.5]).mean == pytest.approx(1.0)


@pytest.mark.usefixtures("figures")
def test_a_quick_study_writes_its_report_and_goes_on(tmp_path, capsys):
    out = ["--quick", "--out", str(tmp_path / "runs")]
    command.main([*out, "--only", "trained-0-plain"])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["trained-0-plain.json"]
    command.main([*out, "--report", str(tmp_path / "report")])
    said = capsys.readouterr()
    page = tmp_path / "report" / "seconds.md"
    assert said.out.strip() == str(page)
    assert "costs-MLP-136-wide" in said.err
    text = page.read_text(encoding="utf-8")
    for method in METHODS.values():
        for name in method.forms.values():
            assert f"\n| {name} | " in text
    for name in ("courses", "speed", "model"):
        assert (tmp_path / "report" / f"seconds-{name}.png").stat().st_size > 0
    record = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(record["pieces"]) == len(QUICK.networks) + 1 + QUICK.seeds * len(METHODS)
    made = []
    run_study(QUICK, tmp_path / "runs", made.append)
    assert made == []  # nothing was made again
