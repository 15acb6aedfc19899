"""
Whether stdout can show a picture that changes, and how other lines keep out of it.

rich is imported for that, if it is installed, and on no other path: a pipe, a file or an agent gets plain lines.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, Self

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.text import Standing


class Screen(Protocol):
    """Shows a picture in the place of the one before, between entering and leaving its ``with`` block."""

    def show(self, standings: Sequence[Standing], remarks: Sequence[str]) -> None:
        """Show these tasks, and below them the remarks; what has no room is counted."""

    def beside(self, write: Callable[[], object]) -> None:
        """Take the picture away, let *write* use the terminal as it likes, and put the picture back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def is_terminal() -> bool:
    """Say whether stdout is a terminal that can do more than print line after line."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def screen(*, whole: bool) -> Screen | None:
    """
    Return a screen on stdout; None where there can be none, and plain lines have to do.

    Args:
        whole: Take the whole terminal, and give it back as it was; or else the lines below what was printed.
    """
    if not is_terminal():
        return None
    try:
        from animaworks_tasks.cli import live
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return None
    return live.RichScreen.open(whole=whole)


class Lines:
    """
    Lines on stdout and stderr; while a picture is shown, they are kept until they can be written beside it.

    Args:
        screen: What shows the picture, from :meth:`showing` on; None for none.
        wake: Called when something waits to be flushed.
    """

    def __init__(self, screen: Screen | None, wake: Callable[[], None]) -> None:
        self._screen, self._wake = screen, wake
        self._waiting: queue.SimpleQueue[tuple[Callable[[str], None], str]] = queue.SimpleQueue()
        self._is_shown = False

    def put(self, text: str) -> None:
        """Write *text* to stdout; from the thread that flushes."""
        self._write(put, text)

    def say(self, text: str) -> None:
        """Tell the person at the terminal *text*, on stderr; from any thread."""
        self._write(say, text)

    def _write(self, write: Callable[[str], None], text: str) -> None:
        if self._is_shown:
            self._waiting.put((write, text))
            self._wake()
        else:
            write(text)

    def flush(self) -> None:
        """Write what waits."""
        if self._screen is not None and self._is_shown and not self._waiting.empty():
            self._screen.beside(self._write_all)
        else:
            self._write_all()

    def _write_all(self) -> None:
        while not self._waiting.empty():
            write, text = self._waiting.get()
            write(text)

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Let the screen show its picture within this block."""
        if self._screen is None:
            yield
            return
        try:
            with self._screen:
                self._is_shown = True
                yield
        finally:
            self._is_shown = False
            self._write_all()
