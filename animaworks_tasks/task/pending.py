"""
What a submit needs to know of a record: its id, its first keys, how large it may be.

Imports nothing that ``animaworks-tool submit`` does not need.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

VERSION: Final = 1
SIZE_LIMIT: Final = 1 << 20  # bytes, of a record
RECORD_SIZE: Final = 1 << 13  # bytes that a record of the usual size needs: a block for it, and one for its name
ROOM: Final = 1 << 14  # bytes that a task leaves free when it is claimed, so that its outcome can always be recorded
SUBMIT_LIMIT: Final = SIZE_LIMIT - 2 * ROOM  # bytes; claimed again after a requeue, a record is a little larger


def new_id() -> str:
    """Return a new id: 12 hex digits at random, never used again."""
    return os.urandom(6).hex()


def digest(key: str) -> str:
    """Return the name that a key has in the index: 32 hex digits."""
    from hashlib import sha256

    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def first_word(argv: Sequence[str]) -> str:
    """Return the first word that is no option: what a subcommand usually is, until its tool is asked."""
    return next((word for word in argv if not word.startswith("-")), "")


def pending_fields(
    *, task_id: str, tool: str, subcommand: str, argv: Iterable[str], anima_name: str, anima_dir: str, at: float
) -> dict[str, object]:
    """Return the eight keys that begin every pending record, in order."""
    return {
        "task_id": task_id,
        "tool_name": tool,
        "subcommand": subcommand,
        "raw_args": list(argv),
        "anima_name": anima_name,
        "anima_dir": anima_dir,
        "submitted_at": at,
        "status": "pending",
    }
