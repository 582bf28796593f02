"""What the columns of a data set are called, and which of them a decision needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from rskernels.rsft.errors import DataError


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where the data have no such column.

    Attributes
    ----------
    prompt, completion : str
        Text each, or a list of messages ``{"role", "content"}`` each.
    messages : str
        A list of messages in place of both: the last, the assistant's, is the completion. Taken
        where a data set lacks ``prompt``.
    reward : str
        A number, or true and false.
    group : str, optional
        Which rows answer the same prompt: integers or text. None: those of equal prompts.
    id : str, optional
        Tells rows apart, no two alike: integers, as they are, or text, hashed.
    sample : str, optional
        Which answer to its prompt a row is: integers or text. With the prompt it tells rows apart.
    """

    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    reward: str = "reward"
    group: str | None = None
    id: str | None = None
    sample: str | None = None

    def of_pilot(self) -> Columns:
        """Return the columns of a pilot, whose rows need not be told apart."""
        return replace(self, id=None, sample=None)

    def of_text(self) -> Columns:
        """Return the columns that hold a prompt and its answer."""
        return replace(self, id=None, sample=None, group=None)

    def found_in(
        self, names: Collection[str], *, answers: bool = False, is_pilot: bool = False
    ) -> Found:
        """Return which columns of a data set are used.

        Parameters
        ----------
        names : collection of str
            The columns there are.
        answers : bool
            Whether completions are compared.
        is_pilot : bool
            Whether only rewards and prompts are read.

        Raises
        ------
        DataError
            If one is missing.
        """
        every = {
            "reward": self.reward, "group": self.group, "id": self.id, "sample": self.sample,
        }  # fmt: skip
        for what, name in every.items():
            if name is not None and name not in names:
                raise DataError(
                    f"there is no column {name!r} (--{what}); the columns are {', '.join(names)}"
                )
        has_prompt = self.prompt in names
        is_told = self.id is not None or self.sample is not None or is_pilot
        needs_answer = answers or not is_told
        needs_prompt = answers or self.group is None or not (self.id is not None or is_pilot)
        prompt = completion = messages = None
        if needs_prompt and has_prompt:
            prompt = self.prompt
            if needs_answer:
                if self.completion not in names:
                    raise DataError(
                        f"there is no column {self.completion!r} (--completion) and none of "
                        "--id and --sample that tells rows of a prompt apart; the columns are "
                        f"{', '.join(names)}"
                    )
                completion = self.completion
        elif needs_prompt:
            if self.messages not in names:
                raise DataError(
                    f"there is neither a column {self.prompt!r} (--prompt) nor {self.messages!r} "
                    f"(--messages); the columns are {', '.join(names)}"
                )
            messages = self.messages
        named = (self.reward, prompt, completion, messages, self.group, self.id, self.sample)
        return Found(*named, is_numbered=not is_told)


@dataclass(frozen=True)
class Found:
    """The columns that a decision reads; None where it needs none."""

    reward: str
    prompt: str | None
    completion: str | None
    messages: str | None
    group: str | None
    id: str | None
    sample: str | None
    is_numbered: bool
    """Whether rows that are equal must be counted to be told apart."""
    added: str | None = None
    """A column that is added when rows are written, so that no line may have it."""

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        every = (
            self.reward, self.prompt, self.completion, self.messages, self.group, self.id,
            self.sample,
        )  # fmt: skip
        return list(dict.fromkeys(name for name in every if name is not None))
