"""What a run is: its options, and which of them are accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

import rskernels
from rskernels.envelope.policies import FORGETTING, parse_spec
from rskernels.rsft.data.bundled import Data, check_source, load_data
from rskernels.rsft.data.resample import RESAMPLERS
from rskernels.rsft.rules import RULES, Rule

# Methods besides the rules: what is drawn, or tuned, or accepted by rejection is no sample, or
# nothing is.
METHODS = (*RULES, *RESAMPLERS, "proposal", "tuned", "parameter")
# Methods of a shift of the inputs, whose pool is balanced unless an imbalance is given.
SHIFTED = ("transfer", "proposal")
IMBALANCE = 20.0  # of the other methods
MULTIMODAL_IMBALANCE = 5.0  # of them, where a class of the rarest modality has 1 to 5 rows
# Methods of whom none can meet class priors that move.
STILL = (*SHIFTED, "tuned", "parameter")
RATIOS = ("models", "densities")
SELECTIONS = ("reject", "weight", "all", "target")
PROPOSALS = ("normal", "coupling")
FORMS = ("chain", "independent")
LEAST_STEPS = 7  # of a chain, of which 4 count, so that its halves can be compared

# The most of each that is accepted: what torch takes, and threads that a machine can start.
LIMITS = {
    "epochs": 2**31 - 1,
    "batch_size": 2**31 - 1,
    "threads": 1024,
    "pretrain_epochs": 2**31 - 1,
    "rounds": 1000,
    "draws": 2**31 - 1,
    "steps": 2**31 - 1,
    "chains": 2**20,
}
LARGEST_LR = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Config:
    """What a run is: two runs of equal Config are bit-identical.

    Attributes
    ----------
    data : str
        One of ``rskernels.rsft.data.DATASETS``.
    path : str, optional
        Where the data are: of "mnist" the folder, of "npz" the file.
    method : str
        One of ``METHODS``.
    envelope : str
        Policy of the envelope constant M, as ``Envelope.parse`` reads it. Read by rules that
        reject and have no envelope of their own.
    half_life : float, optional
        Samples after which a quantile, budget or decayed envelope has forgotten half of what it
        saw, since q moves as the model learns. One pass over the pool by default, or, where each
        modality has an M of its own, over the rarest modality; inf never forgets.
    freeze : bool
        M stays what the pilot pass has made of it.
    drift : int, optional
        Epochs over which the class priors move from the long tail to its reverse, at least 2: an
        epoch's rows are then drawn by its priors from a balanced pool. None keeps the pool's.
    imbalance : float, optional
        Most frequent class of the pool over its rarest; 20 by default, 1 for methods of a shift,
        5 for "multimodal", within each modality.
    test_fraction : float
        Share of the smallest class held out.
    epochs, batch_size : int
        Passes over the pool and samples of a batch.
    lr, momentum : float
        Of SGD.
    seed : int
        Decides split, pool, initial weights, order and draws.
    threads : int
        Of torch; the bits of a convolution depend on it.
    pretrain_epochs : int
        "transfer", "proposal": passes over the shifted pool, before what is then fine-tuned.
    ratio : str
        "transfer": the two probabilities are those of two "models" or of two "densities".
    selection : str
        "transfer", "proposal": rows are chosen by rejection, "reject", or, to compare with, weighed
        by the same ratio, "weight", or all used, "all"; or those of the target domain alone,
        "target", which "proposal" has no labels of.
    proposal : str
        "tuned": a "normal", or "coupling", a network on top of it.
    rounds, draws : int
        "tuned": times that the proposal is tuned, and draws accepted in each round.
    form : str
        "parameter": one of ``FORMS``.
    steps, chains : int
        "parameter": proposals of each chain, half of them burn-in, and chains; or, for
        "independent", ``steps`` draws are accepted.
    tau : float
        "parameter": temperature of the posterior ∝ exp(−L/tau)·prior, L the mean loss.
    prior : float
        "parameter": standard deviation of the normal prior about 0.
    acceptance : float
        "parameter": wanted of a chain.
    """

    data: str = "digits"
    path: str | None = None
    method: str = "accept"
    envelope: str = "quantile:0.9"
    half_life: float | None = None
    freeze: bool = False
    drift: int | None = None
    imbalance: float | None = None
    test_fraction: float = 0.4
    epochs: int = 30
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    seed: int = 0
    threads: int = 1
    pretrain_epochs: int = 10
    ratio: str = "models"
    selection: str = "reject"
    proposal: str = "normal"
    rounds: int = 3
    draws: int = 1000
    form: str = "chain"
    steps: int = 4000
    chains: int = 8
    tau: float = 0.05
    prior: float = 1.0
    acceptance: float = 0.3

    def __post_init__(self) -> None:
        check_source(self.data, self.path)
        for name, accepted in {
            "method": METHODS,
            "ratio": RATIOS,
            "selection": SELECTIONS,
            "form": FORMS,
            "proposal": PROPOSALS,
        }.items():
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: accepted are {', '.join(accepted)}"
                )
        if self.imbalance is None:
            usual = MULTIMODAL_IMBALANCE if self.data == "multimodal" else IMBALANCE
            object.__setattr__(self, "imbalance", 1.0 if self.method in SHIFTED else usual)
        if self.selection == "target" and self.method == "proposal":
            raise ValueError("selection='target': 'proposal' has no labels of the target domain")
        if self.drift is not None:
            if self.method in STILL:
                raise ValueError(f"drift={self.drift}: method={self.method!r} has no class priors")
            if self.data == "multimodal":
                raise ValueError(f"drift={self.drift}: the priors of 'multimodal' stay")
            if not 2 <= self.drift <= LIMITS["epochs"]:
                raise ValueError(f"drift={self.drift}: accepted is 2 to {LIMITS['epochs']}")
        if self.selection != "reject" and self.method not in SHIFTED:
            raise ValueError(
                f"selection={self.selection!r}: only {', '.join(SHIFTED)} read it, "
                f"got method={self.method!r}"
            )
        if self.freeze and (not self.rule.rejects or self.rule.envelope is not None):
            raise ValueError(f"freeze: method={self.method!r} learns no M")
        if self.freeze and self.data == "multimodal":
            raise ValueError("freeze: 'multimodal' has an M for each modality, which is kept even")
        for name, limit in LIMITS.items():
            if not 1 <= getattr(self, name) <= limit:
                raise ValueError(f"{name}={getattr(self, name)}: accepted is 1 to {limit}")
        for name in ("lr", "tau", "prior"):
            if not 0 < getattr(self, name) <= LARGEST_LR:
                raise ValueError(
                    f"{name}={getattr(self, name)}: a positive number up to {LARGEST_LR:.2g} is "
                    "needed"
                )
        if (self.method, self.form) == ("parameter", "chain") and self.steps < LEAST_STEPS:
            raise ValueError(f"steps={self.steps}: a chain needs {LEAST_STEPS}, half are burn-in")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: accepted is [0, 1)")
        if not 0 < self.acceptance < 1:
            raise ValueError(f"acceptance={self.acceptance}: accepted is (0, 1)")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed={self.seed}: accepted is 0 to 2**63 - 1")
        # Where none is given the length of the pool, not known yet, will do for any policy.
        make_envelope(self.envelope, self.half_life, default=1.0)

    @property
    def rule(self) -> Rule:
        """The rule that samples are selected by; "proposal" selects where it draws."""
        if self.method in SHIFTED and self.selection == "weight":
            return RULES["reweight"]
        if self.method in SHIFTED and self.selection != "reject":
            return RULES["plain"]
        return RULES.get(self.method, RULES["plain"])


def make_envelope(
    text: str, half_life: float | None, *, default: float, groups: int = 1
) -> rskernels.Envelope:
    """Return the envelope of a text; one that forgets does so by `default` if none is given."""
    policy, parameter = parse_spec(text)
    if half_life is None and policy in FORGETTING and "half_life" not in parameter:
        half_life = default
    half_life = None if half_life == math.inf else half_life
    return rskernels.Envelope.parse(text, groups=groups, half_life=half_life)


def load(config: Config, generator: torch.Generator) -> Data:
    """Load the data of a run; errors are those of `load_data`."""
    assert config.imbalance is not None
    return load_data(
        config.data,
        path=config.path,
        # Where the priors move it is the stream that is long-tailed.
        imbalance=config.imbalance if config.drift is None else 1.0,
        test_fraction=config.test_fraction,
        generator=generator,
    )
