"""
What a tool returned, out of the text of its result: the way back from ``result.py``, by the function's annotation.

It comes back as it was, or not at all: what two types would read differently, or would not write as it stands, is an
error; but that text which looks like a list or an object is read as one where either is possible. What is not annotated
inside is as JSON has it, where keys are text and nan is None. These come back, alone, in each other, as ``X | None``:

    str, int, float, bool, None, Literal, Enum     dataclasses, attrs, NamedTuple, TypedDict
    Path, datetime, date, time                     list, tuple, set, frozenset, dict, and what is abstract of them

A function without an annotation, one that returns ``Any`` or ``object``, and a tool that prints, have their text.
"""

import contextlib
import dataclasses
import json
import types
import typing
from collections import abc
from collections.abc import Iterator, Sequence
from datetime import date, time
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

import attrs

from animaworks_tasks.errors import ResultTypeError, UsageError
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools import signature
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.worker.result import plain

_ANYTHING: Final = (Any, object)
_ORDERED: Final = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
_LISTS: Final = dict.fromkeys(_ORDERED, list) | {set: set, frozenset: frozenset, abc.Set: frozenset}
_DICTS: Final = (dict, abc.Mapping, abc.MutableMapping)


def result_of(store: Store, registry: Registry, task: Task) -> Any:  # noqa: ANN401 - what its tool returned
    """
    Return what the tool of a COMPLETED *task* returned; text where its function is not known here.

    Raises:
        ResultTypeError: The text of the result does not come back as what the function says that it returns.
        OSError: The file of a large result cannot be read.
    """
    text, kind = store.read_result(task.id), Any
    try:
        with contextlib.suppress(UsageError):  # it is not here, or no longer takes these arguments
            tool = registry.resolve(task.tool, task.argv)
            kind = Any if tool.parameters is None else signature.returned(tool.load())
        return from_text(text, kind)
    except Exception as error:  # the tool's own classes may raise anything
        raise ResultTypeError(task.id, _name(kind), str(error)) from error


def from_text(text: str | None, kind: Any) -> Any:  # noqa: ANN401 - a type, and a value of it
    """
    Return the value of type *kind* of which ``as_text`` made *text*.

    Raises:
        Exception: There is none, or more than one; or a constructor refuses what it would be made of.
    """
    if text is None or kind in _ANYTHING:
        return text if kind in _ANYTHING else _build(None, kind)
    found: list[Any] = []
    refusals: list[Exception] = []
    for data in _readings(text):
        try:
            value = _build(data, kind)
        except Exception as error:  # noqa: BLE001 - as above
            refusals.append(error)
        else:
            if isinstance(data, list | dict):  # text that looks like one is far less likely
                return value
            found.append(value)
    if not found:
        raise refusals[-1]
    return _only(found, kind)


def _readings(text: str) -> Iterator[Any]:
    """Yield what a result was in the types of JSON, if it is written so: text is written as it is."""
    yield text
    if text in {"nan", "inf", "-inf"}:
        yield float(text)
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(text)
        if data is not None and not isinstance(data, str):
            yield data


def _build(data: Any, kind: Any) -> Any:  # noqa: ANN401, C901, PLR0911, PLR0912 - a table of what comes back, as above
    """Return the value of type *kind* that ``plain`` makes *data* of."""
    kind = getattr(kind, "__supertype__", getattr(kind, "__value__", kind))  # of a NewType, of a type alias
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if kind in _ANYTHING:
        return data
    if kind in (str, int, bool, types.NoneType) and type(data) is kind:
        return data
    if kind is float and type(data) in (int, float):
        return float(data)
    if origin in (typing.Union, types.UnionType):
        return _one_of(data, inner, kind)
    if origin is typing.Literal:
        return _member(data, inner, kind)
    if isinstance(origin, type):
        if issubclass(origin, Enum):
            return _member(data, origin, kind)
        if isinstance(data, str) and issubclass(origin, PurePath):
            return origin(data)
        if isinstance(data, str) and issubclass(origin, date | time):
            moment = origin.fromisoformat(data)
            if moment.isoformat() == data:
                return moment
        if isinstance(data, list) and issubclass(origin, tuple):
            return _tuple(data, origin, inner)
        if isinstance(data, list) and origin in _LISTS:
            return _LISTS[origin](_build(each, *inner or (Any,)) for each in data)
        if isinstance(data, dict) and origin in _DICTS:
            key, value = inner or (str, Any)
            return {from_text(name, key): _build(each, value) for name, each in data.items()}
        if isinstance(data, dict):
            return _object(data, origin)
    raise ValueError(f"{_short(data)} is no {_name(kind)}")


def _object(data: dict[str, Any], kind: Any) -> Any:  # noqa: ANN401 - a class, and an object of it
    has_attrs: bool = attrs.has(kind)
    fields: Sequence[Any] = ()
    if has_attrs or dataclasses.is_dataclass(kind):
        fields = attrs.fields(kind) if has_attrs else dataclasses.fields(kind)
    elif not typing.is_typeddict(kind):
        raise ValueError(f"{_name(kind)} is not among the types that come back")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in fields}
    is_dict = typing.is_typeddict(kind)
    if odd := data.keys() - hints if is_dict else names ^ data.keys():
        raise ValueError(f"{_name(kind)} and the result differ in {', '.join(sorted(odd))}")
    values = {}
    for name, each in data.items():
        try:
            values[name] = _build(each, hints.get(name, Any))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if is_dict:
        return values
    made = kind(**{getattr(field, "alias", field.name): values[field.name] for field in fields if field.init})
    for field in fields:
        if not field.init:
            object.__setattr__(made, field.name, values[field.name])  # it may be frozen
    if plain(made) != data:  # a converter, or __post_init__, which has run before
        raise ValueError(f"{_name(kind)} makes something else of its own fields")
    return made


def _tuple(data: list[Any], origin: Any, inner: tuple[Any, ...]) -> Any:  # noqa: ANN401 - a class of tuples
    if hasattr(origin, "_fields"):  # a NamedTuple
        hints = typing.get_type_hints(origin)
        return origin(*(_build(each, hints.get(name, Any)) for name, each in zip(origin._fields, data, strict=True)))
    kinds = inner[:1] * len(data) if inner[1:] == (...,) else inner or (Any,) * len(data)
    return tuple(_build(each, kind) for each, kind in zip(data, kinds, strict=True))


def _member(data: object, members: Any, kind: object) -> Any:  # noqa: ANN401 - of an Enum or a Literal
    for each in members:
        if (written := plain(each)) == data and type(written) is type(data):
            return each
    raise ValueError(f"{_short(data)} is no {_name(kind)}")


def _one_of(data: object, kinds: tuple[Any, ...], kind: object) -> Any:  # noqa: ANN401 - a value of one of them
    """Return the value of that one of *kinds* that is written as *data*."""
    found = []
    for each in kinds:
        with contextlib.suppress(Exception):  # another one may fit
            found.append(_build(data, each))
    exact = [value for value in found if json.dumps(plain(value)) == json.dumps(data)]  # 1 and 1.0 are not the same
    if not found:
        raise ValueError(f"{_short(data)} is no {_name(kind)}")
    return _only(exact or found, kind)


def _only(found: list[Any], kind: object) -> Any:  # noqa: ANN401 - one of them
    first = found[0]
    for other in found:
        if (type(other), other) != (type(first), first):
            problem = f"as {_name(kind)} it may be {_short(first)} or {_short(other)}"
            raise ValueError(f"{problem}: let the tool return one type")
    return first


def _name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."  # noqa: PLR2004 - enough to recognise it
