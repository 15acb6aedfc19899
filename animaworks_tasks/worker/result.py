"""
What a tool returns, as text: text as it is, data as JSON, a path as a path, nothing as nothing.

A value with an obvious form in JSON gets that, at any depth; any other becomes what Python's ``str`` makes of it.

    object      dict and other mappings, dataclasses, attrs      text     Path, bytes, datetime (ISO 8601), the rest
    list        list, tuple, range, deque, set (sorted)          null     None, NaN, infinity (alone: nan, inf)
    number      int, float, and what is registered as such       an Enum  is its value

A generator, or something that was not awaited, is no result: its work is not done.
"""

import collections
import dataclasses
import io
import math
import numbers
import os
from collections import abc
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Iterator, Mapping
from datetime import date, time
from enum import Enum
from typing import Any, Final

import attrs

_PLAIN: Final = frozenset((str, int, bool, type(None)))  # checked first: most values are of these types
_VIEWS: Final = (abc.KeysView, abc.ValuesView, abc.ItemsView)
_LISTS: Final = (list, tuple, range, collections.deque, collections.UserList, *_VIEWS)


class UnfinishedError(Exception):
    """
    A tool has returned a generator, or something to be awaited.

    Attributes:
        hint: What to do about it.
    """

    def __init__(self, value: object) -> None:
        lacks, way = "gone through", "return list(...) of it"
        if isinstance(value, Awaitable):
            lacks, way = "awaited", "await it in an `async def`, and return what it gives"
        elif isinstance(value, AsyncIterator):
            way = "go through it in an `async def`, and return what it gives"
        kind = type(value).__name__
        super().__init__(f"it returned an unfinished {kind}: nobody has {lacks} it, so its work was not done")
        self.hint = f"change the tool's code: {way}"
        if isinstance(value, Coroutine):
            value.close()  # or Python warns that it was never awaited


def is_unfinished(value: object) -> bool:
    """Return whether *value* is a generator or an awaitable: work that is still to be done after the call."""
    waits = isinstance(value, Iterator | AsyncIterator | Awaitable)
    return waits and not isinstance(value, str | io.IOBase)  # a file is an iterator, but no work


def as_text(value: object) -> str | None:
    """
    Return *value* as text; None if it is None.

    Raises:
        UnfinishedError: It is unfinished, or something in it is.
        Exception: A method of *value* raised it.
    """
    import json

    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # alone it need not be JSON, and null would be no result
    try:
        data = plain(value)
        return data if data is None or isinstance(data, str) else json.dumps(data, indent=2, ensure_ascii=False)
    except RecursionError:  # it contains itself
        return repr(value)


def plain(value: Any) -> Any:  # noqa: ANN401, C901, PLR0911, PLR0912 - a table of what there is, as the docstring has it
    """Return *value* in the types of JSON."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return _object(value.items())
    if isinstance(value, _LISTS):
        return [plain(each) for each in value]
    if is_unfinished(value):
        raise UnfinishedError(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return plain(float(value))
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return _sorted(map(plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _object((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    if attrs.has(type(value)):
        return _object((field.name, getattr(value, field.name)) for field in attrs.fields(type(value)))
    return str(value)


def _object(items: Iterable[tuple[object, object]]) -> dict[Any, Any]:
    return {_key(key): plain(value) for key, value in items}


def _key(key: object) -> str | int | float | None:
    data = plain(key)
    return data if data is None or isinstance(data, str | int | float) else str(key)


def _sorted(items: Iterable[Any]) -> list[Any]:
    found = list(items)
    try:
        return sorted(found)
    except TypeError:  # texts beside numbers, or objects
        return sorted(found, key=repr)
