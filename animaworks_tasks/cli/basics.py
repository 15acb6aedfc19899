"""
What ``submit`` shares with the other commands: options, the Anima that they name, and who is told what.

Results go to stdout, everything about them to stderr. Imports next to nothing: argparse alone would take longer than a
submit.
"""

from __future__ import annotations

import errno
import os
import sys

from animaworks_tasks.errors import TasksError, UsageError
from animaworks_tasks.fs.layout import ANIMA_DIR_VARIABLE

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import BinaryIO


def put(text: str | bytes) -> None:
    """
    Write *text* to stdout, all of it, now. Bytes go as they are; of text, what the terminal cannot show is escaped.

    Raises:
        OSError: It was not written: a full disk, a closed stdout, a reader that has left (BrokenPipeError).
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed")
    data = text if isinstance(text, bytes) else text.encode(sys.stdout.encoding, "backslashreplace")
    sys.stdout.flush()  # what others printed comes first
    write_all(sys.stdout.buffer, data)


def write_all(stream: BinaryIO, data: bytes) -> None:
    """Write all of *data* now; an unbuffered stream (``PYTHONUNBUFFERED``) may take a part of it at a time."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]
    stream.flush()


def say(text: str) -> None:
    """Tell the person at the terminal *text*, on stderr; that nobody hears it is no error."""
    murmur(f"animaworks-tool: {text}\n".encode("utf-8", "backslashreplace"))


def murmur(data: bytes) -> None:
    """Write *data* to stderr as it is, if there is one."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
        write_all(sys.stderr.buffer, data)
    except OSError:
        pass


def abandon_unwritable() -> None:
    """Let what stdout and stderr hold go nowhere if it cannot be written: the interpreter would try, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def take(
    words: Sequence[str], *, values: Collection[str], flags: Collection[str], usage: str
) -> tuple[dict[str, list[str]], list[str]]:
    """
    Return the options at the beginning of *words*, and what follows from the first word on that is none.

    Args:
        words: As typed.
        values: Options that take a value, as ``--key K`` or ``--key=K``; what was given to each is returned in order.
        flags: Options that take none; those given are returned with an empty list.
        usage: For the error.

    Raises:
        UsageError: An option is unknown, or its value is missing.
    """
    given: dict[str, list[str]] = {}
    position = 0
    while position < len(words) and words[position].startswith("-"):
        option, equals, value = words[position].partition("=")
        position += 1
        if option in values:
            if not equals:
                if position == len(words):
                    raise UsageError(f"{option} needs a value", usage)
                value = words[position]
                position += 1
            given.setdefault(option, []).append(value)
        elif option in flags and not equals:
            given[option] = []
        else:
            raise UsageError(f"there is no option {words[position - 1]} here; --help shows those that there are", usage)
    return given, list(words[position:])


def remedy(error: OSError) -> str:
    """Say what to do about what the system said."""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "see that you may read and write there"
    if error.errno in {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}:
        return "move away what stands in its place"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return "see that the disk has room for it"
    return "see that the disk has room and that you may read and write there"


def anima_dir(given: str | None) -> str:
    """
    Return the Anima's directory: *given*, or else what the environment names.

    Raises:
        TasksError: None is named, or there is no such directory. It is not made: a typo must not create an Anima.
    """
    named = given or os.environ.get(ANIMA_DIR_VARIABLE)
    if not named:
        raise TasksError(f"no Anima is named: set {ANIMA_DIR_VARIABLE} to its directory, or give --anima-dir DIR first")
    if not os.path.isdir(named):
        problem = f"{named} is no directory" if os.path.lexists(named) else f"there is no directory {named}"
        raise TasksError(f"{problem}: correct --anima-dir or {ANIMA_DIR_VARIABLE}; a new Anima's, make first")
    return named
