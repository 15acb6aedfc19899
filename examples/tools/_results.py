"""Where the results of a tool go, and how: at once and whole. Not a tool; shared by those beside it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from animaworks_tasks import BadArgument, ToolError


def destination(output: Path | None, name: str, *, anew: bool = True) -> Path:
    """
    Return where a result goes: *output*, or *name* in the working directory.

    Raises:
        BadArgument: It cannot be written there, or something is there already and *anew* is asked for. Better before
            money is spent than after.
    """
    path = Path.cwd() / (output or name)
    if path.is_dir():
        raise BadArgument(f"{str(path)!r} is a directory", hint=f"name a file in it: --output {path / name}")
    if anew and path.exists():
        raise BadArgument(f"{str(path)!r} is there already", hint="give --output another name, or move it away")
    make_directory(path.parent)
    if not os.access(path.parent, os.W_OK):
        raise BadArgument(f"no files can be put into {str(path.parent)!r}", hint="name another place with --output")
    return path


def make_directory(directory: Path) -> None:
    """Make *directory*; where that fails it is a BadArgument."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadArgument(
            f"no files can be put into {str(directory)!r}: {error.strerror}", hint="name another"
        ) from error


def publish(path: Path, data: bytes) -> None:
    """Let *data* appear at *path* at once and whole, in place of what is there; it survives a power cut."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ToolError(f"{str(path)!r} cannot be written: {error.strerror}", hint="is the disk full?") from error
    finally:
        draft.unlink(missing_ok=True)
