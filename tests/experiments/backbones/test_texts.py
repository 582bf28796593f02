"""Texts: what is drawn, their tokens, and their encoders, from files to a run."""

import json
import sys

import pytest
import torch

from rskernels.experiments.config import GradientConfig, SampleConfig, TuneConfig
from rskernels.experiments.families import run
from rskernels.experiments.suite import EXPERIMENTS, NAMED, choose, make_runs
from rskernels.experiments.texts import draw_texts, to_tokens
from rskernels.experiments.train import make_task
from rskernels.rsft.errors import DataError

transformers = pytest.importorskip("transformers")

QUICK = {"data": "bigrams", "epochs": 2, "max_tokens": 6}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_texts_are_drawn_by_zipf_and_tested_evenly():
    state = torch.get_rng_state()
    train, test = draw_texts(generator())
    assert torch.equal(torch.get_rng_state(), state)
    sizes = train.labels.bincount()
    assert sizes.sort(descending=True).values.tolist() == [round(400 / k) for k in range(1, 11)]
    assert test.labels.bincount().tolist() == [50] * 10
    lengths = [len(text.split()) for text in train.texts + test.texts]
    assert (min(lengths), max(lengths)) == (6, 16)
    assert draw_texts(generator())[0].texts == train.texts
    other = draw_texts(generator(1))[0]
    assert other.texts != train.texts
    assert other.labels.bincount().tolist() != sizes.tolist()


def test_the_class_of_a_text_shows_in_its_words_and_in_their_order():
    """By the frequencies of the other texts, of words and of pairs, naive Bayes beats chance."""
    train, test = draw_texts(generator())
    parts = [[text.split() for text in part.texts] for part in (train, test)]
    words = {
        word: n for n, word in enumerate(sorted({w for part in parts for t in part for w in t}))
    }
    assert len(words) == 120
    right = {}
    for name, pairs in (("words", False), ("pairs", True)):
        count = torch.full((10, 120, 120) if pairs else (10, 120), 0.5, dtype=torch.float64)
        rows = [[torch.tensor([words[w] for w in text]) for text in part] for part in parts]
        for text, label in zip(rows[0], train.labels, strict=True):
            at = (label, text[:-1], text[1:]) if pairs else (label, text)
            count.index_put_(at, torch.ones(1, dtype=torch.float64), accumulate=True)
        odds = (count / count.sum(-1, keepdim=True)).log()
        score = torch.stack(
            [odds[:, t[:-1], t[1:]].sum(1) if pairs else odds[:, t].sum(1) for t in rows[1]]
        )
        right[name] = float((score.argmax(1) == test.labels).double().mean())
    # Of 500 at 0.1, one standard error is 0.013.
    assert right["words"] > 0.4
    assert right["pairs"] > 0.3


def test_tokens_are_learnt_from_the_first_texts_and_end_in_padding(capsys):
    train, test = to_tokens([["ab ab ab", "ab"], ["ab", "ab zß"]], None, 4)
    assert train.shape == (2, 3)
    assert train[1].tolist() == [int(train[0, 0]), -1, -1]
    assert test[0].tolist()[:1] == train[1].tolist()[:1]
    assert test.shape == (2, 4)  # of bytes that the first texts do not hold
    assert (test[1] >= 0).all()
    assert "1 of 4 texts have more than max_tokens=4" in capsys.readouterr().err


def test_a_text_means_the_same_beside_longer_ones():
    task = make_task(GradientConfig(data="bigrams"), generator())
    tokens = task.pool.inputs[:40]
    alone = torch.cat([task.model(row[None]) for row in tokens])
    torch.testing.assert_close(task.model(tokens), alone, rtol=1e-4, atol=1e-5)
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 100
    assert not torch.allclose(task.model(changed), alone, atol=1e-3)


def test_accept_trains_a_small_encoder_and_is_resumed_bit_identically(tmp_path):
    straight = run(GradientConfig(**QUICK), tmp_path / "a", progress=False)
    run(GradientConfig(**{**QUICK, "epochs": 1}), tmp_path / "b", progress=False)
    resumed = run(GradientConfig(**QUICK), tmp_path / "b", resume=True, progress=False)
    seconds = {"seconds"}
    assert {k: v for k, v in resumed.items() if k not in seconds} == {
        k: v for k, v in straight.items() if k not in seconds
    }
    assert 0 < straight["acceptance"] < 1


def test_texts_are_compared_where_that_is_asked_for_by_name():
    assert "text" not in [experiment.name for experiment in EXPERIMENTS]
    runs = make_runs(choose((*EXPERIMENTS, *NAMED), names=["text"]), seeds=2)
    assert {each.config.data for each in runs} == {"bigrams"}
    assert {each.config.imbalance for each in runs} == {None}
    assert len({each.case for each in runs}) == 5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a tiny encoder with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "was", "it"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"))
    fast = transformers.BertTokenizerFast(tokenizer_object=tokenizer._tokenizer)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=16,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path):
    rows = [("It was good", "a")] * 12 + [("it was bad bad", "b")] * 8
    path = tmp_path / "reviews.csv"
    path.write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8"
    )
    return str(path)


def test_a_folder_gives_encoder_and_tokenizer(saved, reviews):
    options = {"data": "text", "path": reviews, "backbone": f"transformers:{saved}"}
    task = make_task(GradientConfig(**options), generator())
    assert task.pool.inputs.shape == (14, 8)
    assert {name for name, _ in task.model.named_parameters()} == {"head.weight", "head.bias"}
    model = transformers.BertModel.from_pretrained(saved, add_pooling_layer=False).eval()
    ids = torch.tensor([[2, 7, 6, 4, 3]])  # [CLS] it was good [SEP]
    with torch.no_grad():
        mean = model(ids).last_hidden_state.mean(dim=1)
    good = task.pool.inputs[task.pool.labels == 0]
    torch.testing.assert_close(good, mean.expand_as(good))
    trained = make_task(GradientConfig(**options, unfreeze=True), generator())
    assert trained.pool.inputs.dtype == torch.int64
    torch.testing.assert_close(trained.model.features(trained.pool.inputs[:1]), mean)
    assert sum(p.requires_grad for p in trained.model.parameters()) > 10


def test_a_folder_without_weights_is_trained_from_scratch(saved, reviews, tmp_path):
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    folder = tmp_path / "config"
    folder.mkdir()
    options = {"data": "text", "path": reviews, "backbone": f"transformers:{folder}"}
    with pytest.raises(DataError, match=r"holds no config\.json"):
        make_task(GradientConfig(**options), generator())
    written = folder / "config.json"
    written.write_text(json.dumps({**config, "vocab_size": 500}), encoding="utf-8")
    with pytest.raises(DataError, match="holds no weights: frozen, it would know nothing"):
        make_task(GradientConfig(**options), generator())
    one, same, other = (
        make_task(GradientConfig(**options, unfreeze=True), generator(seed)) for seed in (0, 0, 1)
    )
    embeddings = [
        task.model.backbone.model.embeddings.word_embeddings.weight for task in (one, same, other)
    ]
    assert torch.equal(embeddings[0], embeddings[1])
    assert not torch.equal(embeddings[0], embeddings[2])
    written.write_text(json.dumps({**config, "vocab_size": 50}), encoding="utf-8")
    with pytest.raises(DataError, match=r"knows 50 tokens, the texts have \d+"):
        make_task(GradientConfig(**options, unfreeze=True), generator())


def test_weights_that_are_missing_are_not_drawn_unsaid(saved, reviews, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "cut"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((saved / name).read_bytes())
    state = load_file(saved / "model.safetensors")
    del state["bert.encoder.layer.0.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    options = {"data": "text", "path": reviews, "backbone": f"transformers:{folder}"}
    with pytest.raises(DataError, match=r"lacks 1 weights, encoder\.layer\.0\.output"):
        make_task(GradientConfig(**options), generator())


def test_what_texts_need_is_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r"a tokenizer needs tokenizers.*\[language\]"):
        make_task(GradientConfig(data="bigrams"), generator())


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (TuneConfig, {"data": "bigrams"}, "are texts: only `rskernels train` reads them"),
        (SampleConfig, {"data": "bigrams"}, "are texts: only `rskernels train` reads them"),
        (GradientConfig, {"data": "bigrams", "method": "transfer"}, "'transfer' is of images"),
        (
            GradientConfig,
            {"data": "bigrams", "backbone": "torchvision:x", "weights": "y"},
            "reads images, data='bigrams' texts",
        ),
        (GradientConfig, {"data": "bigrams", "image_size": 9}, "only data imagefolder reads it"),
        (GradientConfig, {"max_tokens": 9}, "only data text or bigrams reads it"),
    ],
)
def test_options_that_do_not_go_together(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
