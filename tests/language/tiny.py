"""A language model of characters, a task and a run small enough for a test, made from nothing."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rskernels.language.config import LanguageConfig
from rskernels.language.policy import policy_of
from rskernels.language.task import Task, mixed

SPECIAL = ["<pad>", "<eos>", "<unk>"]
LETTERS = [*"0123456789abcdef=+ "]
V = len(SPECIAL) + len(LETTERS)


def tokenizer():
    ids = {letter: number for number, letter in enumerate([*SPECIAL, *LETTERS])}
    letters = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.decoder = decoders.Fuse()
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=letters, padding_side="left", **names)


def model(seed=0, **more):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    given = {**sizes, **heads, **ends, **more}
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=V, **given))


def folder(path, **more):
    """Write a model and its tokenizer."""
    model(**more).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def reward(prompts, completions, **columns):
    """Say whether an answer begins with a digit: one in two of a model that knows nothing."""
    return [float(text[:1].isdigit()) for text in completions]


def task(train=12, test=4):
    rows = [{"prompt": f"{n % 10}{'+ab'[: n % 4]}=", "answer": str(n)} for n in range(train + test)]
    return Task("digits first", rows[:train], rows[train:], reward)


def letters(prompts, completions, **columns):
    """Say whether an answer has a letter, of which the model knows as little."""
    return [float(any(one in "abcdef" for one in text)) for text in completions]


def two():
    """Return two tasks as one; the second has a column that the first has not."""
    rows = [{"prompt": f"{n % 10}{'fe' * (n % 3)}+", "n": n} for n in range(9)]
    count = {"length": len}
    other = Task("letters", rows[:7], rows[7:], letters, str.lower, count)
    return mixed([task(train=7, test=3), other])


def config(path, **more):
    usual = {
        "model": str(path), "rounds": 2, "samples": 4, "max_new_tokens": 6, "rows_at_once": 16,
        "batch_size": 16, "micro_batch": 8, "eval_samples": 2, "lr": 0.01, "device": "cpu",
        "seed": 5,
    }  # fmt: skip
    return LanguageConfig(**{**usual, **more})


def policy(dtype=torch.float32, **more):
    return policy_of(model(**more).to(dtype), tokenizer(), config("given"), torch.device("cpu"))
