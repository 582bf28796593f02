"""Malformed rows: counted, named, and refused beyond a number."""

from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

NAMED = 5


class Bad:
    """What is malformed among the rows that are read.

    Parameters
    ----------
    most : int
        How many are left out; one more is an error.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self._first: list[str] = []

    def add(self, what: str) -> None:
        """Count a row, by its name and what is wrong with it."""
        self.count += 1
        if len(self._first) < NAMED:
            self._first.append(what)

    def check(self, rows: str) -> None:
        """Say how many were left out.

        Parameters
        ----------
        rows : str
            What they are, in the plural.

        Raises
        ------
        DataError
            If there are more than `most`; it names the first of them.
        """
        if not self.count:
            return
        named = "; ".join(self._first)
        more = f"; and {self.count - NAMED} more" if self.count > NAMED else ""
        told = f"{self.count} {rows} cannot be used: {named}{more}"
        if self.count > self.most:
            raise DataError(f"{told}. max_bad={self.most} accepts {self.most} of them")
        say(f"{told}. They are left out")
