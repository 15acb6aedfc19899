"""
Task <-> bytes: strict, versioned, and keeping the keys it does not know.

There are two shapes, because others read our records too. A *pending* record begins with the eight keys that AnimaWorks
writes; everything from the claim on has the shape that AnimaWorks' readers expect (``tool_name`` is
``tool:subcommand``, ``tool_args`` holds the rest). Both say the same of a task, and :func:`decode` reads both.

What does not fit is refused with one clear reason, whatever program wrote it. We check our own records the same way
before they are published, so nothing is ever stored that cannot be read again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeGuard

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs.json import dump, load
from animaworks_tasks.task.model import Cause, OnInterrupt, Outcome, State, Task, is_task_id
from animaworks_tasks.task.pending import ROOM, SIZE_LIMIT, VERSION, pending_fields

DEPTH_LIMIT: Final = 32  # our own records are 2 deep; the rest is for keys of others
_LARGEST: Final = 1 << 53  # what a float holds exactly
_REASON: Final = 300  # characters; a reason may quote what it refuses, and is stored itself

# What stands in one of the two shapes only. In the other one it says nothing, and is not kept: once the record changes
# its shape, it would take the place of what we have to say.
_OF_ONE_SHAPE: Final = frozenset({
    "subcommand", "raw_args", "anima_dir", "submitted_at",
    "created_at", "completed_at", "result", "error", "outcome",
})  # fmt: skip


class ForeignRecordError(RecordError):
    """A record that is in order and not ours: it is left where it is."""


def encode(task: Task) -> bytes:
    """
    Return the record of *task*, in the shape for its state.

    Raises:
        ValueError: A text has a lone surrogate: it came from bytes that are not UTF-8.
    """
    return dump(_pending(task) if task.state is State.PENDING else _claimed(task))


def decode(data: bytes, task_id: str) -> Task:
    """
    Return the task that *data* records.

    Args:
        data: A whole file.
        task_id: The id that the file's name gives it.

    Raises:
        RecordError: It is no record of that task; ``reason`` says why.
        ForeignRecordError: It is a record, of a kind that is not ours to run.
    """
    read = _read(_parse(data, task_id), task_id)
    try:
        return Task(**read)
    except ValueError as error:
        raise RecordError(task_id, _short(str(error))) from None


def _read(values: dict[str, object], task_id: str) -> dict[str, Any]:
    """Return what *values*, a parsed record, tell of the task; errors as for :func:`decode`."""
    if values.get("task_type") == "llm":  # before all else: what an id is there is not ours to say
        raise ForeignRecordError(task_id, "it is a task for a language model, not for a tool")
    fields = _Fields(task_id, values)
    if fields.task_id != task_id:
        fields.refuse(f"it names another task: task_id is {fields.task_id!r}")
    try:
        return _task(fields)
    except (ValueError, OverflowError, OSError) as error:  # OverflowError, OSError: a date beyond the calendar
        if isinstance(error, RecordError):
            raise
        raise RecordError(task_id, _short(str(error))) from None


def check(task: Task, *, room: int = 0) -> bytes:
    """
    Return the record of *task*, having read it again as any reader will.

    Args:
        task: Any task.
        room: Bytes that it must leave free, for what is yet to be said of it.

    Raises:
        RecordError: No reader would take it back as it is: too large, or not UTF-8.
    """
    data = written(task, room=room)
    read_back(data, task.id)
    return data


def written(task: Task, *, room: int = 0) -> bytes:
    """Return the record of *task*, if it is not too large, without having read it: that is for the caller to do."""
    try:
        data = encode(task)
    except (ValueError, TypeError) as error:
        raise RecordError(task.id, str(error)) from None
    if len(data) > SIZE_LIMIT - room:
        raise RecordError(task.id, f"it is larger than {SIZE_LIMIT - room} bytes")
    return data


def read_back(data: bytes, task_id: str) -> None:
    """
    Read what we have written as any reader will, but for what JSON of ours cannot hold.

    Raises:
        RecordError: As :func:`check`.
    """
    try:
        values = load(data)  # twice the same key, or no finite number, is nothing that we write
    except ValueError as error:
        raise RecordError(task_id, str(error)) from None
    _check_depth(data, values, task_id)
    # No Task is made of it: what a Task refuses it has refused before.
    _read(values, task_id)  # type: ignore[arg-type]  # we wrote an object


def leaves_room(data: bytes) -> bool:
    """Return whether a record that was read leaves :data:`~.task.pending.ROOM`, judged by its size."""
    # Of what it holds, a list in a list ... in *extra* grows most when it is written indented.
    return 2 * (DEPTH_LIMIT + 2) * len(data) < SIZE_LIMIT - ROOM


def _pending(task: Task) -> dict[str, object]:
    fields = pending_fields(
        task_id=task.id,
        tool=task.tool,
        subcommand=task.subcommand,
        argv=task.argv,
        anima_name=task.anima_name,
        anima_dir=task.anima_dir,
        at=task.submitted_at.timestamp(),
    )
    return {**fields, "version": VERSION, **_own(task), **task.extra}


def _claimed(task: Task) -> dict[str, object]:
    return {
        "task_id": task.id,
        "anima_name": task.anima_name,
        "tool_name": task.name,
        "tool_args": {"subcommand": task.subcommand, "raw_args": list(task.argv), "anima_dir": task.anima_dir},
        "status": _status(task),
        "created_at": task.submitted_at.timestamp(),
        "completed_at": _unix(task.finished_at),
        "result": task.result,
        "error": task.error,
        "version": VERSION,
        **_own(task),
        **task.extra,
    }


def _status(task: Task) -> str:
    """AnimaWorks knows pending, running, completed and failed: a cancelled task reads as failed there."""
    if task.outcome is None:
        return task.state.value
    return "completed" if task.outcome is Outcome.COMPLETED else "failed"


def _own(task: Task) -> dict[str, object]:
    """Keys of ours, left out where they say nothing."""
    values: dict[str, object] = {
        "priority": task.priority or None,
        "not_before": _unix(task.not_before),
        "key": task.key,
        "retry_of": task.retry_of,
        "expected_seconds": task.expected_seconds,
        "timeout_seconds": task.timeout_seconds,
        "retries": task.retries,
        "on_interrupt": task.on_interrupt and task.on_interrupt.value,
        "max_attempts": task.max_attempts,
        "attempt": task.attempt or None,
        "requeued": task.requeued or None,
        "started_at": _unix(task.started_at),
        "owner_pid": task.owner_pid,
        "outcome": task.outcome and task.outcome.value,
        "cause": task.cause and task.cause.value,
        "hint": task.hint,
        "result_file": task.result_file,
        "result_size": task.result_size,
        "result_tail": task.result_tail,
        "cwd": task.cwd,
    }
    return {key: value for key, value in values.items() if value is not None}


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _parse(data: bytes, name: str) -> dict[str, object]:
    """Return the object that *data* holds, or raise a RecordError that says what else it is."""
    if len(data) > SIZE_LIMIT:
        raise RecordError(name, f"it is larger than {SIZE_LIMIT} bytes")
    if not data.strip():
        raise RecordError(name, "it is empty")
    if data.startswith(b"\xef\xbb\xbf"):
        raise RecordError(name, "it is not JSON: Unexpected UTF-8 BOM")
    try:
        value = _DECODER.decode(data.decode("utf-8"))
        if b"\\u" in data:  # the only way in for a lone surrogate, which no file and no agent could be given
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(name, f"it is not UTF-8: {error.reason} at byte {error.start}") from None
    except UnicodeEncodeError:
        raise RecordError(name, "it holds half of a character (a lone surrogate)") from None
    except RecursionError:
        raise RecordError(name, f"it is nested more than {DEPTH_LIMIT} deep") from None
    except ValueError as error:
        raise RecordError(name, _short(f"it is not JSON: {error}")) from None
    if not isinstance(value, dict):
        raise RecordError(name, "it is JSON, but not an object")
    _check_depth(data, value, name)
    return value


def _check_depth(data: bytes, value: object, name: str) -> None:
    if data.count(b"{") + data.count(b"[") > DEPTH_LIMIT and _deeper_than(value, DEPTH_LIMIT):
        raise RecordError(name, f"it is nested more than {DEPTH_LIMIT} deep")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None
        raise ValueError(f"the key {twice!r} stands in it twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{_short(text)} is more than a number can be")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON else reason[: _REASON - 1] + "…"


def _deeper_than(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(outer, dict | list) for outer in level)


class _Fields:
    """Takes the known keys out of a parsed record, each with its type; what is left is *extra*."""

    def __init__(self, name: str, values: Mapping[str, object]) -> None:
        self.name = name
        self.left = dict(values)
        self.task_id = self.text("task_id")
        if not is_task_id(self.task_id):
            self.refuse(f"task_id is {self.task_id!r}, not 12 lowercase hex digits")

    def refuse(self, reason: str) -> NoReturn:
        raise RecordError(self.name, _short(reason))

    def optional_text(self, key: str) -> str | None:
        value = self.left.pop(key, None)
        return value if value is None or isinstance(value, str) else self._wrong(key, "text", value)

    def _wrong(self, key: str, kind: str, value: object) -> NoReturn:
        self.refuse(f"{key} must be {kind}, not {type(value).__name__}")

    def text(self, key: str) -> str:
        value = self.optional_text(key)
        return self.refuse(f"{key} is missing") if value is None else value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.left.pop(key, None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(f"{key} must be a list of texts")
        return tuple(value)

    def number(self, key: str) -> float | None:
        value = self.left.pop(key, None)
        if value is None:
            return None
        return float(value) if _is_number(value) else self._wrong(key, "a finite number", value)

    def integer(self, key: str) -> int | None:
        value = self.left.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._wrong(key, "a whole number", value)
        if abs(value) >= _LARGEST:  # 4,300 digits can be read, and one more cannot be written
            self.refuse(f"{key} is beyond 2**53")
        return value

    def moment(self, key: str) -> datetime | None:
        value = self.number(key)
        return None if value is None else datetime.fromtimestamp(value, UTC)

    def required_moment(self, key: str) -> datetime:
        return self.moment(key) or self.refuse(f"{key} is missing")

    def inner(self, key: str) -> _Fields:
        value = self.left.pop(key, None)
        if not isinstance(value, dict):
            self.refuse(f"{key} must be an object")
        return _Fields(self.name, {"task_id": self.task_id, **value})


def _is_number(value: object) -> TypeGuard[float]:
    return (type(value) is int and abs(value) < _LARGEST) or (type(value) is float and math.isfinite(value))


def _task(fields: _Fields) -> dict[str, Any]:
    status = fields.text("status")
    if "tool_args" in fields.left:
        shape = _from_claimed(fields, status)
    elif status == "pending":
        shape = _from_pending(fields)
    else:
        fields.refuse(f"status is {status!r} in a record without tool_args; a submitted task is 'pending'")
    version = fields.integer("version") or 1
    if version > VERSION:
        fields.refuse(f"it was written by a newer release (version {version}); this one reads up to {VERSION}")
    own: dict[str, Any] = {}
    for key in [key for key in fields.left if key in _OWN]:
        value = _OWN[key](fields, key)
        if value is not None:  # or else it says what a missing key says
            own[key] = value
    extra = {key: value for key, value in fields.left.items() if key not in _OF_ONE_SHAPE}
    return {**shape, **own, "id": fields.task_id, "extra": extra}


def _policy(fields: _Fields, key: str) -> OnInterrupt | None:
    text = fields.optional_text(key)
    return OnInterrupt(text) if text else None


def _cause(fields: _Fields, key: str) -> Cause | None:
    text = fields.optional_text(key)
    return Cause(text) if text else None


# What stands in both shapes under the name that the task has for it, and how it is read.
_OWN: Final[Mapping[str, Callable[[_Fields, str], object]]] = {
    "anima_name": _Fields.optional_text,
    "priority": _Fields.integer,
    "not_before": _Fields.moment,
    "key": _Fields.optional_text,
    "retry_of": _Fields.optional_text,
    "expected_seconds": _Fields.number,
    "timeout_seconds": _Fields.number,
    "retries": _Fields.integer,
    "on_interrupt": _policy,
    "max_attempts": _Fields.integer,
    "attempt": _Fields.integer,
    "requeued": _Fields.integer,
    "started_at": _Fields.moment,
    "owner_pid": _Fields.integer,
    "cause": _cause,
    "hint": _Fields.optional_text,
    "result_file": _Fields.optional_text,
    "result_size": _Fields.integer,
    "result_tail": _Fields.optional_text,
    "cwd": _Fields.optional_text,
}


def _from_pending(fields: _Fields) -> dict[str, Any]:
    return {
        "tool": fields.text("tool_name"),
        "subcommand": fields.optional_text("subcommand") or "",
        "argv": fields.texts("raw_args"),
        "anima_dir": fields.optional_text("anima_dir") or "",
        "submitted_at": fields.required_moment("submitted_at"),
    }


def _from_claimed(fields: _Fields, status: str) -> dict[str, Any]:
    arguments = fields.inner("tool_args")
    subcommand = arguments.text("subcommand")
    if status not in {"running", "completed", "failed"}:
        fields.refuse(f"status is {status!r}, not running, completed or failed")
    outcome = fields.optional_text("outcome") or status
    if (outcome == "completed") != (status == "completed"):
        fields.refuse(f"status is {status!r}, and outcome is {outcome!r}")
    return {
        "tool": fields.text("tool_name").removesuffix(f":{subcommand}" if subcommand else ""),
        "subcommand": subcommand,
        "argv": arguments.texts("raw_args"),
        "anima_dir": arguments.optional_text("anima_dir") or "",
        "submitted_at": fields.required_moment("created_at"),
        "state": State.RUNNING if status == "running" else State.DONE,
        "finished_at": fields.moment("completed_at"),
        "result": fields.optional_text("result"),
        "error": fields.optional_text("error"),
        "outcome": None if status == "running" else Outcome(outcome),
    }
