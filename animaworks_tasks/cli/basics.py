"""
What ``submit`` shares with the other commands: the named Anima's directory, and how text is printed.

Results go to stdout, everything about them to stderr. Imports next to nothing: argparse alone would take longer than a
submit.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys

from animaworks_tasks.errors import TasksError
from animaworks_tasks.fs.layout import ANIMA_DIR_VARIABLE, home

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from typing import BinaryIO, Final

# What a terminal obeys instead of showing it: controls but for tab and line end, and what changes the direction of
# text. A tool may have printed it.
_OBEYED: Final = (
    *range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A),
)  # fmt: skip
_SHOWN: Final = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _OBEYED}  # noqa: PLR2004
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _OBEYED if code > 31}  # noqa: PLR2004 - json escapes the others
_stdout = codecs.getincrementaldecoder("utf-8")("backslashreplace")  # of the bytes that are put on a terminal


def shown(text: str) -> str:
    """Return *text* as a terminal may have it: what it would obey is escaped, a carriage return ends the line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_SHOWN)


def in_json(text: str) -> str:
    """Return JSON without what a terminal would obey."""
    return text.translate(_IN_JSON)


def put(text: str | bytes) -> None:
    """
    Write *text* to stdout, all of it, now: on a terminal as :func:`shown`, else bytes as they are.

    Raises:
        OSError: It was not written: a full disk, a closed stdout, a reader that has left (BrokenPipeError).
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed")
    if sys.stdout.isatty():
        text = shown(_stdout.decode(text) if isinstance(text, bytes) else text)
    data = text if isinstance(text, bytes) else text.encode(sys.stdout.encoding, "backslashreplace")
    sys.stdout.flush()  # what others printed comes first
    write_all(sys.stdout.buffer, data)


def not_needed(command: str) -> str:
    """Return the hint that a quick *command*, a tool and its subcommand, is called directly."""
    return f"{command} is quick: submit is not needed, `animaworks-tool {command} ...` returns its result"


def write_all(stream: BinaryIO, data: bytes) -> None:
    """Write all of *data* now; an unbuffered stream (``PYTHONUNBUFFERED``) may take a part of it at a time."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]
    stream.flush()


def say(text: str) -> None:
    """Write *text* to stderr, for the person at the terminal; a failure to write is ignored."""
    if sys.stderr is None:
        return
    try:
        text = shown(text) if sys.stderr.isatty() else text
        sys.stderr.flush()
        write_all(sys.stderr.buffer, f"animaworks-tool: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def abandon_unwritable() -> None:
    """Discard what stdout and stderr cannot write: the interpreter would try again at its exit, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def remedy(error: OSError) -> str:
    """Return what to do about *error*."""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "see that you may read and write there"
    if error.errno in {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}:
        return "move away what stands in its place"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return "see that the disk has room for it"
    return "see that the disk has room and that you may read and write there"


def named(given: str | None) -> str | None:
    """Return the directory that *given*, or else the environment, names as the Anima's; None where neither does."""
    return given or os.environ.get(ANIMA_DIR_VARIABLE) or None


def anima_dir(given: str | None) -> str:
    """
    Return the Anima's directory: *given*, or else what the environment names, or else the user's home for tasks.

    Raises:
        TasksError: There is no such directory. It is not made: a typo must not create an Anima.
    """
    directory = named(given)
    if directory is None:
        if os.path.isdir(home()):
            return home()
        raise no_anima()
    if not os.path.isdir(directory):
        problem = f"{directory} is no directory" if os.path.lexists(directory) else f"there is no directory {directory}"
        raise TasksError(f"{problem}: correct --anima-dir or {ANIMA_DIR_VARIABLE}; a new Anima's, make first")
    return directory


def no_anima() -> TasksError:
    """Return the error of a command for which no Anima is named."""
    return TasksError(
        f"no Anima is named: set {ANIMA_DIR_VARIABLE} to its directory, or give --anima-dir DIR first; or let "
        f"`animaworks-tool run` serve {home()}, and no name is needed"
    )
