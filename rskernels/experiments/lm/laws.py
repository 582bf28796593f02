"""Laws of answers that can all be listed: the walks on the graph, and all else as one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rskernels.experiments.lm.methods import BETAS
from rskernels.experiments.lm.pool import log_probs_of
from rskernels.language.policy import Policy
from rskernels.language.scratch.start import tokens_of
from rskernels.language.task import Task
from rskernels.language.tasks.graph import all_walks, problem_of
from rskernels.language.train import Example

HALVINGS = 60
LEAST = -6.0
"""The log10 of the least beta that is looked at, and less the largest."""


@dataclass(frozen=True, eq=False)
class Enumerated:
    """Cells of some prompts: each walk is one, and the last of a prompt is whatever is no walk.

    What is no walk has the reward 0, so that a tilt keeps the odds within its cell: divergences of
    tilted laws from each other are exact, and of any others lower bounds.

    Attributes
    ----------
    examples : list of Example
        The walks of all prompts.
    prompt : Tensor
        int64 ``[W]``: the prompt of each walk.
    count : int
        Prompts.
    reward : Tensor
        float64 ``[W + count]``: of the walks, and 0 of the others.
    law : Tensor
        float64 ``[W + count]``: of the starting model.
    """

    examples: list[Example]
    prompt: Tensor
    count: int
    reward: Tensor
    law: Tensor

    @classmethod
    def of(cls, policy: Policy, task: Task, prompts: list[str]) -> Enumerated:
        """List the walks of prompts, and their law by a starting model."""
        examples, whose, rewards = [], [], []
        for place, prompt in enumerate(prompts):
            answers = all_walks(*problem_of(prompt)).answers
            tokens = policy.encode(prompt, False)
            for answer in answers:
                examples.append(Example(tokens, tokens_of(policy.tokenizer, answer), 1.0, 0))
            whose += [place] * len(answers)
            rewards += task.reward([prompt] * len(answers), answers)
        prompt_of = torch.tensor(whose)
        reward = torch.tensor([*rewards, *[0.0] * len(prompts)], dtype=torch.float64)
        made = cls(examples, prompt_of, len(prompts), reward, reward)
        return cls(examples, prompt_of, len(prompts), reward, made.law_of(policy))

    @property
    def cells(self) -> Tensor:
        """The prompt of each cell, ``[W + count]``."""
        return torch.cat([self.prompt, torch.arange(self.count)])

    def law_of(self, policy: Policy) -> Tensor:
        """Return the law of a policy, float64 ``[W + count]``."""
        walks = log_probs_of(policy, self.examples).exp()
        return torch.cat([walks, (1.0 - self._sum(walks, self.prompt)).clamp(min=1e-12)])

    def tilted(self, beta: float) -> Tensor:
        """Return π₀ exp(r/β)/Z of each prompt."""
        log_w = self.law.log() + self.reward / beta
        top = torch.full((self.count,), -math.inf, dtype=torch.float64)
        top = top.scatter_reduce(0, self.cells, log_w, "amax")[self.cells]
        w = (log_w - top).exp()
        return w / self._sum(w, self.cells)[self.cells]

    def divergence(self, law: Tensor, of: Tensor) -> float:
        """Return KL(law ‖ of), the mean over prompts."""
        return float(torch.special.xlogy(law, law / of).sum()) / self.count

    def mean_reward(self, law: Tensor) -> float:
        """Return the mean reward, over prompts."""
        return float((law * self.reward).sum()) / self.count

    def least_divergence(self, reward: float) -> float:
        """Return KL(π* ‖ π₀) of the tilt whose mean reward this is: no law has both less.

        NaN of a reward that no tilt has.
        """
        if not self.mean_reward(self.law) <= reward <= self.mean_reward(self.tilted(10**LEAST)):
            return math.nan
        low, high = LEAST, -LEAST  # of log10 beta
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self.mean_reward(self.tilted(10**middle)) < reward:
                high = middle
            else:
                low = middle
        tilted = self.tilted(10**low)
        return self.divergence(tilted, self.law)

    def compare(self, policy: Policy, rounds: int) -> dict[str, Any]:
        """Say how a policy's law lies to the starting model's and to tilts of it.

        Returns
        -------
        dict
            ``reward``, the mean; ``kl``, KL(π ‖ π₀); ``excess``, that less the least which a law of
            this mean reward has, None where it is below the start's; ``to_tilt``, KL(π ‖ π₀
            exp(R r/β)/Z) by each β, R the rounds: what rounds of the tilt come to.
        """
        law = self.law_of(policy)
        reward, kl = self.mean_reward(law), self.divergence(law, self.law)
        excess = kl - self.least_divergence(reward)
        return {
            "reward": reward,
            "kl": kl,
            "excess": excess if math.isfinite(excess) else None,
            "to_tilt": {
                f"{beta:g}": self.divergence(law, self.tilted(beta / rounds)) for beta in BETAS
            },
        }

    def _sum(self, values: Tensor, prompt: Tensor) -> Tensor:
        return torch.zeros(self.count, dtype=torch.float64).index_add(0, prompt, values)
