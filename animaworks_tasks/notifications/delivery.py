"""What became of a task's notice: told from where it lies, and from the journal where it no longer lies anywhere."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs


class Fate(enum.Enum):
    """Where the notice of a task is."""

    NOT_YET = "the task has not ended, so there is no notice yet"
    WAITING = "waits to be read"
    DELIVERED = "was delivered"
    TAKEN = "was taken by another program, which does not say when: AnimaWorks' own drain is one"
    MISSING = "was never left"
    UNKNOWN = "is not there, and the journal says nothing of it"


@attrs.frozen
class Delivery:
    """
    What became of a notice.

    Attributes:
        fate: Where it is.
        at: Since when it waits, or when it was delivered or left; None where nobody noted it.
        by: The program that drained it; None where it was not drained, or nobody noted who did.
        pid: The process that drained it; None likewise.
    """

    fate: Fate
    at: datetime | None = None
    by: str | None = None
    pid: int | None = None


def delivery(events: Sequence[Mapping[str, Any]], *, waits: bool, read: bool, ended: bool) -> Delivery:
    """
    Say what became of the notice of one task.

    Args:
        events: Its lines in the journal, the oldest first.
        waits: Whether the notice waits to be acknowledged.
        read: Whether it lies among those that were.
        ended: Whether the task is done.
    """
    last = {str(event.get("event")): event for event in events}
    if waits:
        return Delivery(Fate.WAITING, at=noted_at(last.get("notified")))
    if "acknowledged" in last or read:
        event = last.get("acknowledged", {})
        by, pid = event.get("by"), event.get("pid")
        return Delivery(
            Fate.DELIVERED,
            at=noted_at(event),
            by=by if isinstance(by, str) and by else None,
            pid=pid if isinstance(pid, int) else None,
        )
    if not ended and "ended" not in last:
        return Delivery(Fate.NOT_YET)
    if "notified" in last:
        return Delivery(Fate.TAKEN, at=noted_at(last["notified"]))
    return Delivery(Fate.MISSING if "ended" in last else Fate.UNKNOWN)


def noted_at(event: Mapping[str, Any] | None) -> datetime | None:
    """Return when *event* was noted; None where there is none, or its line does not say so."""
    at = (event or {}).get("at")
    try:
        return datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else None
    except (ValueError, OverflowError, OSError):  # a time beyond the calendar
        return None
