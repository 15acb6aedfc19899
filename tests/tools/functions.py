"""Functions that tests register, with a parameter of every kind among them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from animaworks_tasks.tools.context import ToolContext
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.tool import Tool

if TYPE_CHECKING:
    from decimal import Decimal


class Format(enum.Enum):
    ZIP = "zip"
    TAR = "tar.gz"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def pack(  # noqa: D417, PLR0913 - one parameter of every kind, not all of them described
    folder: Path,
    context: ToolContext,
    *more: Path,
    format: Format = Format.ZIP,  # noqa: A002 - a tool's author names options for the people who type them
    level: Level = Level.LOW,
    mode: Literal["fast", "small"] = "fast",
    passes: Literal[1, 2] = 1,
    size: float | None = None,
    exclude: list[str] = [],  # noqa: B006 - the plain way to say it, never changed here
    verbose: bool = False,
) -> Decimal:
    """
    Pack a folder into an archive.

    It may take long.

    Args:
        folder: What to pack,
            with everything in it.
        *more: Other folders.
        size (float): Megabytes: at most.
        exclude: Names that are left out.

    Returns:
        size: Not a parameter.
    """
    raise NotImplementedError  # never called: its signature and its docstring are what is tested


async def fetch(url: str, *, timeout: int) -> str:  # noqa: ASYNC109 - the tool's own option
    """Fetch a page."""
    return f"{url} {timeout}"


def plain(text: str) -> str:
    return text


class Greeter:
    def greet(self, name: str) -> str:
        return f"hello {name}"

    def __call__(self, name: Path) -> str:
        """Greet a file."""
        return f"hello {name}"


def registered(function: Callable[..., Any], **options: Any) -> Tool:  # noqa: ANN401 - any of a tool's options
    registry = Registry()
    registry.add("a", "b", function, **options)
    return registry.get("a", "b")


def annotated(annotation: object) -> Callable[..., Any]:
    def function(value: Any) -> None:  # noqa: ANN401 - replaced below
        """Do nothing."""

    function.__annotations__["value"] = annotation
    return function
