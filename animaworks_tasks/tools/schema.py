"""A tool without its code: its entry in the catalogue, and the JSON Schema of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.tool import Tool

Specs = dict[str, dict[str, dict[str, Any]]]  # by tool and subcommand

_FACTS: Final = ("long_running", "expected_seconds", "timeout_seconds", "gated", "direct", "summary")
_JSON_TYPES: Final = {"int": "integer", "float": "number", "bool": "boolean"}  # else text


def specs(tools: Mapping[str, Mapping[str, Tool]]) -> Specs:
    """Return the entries of all *tools*, fit for JSON."""
    return {name: {each: _spec(tool) for each, tool in subcommands.items()} for name, subcommands in tools.items()}


def _spec(tool: Tool) -> dict[str, Any]:
    facts = {name: getattr(tool, name) for name in _FACTS}
    return facts | {"parameters": None if tool.parameters is None else [dict(each) for each in tool.parameters]}


def json_schema(tool: Tool) -> dict[str, Any]:
    """Return the arguments of *tool* as a JSON Schema of an object; see :meth:`Registry.json_schema`."""
    argv = {"name": "argv", "type": "str", "many": True, "default": [], "help": "the words after the subcommand"}
    parameters: Sequence[Mapping[str, Any]] = [argv] if tool.parameters is None else tool.parameters
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": tool.command,
        "type": "object",
        **({"description": tool.summary} if tool.summary else {}),
        "properties": {each["name"]: _property(each) for each in parameters},
        "required": [each["name"] for each in parameters if "default" not in each],
        "additionalProperties": False,
    }


def _property(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _JSON_TYPES.get(parameter["type"], "string")}
    if "choices" in parameter:
        schema["enum"] = [arguments.convert(parameter, text) for text in parameter["choices"]]
    if parameter.get("many"):
        schema = {"type": "array", "items": schema} | ({} if "default" in parameter else {"minItems": 1})
    if parameter.get("default") is not None:
        schema["default"] = parameter["default"]
    return schema | ({"description": parameter["help"]} if "help" in parameter else {})
