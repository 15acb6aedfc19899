"""
The picture that changes: tasks with progress, and elapsed against expected time. The only user of rich.

What is shown was written by tools and submitters: it goes through :func:`one_line`, which leaves no control character,
into :class:`rich.text.Text`, which knows no markup. What colour tells, a word tells too.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Final, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from animaworks_tasks.cli.basics import put
from animaworks_tasks.cli.text import Standing
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.task.model import State

_STYLES: Final = {"running": "cyan", "pending": "dim", "completed": "green", "failed": "red", "cancelled": "yellow"}
_OVERDUE: Final = "bold red"
_NARROW: Final = 80  # columns; below, an id is shortened, as people may shorten it
_WIDE: Final = 100  # columns; from here on there is room for bars
_BAR: Final = 14  # columns
_FRAME: Final = 2  # lines that are no tasks: the headings, and one that stays free for the cursor


class RichScreen:
    """
    A :class:`~animaworks_tasks.cli.terminal.Screen` made with rich.

    Nothing is shown by another thread, so that a signal or a line of ours never comes in the middle of a picture.
    """

    def __init__(self, console: Console, *, whole: bool) -> None:
        self._console, self._whole = console, whole
        self._live = self._begin()

    def _begin(self) -> Live:
        return Live(
            Text(), console=self._console, screen=self._whole, auto_refresh=False, transient=True,
            redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop",
        )  # fmt: skip

    @classmethod
    def open(cls, *, whole: bool) -> Self | None:
        """Return a screen on stdout, or None where rich finds that it can be none, ``TTY_INTERACTIVE=0`` say."""
        console = _Console(file=cast("IO[str]", _Stdout()), highlight=False, markup=False, emoji=False)
        return cls(console, whole=whole) if console.is_interactive and not console.is_dumb_terminal else None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, standings: Sequence[Standing], remarks: Sequence[str]) -> None:
        """Show these tasks, and below them the remarks; what has no room is counted."""
        self._live.update(picture(standings, remarks, *self._console.size), refresh=True)

    def beside(self, write: Callable[[], object]) -> None:
        """Take the picture away, let *write* use the terminal as it likes, and put the picture back."""
        self._live.stop()
        try:
            write()
        finally:
            before, self._live = self._live, self._begin()  # the old one would go up over what was written
            self._live.start()
            self._live.update(before.get_renderable(), refresh=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to whoever runs the command: rich would redirect stdout, and exit."""
        raise BrokenPipeError


class _Stdout(io.TextIOBase):
    """Our stdout for rich: what it cannot encode is escaped, and what cannot be written is an error of ours."""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # rich asks, and never sets it
        return sys.stdout.encoding

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        put(text)
        return len(text)


def picture(standings: Sequence[Standing], remarks: Sequence[str], width: int, height: int) -> RenderableType:
    """Return what a terminal of *width* columns and *height* lines has room for."""
    lines = [Text(one_line(remark, 400), style="dim", overflow="fold") for remark in remarks]
    room = max(1, height - _FRAME - sum(-(-line.cell_len // width) for line in lines))
    shown = list(_fitting(standings, room))
    left_out = len(standings) - len(shown)
    if left_out:
        lines.insert(0, Text(f"and {left_out} more, for which there is no room", style="dim", no_wrap=True))
    return Group(*([_table(shown, width)] if shown else []), *lines)


def _fitting(standings: Sequence[Standing], room: int) -> Iterator[Standing]:
    """Choose the first ones, but leave some room for the tasks that were done last."""
    if len(standings) <= room:
        yield from standings
        return
    done = [standing for standing in standings if standing.task.state is State.DONE][: room // 4]
    others = [standing for standing in standings if standing.task.state is not State.DONE]
    first = others[: room - 1 - len(done)]  # one line says how many are left out
    yield from first
    yield from [standing for standing in standings if standing.task.state is State.DONE][: room - 1 - len(first)]


def _table(standings: Sequence[Standing], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style="bold")
    is_narrow = width < _NARROW
    has_bars = width >= _WIDE and any(standing.progress is not None for standing in standings)
    headings = ["ID", "TOOL", "TIME"] if is_narrow else ["ID", "TOOL", "STATE", "TIME", *(["PROGRESS"] * has_bars)]
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    table.add_column("STATE" if is_narrow else "", no_wrap=True, overflow="ellipsis", ratio=1)  # takes what is left
    for standing in standings:
        table.add_row(*(_short(standing, width) if is_narrow else _cells(standing, width, has_bars=has_bars)))
    return table


def _cells(standing: Standing, width: int, *, has_bars: bool) -> Iterator[RenderableType]:
    yield Text(standing.task.id)
    yield Text(one_line(standing.task.name, width // 4))
    yield _state(standing)
    yield Text(standing.time(), style=_OVERDUE if standing.overdue else "")
    if has_bars:
        fraction = None if standing.progress is None else standing.progress.fraction
        yield Text() if fraction is None else _bar(fraction)
    yield _note(standing)


def _short(standing: Standing, width: int) -> Iterator[RenderableType]:
    """Yield what fits a narrow terminal: an id as short as people may write it, and the state before the note."""
    yield Text(standing.task.id[:6])
    yield Text(one_line(standing.task.name, max(8, width // 5)))
    time = standing.time().partition(",")[0]
    if standing.task.state is State.RUNNING:
        time = time.replace(" of ", "/").replace(" ", "")
    yield Text(time, style=_OVERDUE if standing.overdue else "")
    note = _note(standing)
    yield note if standing.overdue else Text(" ").join([_state(standing), note])


def _state(standing: Standing) -> Text:
    return Text(standing.status, style=_STYLES[standing.status])


def _note(standing: Standing) -> Text:
    note = standing.note()
    return Text.assemble(("overdue", _OVERDUE), note.removeprefix("overdue")) if standing.overdue else Text(note)


def _bar(fraction: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=fraction, width=_BAR, complete_style="cyan", finished_style="green")
