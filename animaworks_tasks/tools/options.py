"""The options of a tool at its registration, and the tool that is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from animaworks_tasks.errors import RegistryError
from animaworks_tasks.task.model import OnInterrupt
from animaworks_tasks.tools.arguments import nearest
from animaworks_tasks.tools.tool import COMMANDS, Target, Tool


class ToolOptions(TypedDict, total=False):
    """The options of any tool; :meth:`Registry.tool` says what each means. None stands for the default."""

    expected_seconds: float | None
    long_running: bool | None
    timeout_seconds: float | None
    retries: int
    on_interrupt: OnInterrupt | str
    max_attempts: int
    grace_seconds: float
    summary: str
    gated: bool


def make_tool(
    name: str,
    subcommand: str,
    *,
    target: Target,
    parameters: tuple[Mapping[str, Any], ...] | None = None,
    **options: Any,  # noqa: ANN401 - those of ToolOptions, which is all that a type checker would let through
) -> Tool:
    """
    Return the tool with these options; None stands for the default.

    Raises:
        RegistryError: It cannot have that name, or an option does not exist or cannot be that; the message says why.
    """
    if name in COMMANDS:
        raise RegistryError(f"{name} {subcommand}: `animaworks-tool {name}` is a command already: choose another name")
    if unknown := [option for option in options if option not in ToolOptions.__annotations__]:
        problem = f"there is no option {unknown[0]}{nearest(unknown[0], ToolOptions.__annotations__)}"
        raise RegistryError(f"{name} {subcommand}: {problem}")
    given = {option: value for option, value in options.items() if value is not None}
    try:
        return Tool(name=name, subcommand=subcommand, target=target, parameters=parameters, **given)
    except (TypeError, ValueError) as error:
        raise RegistryError(f"{name} {subcommand}: {error.args[0]}") from error
