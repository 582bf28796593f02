"""How far a long run is, on stderr: the bar of sampling and of fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBar:
    """A progress bar on stderr, drawn by rich; a context manager.

    Parameters
    ----------
    total : float
        Where the bar is full.
    texts : sequence of str
        What stands behind the bar: rich's templates, such as ``"{task.completed}/{task.total}"``
        and ``"loss {task.fields[loss]}"``, which shows the field of that name.
    completed : int
        How far an earlier part of the run came.
    on : bool
        False shows nothing and needs no rich.
    only_on_terminal : bool
        Show nothing where stderr is no terminal.
    **fields
        Every field that ``texts`` shows, as it is before the first step.

    Raises
    ------
    ModuleNotFoundError
        If rich is needed and not installed.

    Examples
    --------
    >>> with ProgressBar(3, ["loss {task.fields[loss]}"], on=False, loss="–") as bar:
    ...     for loss in (2.0, 1.5, 1.2):
    ...         bar.advance(1, loss=f"{loss:.4f}")
    """

    def __init__(
        self,
        total: float,
        texts: Sequence[str],
        *,
        completed: int = 0,
        on: bool = True,
        only_on_terminal: bool = False,
        **fields: Any,
    ) -> None:
        self._progress: Progress | None = None
        if not on:
            return
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                "progress=True needs rich, which is not installed: pip install rich",
                name=missing.name,
            ) from missing
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            *map(TextColumn, texts),
            TimeRemainingColumn(),
            console=console,
            disable=only_on_terminal and not console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task("", total=total, completed=completed, **fields)

    def update(self, completed: float, **fields: Any) -> None:
        """Show that so much is done, with these fields."""
        if self._progress is not None:
            self._progress.update(self._task, completed=completed, **fields)

    def advance(self, step: float, **fields: Any) -> None:
        """Show that so much more is done, with these fields."""
        if self._progress is not None:
            self._progress.update(self._task, advance=step, **fields)

    def __enter__(self) -> ProgressBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
