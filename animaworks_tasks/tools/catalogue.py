"""
``catalogue``: what a host tells submitters elsewhere of its tools and its language. Here is its only reader.

Anybody may have written it, so who gets an answer here may rely on its shape: tool, subcommand, and then what
``schema.py`` says of each. Imports next to nothing, because ``animaworks-tool submit`` reads it too.
"""

from __future__ import annotations

import sys

from animaworks_tasks.fs import files, json
from animaworks_tasks.task.pending import SIZE_LIMIT

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from animaworks_tasks.fs.layout import Layout

VERSION: Final = 1

_FACTS: Final = {"long_running", "expected_seconds", "gated", "summary", "parameters"}
_KINDS: Final = ("positional", "option", "flag")  # as _arguments knows them
_OF_A_PARAMETER: Final = ("name", "kind", "type")


def known_tools(layout: Layout) -> Mapping[str, Mapping[str, Mapping[str, Any]]] | None:
    """Return the tools of the catalogue; None where no host has left one that we understand: then the host checks."""
    try:
        return read_tools(layout)
    except (OSError, ValueError):
        return None


def read_tools(layout: Layout) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """
    Return the tools of the catalogue, by name and subcommand.

    Raises:
        FileNotFoundError: No host has left one.
        OSError: It cannot be read.
        ValueError: It cannot be used; the message says why.
    """
    value = json.load(files.read(layout.catalogue, limit=SIZE_LIMIT))
    version = value.get("version") if isinstance(value, dict) else None
    if not isinstance(value, dict) or version != VERSION:
        raise ValueError(f"it is of version {version!r}, not {VERSION}")
    tools: object = value.get("tools")
    if not isinstance(tools, dict):
        raise ValueError("it names no tools")  # noqa: TRY004 - the file is wrong, not our caller
    for name, specs in tools.items():
        if not isinstance(specs, dict) or not all(map(_is_tool, specs.values())):
            raise ValueError(f"it does not describe {name!r} as a host would")
    return tools


def known_language(layout: Layout) -> str | None:
    """Return the language in which the host leaves its notices, as it says; None where it does not."""
    try:
        value = json.load(files.read(layout.catalogue, limit=SIZE_LIMIT))
    except (OSError, ValueError):
        return None
    language = value.get("language") if isinstance(value, dict) else None
    return language if isinstance(language, str) else None


def _is_tool(spec: object) -> bool:
    if not isinstance(spec, dict) or not spec.keys() >= _FACTS or not isinstance(spec["summary"], str):
        return False
    if not _is_time(spec["expected_seconds"]) or not _is_time(spec.get("timeout_seconds")):
        return False
    parameters = spec["parameters"]
    return parameters is None or (isinstance(parameters, list) and all(map(_is_parameter, parameters)))


def _is_time(seconds: object) -> bool:
    # Of what is larger a float cannot be made, and so no text.
    return seconds is None or (isinstance(seconds, int | float) and 0 <= seconds <= sys.float_info.max)


def _is_parameter(parameter: object) -> bool:
    if not isinstance(parameter, dict) or not all(isinstance(parameter.get(key), str) for key in _OF_A_PARAMETER):
        return False
    choices = parameter.get("choices", [])
    if parameter["kind"] not in _KINDS or not isinstance(choices, list):
        return False
    return all(isinstance(choice, str) for choice in choices)
