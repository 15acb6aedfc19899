"""What can be said of a tool when it is registered: each option, what it may be, and the tool that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict

from animaworks_tasks.errors import RegistryError
from animaworks_tasks.task.model import OnInterrupt
from animaworks_tasks.tools.tool import COMMANDS, Target, Tool


class ToolOptions(TypedDict, total=False):
    """What can be said of any tool; :meth:`Registry.tool` tells what each means. None takes the default."""

    expected_seconds: float | None
    long_running: bool | None
    timeout_seconds: float | None
    retries: int
    on_interrupt: OnInterrupt | str
    max_attempts: int
    grace_seconds: float
    summary: str
    gated: bool


def _of(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types) and (bool in types or not isinstance(value, bool))


_POLICIES: Final = [*OnInterrupt, *(policy.value for policy in OnInterrupt)]
_NUMBER: Final = (_of(int, float), "a number of seconds")
OPTIONS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {  # what each may be, besides None
    "expected_seconds": _NUMBER,
    "long_running": (_of(bool), "True or False"),
    "timeout_seconds": _NUMBER,
    "retries": (_of(int), "a whole number"),
    "on_interrupt": (lambda value: value in _POLICIES, "'fail' or 'retry'"),
    "max_attempts": (_of(int), "a whole number"),
    "grace_seconds": _NUMBER,
    "summary": (_of(str), "text"),
    "gated": (_of(bool), "True or False"),
}


def make_tool(
    name: str,
    subcommand: str,
    *,
    target: Target,
    parameters: tuple[Mapping[str, Any], ...] | None = None,
    **options: Any,  # noqa: ANN401 - those of ToolOptions, which is all that a type checker would let through
) -> Tool:
    """
    Return the tool with these options; None takes the default of an option.

    Raises:
        RegistryError: It cannot have that name, or an option does not exist or cannot be that; the message says why.
    """
    if name in COMMANDS:
        raise RegistryError(f"{name} {subcommand}: `animaworks-tool {name}` is a command already: choose another name")
    try:
        for option, value in options.items():
            _check_option(option, value)
        given = {option: value for option, value in options.items() if value is not None}
        return Tool(name=name, subcommand=subcommand, target=target, parameters=parameters, **given)
    except (TypeError, ValueError) as error:
        raise RegistryError(f"{name} {subcommand}: {error}") from error


def _check_option(option: str, value: object) -> None:
    if option not in OPTIONS:
        from difflib import get_close_matches  # here, because only an error should pay for it

        near = get_close_matches(option, OPTIONS, n=1, cutoff=0.5)
        instead = f"did you mean {near[0]}?" if near else f"choose from {', '.join(OPTIONS)}"
        raise ValueError(f"there is no option {option}: {instead}")
    fits, words = OPTIONS[option]
    if value is not None and not fits(value):
        raise ValueError(f"{option} must be {words}, not {value!r}")
