"""
A function's signature as a command line: parameters out of its annotations, and values to and fro.

    no default                    a positional       str, int, float, Path
    a default, or keyword-only    an option          Literal[...], Enum: choices
    bool                          a flag             list[X], tuple[X, ...], Sequence[X], *args: X: many
    ToolContext                   given by us        X | None: as X

A parameter without an annotation takes the type of its default, or is text. Anything else is refused when the tool is
registered, not when it is called.
"""

from __future__ import annotations

import collections
import enum
import functools
import inspect
import math
import os
import re
import sys
import textwrap
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any, Final

import attrs

from animaworks_tasks.errors import RegistryError
from animaworks_tasks.tools.arguments import option_words
from animaworks_tasks.tools.context import ToolContext

_PLAIN: Final[Mapping[object, tuple[str, Callable[[Any], Any]]]] = {
    str: ("str", str),
    int: ("int", int),
    float: ("float", float),
    bool: ("bool", bool),
    Path: ("path", Path),
    object: ("str", str),
    Any: ("str", str),
}

_GENERATOR: Final = (
    "it is a generator function: called, it would run nothing and be taken for done. Return the result; how far it is, "
    "it says with context.progress(...)"
)

_METHOD: Final = (
    "it is a method, and nobody would give it its object: make it a function at the top of the module, or register the "
    "method of an object, with registry.add(name, subcommand, object.method)"
)

if sys.version_info >= (3, 14):  # pragma: no cover - CI has no such Python
    import annotationlib

    # Annotations are evaluated only now there; a name that exists for type checkers alone stays a name.
    _inspect = functools.partial(inspect.signature, annotation_format=annotationlib.Format.FORWARDREF)
else:
    _inspect = inspect.signature


@attrs.frozen
class _Reading:
    """
    How one annotation is read.

    Attributes:
        type: As in a parameter's ``type``.
        build: Makes the Python value of a JSON value.
        choices: What it may be, by how it is written; empty for anything of its type.
        many: Whether it is a list of these.
    """

    type: str
    build: Callable[[Any], Any]
    choices: Mapping[str, object] = attrs.field(factory=dict)
    many: bool = False


def describe(function: Callable[..., Any]) -> tuple[dict[str, Any], ...]:
    """
    Return the parameters, as :mod:`animaworks_tasks.tools.arguments` knows them, that call *function*.

    Raises:
        RegistryError: No command line can express its signature, or calling it would not run it.
    """
    called = (function, type(function).__call__)
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in called):
        raise RegistryError(_GENERATOR)
    _, parameters = _inspected(function)
    if _is_in_class(function) and [each.name for each, _ in parameters][:1] in (["self"], ["cls"]):
        raise RegistryError(_METHOD)
    helps = _helps(documentation(function))
    described = [
        _describe(parameter, annotation, helps.get(parameter.name, ""))
        for parameter, annotation in parameters
        if annotation is not ToolContext
    ]
    positionals = [each for each in described if each["kind"] == "positional"]
    if any(each.get("many") for each in positionals[:-1]):
        raise RegistryError("a list without a default takes the rest of the line: it must be the last positional")
    words = collections.Counter(word for each in described for word in option_words(each))
    if twice := [word for word, count in words.items() if count > 1]:
        raise RegistryError(f"two parameters would both be {twice[0]}: rename one")
    if "--help" in words:
        raise RegistryError("a parameter would be --help, which prints what the tool takes: rename it")
    return tuple(described)


def _is_in_class(function: Callable[..., Any]) -> bool:
    """Return whether *function* was defined in a class."""
    return getattr(function, "__qualname__", "").rpartition(".")[0].rpartition(".")[2] not in {"", "<locals>"}


def bind(
    function: Callable[..., Any], values: Mapping[str, Any], context: ToolContext | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that give *function* the parsed *values* in the types it asks for, and *context*."""
    signature, parameters = _known(function)
    bound = inspect.BoundArguments(signature, collections.OrderedDict())
    for parameter, annotation in parameters:
        if annotation is ToolContext:
            bound.arguments[parameter.name] = context
        elif parameter.name in values:
            value, build = values[parameter.name], _read(annotation).build
            rest = parameter.kind is Parameter.VAR_POSITIONAL
            bound.arguments[parameter.name] = tuple(map(build, value)) if rest else build(value)
    bound.apply_defaults()  # without this, *args after an option that was not given would be lost
    return bound.args, bound.kwargs


_WRITTEN: Final[Mapping[str, tuple[type | tuple[type, ...], Callable[[Any], str]]]] = {
    "str": (str, str.__str__),
    "int": (int, lambda number: str(int(number))),
    "float": ((int, float), lambda number: str(float(number))),
    "path": ((str, Path), os.fspath),
}


def words(
    function: Callable[..., Any], described: Sequence[Mapping[str, Any]], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[str]:
    """
    Return the words after the subcommand that call *function* with these arguments; :func:`bind` is the way back.

    Args:
        function: The function.
        described: Its parameters, from :func:`describe`.
        args: What it is to be called with, without a ToolContext.
        kwargs: Likewise, by name.

    Raises:
        TypeError: It does not take these arguments, or one cannot be written as words; the message names it.
    """
    signature, parameters = _known(function)
    known = {each.name: (each, annotation) for each, annotation in parameters if annotation is not ToolContext}
    bound = signature.replace(parameters=[parameter for parameter, _ in known.values()]).bind(*args, **kwargs)
    options: list[str] = []
    positionals: list[str] = []
    for each in described:
        name = each["name"]
        if name not in bound.arguments:
            continue
        try:
            texts = _texts(each, *known[name], bound.arguments[name])
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"no command line can say that {name} is {bound.arguments[name]!r}: {error}") from None
        if each["kind"] == "positional":
            positionals += texts
        else:
            options += texts
    return [*options, *(["--"] if any(word.startswith("-") for word in positionals) else []), *positionals]


def _texts(described: Mapping[str, Any], parameter: Parameter, annotation: Any, value: Any) -> list[str]:  # noqa: ANN401 - as below
    """Return the words that give *parameter* this value; none where that is what it is without any."""
    reading, options = _read(annotation), option_words(described)
    many, default = described.get("many"), parameter.default
    if value is None or (many and value in ([], ())):
        if value is not default and (value is None or default not in ([], ())):
            raise ValueError("there are no words for it, unless it is the default")
        return []
    if isinstance(value, float) and not math.isfinite(value) and value == default:
        return []
    if many and not isinstance(value, list | tuple):
        raise TypeError("it must be a list or a tuple")
    if reading.type == "bool" and isinstance(value, bool):
        return [next(word for word, setting in options.items() if setting is value)]
    texts = [_text(reading, each) for each in (value if many else [value])]
    return [f"{word}={text}" for word in options for text in texts] if options else texts


def _text(reading: _Reading, value: object) -> str:
    if reading.choices:
        found = (text for text, choice in reading.choices.items() if (type(choice), choice) == (type(value), value))
        if (text := next(found, None)) is None:
            raise ValueError(f"choose from {', '.join(map(repr, reading.choices.values()))}")
        return text
    kind, write = _WRITTEN.get(reading.type, (bool, str))
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no {reading.type}")
    text = write(value)
    if reading.type == "float" and not math.isfinite(float(text)):
        raise ValueError("only a finite number has a word")
    text.encode()  # a half of a character has none
    return text


def returned(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - an annotation may be anything
    """
    Return the annotation of what *function* returns, or of what it gives when awaited; Any where it has none.

    Raises:
        RegistryError: It cannot be resolved.
    """
    if isinstance(function, type):
        return function
    annotation = _inspect(function).return_annotation
    if annotation is Parameter.empty:
        return Any
    annotation = _resolved(function, {"return": annotation})["return"]
    awaited = typing.get_origin(annotation) in (Awaitable, Coroutine)
    return typing.get_args(annotation)[-1] if awaited else annotation


def documentation(function: Callable[..., Any]) -> str:
    """Return the docstring of *function* itself, cleaned; empty if it has none."""
    return inspect.getdoc(_innermost(function)) or ""


def _inspected(function: Callable[..., Any]) -> tuple[inspect.Signature, list[tuple[Parameter, Any]]]:
    """Return its signature, and each parameter with its annotation resolved and stripped of ``| None``."""
    try:
        signature = _inspect(function)
    except NameError as error:
        raise _unresolved(error) from error
    except (TypeError, ValueError) as error:
        raise RegistryError(f"its signature cannot be read ({error}): register a function that calls it") from error
    parameters = signature.parameters.values()
    # Only the parameters: what it returns may be a name that exists for type checkers alone.
    annotated = {each.name: each.annotation for each in parameters if each.annotation is not Parameter.empty}
    hints = _resolved(function, annotated)
    return signature, [(each, _without_none(hints.get(each.name, _guess(each.default)))) for each in parameters]


def _known(function: Callable[..., Any]) -> tuple[inspect.Signature, list[tuple[Parameter, Any]]]:
    """Do as :func:`_inspected`, and remember it; not every object that can be called can be looked up."""
    hashable = isinstance(function, Hashable)
    return _remembered(function) if hashable else _inspected(function)


def _resolved(function: Callable[..., Any], annotations: Mapping[str, Any]) -> dict[str, Any]:
    # Linters like to move these two imports under TYPE_CHECKING, so they are known without one.
    known = {"Path": Path, "ToolContext": ToolContext} | getattr(_innermost(function), "__globals__", {})
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__=annotations), known)
    except Exception as error:
        raise _unresolved(error) from error


_remembered = functools.lru_cache(maxsize=256)(_inspected)  # read once for a tool, and not for each of its tasks


def _unresolved(error: Exception) -> RegistryError:
    return RegistryError(f"an annotation cannot be resolved ({error}): import what it names outside `if TYPE_CHECKING`")


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that was written, without partials, wrappers, and the object it is the call of."""
    while isinstance(inner := inspect.unwrap(function), functools.partial):
        function = inner.func
    call: Callable[..., Any] | None = getattr(type(inner), "__call__", None)  # noqa: B004 - of an object that is called
    return call if call is not None and hasattr(call, "__globals__") else inner


def _guess(default: object) -> Any:  # noqa: ANN401 - an annotation may be anything
    if isinstance(default, Path):
        return Path
    return type(default) if type(default) in _PLAIN or isinstance(default, enum.Enum) else str


def _without_none(annotation: Any) -> Any:  # noqa: ANN401 - as above
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    members = [each for each in typing.get_args(annotation) if each is not types.NoneType]
    if set(members) == {str, Path}:
        return Path
    return members[0] if len(members) == 1 else annotation


def _read(annotation: Any) -> _Reading:  # noqa: ANN401 - as above
    if isinstance(annotation, type) and annotation in _PLAIN:
        return _Reading(*_PLAIN[annotation])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        texts = all(isinstance(each.value, str) for each in annotation)
        return _choose({each.value if texts else each.name: each for each in annotation}, "str")
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        kind = "int" if all(type(each) is int for each in inner) else "str"
        return _choose({str(each): each for each in inner}, kind)
    if origin in (list, Sequence) or (origin is tuple and inner[1:] == (...,)):
        return _read_many(_read(inner[0]), list if origin is Sequence else origin)
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if annotation in (list, tuple, Sequence):
        raise RegistryError(f"{name} of what? Say it: {name}[{'str, ...' if annotation is tuple else 'str'}]")
    raise RegistryError(f"no command line can express {name}: take text and convert it in the function")


def _read_many(one: _Reading, collect: Callable[[Any], Any]) -> _Reading:
    if one.many or one.type == "bool":
        problem = "no command line can express a list of lists or of flags"
        raise RegistryError(f"{problem}: take list[str] and convert it in the function")
    return _Reading(one.type, lambda values: collect(map(one.build, values)), one.choices, many=True)


def _choose(choices: Mapping[str, object], kind: str) -> _Reading:
    return _Reading(kind, lambda value: choices[str(value)], choices)


def _describe(parameter: Parameter, annotation: Any, text: str) -> dict[str, Any]:  # noqa: ANN401 - as above
    if parameter.kind is Parameter.VAR_KEYWORD:
        raise RegistryError(f"no command line can express **{parameter.name}: name each option")
    try:
        reading = _read(annotation)
        if rest := parameter.kind is Parameter.VAR_POSITIONAL:
            reading = _read_many(reading, tuple)
    except RegistryError as error:
        raise RegistryError(f"parameter {parameter.name}: {error}") from None
    required = parameter.default is Parameter.empty
    described: dict[str, Any] = {"name": parameter.name, "kind": "option", "type": reading.type}
    if reading.type == "bool":
        described["kind"] = "flag"
    elif required and parameter.kind is not Parameter.KEYWORD_ONLY:
        described["kind"] = "positional"
    if reading.choices:
        described["choices"] = list(reading.choices)
    if rest or not required:
        described["default"] = [] if rest else _plain(parameter.default, reading)
    if reading.many:
        described["many"] = True
    return described | ({"help": text} if text else {})


def _plain(default: object, reading: _Reading) -> Any:  # noqa: ANN401 - JSON is anything
    """Return *default* as JSON; None where JSON cannot express it: the function itself applies it."""
    if isinstance(default, list | tuple):
        return [_plain(each, reading) for each in default]
    if reading.choices and reading.type == "str":
        return next((written for written, choice in reading.choices.items() if choice == default), None)
    if isinstance(default, Path):
        return str(default)
    if isinstance(default, float) and not math.isfinite(default):
        return None
    return default if isinstance(default, str | int | float) else None


def _helps(text: str) -> dict[str, str]:
    """Return the text of each parameter in the ``Args:`` section of a Google-style docstring, as one line each."""
    section = re.split(r"\n(?=\S)", "\n" + text.partition("\nArgs:\n")[2])[0]  # up to the next one
    helps = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section)):
        head, _, tail = entry.partition(":")
        helps[head.split("(")[0].strip(" *`\n")] = " ".join(tail.split())
    return helps
