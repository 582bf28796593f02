"""The deciders of a process, kept for hooks that frameworks call as plain functions."""

from __future__ import annotations

from typing import Any

from rskernels.integrations.decider import Decider
from rskernels.integrations.rules import Rule


class Deciders:
    """Deciders by rule, seed, rank and place, made when they are first asked for.

    Frameworks save nothing of a hook. So put ``state_dict``, what all deciders have counted and
    learnt, into a checkpoint of your own: each rank saves its own, and loads it before the first
    batch.
    """

    def __init__(self) -> None:
        self._deciders: dict[tuple[Rule, int, int, str], Decider] = {}
        self._loaded_ranks: frozenset[int] = frozenset()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._deciders)

    def of(self, rule: str | Rule, *, seed: int = 0, rank: int = 0, place: str = "") -> Decider:
        """Return the decider of these arguments, as ``Decider`` takes them.

        Raises
        ------
        TypeError, ValueError
            As ``Decider``; also if the state that was loaded is another rank's.
        """
        key = (rule if isinstance(rule, Rule) else Rule.parse(rule)), seed, rank, place
        if key not in self._deciders:
            if self._loaded_ranks and rank not in self._loaded_ranks:
                saved = ", ".join(map(str, sorted(self._loaded_ranks)))
                raise ValueError(
                    f"the state of deciders that was loaded is of rank {saved}, and this is rank "
                    f"{rank}: each rank loads what it has saved"
                )
            self._deciders[key] = Decider(key[0], seed=seed, rank=rank, place=place)
        return self._deciders[key]

    def clear(self) -> None:
        """Forget all of them."""
        self._deciders, self._loaded_ranks = {}, frozenset()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on as if it had not stopped."""
        return {
            "deciders": [
                {
                    "rule": rule.name, "policy": rule.policy, "seed": seed, "rank": rank,
                    "place": place, "state": decider.state_dict(),
                }
                for (rule, seed, rank, place), decider in self._deciders.items()
            ]
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned, in place of all that is here.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is no such state; then nothing has changed.
        """
        others = Deciders()
        for saved in state["deciders"]:
            rule = Rule(saved["rule"], saved["policy"])
            of = others.of(rule, seed=saved["seed"], rank=saved["rank"], place=saved["place"])
            of.load_state_dict(saved["state"])
        self._deciders = others._deciders
        self._loaded_ranks = frozenset(rank for _, _, rank, _ in others._deciders)
