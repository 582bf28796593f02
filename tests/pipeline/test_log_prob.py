"""Log-probabilities by a model from a folder: those of its own logits, whatever the batches."""

import pytest
import torch

from rskernels.pipeline import LogProb, ScoreConfig, score
from rskernels.pipeline.score.log_prob import _loaded, batched
from rskernels.rsft.errors import DataError

from ..integrations import tiny
from . import files

TEMPLATE = (
    "{% for m in messages %}<bos> {{ m['content'] }} <eos> w59 {% endfor %}"
    "{% if add_generation_prompt %}<bos> {% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(path)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    yield str(path)
    _loaded.cache_clear()


def texts(rows=40):
    sentences = tiny.texts(rows)["text"]
    return [{"prompt": s[:6].rpartition(" ")[0] or "w1", "completion": s, "id": n}
            for n, s in enumerate(sentences)]  # fmt: skip


def wanted(prompt, completion, tokens=None):
    """Return the sum of the model's own log-probabilities of tokens, row by row, and how many."""
    tokenizer, model = tiny.tokenizer(), tiny.model().double().eval()
    first = tokenizer(prompt)["input_ids"]
    second = tokenizer(completion)["input_ids"]
    ids = torch.tensor(first + second)
    with torch.no_grad():
        logs = model(ids[None]).logits[0].log_softmax(-1)
    each = logs[:-1].gather(1, ids[1:, None])[:, 0]
    return float(each[len(first) - 1 :].sum()), len(second)


def scored(rows, folder, out, scorer, max_bad=0, size=None):
    import pyarrow as pa

    out.mkdir(exist_ok=True)
    path = files.write(pa.Table.from_pylist(rows), out / "rows.parquet", group=16)
    report = score([path], out / "out", ScoreConfig(scorer, max_bad=max_bad), piece_size=size)
    return files.read(out / "out", "scored"), report


@pytest.mark.parametrize("with_end", [True, False])
def test_sums_are_those_of_the_models_own_logits(with_end, folder, tmp_path):
    rows = texts()
    scorer = LogProb(folder, with_end, batch_tokens=100, device="cpu")
    got, report = scored(rows, folder, tmp_path, scorer, size=16)
    for row, given in zip(got, rows, strict=True):
        total, count = wanted(given["prompt"], given["completion"] + with_end * " <eos>")
        assert row["log_prob"] == pytest.approx(total, abs=2e-4)
        assert row["log_prob_tokens"] == count
    assert [row["id"] for row in got] == list(range(40))
    assert report["sums"] == {"log_prob_tokens": sum(row["log_prob_tokens"] for row in got)}


def test_conversations_end_where_the_answer_ends(folder, tmp_path):
    said = [(f"w{n} w2", f"w3 w{n}") for n in range(5)]
    roles = ("user", "assistant")
    rows = [
        {"messages": [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]}
        for turns in said
    ]
    got, _ = scored(rows, folder, tmp_path, LogProb(folder, device="cpu"))
    for n, row in enumerate(got):
        total, count = wanted(f"<bos> w{n} w2 <eos> w59 <bos>", f"w3 w{n} <eos>")
        assert row["log_prob"] == pytest.approx(total, abs=2e-4)
        assert row["log_prob_tokens"] == count == 3


def test_rows_that_the_model_cannot_take_are_named(folder, tmp_path):
    rows = [*texts(3), {"prompt": "w1", "completion": "w2 " * 70, "id": 3},
            {"prompt": "", "completion": "w2", "id": 4}]  # fmt: skip
    with pytest.raises(DataError, match="there are 72 tokens, the model takes 64"):
        scored(rows, folder, tmp_path, LogProb(folder, device="cpu"))
    _, report = scored(rows, folder, tmp_path / "two", LogProb(folder, device="cpu"), max_bad=2)
    assert (report["scored"], report["bad"]) == (3, 2)
    assert report["named"][1].endswith("row 5: the prompt has no tokens")


def test_a_model_whose_logits_are_made_otherwise_is_refused(folder, monkeypatch):
    language = _loaded(LogProb(folder, device="cpu"))
    # This model does not read it.
    monkeypatch.setattr(language.causal.config, "logit_scale", 1.5, raising=False)
    with pytest.raises(DataError, match="not those of its head"):
        language.check_head()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no model"):
        LogProb(str(tmp_path)).check([])


def test_batches_are_of_about_one_length_and_hold_all():
    lengths = [5, 90, 3, 40, 41, 3, 200]
    tokens = {n: ([0], [0] * (length - 1)) for n, length in enumerate(lengths)}
    got = list(batched(tokens, 100))
    assert got == [[6], [1], [4, 3], [0, 2, 5]]
