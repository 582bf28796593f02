"""Balanced sampling: the accepted rows of a stream have the classes that are wanted.

Every comparison of shares is within 5σ, given how many rows were accepted.
"""

import pytest
import torch

from rskernels import Envelope
from rskernels.experiments import train as task
from rskernels.experiments.config import GradientConfig
from rskernels.experiments.multimodal.network import MultimodalNetwork
from rskernels.rsft import loop
from rskernels.rsft.artifacts.metrics import Scores
from rskernels.rsft.balance import Balance
from rskernels.rsft.rules import RULES, State, accept, control

ROWS = 1 << 16
PRIOR = torch.tensor([0.6, 0.25, 0.1, 0.05], dtype=torch.float64)
EVEN = torch.full((4,), 0.25, dtype=torch.float64)
SKEWED = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def stream(prior, rows, generator):
    """Return logits of a model that knows the classes' prior alone, and labels of that prior."""
    labels = torch.multinomial(prior, rows, replacement=True, generator=generator)
    return prior.log().float().expand(rows, -1), labels


def assert_shares(labels, requested):
    n = len(labels)
    share = labels.bincount(minlength=len(requested)).double() / n
    error = (requested * (1 - requested) / n).sqrt()
    assert ((share - requested).abs() <= 5 * error).all(), f"{share} for {requested} of {n}"


def exact(prior, requested):
    """Return log M of the classes: known, and so not learnt from the rows that it decides."""
    return (requested / prior).log().max()


@pytest.mark.parametrize("requested", [EVEN, SKEWED])
def test_fixed_targets(requested, seed):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = stream(PRIOR, 4 * ROWS, generator)
    log_M = exact(PRIOR, requested)
    log_p = requested.log().float()[labels]
    chosen = accept(logits, labels, log_p, State(log_M + 1e-6, seed, 0))
    assert_shares(labels[chosen.mask], requested)
    rate = torch.exp(-log_M)
    error = (rate * (1 - rate) / len(labels)).sqrt()
    assert abs(chosen.mask.double().mean() - rate) <= 5 * error
    assert chosen.counts[1] == 0


def test_the_keep_rate_of_two_classes(seed):
    """[0.6, 0.4] to halves: M = 1.25, keep rate 0.8."""
    prior = torch.tensor([0.6, 0.4], dtype=torch.float64)
    logits, labels = stream(prior, 4 * ROWS, torch.Generator().manual_seed(seed))
    half = torch.full((len(labels),), 0.5).log()
    mask = accept(logits, labels, half, State(torch.tensor(1.25 + 1e-6).log(), seed, 0)).mask
    assert_shares(labels[mask], torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert abs(mask.double().mean() - 0.8) <= 5 * (0.16 / len(labels)) ** 0.5


def test_drifting_priors_and_targets(seed):
    """Both move from block to block; so does M, by an envelope that forgets."""
    generator = torch.Generator().manual_seed(seed)
    envelope = Envelope("decayed", half_life=4.0, groups=4)
    blocks = 8
    accepted, requested_total = [], torch.zeros(4, dtype=torch.float64)
    for block in range(blocks):
        t = block / (blocks - 1)
        prior = (1 - t) * PRIOR + t * PRIOR.flip(0)
        requested = (1 - t) * EVEN + t * SKEWED
        # A class's newest ratio is never forgotten.
        envelope.update((requested / prior).log(), torch.arange(4))
        log_M = envelope.log_M().max() + 1e-6
        logits, labels = stream(prior, ROWS, generator)
        log_p = requested.log().float()[labels]
        chosen = accept(logits, labels, log_p, State(log_M, seed, block * ROWS))
        assert chosen.counts[1] == 0
        kept = labels[chosen.mask]
        assert_shares(kept, requested)
        accepted.append(kept)
        requested_total += len(kept) * requested
    everything = torch.cat(accepted)
    assert_shares(everything, requested_total / len(everything))


def test_targets_per_modality_with_an_M_for_each(seed):
    """Modalities of 20 : 4 : 1, each with a prior of its own, all to be as often and as even."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([20.0, 4.0, 1.0], dtype=torch.float64) / 25
    priors = torch.stack([PRIOR, PRIOR.flip(0), SKEWED])  # [modalities, classes]
    modality = torch.multinomial(shares, 16 * ROWS, replacement=True, generator=generator)
    labels = torch.multinomial(priors[modality], 1, generator=generator)[:, 0]
    # q of a row is its class's within the modality; the wanted density holds the modality's share.
    requested = (EVEN / (3 * shares[:, None]))[modality, labels]
    logits = priors.log().float()[modality]
    per_modality = (EVEN / (3 * shares[:, None]) / priors).log().amax(dim=1)
    envelope = Envelope("max", groups=3)
    envelope.update(per_modality, torch.arange(3))
    log_M = envelope.log_M(modality) + 1e-6
    mask = accept(logits, labels, requested.log().float(), State(log_M, seed, 0)).mask
    for m in range(3):
        assert_shares(labels[mask & (modality == m)], EVEN)
    # One M for all balances the modalities too.
    one = State(per_modality.max() + 1e-6, seed, 0)
    mask = accept(logits, labels, requested.log().float(), one).mask
    assert_shares(modality[mask], torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.fixture
def accepted_of(tmp_path, monkeypatch):
    """Train by `accept` on the bundled modalities; return modality and class of what is used."""
    monkeypatch.setattr(loop, "evaluate", lambda *_: Scores(0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(task, "accuracy_of_each", lambda *_: {})

    def run(config):
        used = []
        update = Balance.update

        def spy(balance, rows, log_ratio, mask=None):
            update(balance, rows, log_ratio, mask)
            if mask is not None:
                used.append(rows[mask])

        with monkeypatch.context() as patch:
            patch.setattr(Balance, "update", spy)
            task.train_model(config, tmp_path, overwrite=True, progress=False)
        rows = torch.cat(used)
        built = task.make_task(config, torch.Generator().manual_seed(config.seed))
        return built.modality[rows], built.pool.labels[rows]

    return run


def test_modalities_and_classes_of_a_training_run(accepted_of, monkeypatch, seed):
    """A model that knows nothing and learns nothing: q is even, and the wanted density decides."""

    class Ignorant(MultimodalNetwork):
        def forward(self, inputs):
            return 0 * self.head.bias.expand(len(inputs), -1)

    monkeypatch.setattr(task, "MultimodalNetwork", Ignorant)
    config = GradientConfig(data="multimodal", envelope="max", epochs=80, batch_size=256, seed=seed)
    modality, labels = accepted_of(config)
    assert len(labels) > 1600
    assert_shares(modality, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert_shares(labels, torch.full((10,), 0.1, dtype=torch.float64))
    for m in range(3):
        assert_shares(labels[modality == m], torch.full((10,), 0.1, dtype=torch.float64))


def test_modalities_of_a_training_run_while_the_model_learns(accepted_of, monkeypatch, seed):
    """It learns images before words, and M follows each: with one M for all the shares go."""
    config = GradientConfig(data="multimodal", epochs=20, seed=seed)
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    modality, _ = accepted_of(config)
    assert len(modality) > 400
    assert_shares(modality, third)
    monkeypatch.setitem(RULES, "accept", RULES["accept"]._replace(balances=False))
    modality, _ = accepted_of(config)
    with pytest.raises(AssertionError, match="for tensor"):
        assert_shares(modality, third)


@pytest.mark.parametrize("M", [0.6, 1.0, 2.0])
def test_rejection_control_is_exact_where_M_is_too_small(M, seed):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = stream(PRIOR, 4 * ROWS, generator)
    log_M = torch.tensor(M, dtype=torch.float64).log()
    chosen = control(logits, labels, EVEN.log().float()[labels], State(log_M, seed, 0))
    assert chosen.counts[1] > 0
    weights, kept = chosen.weights[chosen.mask].double(), labels[chosen.mask]
    total = torch.zeros(4, dtype=torch.float64).index_add_(0, kept, weights)
    share = total / total.sum()
    # The error of a ratio of sums over the rows of the stream (the delta method).
    n, scale = len(labels), float(total.sum()) / len(labels)
    away = (labels[:, None] == torch.arange(4)).double() - EVEN
    away = away * torch.where(chosen.mask, chosen.weights.double(), 0)[:, None]
    error = away.std(dim=0) / scale / n**0.5
    assert ((share - EVEN).abs() <= 5 * error).all()
    # Without the weights it is not.
    plain = kept.bincount(minlength=4).double() / len(kept)
    assert ((plain - EVEN).abs() > 5 * error).any()


def test_rejection_control_is_exact_where_each_row_has_an_M_of_its_own(seed):
    """As leave-one-out has: accepted with min(1, w/M) and weighed by max(w, M), a row counts w."""
    generator = torch.Generator().manual_seed(seed)
    logits, labels = stream(PRIOR, 4 * ROWS, generator)
    log_M = torch.tensor([0.3, 3.0, 1.0, 6.0], dtype=torch.float64).log()[labels]
    chosen = control(logits, labels, EVEN.log().float()[labels], State(log_M, seed, 0))
    weights, kept = chosen.weights[chosen.mask].double(), labels[chosen.mask]
    total = torch.zeros(4, dtype=torch.float64).index_add_(0, kept, weights)
    scale = float(total.sum()) / len(labels)
    away = (labels[:, None] == torch.arange(4)).double() - EVEN
    error = (away * chosen.weights.double()[:, None] * chosen.mask[:, None]).std(dim=0)
    error = error / scale / len(labels) ** 0.5
    assert ((total / total.sum() - EVEN).abs() <= 5 * error).all()
