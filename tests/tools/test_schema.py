"""A tool without its code: the catalogue, and a JSON Schema of its arguments."""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from pathlib import Path

from animaworks_tasks.tools.registry import Registry
from tests.tools.functions import fetch, pack, registered


def test_the_catalogue_is_json_and_knows_no_code() -> None:
    # given
    registry = Registry()
    registry.add("archive", "pack", pack, expected_seconds=60)
    registry.add_command("video", "cut", ["ffmpeg", "-i"], gated=True)
    # when
    catalogue = registry.catalogue()
    # then
    assert catalogue == json.loads(json.dumps(catalogue, allow_nan=False))
    assert 1 == catalogue["version"]
    assert {
        "long_running": False, "expected_seconds": None, "timeout_seconds": 1800.0, "gated": True,
        "permission": "video_cut", "direct": False, "named": True, "summary": "", "parameters": None, "usage": None,
    } == catalogue["tools"]["video"]["cut"]  # fmt: skip
    assert {"name": "folder", "kind": "positional", "type": "path", "help": "What to pack, with everything in it."} == (
        catalogue["tools"]["archive"]["pack"]["parameters"][0]
    )


def test_defaults_that_json_cannot_say_are_null() -> None:
    def function(
        size: float = float("inf"), when: str = collections.__doc__, paths: Sequence[Path] = (Path("x"),)
    ) -> None:
        """Do nothing."""

    tool = registered(function)
    assert [None, collections.__doc__, ["x"]] == [each["default"] for each in tool.parameters or ()]


def test_a_json_schema_describes_the_same_arguments() -> None:
    # given
    registry = Registry()
    registry.add("archive", "pack", pack)
    registry.add("web", "fetch", fetch)
    registry.add_command("video", "cut", ["ffmpeg"])
    # when, then
    schema = registry.json_schema("archive", "pack")
    assert ("Pack a folder into an archive.", ["folder"]) == (schema["description"], schema["required"])
    assert {
        "folder": {"type": "string", "description": "What to pack, with everything in it."},
        "more": {"type": "array", "items": {"type": "string"}, "default": [], "description": "Other folders."},
        "format": {"type": "string", "enum": ["zip", "tar.gz"], "default": "zip"},
        "level": {"type": "string", "enum": ["LOW", "HIGH"], "default": "LOW"},
        "mode": {"type": "string", "enum": ["fast", "small"], "default": "fast"},
        "passes": {"type": "integer", "enum": [1, 2], "default": 1},
        "size": {"type": "number", "description": "Megabytes: at most."},
        "exclude": {
            "type": "array", "items": {"type": "string"}, "default": [], "description": "Names that are left out.",
        },
        "verbose": {"type": "boolean", "default": False},
    } == schema["properties"]  # fmt: skip
    assert ["url", "timeout"] == registry.json_schema("web", "fetch")["required"]
    argv = registry.json_schema("video", "cut")["properties"]["argv"]
    assert ("array", {"type": "string"}) == (argv["type"], argv["items"])


def test_a_list_that_must_be_given_has_at_least_one_item_in_its_schema() -> None:
    def function(files: list[int]) -> None:
        """Do nothing."""

    registry = Registry()
    registry.add("a", "b", function)
    files = registry.json_schema("a", "b")["properties"]["files"]
    assert {"type": "array", "items": {"type": "integer"}, "minItems": 1} == files
