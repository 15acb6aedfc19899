"""
Task <-> bytes: strict, versioned, and keeping the keys it does not know.

There are two shapes, because others read our records too. A *pending* record begins with the eight keys that AnimaWorks
writes; everything from the claim on has the shape that AnimaWorks' readers expect (``tool_name`` is
``tool:subcommand``, ``tool_args`` holds the rest). Both say the same of a task, and :func:`decode` reads both.

What does not fit is refused with one clear reason, whatever program wrote it. We check our own records the same way
before they are published, so nothing is ever stored that cannot be read again.
"""

import enum
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeVar

import attrs

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs.json import dump
from animaworks_tasks.task.model import Outcome, State, Task
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

T = TypeVar("T")


class ForeignRecordError(RecordError):
    """A record that is in order and not ours: it is left where it is."""


def encode(task: Task) -> bytes:
    """
    Return the record of *task*, in the shape for its state.

    Raises:
        ValueError: A text has a lone surrogate: it came from bytes that are not UTF-8.
    """
    shape = _pending(task) if task.state is State.PENDING else _claimed(task)
    own = {key: _plain(value) for key in _OWN if (value := getattr(task, key)) != _DEFAULTS[key]}
    return dump({**shape, **own, **task.extra})


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
    values = _values(data, task_id)
    try:
        return Task(**values)
    except ValueError as error:
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
    try:
        data = encode(task)
    except (ValueError, TypeError) as error:
        raise RecordError(task.id, str(error)) from None
    if len(data) > SIZE_LIMIT - room:
        raise RecordError(task.id, f"it is larger than {SIZE_LIMIT - room} bytes")
    _values(data, task.id)  # no Task is made of them: what a Task refuses it has refused before
    return data


def leaves_room(data: bytes) -> bool:
    """Return whether a record that was read leaves :data:`~.task.pending.ROOM`, judged by its size."""
    # Of what it holds, a list in a list ... in *extra* grows most when it is written indented.
    return 2 * (DEPTH_LIMIT + 2) * len(data) < SIZE_LIMIT - ROOM


def _pending(task: Task) -> dict[str, object]:
    first = pending_fields(
        task_id=task.id,
        tool=task.tool,
        subcommand=task.subcommand,
        argv=task.argv,
        anima_name=task.anima_name,
        anima_dir=task.anima_dir,
        at=task.submitted_at.timestamp(),
    )
    return {**first, "version": VERSION}


def _claimed(task: Task) -> dict[str, object]:
    return {
        "task_id": task.id,
        "anima_name": task.anima_name,
        "tool_name": task.name,
        "tool_args": {"subcommand": task.subcommand, "raw_args": list(task.argv), "anima_dir": task.anima_dir},
        "status": _status(task),
        "created_at": task.submitted_at.timestamp(),
        "completed_at": _plain(task.finished_at),
        "result": task.result,
        "error": task.error,
        "version": VERSION,
        **({} if task.outcome is None else {"outcome": task.outcome.value}),
    }


def _status(task: Task) -> str:
    """AnimaWorks knows pending, running, completed and failed: a cancelled task reads as failed there."""
    if task.outcome is None:
        return task.state.value
    return "completed" if task.outcome is Outcome.COMPLETED else "failed"


def _plain(value: object) -> object:
    """Return an attribute of a task as JSON has it."""
    if isinstance(value, datetime):
        return value.timestamp()
    return value.value if isinstance(value, enum.Enum) else value


def _values(data: bytes, task_id: str) -> dict[str, Any]:
    """Return the attributes of the task that *data* records; errors as for :func:`decode`."""
    try:
        record = _parsed(data)
        if record.get("task_type") == "llm":  # before all else: what an id is there is not ours to say
            raise ForeignRecordError(task_id, "it is a task for a language model, not for a tool")
        return _attributes(record, task_id)
    except RecordError:
        raise
    except (ValueError, OverflowError, OSError) as error:  # OverflowError, OSError: a date beyond the calendar
        raise RecordError(task_id, _short(str(error))) from None


def _parsed(data: bytes) -> dict[str, object]:
    """Return the object that *data* holds, or raise a ValueError that says what else it is."""
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"it is larger than {SIZE_LIMIT} bytes")
    if not data.strip():
        raise ValueError("it is empty")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ValueError("it is not JSON: Unexpected UTF-8 BOM")
    value = _from_json(data)
    if data.count(b"{") + data.count(b"[") > DEPTH_LIMIT and _is_deeper(value, DEPTH_LIMIT):
        raise ValueError(f"it is nested more than {DEPTH_LIMIT} deep")
    if isinstance(value, dict):
        return value
    raise ValueError("it is JSON, but not an object")


def _from_json(data: bytes) -> object:
    try:
        value = _DECODER.decode(data.decode("utf-8"))
        if b"\\u" in data:  # the only way in for a lone surrogate, which no file and no agent could be given
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character (a lone surrogate)") from None
    except RecursionError:
        raise ValueError(f"it is nested more than {DEPTH_LIMIT} deep") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    return value


def _is_deeper(value: object, limit: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(_is_deeper(inner, limit - 1) for inner in inside)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands in it twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{_short(text)} is not a finite number")
    return number


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON else reason[: _REASON - 1] + "…"


def _attributes(left: dict[str, object], task_id: str) -> dict[str, Any]:
    """Take what we know out of a parsed record; what is *left* are keys of others."""
    named, status = _need(left, "task_id", _text), _need(left, "status", _text)
    if named != task_id:
        raise ValueError(f"it names another task: task_id is {named!r}")
    if "tool_args" in left:
        shape = _from_claimed(left, status)
    elif status == "pending":
        shape = _from_pending(left)
    else:
        raise ValueError(f"status is {status!r} in a record without tool_args; a submitted task is 'pending'")
    version = _take(left, "version", _whole) or 1
    if version > VERSION:
        raise ValueError(f"it was written by a newer release (version {version}); this one reads up to {VERSION}")
    own = {key: value for key in _OWN.keys() & left.keys() if (value := _take(left, key, _OWN[key])) is not None}
    name = _take(left, "anima_name", _text) or ""
    extra = {key: value for key, value in left.items() if key not in _OF_ONE_SHAPE}
    return {**shape, **own, "id": task_id, "anima_name": name, "extra": extra}


def _from_pending(left: dict[str, object]) -> dict[str, Any]:
    return {
        "tool": _need(left, "tool_name", _text),
        "subcommand": _take(left, "subcommand", _text) or "",
        "argv": _need(left, "raw_args", _texts),
        "anima_dir": _take(left, "anima_dir", _text) or "",
        "submitted_at": _need(left, "submitted_at", _moment),
    }


def _from_claimed(left: dict[str, object], status: str) -> dict[str, Any]:
    call = _need(left, "tool_args", _object)
    subcommand = _need(call, "subcommand", _text)
    if status not in {"running", "completed", "failed"}:
        raise ValueError(f"status is {status!r}, not running, completed or failed")
    outcome = _take(left, "outcome", _text) or status
    if (outcome == "completed") != (status == "completed"):
        raise ValueError(f"status is {status!r}, and outcome is {outcome!r}")
    return {
        "tool": _need(left, "tool_name", _text).removesuffix(f":{subcommand}" if subcommand else ""),
        "subcommand": subcommand,
        "argv": _need(call, "raw_args", _texts),
        "anima_dir": _take(call, "anima_dir", _text) or "",
        "submitted_at": _need(left, "created_at", _moment),
        "state": State.RUNNING if status == "running" else State.DONE,
        "finished_at": _take(left, "completed_at", _moment),
        "result": _take(left, "result", _text),
        "error": _take(left, "error", _text),
        "outcome": None if status == "running" else Outcome(outcome),
    }


def _take(left: dict[str, object], key: str, kind: Callable[[str, object], T]) -> T | None:
    """Take *key* out of what is *left*; None where it says nothing. *kind* reads it, or raises a ValueError."""
    value = left.pop(key, None)
    return None if value is None else kind(key, value)


def _need(left: dict[str, object], key: str, kind: Callable[[str, object], T]) -> T:
    value = _take(left, key, kind)
    if value is None:
        raise ValueError(f"{key} is missing")
    return value


def _wrong(key: str, kind: str, value: object) -> NoReturn:
    raise ValueError(f"{key} must be {kind}, not {type(value).__name__}")


def _text(key: str, value: object) -> str:
    return value if isinstance(value, str) else _wrong(key, "text", value)


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key} must be a list of texts")
    return tuple(value)


def _object(key: str, value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else _wrong(key, "an object", value)


def _whole(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        _wrong(key, "a whole number", value)
    if abs(value) >= _LARGEST:  # 4,300 digits can be read, and one more cannot be written
        raise ValueError(f"{key} is beyond 2**53")
    return value


def _number(key: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _wrong(key, "a finite number", value)
    return float(value)


def _moment(key: str, value: object) -> datetime:
    return datetime.fromtimestamp(_number(key, value), UTC)


# What stands in both shapes under the name that the task has for it, unless it is what a task has by default.
_OWN: Final[Mapping[str, Callable[[str, object], object]]] = {
    "priority": _whole,
    "not_before": _moment,
    "key": _text,
    "retry_of": _text,
    "expected_seconds": _number,
    "timeout_seconds": _number,
    "retries": _whole,
    "on_interrupt": _text,
    "max_attempts": _whole,
    "attempt": _whole,
    "requeued": _whole,
    "pause_seconds": _number,
    "started_at": _moment,
    "owner_pid": _whole,
    "cause": _text,
    "hint": _text,
    "result_file": _text,
    "result_size": _whole,
    "result_tail": _text,
    "call": _text,
    "cwd": _text,
}
_DEFAULTS: Final = {each.name: each.default for each in attrs.fields(Task)}
