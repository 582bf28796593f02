"""A language model, a tokenizer and data small enough to train in a test, made from nothing."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{n}" for n in range(60)]
SPECIAL = ["<pad>", "<eos>", "<unk>", "<bos>"]
V = len(WORDS) + len(SPECIAL)


def model(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3}
    return LlamaForCausalLM(LlamaConfig(vocab_size=V, **sizes, **heads, **ends))


def tokenizer():
    ids = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(("pad_token", "eos_token", "unk_token", "bos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


def texts(rows=64, seed=0):
    """Return sentences of different lengths, and a reward of each."""
    draws = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 12, (rows,), generator=draws).tolist()
    words = [torch.randint(60, (n,), generator=draws).tolist() for n in lengths]
    rewards = torch.rand(rows, generator=draws).tolist()
    sentences = [" ".join(WORDS[n] for n in row) for row in words]
    return Dataset.from_dict({"text": sentences, "reward": rewards})


def prompts(rows=32):
    return Dataset.from_dict({"prompt": [f"w{n} w{n + 1}" for n in range(rows)]})


def arguments(kind, folder, **more):
    """Return training arguments of 20 steps that are saved at the tenth, on the CPU, silent."""
    given = {
        "output_dir": str(folder), "max_steps": 20, "save_steps": 10, "logging_steps": 2,
        "per_device_train_batch_size": 4, "learning_rate": 1e-2, "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    return kind(**{**given, **more})
