"""The options of fine-tuning on a model's own answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rskernels.envelope import Envelope
from rskernels.rsft.config import METHOD, RUN, RunConfig
from rskernels.rsft.options import POSITIVE, Accepted, one_of, option, whole

TILTS = ("verifier", "bounded", "quantile", "best_of", "learnt")
RIVALS = ("rft", "raft", "top_k", "threshold", "rso", "soft_best_of_n", "weights", "all")
FORMS = (*TILTS, *RIVALS)
PILOTED = ("quantile", "best_of", "learnt")
WITH_BETA = ("verifier", "bounded", "quantile", "learnt", "rso", "soft_best_of_n", "weights")

LEARNT_PILOT = 64
"""The largest of few rewards makes a bad M. Of the tilted law of ``tasks.graph``'s walks at beta
0.2, 15 % lie above the largest of 8, and 1.4 % above that of 64."""

MODEL = "Model"
TASKS = "Tasks"
ANSWERS = "Answers"
TRAINING = "Training"
EVALUATION = "Evaluation"

MOST_ROUNDS, MOST_PROMPTS, MOST_SAMPLES = (1 << 14) - 1, 1 << 27, 1 << 20
NOT_NEGATIVE = Accepted(lambda value: 0 <= value < math.inf, "a number of at least 0 is needed")
FINITE = Accepted(math.isfinite, "a finite number is needed")
SHARE = Accepted(lambda value: 0 < value < 1, "accepted is (0, 1)")


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(RunConfig):
    """Rounds of sampling, selecting and training: the seed decides everything."""

    model: str | None = option(
        None,
        "Folder of a transformers causal language model and its tokenizer.",
        MODEL,
        may_change=True,
    )
    dtype: str = option(
        "float32", "Of the parameters.", MODEL, accepted=one_of(("float32", "bfloat16", "float64"))
    )
    device: str = option(
        "auto", "Where the model is.", MODEL, accepted=one_of(("auto", "cpu", "cuda"))
    )
    lora_rank: int = option(
        0, "Rank of LoRA by peft; 0 trains all parameters.", MODEL, accepted=whole(0, 4096)
    )
    lora_alpha: float = option(16.0, "Alpha of LoRA.", MODEL, accepted=POSITIVE)
    lora_targets: str = option(
        "all-linear", "Modules that LoRA is put to, their names between commas.", MODEL
    )
    parallel: str = option(
        "ddp",
        "How several processes of torchrun hold the model: a copy each, or FSDP2's shards.",
        MODEL,
        accepted=one_of(("ddp", "fsdp")),
        may_change=True,
    )

    tasks: str | None = option(
        None,
        "What is asked and how an answer is judged: arithmetic, parity or graph; "
        "reasoning_gym:NAME; module:function, a reward as TRL calls it; or answer, which compares "
        "with a column of that name. Several between commas are asked together.",
        TASKS,
    )
    task_options: str | None = option(
        None,
        "Of the tasks, as name=value between commas; of several tasks as TASK.name=value.",
        TASKS,
        shown="the tasks' own",
    )
    data: str | None = option(
        None,
        "JSON lines with a prompt each, of module:function and answer; of several such tasks a "
        "file each, in their order, between commas.",
        TASKS,
        may_change=True,
    )
    test_data: str | None = option(
        None, "JSON lines of held-out prompts.", TASKS, may_change=True, shown="a part of --data's"
    )
    test_fraction: float = option(
        0.1,
        "Part of the prompts of --data that is held out where there is no --test-data.",
        TASKS,
        accepted=SHARE,
    )
    answer_pattern: str | None = option(
        None,
        "Regular expression: its last match in an answer, or the first group of it, is compared "
        "with the column.",
        TASKS,
        shown="all of the answer",
    )
    chat: bool = option(False, "Put prompts into the tokenizer's chat template.", TASKS)

    rounds: int = option(3, "Rounds.", ANSWERS, accepted=whole(1, MOST_ROUNDS), may_change=True)
    prompts: int | None = option(
        None,
        "Prompts of a round, drawn anew for each.",
        ANSWERS,
        accepted=whole(1, MOST_PROMPTS),
        shown="all",
    )
    samples: int = option(8, "Answers to a prompt.", ANSWERS, accepted=whole(1, MOST_SAMPLES - 1))
    temperature: float = option(
        1.0, "Of sampling; 1 is the model's own law.", ANSWERS, accepted=POSITIVE
    )
    max_new_tokens: int = option(64, "Longest answer.", ANSWERS, accepted=whole(1, 1 << 24))
    rows_at_once: int = option(
        512, "Answers that are generated together.", ANSWERS, accepted=whole(1, 1 << 24)
    )

    form: str = option("verifier", "By what answers are selected.", METHOD, accepted=one_of(FORMS))
    beta: float | None = option(
        0.2,
        "Temperature of the tilt, in units of the reward.",
        METHOD,
        accepted=NOT_NEGATIVE,
        read_by=("form", WITH_BETA),
    )
    bound: float | None = option(
        1.0, "The largest reward there can be.", METHOD, accepted=FINITE,
        read_by=("form", ("bounded",)),
    )  # fmt: skip
    n: int | None = option(
        4, "The law of the best of so many.", METHOD, accepted=whole(1),
        read_by=("form", ("best_of",)),
    )  # fmt: skip
    pilot: int | None = option(
        8,
        "More answers to a prompt, from which quantiles or M follow, and which are not trained on.",
        METHOD,
        accepted=whole(1, MOST_SAMPLES - 1),
        read_by=("form", PILOTED),
        shown=f"8; of learnt {LEARNT_PILOT}",
    )
    envelope: str | None = option(
        "max", "Policy of the M that is learnt, of each prompt.", METHOD,
        read_by=("form", ("learnt",)),
    )  # fmt: skip
    k: int | None = option(
        1, "Answers of a prompt that are kept.", METHOD, accepted=whole(1),
        read_by=("form", ("top_k",)),
    )  # fmt: skip
    least: float | None = option(
        1.0, "The least reward that is kept.", METHOD, accepted=FINITE,
        read_by=("form", ("threshold",)),
    )  # fmt: skip
    num: int | None = option(
        8, "Answers of a prompt that RSO keeps.", METHOD, accepted=whole(1),
        read_by=("form", ("rso",)),
    )  # fmt: skip

    epochs: int = option(1, "Passes over what a round accepted.", TRAINING, accepted=whole(1))
    batch_size: int = option(64, "Answers of a step.", TRAINING, accepted=whole(1))
    micro_batch: int = option(
        32, "Answers that are run together; processes share those of a step.", TRAINING,
        accepted=whole(1),
    )  # fmt: skip
    mean: str = option(
        "tokens",
        "What the loss of a step is a mean over: tokens, or sequences, whose log-probability is a "
        "sum over tokens.",
        TRAINING,
        accepted=one_of(("tokens", "sequences")),
    )
    lr: float = option(1e-3, "Learning rate of AdamW.", TRAINING, accepted=POSITIVE)
    schedule: str = option(
        "constant", "Of the learning rate, in each round.", TRAINING,
        accepted=one_of(("constant", "linear")),
    )  # fmt: skip
    weight_decay: float = option(0.0, "Of AdamW.", TRAINING, accepted=NOT_NEGATIVE)
    clip: float = option(1.0, "Largest norm of the gradient.", TRAINING, accepted=POSITIVE)
    restart: bool = option(
        False, "Train in each round from the model as it was given, as STaR does.", TRAINING
    )

    eval_prompts: int | None = option(
        None, "Held-out prompts, the first of them.", EVALUATION, accepted=whole(1), shown="all"
    )
    eval_samples: int = option(
        8, "Answers to each, for pass@1 to pass@ as many.", EVALUATION,
        accepted=whole(1, MOST_SAMPLES - 1),
    )  # fmt: skip
    right: float = option(1.0, "The least reward of a right answer.", EVALUATION, accepted=FINITE)

    checkpoint_minutes: float = option(
        10.0,
        "Between checkpoints in the training of a round; there is one at its end in any case.",
        RUN,
        accepted=NOT_NEGATIVE,
        may_change=True,
    )

    def __post_init__(self) -> None:
        if self.pilot is None and self.form == "learnt":
            object.__setattr__(self, "pilot", LEARNT_PILOT)
        super().__post_init__()
        if self.beta == 0 and self.form != "verifier":
            raise ValueError(f"beta=0.0: only the form verifier takes 0, got form={self.form!r}")
        if self.samples + (self.pilot or 0) > MOST_SAMPLES:
            raise ValueError(f"samples and pilot are more than {MOST_SAMPLES} together")
        if self.envelope is not None:
            policy = Envelope.parse(self.envelope).policy
            if policy in ("leave_one_out", "tail"):
                raise ValueError(
                    f"envelope={self.envelope!r}: M of a few answers to a prompt is learnt by max, "
                    "quantile:LEVEL, budget:RATE or decayed:HALF_LIFE, or given by fixed:M"
                )

    @property
    def title(self) -> str:
        """The form, and its beta."""
        return self.form if self.beta is None else f"{self.form}, beta {self.beta:g}"
