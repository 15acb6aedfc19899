"""
1. A typed function is a tool.

A registry is the table of what can be called. One decorator is all it takes: the function's signature is the command
line, the JSON Schema, and a line of the guide in the agent's prompt.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from animaworks_tasks import Registry
from animaworks_tasks.errors import UsageError

registry = Registry()


@registry.tool("archive", "make", expected_seconds=60)  # it takes long, so the guide lists it with ⚠: submit it
def make(folder: Path, *, level: int = 6) -> str:
    """Pack a folder into an archive."""
    return f"{folder.name}.zip, level {level}"


def test_a_signature_is_the_command_line_the_schema_and_the_line_in_the_guide() -> None:
    # the command line, as `animaworks-tool archive make --help` has it
    assert "archive make FOLDER [--level INT]" == registry.get("archive", "make").usage

    # the schema, for a model that calls tools with JSON
    schema = registry.json_schema("archive", "make")
    assert {"folder": {"type": "string"}, "level": {"type": "integer", "default": 6}} == schema["properties"]
    assert ["folder"] == schema["required"]

    # the guide, for an agent that has a shell
    assert "- ⚠ `archive make FOLDER` (60 s): Pack a folder into an archive\n" in registry.guide("en")


def test_a_decorated_function_is_still_a_function_and_a_wrong_call_of_the_tool_is_refused() -> None:
    assert "logs.zip, level 6" == make(Path("logs"))
    with pytest.raises(UsageError, match=r"--level"):
        registry.resolve("archive", ["make", "logs", "--level", "high"])
