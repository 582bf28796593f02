import io
import json

import numpy as np
import pytest
import torch

from rskernels.experiments import datasets
from rskernels.experiments.config import GradientConfig, SampleConfig, TuneConfig
from rskernels.experiments.families import run
from rskernels.experiments.multimodal.data import load_spoken_digits, pool_counts
from rskernels.experiments.multimodal.network import (
    NAMES,
    SHAPES,
    WIDTH,
    MultimodalNetwork,
    modality_of,
    pack,
    unpack,
)
from rskernels.experiments.multimodal.words import (
    LONGEST,
    NEIGHBOURS,
    WORDS,
    draw_words,
    encode,
    mistype,
)
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.errors import DataError, TrainingError

QUICK = {"data": "multimodal", "epochs": 2, "test_fraction": 0.6, "imbalance": 2.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def load(imbalance=5.0, test_fraction=0.4, seed=0):
    return datasets.load(
        "multimodal", imbalance=imbalance, test_fraction=test_fraction, generator=generator(seed)
    ).data


def cells(samples):
    """Return the rows of each class of each modality, ``[3, 10]``."""
    cell = 10 * modality_of(samples.inputs) + samples.labels
    return cell.bincount(minlength=30).view(3, 10)


def test_spoken_digits_are_six_of_each_by_thirty_speakers():
    (features, labels), speakers = load_spoken_digits()
    assert features.shape == (1800, 1, 12, 16)
    assert features.dtype == torch.float32
    assert features.min() == 0
    assert features.max() == 1
    both = 10 * speakers + labels
    assert both.bincount().tolist() == [6] * 300
    assert len(features.flatten(1).unique(dim=0)) == 1800


def test_the_pool_is_20_4_1_and_long_tailed_within_each_modality():
    pool, test, counts = load()
    of_pool = cells(pool)
    assert of_pool.amax(dim=1).tolist() == [100, 20, 5]
    assert of_pool.amin(dim=1).tolist() == [20, 4, 1]
    assert counts.tolist() == of_pool.sum(dim=0).tolist()
    assert cells(test).tolist() == [[70] * 10] * 3
    # Which class is rare is drawn for each modality, and anew by another seed.
    assert not torch.equal(of_pool[0].argsort(), of_pool[1].argsort())
    assert not torch.equal(cells(load(seed=1).pool), of_pool)


def test_the_same_seed_gives_the_same_rows():
    for one, other in zip(load(), load(), strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


def test_pool_and_test_set_share_no_row_and_no_speaker():
    pool, test, _ = load()
    rows = torch.cat([pool.inputs, test.inputs])
    assert len(rows.unique(dim=0)) == len(rows)
    (features, _), speakers = load_spoken_digits()
    who = {row.numpy().tobytes(): int(s) for row, s in zip(features, speakers, strict=True)}
    heard = [
        {
            who[row.numpy().tobytes()]
            for row in unpack(part.inputs[modality_of(part.inputs) == 1], 1).contiguous()
        }
        for part in (pool, test)
    ]
    assert all(heard)
    assert not heard[0] & heard[1]


@pytest.mark.parametrize("imbalance", [1.0, 2.5, 3.0, 5.0])
def test_counts_are_20_4_1_by_class(imbalance):
    image, speech, word = pool_counts([104, 108], imbalance)
    assert image[0] == 20 * word[0] <= 104
    assert speech[0] == 4 * word[0]
    for counts in (image, speech, word):
        assert counts.tolist() == sorted(counts.tolist(), reverse=True)
        assert float(counts[0] / counts[-1]) == pytest.approx(imbalance, rel=0.35)
    assert float(image[0] / image[-1]) == pytest.approx(imbalance, rel=0.05)


@pytest.mark.parametrize(
    ("imbalance", "fraction", "message"),
    [
        (20.0, 0.4, r"accepted are 1 \(balanced\) to 5"),
        (0.5, 0.4, r"accepted are 1 \(balanced\) to 5"),
        (float("nan"), 0.4, "accepted are 1"),
        (1.0, 0.95, "a smaller test_fraction leaves more"),
        (1.0, 0.01, "of the 30 speakers"),
        (1.0, 1.0, "at least one for train"),
    ],
)
def test_a_cell_that_would_be_empty_is_refused(imbalance, fraction, message):
    with pytest.raises(DataError, match=message):
        load(imbalance, fraction)


def test_packing_keeps_the_inputs_and_their_modality():
    for modality, shape in enumerate(SHAPES):
        inputs = torch.rand(4, *shape, generator=generator())
        rows = pack(inputs, modality)
        assert rows.shape == (4, WIDTH)
        assert modality_of(rows).tolist() == [modality] * 4
        assert torch.equal(unpack(rows, modality), inputs)
        assert torch.count_nonzero(rows) == 4 + torch.count_nonzero(inputs)


def test_each_encoder_learns_from_its_modality_alone_and_all_share_the_head():
    model = MultimodalNetwork(10, generator())
    rows = torch.cat([pack(torch.rand(2, *shape), m) for m, shape in enumerate(SHAPES)])
    for number in range(3):
        model.zero_grad()
        model(rows[modality_of(rows) == number]).square().sum().backward()
        for other, encoder in enumerate(model.encoders):
            grads = [p.grad for p in encoder.parameters()]
            assert all((g is not None) == (other == number) for g in grads)
        assert model.head.weight.grad.abs().sum() > 0


def test_a_rows_features_do_not_depend_on_which_modalities_are_beside_it():
    model = MultimodalNetwork(10, generator())
    rows = torch.cat([pack(torch.rand(3, *shape), m) for m, shape in enumerate(SHAPES)])
    mixed = rows[torch.randperm(9, generator=generator())]
    together = model(mixed)
    alone = torch.cat([model(row[None]) for row in mixed])
    torch.testing.assert_close(together, alone)


def test_an_error_of_typing_is_one_of_four():
    source = generator()
    for _ in range(300):
        typed = mistype("seven", source)
        if len(typed) == 4:
            assert typed in {"seven"[:i] + "seven"[i + 1 :] for i in range(5)}
        elif len(typed) == 6:
            assert typed in {"seven"[:i] + "seven"[i] + "seven"[i:] for i in range(5)}
        else:
            differ = [i for i in range(5) if typed[i] != "seven"[i]]
            if len(differ) == 1:
                assert typed[differ[0]] in NEIGHBOURS["seven"[differ[0]]]
            else:
                i, j = differ
                assert j == i + 1
                assert typed[i] + typed[j] == "seven"[j] + "seven"[i]


def test_neighbours_on_the_keyboard():
    assert sorted(NEIGHBOURS["g"]) == ["b", "f", "h", "t", "v", "y"]
    assert all(key in NEIGHBOURS[other] for key, near in NEIGHBOURS.items() for other in near)


def test_words_are_wrong_and_no_two_alike():
    words, digits = draw_words(torch.full((10,), 60), generator())
    assert len(set(words)) == 600
    assert not set(words) & set(WORDS)
    assert digits.bincount().tolist() == [60] * 10
    assert max(map(len, words)) <= LONGEST
    more, _ = draw_words(torch.full((10,), 60), generator(1), frozenset(words))
    assert not set(words) & set(more)
    with pytest.raises(DataError, match="ways to mistype"):
        draw_words(torch.full((10,), 5000), generator())


def test_encoded_words_can_be_read_back():
    encoded = encode(["three", "on"])
    assert encoded.shape == (2, 26, LONGEST)
    assert encoded.sum(dim=1).tolist() == [[1] * 5 + [0] * 2, [1] * 2 + [0] * 5]
    letters = encoded.argmax(dim=1)[0, :5].tolist()
    assert "".join(chr(97 + i) for i in letters) == "three"
    with pytest.raises(ValueError, match="more than 7 letters"):
        encode(["threeeee"])


@pytest.mark.parametrize("method", ["plain", "reweight", "importance", "accept", "control"])
def test_every_rule_trains_and_resumes_bit_identically(tmp_path, method):
    config = GradientConfig(**QUICK, method=method)
    straight = run(config, tmp_path / "a", progress=False)
    run(GradientConfig(**{**QUICK, "epochs": 1}, method=method), tmp_path / "b", progress=False)
    resumed = run(config, tmp_path / "b", resume=True, progress=False)
    assert {**resumed, "seconds": 0} == {**straight, "seconds": 0}
    first, second = (checkpoint.read(tmp_path / x / "checkpoint.pt")["model"] for x in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    used = [straight[f"gradient_samples_{name}"] for name in NAMES]
    assert sum(used) == straight["gradient_samples"]
    accuracies = [straight[f"accuracy_{name}"] for name in NAMES]
    assert sum(accuracies) / 3 == pytest.approx(straight["balanced_accuracy"])
    assert ("log_M_word" in straight) == (method == "accept")
    if method == "plain":
        assert used == [2 * straight[f"pool_{name}"] for name in NAMES]


def test_each_modality_has_a_group_of_the_envelope(tmp_path):
    summary = run(GradientConfig(**QUICK, method="accept"), tmp_path, progress=False)
    groups = summary["envelope"]["groups"]
    # The pilot pass and two epochs.
    assert groups["seen"] == [3 * summary[f"pool_{name}"] for name in NAMES]
    used = [summary[f"gradient_samples_{name}"] / summary[f"pool_{name}"] / 2 for name in NAMES]
    assert groups["observed_acceptance"] == pytest.approx(used)
    assert used[0] < used[1] < used[2]


def test_an_envelope_that_knows_no_M_of_the_words_is_said(tmp_path):
    with pytest.raises(TrainingError, match="step 1: the envelope 'tail' has seen too few rows"):
        run(GradientConfig(data="multimodal", envelope="tail", epochs=1), tmp_path, progress=False)


def test_plain_learns_what_there_is_most_of(tmp_path):
    config = GradientConfig(data="multimodal", method="plain", epochs=8)
    summary = run(config, tmp_path, progress=False)
    assert summary["accuracy_image"] > 0.8
    assert summary["accuracy_image"] > summary["accuracy_word"]
    records = [
        json.loads(line)
        for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert sum("accuracy_speech" in record for record in records) == 8


@pytest.mark.parametrize("method", ["transfer", "proposal"])
def test_methods_of_a_shift_are_refused(tmp_path, method):
    config = GradientConfig(**{**QUICK, "imbalance": None}, method=method)
    with pytest.raises(DataError, match="of which 'multimodal' is made only in part"):
        run(config, tmp_path, progress=False)


def test_sample_and_tune_read_the_rows_as_a_table(tmp_path):
    quick = {name: QUICK[name] for name in ("data", "test_fraction", "imbalance")}
    chain = SampleConfig(**quick, steps=20, chains=2)
    assert run(chain, tmp_path / "chain")["parameters"] == 10 * WIDTH + 10
    tuned = TuneConfig(**quick, draws=100, rounds=1)
    assert run(tuned, tmp_path / "tuned")["acceptance"] > 0


def test_the_default_imbalance_leaves_no_class_empty():
    assert GradientConfig(data="multimodal").imbalance == 5
    assert GradientConfig(data="digits").imbalance == 20


def test_what_is_bundled_is_small_and_holds_no_objects():
    from importlib import resources

    content = (
        resources.files("rskernels.experiments.multimodal") / "spoken_digits.npz"
    ).read_bytes()
    assert len(content) < 500_000
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert "eSpeak NG" in str(arrays["made_by"])
        assert len(arrays["names"]) == 30
