"""Tokenizers, models and starting models that are made here."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rskernels.experiments.own_answers import run_own_answers
from rskernels.language.config import LanguageConfig
from rskernels.language.rewards import task_from
from rskernels.language.scratch import (
    character_tokenizer,
    small_gpt,
    start,
    word_tokenizer,
    write_start,
)
from rskernels.language.scratch.__main__ import main
from rskernels.language.tasks import arithmetic, task_of


@pytest.fixture
def short(monkeypatch):
    """Make starting models of few demonstrations."""
    for name, usual in start.STARTS.items():
        lessons = tuple(lesson._replace(size=256, epochs=1) for lesson in usual.lessons)
        brief = usual._replace(lessons=lessons, layers=1, width=16, batch=32)
        monkeypatch.setitem(start.STARTS, name, brief)


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (word_tokenizer(arithmetic.WORDS), "7 to 18 : +5 =12 +2 =14 +4 =18"),
        (character_tokenizer("01="), "0110=0100"),
    ],
)
def test_a_tokenizer_reads_and_writes(tokenizer, text, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        ids = each(text)["input_ids"]
        assert each.unk_token_id not in ids
        assert (
            each.decode([each.pad_token_id, *ids, each.eos_token_id], skip_special_tokens=True)
            == text
        )
        assert each("?")["input_ids"] == [each.unk_token_id]
        batch = each([text, text[:1]], padding=True)["input_ids"]
        assert batch[1][0] == each.pad_token_id  # on the left


@pytest.mark.parametrize(
    ("words", "message"),
    [(["a", "b", "a"], "'a' twice"), (["a b"], "without white space"), ([""], "not empty")],
)
def test_words_that_cannot_be_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        word_tokenizer(words)


def test_a_seed_decides_the_weights_and_leaves_torchs_generator():
    tokenizer = character_tokenizer("01=")
    torch.manual_seed(9)
    before = torch.get_rng_state()
    one, same, other = (small_gpt(tokenizer, seed=s, layers=1, width=16) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.transformer.wte.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", ["arithmetic", "parity", "graph"])
def test_a_starting_model_is_a_folder_of_transformers(name, short, tmp_path):
    seen = []
    task = task_of(name, 2)
    write_start(name, task, tmp_path, seed=2, show=lambda *step: seen.append(step[2].loss))
    # Of one lesson: in each the answers are others, and as hard as these are.
    first = seen[: len(seen) // len(start.STARTS[name].lessons)]
    assert len(first) > 4
    assert sum(first[-2:]) < sum(first[:2])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    asked = tokenizer([task.test[0]["prompt"]], return_tensors="pt")
    assert model(**asked).logits.shape[-1] == len(tokenizer)
    said = json.loads((tmp_path / "start.json").read_text(encoding="utf-8"))
    assert (said["task"], said["seed"]) == (name, 2)


def test_a_start_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="arithmetic, parity, graph, got 'sums'"):
        start.starting_policy("sums", task_of("graph", 0), seed=0)


def test_the_demos_rounds_leave_records_and_say_what_they_took(short, tmp_path):
    told = []
    few = {"samples": 2, "eval_samples": 2, "prompts": 8, "eval_prompts": 4, "form": "all"}
    records = run_own_answers(tmp_path, seed=0, rounds=1, say=told.append, beta=None, **few)
    assert [record["round"] for record in records] == [0, 1]
    assert len(told) == 2
    assert (tmp_path / "run" / "curves.png").is_file()


def test_the_command_replaces_nothing_unasked_and_names_its_options(monkeypatch, tmp_path, capsys):
    (tmp_path / "mine").write_text("", encoding="utf-8")
    for arguments, why in (
        (("graph", "--out", tmp_path), "is there already"),
        (("graph", "--out", tmp_path / "mine"), "is there already"),
        (("graph", "--out", tmp_path / "new", "--options", "slips=1"), "no option 'slips'; it has"),
        (("parity", "--out", tmp_path / "new", "--task-options", "bits=x"), "must be int, got 'x'"),
    ):
        monkeypatch.setattr("sys.argv", ["scratch", *map(str, arguments)])
        with pytest.raises(SystemExit):
            main()
        assert why in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_model_of_another_seed_is_told(tmp_path, capsys):
    config = LanguageConfig(model=str(tmp_path), tasks="graph", seed=3)
    for text, told in (
        ('{"task": "graph", "seed": 3}', False),
        ('{"task": "parity", "seed": 2}', False),
        ("[]", False),
        ('{"task": "graph", "seed": 2}', True),
    ):
        (tmp_path / "start.json").write_text(text, encoding="utf-8")
        task_from(config)
        assert ("was made with --seed 2" in capsys.readouterr().err) == told
