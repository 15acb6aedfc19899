"""The catalogue that a host publishes is read once, and checked."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from animaworks_tasks import Registry, TaskStore
from animaworks_tasks.tools.catalogue import known, known_tools, read_tools

GARBAGE: Final = (b"", b"[]", b"\xff", b"{", b" " * (1 << 20) + b"{}", b'{"a":' * 100_000)
SPOILT: Final[tuple[tuple[str, object], ...]] = (
    ("summary", None),
    ("expected_seconds", "long"),
    ("expected_seconds", -1),
    ("timeout_seconds", "long"),
    ("timeout_seconds", 10**400),
    ("usage", ["FILE"]),
    ("parameters", {}),
    ("parameters", [3]),
    ("parameters", [{"name": "a"}]),
    ("parameters", [{"name": "a", "kind": "", "type": "str"}]),
    ("parameters", [{"name": "a", "kind": "option", "type": "str", "choices": 3}]),
    ("parameters", [{"name": "a", "kind": "option", "type": "str", "choices": [3]}]),
)


def a_catalogue() -> dict[str, Any]:
    """Return what a host publishes that has a tool of each kind."""
    registry = Registry()

    @registry.tool("words", "count", expected_seconds=60, gated=True)
    def count(file: Path, *, longest: int = 20, order: Literal["up", "down"] = "up", fast: bool = False) -> None:
        """Count words."""

    registry.add("words", "list", lambda: None)
    registry.add_command("ffmpeg", "cut", ["ffmpeg"])
    return registry.catalogue()


def test_where_no_host_has_been_no_tools_are_known(files: TaskStore) -> None:
    assert known_tools(files.layout) is None
    with pytest.raises(FileNotFoundError):
        read_tools(files.layout)


@pytest.mark.parametrize("found", ["[]", "{", '{"language": 3}', "{}"])
def test_where_no_host_says_so_the_language_is_that_of_the_locale(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    assert (None, "ko") == known(files.layout)
    Path(files.layout.catalogue).write_text(found)
    assert (None, "ko") == known(files.layout)


def test_what_a_host_published_last_is_what_submitters_know(files: TaskStore) -> None:
    files.publish_catalogue(Registry().catalogue())
    assert {} == known_tools(files.layout)
    files.publish_catalogue(a_catalogue())
    assert (a_catalogue()["tools"], "en") == known(files.layout)


@pytest.mark.parametrize("found", GARBAGE)
def test_a_catalogue_that_cannot_be_read_names_no_tools_and_the_next_host_leaves_a_new_one(
    files: TaskStore, found: bytes
) -> None:
    Path(files.layout.catalogue).write_bytes(found)
    assert known_tools(files.layout) is None
    files.publish_catalogue(a_catalogue())
    assert a_catalogue()["tools"] == known_tools(files.layout)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "it is of version None, not 1"),
        ({"tools": {}}, "it is of version None, not 1"),
        ({"version": 2, "tools": {}}, "it is of version 2, not 1"),
        ({"version": 1}, "it names no tools"),
        ({"version": 1, "tools": [3]}, "it names no tools"),
        ({"version": 1, "tools": {"t": 5}}, "it does not describe 't' as a host would"),
        ({"version": 1, "tools": {"t": {"x": 5}}}, "it does not describe 't' as a host would"),
        ({"version": 1, "tools": {"t": {"x": {}}}}, "it does not describe 't' as a host would"),
    ],
)
def test_a_catalogue_that_is_none_of_ours_says_why(files: TaskStore, value: object, reason: str) -> None:
    Path(files.layout.catalogue).write_text(json.dumps(value))
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_tools(files.layout)


def spoil(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec.update({key: value})


def lack(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        *(spoil(*each) for each in SPOILT),
        *(lack(key) for key in ("long_running", "expected_seconds", "gated", "summary", "parameters")),
    ],
)
def test_one_tool_that_is_not_described_as_a_host_would_spoils_the_catalogue(
    files: TaskStore, change: Callable[[dict[str, Any]], None]
) -> None:
    """A reader of the catalogue may rely on the shape of what it gets."""
    catalogue = copy.deepcopy(a_catalogue())
    change(catalogue["tools"]["words"]["count"])
    Path(files.layout.catalogue).write_text(json.dumps(catalogue))
    assert known_tools(files.layout) is None
