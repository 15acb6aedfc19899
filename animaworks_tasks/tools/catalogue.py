"""
Reads ``catalogue``, the file in which a host publishes its tools and its language for submitters in other processes.

Anybody may have written the file, so its shape is checked here: tool, subcommand, and then what ``Tool.spec`` says.
This module imports next to nothing, because ``animaworks-tool submit`` uses it.
"""

from __future__ import annotations

import os
import sys

from animaworks_tasks.fs import files, json
from animaworks_tasks.fs.layout import ANIMA_DIR_VARIABLE
from animaworks_tasks.task.pending import SIZE_LIMIT

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from animaworks_tasks.fs.layout import Layout

    Tools = Mapping[str, Mapping[str, Mapping[str, Any]]]

VERSION: Final = 1
_LANGUAGES: Final = ("ja", "en", "ko")

_FACTS: Final = {"long_running", "expected_seconds", "gated", "summary", "parameters"}
_KINDS: Final = ("positional", "option", "flag")  # as _arguments knows them
_OF_A_PARAMETER: Final = ("name", "kind", "type")


def known(layout: Layout) -> tuple[Tools | None, str]:
    """
    Return the tools of the catalogue, and the language of the host's notifications.

    Where there are none that we understand, None: then the host checks calls. Where it has no language, what
    :func:`default_language` returns.
    """
    tools = language = None
    try:
        catalogue = _load(layout)
        language = catalogue.get("language")
        tools = _tools(catalogue)
    except (OSError, ValueError):  # contextlib would take longer to import than the file to read
        pass
    return tools, language if language in _LANGUAGES else default_language()


def default_language() -> str:
    """Return Japanese where the environment names an Anima, which AnimaWorks does; or else the locale's language."""
    if os.environ.get(ANIMA_DIR_VARIABLE):
        return "ja"
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")  # as POSIX has it
    return locale[:2] if locale[:2] in _LANGUAGES else "en"


def known_tools(layout: Layout) -> Tools | None:
    """Return the tools of the catalogue, as :func:`known` does."""
    return known(layout)[0]


def known_limits(layout: Layout) -> dict[str, int]:
    """Return how many tasks of the store the host lets use each resource at once; what is missing has no limit."""
    try:
        limits = _load(layout).get("limits")
    except (OSError, ValueError):
        return {}
    return {each: limit for each, limit in limits.items() if type(limit) is int} if isinstance(limits, dict) else {}


def read_tools(layout: Layout) -> Tools:
    """
    Return the tools of the catalogue, by name and subcommand.

    Raises:
        FileNotFoundError: No host has published one.
        OSError: It cannot be read.
        ValueError: It cannot be used; the message says why.
    """
    return _tools(_load(layout))


def _tools(catalogue: Mapping[str, Any]) -> Tools:
    if catalogue.get("version") != VERSION:
        raise ValueError(f"it is of version {catalogue.get('version')!r}, not {VERSION}")
    tools = catalogue.get("tools")
    if not isinstance(tools, dict):
        raise ValueError("it names no tools")  # noqa: TRY004 - the file is wrong, not our caller
    for name, specs in tools.items():
        if not isinstance(specs, dict) or not all(map(_is_tool, specs.values())):
            raise ValueError(f"it does not describe {name!r} as a host would")
    return tools


def _load(layout: Layout) -> dict[str, Any]:
    value = json.load(files.read(layout.catalogue, limit=SIZE_LIMIT))
    return value if isinstance(value, dict) else {}


def _is_tool(spec: object) -> bool:
    if not isinstance(spec, dict) or not spec.keys() >= _FACTS or not isinstance(spec["summary"], str):
        return False
    times, parameters = (spec["expected_seconds"], spec.get("timeout_seconds")), spec["parameters"]
    if not isinstance(spec.get("usage"), str | None):
        return False
    fits = parameters is None or (isinstance(parameters, list) and all(map(_is_parameter, parameters)))
    return fits and all(map(_is_time, times))


def _is_time(seconds: object) -> bool:
    # A larger number cannot be made a float, and so cannot be shown.
    return seconds is None or (isinstance(seconds, int | float) and 0 <= seconds <= sys.float_info.max)


def _is_parameter(parameter: object) -> bool:
    if not isinstance(parameter, dict) or not all(isinstance(parameter.get(key), str) for key in _OF_A_PARAMETER):
        return False
    choices = parameter.get("choices", [])
    fits = isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
    return fits and parameter["kind"] in _KINDS
