"""The options of the three families of runs: `train`, `tune` and `sample`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rskernels.experiments.data_config import (
    BACKBONE_SIZE,
    DATA,
    IMBALANCE,
    KEPT,
    MULTIMODAL_IMBALANCE,
    DataConfig,
)
from rskernels.experiments.datasets import OWN_SIZES, TEXTS
from rskernels.rsft.config import METHOD, LoopConfig
from rskernels.rsft.data.resample import RESAMPLERS
from rskernels.rsft.options import INSIDE_ONE, POSITIVE, Accepted, one_of, option, whole
from rskernels.rsft.rules import RULES, Rule

# Methods of a shift of the inputs, whose pool is balanced unless an imbalance is given.
SHIFTED = ("transfer", "proposal")
METHODS = (*RULES, *RESAMPLERS, "proposal")
WITH_PRIORS = tuple(name for name in METHODS if name not in SHIFTED)
LEAST_STEPS = 7  # of a chain, of which 4 count, so that its halves can be compared

SHIFT = f"Shift of the inputs (--method {', '.join(SHIFTED)})"
PROPOSAL = "Proposal"
BACKBONE = "Backbone"
POSTERIOR = "Posterior"
CHAIN = "Metropolis chains (--form chain)"


BACKBONES = Accepted(
    lambda value: (
        value.partition(":")[0] in ("torchvision", "transformers") and bool(value.partition(":")[2])
    ),
    "accepted are torchvision:NAME and transformers:DIR",
)


@dataclass(frozen=True, kw_only=True)
class GradientConfig(LoopConfig, DataConfig):
    """A model trained by the gradient loop: two runs of equal configuration are bit-identical."""

    method: str = option(
        "accept",
        "How samples are selected, and with what weight.",
        METHOD,
        accepted=one_of(METHODS),
    )
    imbalance: float | None = option(
        None,
        "Most frequent class of the training pool over its rarest; rows are left out for it.",
        DATA,
        shown=f"{IMBALANCE:g}; 1 for {' and '.join(SHIFTED)}; {MULTIMODAL_IMBALANCE:g} for "
        f"multimodal; {KEPT}",
    )
    drift: int | None = option(
        None,
        "Epochs over which the class priors move from the long tail to its reverse: an epoch's "
        "rows are then drawn by its priors from a balanced pool.",
        DATA,
        accepted=whole(2),
        read_by=("method", WITH_PRIORS),
        shown="they stay",
    )
    pretrain_epochs: int | None = option(
        10,
        "Passes over the shifted images, before what is then fine-tuned.",
        SHIFT,
        accepted=whole(1),
        read_by=("method", SHIFTED),
    )
    selection: str | None = option(
        "reject",
        "How rows are chosen: reject is the method; weight, all and target are what it is compared "
        "with: weighed by the same ratio, all used, or those of the target domain alone.",
        SHIFT,
        accepted=one_of(("reject", "weight", "all", "target")),
        read_by=("method", SHIFTED),
    )
    ratio: str | None = option(
        "models",
        "transfer: the two probabilities are those of two models, or of two densities.",
        SHIFT,
        accepted=one_of(("models", "densities")),
        read_by=("method", ("transfer",)),
    )

    backbone: str | None = option(
        None,
        "What the head is upon: torchvision:NAME, a classification model of torchvision, or "
        "transformers:DIR, a folder with an image model or an encoder of texts.",
        BACKBONE,
        accepted=BACKBONES,
        shown="a small network, or of texts a small BERT, trained from scratch",
    )
    weights: str | None = option(
        None,
        "File of the weights of a backbone of torchvision: .safetensors, or a state dict of torch.",
        BACKBONE,
        may_change=True,
    )
    unfreeze: bool = option(
        False,
        "Train the backbone too; else its features are computed once, and a new head is trained.",
        BACKBONE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_backbone()
        if self.data in TEXTS and self.method in SHIFTED:
            raise ValueError(f"method={self.method!r} is of images, data={self.data!r} are texts")
        if self.selection == "target" and self.method == "proposal":
            raise ValueError("selection='target': 'proposal' has no labels of the target domain")
        if self.drift is not None and self.data == "multimodal":
            raise ValueError(f"drift={self.drift}: the priors of 'multimodal' stay")
        if self.freeze and self.data == "multimodal":
            raise ValueError("freeze: 'multimodal' has an M for each modality, which is kept even")

    @property
    def usual_imbalance(self) -> float | None:
        """The imbalance where none is given: methods of a shift have a balanced pool."""
        if self.drift is not None:
            return IMBALANCE
        if self.method in SHIFTED and self.data not in OWN_SIZES:
            return 1.0
        return super().usual_imbalance

    def _check_backbone(self) -> None:
        """Raise ValueError if the options of a backbone do not go together."""
        if self.backbone is None:
            for name in ("weights", "unfreeze"):
                if getattr(self, name):
                    raise ValueError(f"{name}={getattr(self, name)!r}: there is no backbone")
            return
        kind = self.backbone.partition(":")[0]
        if self.data == "multimodal":
            raise ValueError(f"backbone={self.backbone!r}: 'multimodal' has encoders of its own")
        if self.data in TEXTS and kind != "transformers":
            raise ValueError(f"backbone={self.backbone!r} reads images, data={self.data!r} texts")
        if (self.weights is None) == (kind == "torchvision"):
            fault = "needs weights" if self.weights is None else "has its weights in its folder"
            raise ValueError(f"backbone={self.backbone!r} {fault}, got weights={self.weights!r}")

    @property
    def usual_image_size(self) -> int | None:
        """Height and width of images where none is given; None where they stay as they are."""
        if self.backbone is not None and self.data not in TEXTS:
            return BACKBONE_SIZE
        return super().usual_image_size

    @property
    def reads_texts(self) -> bool:
        """Whether the models of this family read texts."""
        return True

    @property
    def tokenizer(self) -> Path | None:
        """The folder of a tokenizer: that of an encoder of texts."""
        if self.backbone is None or self.data not in TEXTS:
            return None
        return Path(self.backbone.partition(":")[2]).expanduser()

    @property
    def pool_imbalance(self) -> float | None:
        """The imbalance of the pool: where the priors move it is the stream that is long-tailed."""
        return 1.0 if self.drift is not None else super().pool_imbalance

    @property
    def rule(self) -> Rule:
        """The rule that samples are selected by; "proposal" selects where it draws."""
        if self.selection == "weight":
            return RULES["reweight"]
        if self.selection in ("all", "target"):
            return RULES["plain"]
        return RULES.get(self.method, RULES["plain"])

    @property
    def title(self) -> str:
        """The method, and what else tells this run from others."""
        ratio = "" if self.ratio is None else f", {self.ratio}"
        selection = "" if self.selection in (None, "reject") else f", {self.selection}"
        return f"{super().title}{ratio}{selection}"


@dataclass(frozen=True, kw_only=True)
class TuneConfig(DataConfig):
    """A proposal fine-tuned on the draws that it had accepted, towards the density of the data."""

    proposal: str = option(
        "normal",
        "The first proposal: a normal, or a coupling network on top of it.",
        PROPOSAL,
        accepted=one_of(("normal", "coupling")),
    )
    rounds: int = option(
        3, "Times that it is tuned.", PROPOSAL, accepted=whole(1, 1000), may_change=True
    )
    draws: int = option(1000, "Draws accepted in each round.", PROPOSAL, accepted=whole(1))

    @property
    def title(self) -> str:
        """What tells this run from others."""
        return f"tune, {self.proposal}"


@dataclass(frozen=True, kw_only=True)
class SampleConfig(DataConfig):
    """Parameters of a softmax regression drawn from its posterior, without gradients."""

    form: str = option(
        "chain",
        "chain, by random-walk Metropolis, or independent draws, by rejection.",
        POSTERIOR,
        accepted=one_of(("chain", "independent")),
    )
    steps: int = option(
        4000,
        "Proposals of each chain, half of them burn-in; or independent draws that are accepted.",
        POSTERIOR,
        accepted=whole(1),
    )
    tau: float = option(
        0.05,
        "Temperature of the posterior, exp(-L/tau) times the prior, L the mean loss.",
        POSTERIOR,
        accepted=POSITIVE,
    )
    prior: float = option(
        1.0, "Standard deviation of the normal prior about 0.", POSTERIOR, accepted=POSITIVE
    )
    chains: int | None = option(
        8, "Chains side by side.", CHAIN, accepted=whole(1, 2**20), read_by=("form", ("chain",))
    )
    acceptance: float | None = option(
        0.3,
        "Acceptance rate that the step length is tuned to in the burn-in.",
        CHAIN,
        accepted=INSIDE_ONE,
        read_by=("form", ("chain",)),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "chain" and self.steps < LEAST_STEPS:
            raise ValueError(f"steps={self.steps}: a chain needs {LEAST_STEPS}, half are burn-in")

    @property
    def title(self) -> str:
        """What tells this run from others."""
        return f"sample, {self.form}"
