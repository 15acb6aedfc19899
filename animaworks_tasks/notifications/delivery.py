"""Whether a task's notification was delivered: known from where it lies, or from the journal once it is gone."""

import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs


class Fate(enum.Enum):
    """Where the notification of a task is."""

    NOT_YET = "the task has not ended, so there is no notification yet"
    WAITING = "waits to be read"
    DELIVERED = "was delivered"
    TAKEN = "was taken by another program, which does not say when: AnimaWorks' own drain is one"
    MISSING = "was never left"
    UNKNOWN = "is not there, and the journal says nothing of it"


@attrs.frozen
class Delivery:
    """
    The delivery of one notification.

    Attributes:
        fate: Where it is.
        at: Since when it waits, or when it was delivered or published; None where the journal does not say.
        by: The program that drained it; None where it was not drained, or the journal does not say.
        pid: The process that drained it; None likewise.
    """

    fate: Fate
    at: datetime | None = None
    by: str | None = None
    pid: int | None = None


def delivery_status(events: Sequence[Mapping[str, Any]], *, waits: bool, read: bool, ended: bool) -> Delivery:
    """
    Return the delivery of the notification of one task.

    Args:
        events: The lines of the task in the journal, the oldest first.
        waits: Whether the notification waits to be acknowledged.
        read: Whether it lies in ``.read/``.
        ended: Whether the task is done.
    """
    last = {str(event.get("event")): event for event in events}
    if waits:
        return Delivery(Fate.WAITING, at=noted_at(last.get("notified")))
    if "acknowledged" in last or read:
        event = last.get("acknowledged", {})
        by = event["by"] if isinstance(event.get("by"), str) else None
        pid = event["pid"] if isinstance(event.get("pid"), int) else None
        return Delivery(Fate.DELIVERED, noted_at(event), by or None, pid)
    if not ended and "ended" not in last:
        return Delivery(Fate.NOT_YET)
    if "notified" in last:
        return Delivery(Fate.TAKEN, at=noted_at(last["notified"]))
    return Delivery(Fate.MISSING if "ended" in last else Fate.UNKNOWN)


def noted_at(event: Mapping[str, Any] | None) -> datetime | None:
    """Return the time of *event*; None where there is no event, or its line has no time."""
    at = (event or {}).get("at")
    try:
        return datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else None
    except (ValueError, OverflowError, OSError):  # a time beyond the calendar
        return None
