"""
What commands that go on show of tasks, in place, with rich's Live: progress, and elapsed against expected time.

rich is imported where a terminal can show a picture, and on no other path: a pipe, a file or an agent gets plain lines.
What is shown was written by tools and submitters: it goes through :func:`one_line`, which leaves no control character,
into :class:`rich.text.Text`, which knows no markup. Every colour has a word beside it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Self

from animaworks_tasks.cli.basics import put, say, shown
from animaworks_tasks.cli.text import TaskView
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.task.model import State

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LOOK: Final = 0.5  # seconds between two looks
_LOOKING_SHARE: Final = 4.0  # a pause is so many times as long as the look before it, where that was slow
_STYLES: Final = {"running": "cyan", "pending": "dim", "completed": "green", "failed": "red", "cancelled": "yellow"}
_OVERDUE: Final = "bold red"
_NARROW: Final = 80  # columns; below, an id is shortened, as people may shorten it
_WIDE: Final = 100  # columns; from here on there is room for bars
_BAR: Final = 14  # columns
_FRAME: Final = 2  # lines without tasks: the headings, and a free one for the cursor


def is_terminal() -> bool:
    """Return whether stdout is a terminal that can do more than print line after line."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def screen(*, whole: bool) -> Lines:
    """
    Return a screen on stdout; plain lines where there can be none, or rich is not installed.

    Args:
        whole: Take the whole terminal, and restore it at the end; or else the lines below what was printed.
    """
    if not is_terminal():
        return Lines()
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return Lines()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper
    console = Console(highlight=False, markup=False, emoji=False)
    return Screen(console, whole=whole) if console.is_interactive else Lines()  # which TTY_INTERACTIVE=0 forbids


class Lines:
    """Prints line after line, and shows nothing in place."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave all as it is."""

    def show(self, views: Sequence[TaskView], remarks: Sequence[str]) -> None:
        """Show nothing."""

    def put(self, line: str) -> None:
        """Print a line, which has no control character, on stdout."""
        put(f"{line}\n")

    def say(self, text: str) -> None:
        """Write *text* to stderr, for the person at the terminal; a failure to write is ignored."""
        say(text)


class Screen(Lines):
    """
    Shows a picture in the place of the one before, between entering and leaving its ``with`` block.

    It is drawn when it is shown, and by no thread of rich's. Lines may be written by any thread, above the picture.
    """

    def __init__(self, console: Console, *, whole: bool) -> None:
        self._console, self._whole = console, whole
        self._drawing = threading.RLock()

    def __enter__(self) -> Self:
        from rich.live import Live
        from rich.text import Text

        self._live = Live(  # a new one each time: an old one would overwrite what was printed meanwhile
            Text(), console=self._console, screen=self._whole, auto_refresh=False, transient=True,
            redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop",
        )  # fmt: skip
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._drawing:
            self._live.stop()

    def show(self, views: Sequence[TaskView], remarks: Sequence[str]) -> None:
        """Show these tasks, and below them the remarks; a line says how many tasks have no room."""
        with self._drawing:
            self._live.update(picture(views, remarks, *self._console.size), refresh=True)

    def put(self, line: str) -> None:
        """Print a line above the picture."""
        from rich.text import Text

        with self._drawing:
            self._console.print(Text(shown(line)), soft_wrap=True)

    def say(self, text: str) -> None:
        """Write *text* above the picture, or to stderr if that is elsewhere; a failure to write is ignored."""
        if sys.stderr is not None and sys.stderr.isatty():
            with contextlib.suppress(OSError):
                self.put(f"animaworks-tool: {text}")
        else:
            super().say(text)


class Signals:
    """
    Takes SIGINT and SIGTERM, and lets a rest end at once.

    A handler runs between any two steps of the main thread, so it takes no lock: a SimpleQueue can always be put to.

    Args:
        screen: Is put in order before Ctrl-Z stops us.

    Attributes:
        taken: SIGINT and SIGTERM as they came, in order.
    """

    def __init__(self, screen: Lines) -> None:
        self.taken: list[int] = []
        self._screen = screen
        self._pause_asked = False
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)
        self._before = {number: signal.signal(number, self._take) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self._pause_asked = True
        else:
            self.taken.append(number)
        self.wake()

    def wake(self) -> None:
        """End the current or the next :meth:`rest`; from any thread."""
        self._wakes.put(None)

    def rest(self, began: float) -> None:
        """Sleep after a look that began then (monotonic), until a signal or :meth:`wake`; pause on Ctrl-Z."""
        with contextlib.suppress(queue.Empty):
            self._wakes.get(timeout=max(_LOOK, _LOOKING_SHARE * (time.monotonic() - began)))
            while True:
                self._wakes.get_nowait()
        if self._pause_asked:
            self._pause_asked = False
            self._screen.__exit__()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)  # returns when the shell continues us
            signal.signal(signal.SIGTSTP, self._take)
            self._screen.__enter__()


def picture(views: Sequence[TaskView], remarks: Sequence[str], width: int, height: int) -> RenderableType:
    """Return what a terminal of *width* columns and *height* lines has room for."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = [Text(one_line(remark, 400), style="dim", overflow="fold") for remark in remarks]
    room = max(1, height - _FRAME - sum(-(-line.cell_len // width) for line in lines))
    shown = list(_fitting(views, room))
    if left_out := len(views) - len(shown):
        lines.insert(0, Text(f"and {left_out} more, for which there is no room", style="dim", no_wrap=True))
    if not shown:
        return Group(*lines)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style="bold")
    has_bars = width >= _WIDE and any(view.progress is not None for view in shown)
    headings = ["ID", "TOOL", "STATE", "TIME", *(["PROGRESS"] if has_bars else []), ""]
    for heading in headings if width >= _NARROW else ["ID", "TOOL", "TIME", "STATE"]:
        table.add_column(heading, no_wrap=True)
    table.columns[-1].overflow, table.columns[-1].ratio = "ellipsis", 1  # it takes what is left
    for view in shown:
        table.add_row(*_cells(view, width, has_bars=has_bars))
    return Group(table, *lines)


def _fitting(views: Sequence[TaskView], room: int) -> Sequence[TaskView]:
    """Return the first ones, but leave some room for the tasks that were done last."""
    if len(views) <= room:
        return views
    done = [view for view in views if view.task.state is State.DONE]
    others = [view for view in views if view.task.state is not State.DONE]
    first = others[: room - 1 - len(done[: room // 4])]  # one line says how many are left out
    return [*first, *done[: room - 1 - len(first)]]


def _cells(view: TaskView, width: int, *, has_bars: bool) -> Iterator[RenderableType]:
    """Yield what stands in a row; on a narrow terminal what fits: a short id, and the state before the note."""
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    late = _OVERDUE if view.overdue else ""
    state, note, lasted = Text(view.status, style=_STYLES[view.status]), Text(view.line(width // 5)), view.time()
    note.stylize(late, 0, len("overdue"))
    if width < _NARROW:
        lasted = lasted.partition(",")[0]
        if view.task.state is State.RUNNING:
            lasted = lasted.replace(" of ", "/").replace(" ", "")
        yield from (view.task.id[:6], Text(one_line(view.task.name, max(8, width // 5))), Text(lasted, style=late))
        yield note if view.overdue else state.append(" ").append_text(note)
        return
    yield from (view.task.id, Text(one_line(view.task.name, width // 4)), state, Text(lasted, style=late))
    if has_bars:
        far = view.progress and view.progress.fraction
        bar = ProgressBar(total=1.0, completed=far or 0, width=_BAR, complete_style="cyan", finished_style="green")
        yield "" if far is None else bar
    yield note
