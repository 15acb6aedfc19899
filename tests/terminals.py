"""A terminal for tests: a program runs in it as if a person had started it, and is typed at."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from typing import Self

from tests.processes import PATIENCE, until

TOOL = [sys.executable, "-c", "import sys; from animaworks_tasks.cli import main; sys.exit(main())"]

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>])")


class Terminal:
    """
    A pseudo terminal of *columns* and *lines*, and *command* running in it.

    Attributes:
        raw: All that came so far, with what steers the terminal.
        process: The program.
    """

    def __init__(
        self, command: Sequence[str], *, columns: int = 110, lines: int = 24, environment: Mapping[str, str] = {}
    ) -> None:
        self.raw = ""
        self._fd, inner = os.openpty()
        self.resize(columns=columns, lines=lines)
        given = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self.process = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={**given, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - so that Ctrl-C is a signal
        )
        os.close(inner)
        os.set_blocking(self._fd, False)

    @property
    def text(self) -> str:
        """What came so far, without what steers the terminal."""
        return _SEQUENCE.sub("", self.raw)

    def _read(self) -> None:
        try:
            while data := os.read(self._fd, 1 << 16):
                self.raw += data.decode("utf-8", "replace")
        except (BlockingIOError, OSError):  # EIO: everybody has closed the other side
            return

    def sees(self, *words: str) -> str:
        """Wait until each of *words* has come since the last call that waited for one; return what came since."""

        def seen() -> bool:
            self._read()
            return all(word in self.text[since:] for word in words)

        since = self._seen
        try:
            until(seen)
        except AssertionError:
            raise AssertionError(f"{words} did not come; at last: {self.text[since:][-2000:]}") from None
        self._seen = len(self.text)
        return self.text[since:]

    _seen = 0

    def resize(self, *, columns: int, lines: int = 24) -> None:
        """Make the terminal this large."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type *text*."""
        os.write(self._fd, text.encode())

    def end(self) -> int:
        """Wait until the program has ended; return its status."""
        until(lambda: (self._read(), self.process.poll())[1] is not None)
        self._read()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._fd)
