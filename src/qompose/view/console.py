"""Progress bars and tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

# Shown while training, if they are there: (metric, label, digits).
FIGURES = (
    ("rollout/distance", "distance", 3),
    ("rollout/ep_rew_mean", "return", 1),
    ("rollout/success_rate", "success", 2),
    ("time/fps", "steps/s", 0),
)


class Bars:
    """Several progress bars with figures beside them. On something that is no terminal, a line now and then."""

    def __init__(self, console: Console):
        """Bars on a console; see `bars`."""
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description:<14}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}

    def update(self, name: str, done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
        """Move a bar; it appears when it is first named."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=max(total, 1), figures="")
        text = describe(figures or {})
        self._progress.update(self._tasks[name], completed=done, total=max(total, 1), figures=text)
        tenth = 10 * done // max(total, 1)
        if not self.console.is_terminal and tenth != self._tenths.get(name, 0):
            self._tenths[name] = tenth
            self.console.print(f"{name:<14} {10 * tenth:3d} %  {text}", markup=False, highlight=False)


@contextmanager
def bars(enabled: bool = True) -> Iterator[Bars]:
    """Progress on standard error, so that standard output stays for the answer."""
    shown = Bars(Console(stderr=True, quiet=not enabled))
    with shown._progress:
        yield shown


def describe(figures: Mapping[str, float]) -> str:
    """The figures that matter, in a few words."""
    parts = [f"{label} {figures[name]:.{digits}f}" for name, label, digits in FIGURES if name in figures]
    return "  ".join(parts)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output."""
    table = Table()
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(markup=False, highlight=False)
    console.print(title, soft_wrap=True)  # a title of the table itself would be broken at the width of the table
    console.print(table)
