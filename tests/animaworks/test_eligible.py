"""Which tools are to be submitted, by either of their names, and how long they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from animaworks_tasks import Registry
from animaworks_tasks.background import DEFAULT_ELIGIBLE_TOOLS, BackgroundTaskManager


def test_both_names_of_a_tool_are_eligible(tmp_path: Path) -> None:
    profiles = {"image_gen": {"3d": {"expected_seconds": 600, "background_eligible": True}}}
    manager = BackgroundTaskManager.from_profiles(tmp_path, profiles=profiles)
    assert manager.is_eligible("generate_3d_model")
    assert manager.is_eligible("image_gen:3d")
    assert not manager.is_eligible("web_search")
    assert (600, None) == (manager.expected_seconds("image_gen:3d"), manager.expected_seconds("web_search"))


def test_the_tools_that_the_constructor_is_given_replace_the_defaults(tmp_path: Path) -> None:
    manager = BackgroundTaskManager(tmp_path, "mei", {"my_tool": 10})
    assert (True, False) == (manager.is_eligible("my_tool"), manager.is_eligible("generate_3d_model"))


def test_the_configuration_overrides_the_profiles_and_those_the_defaults(tmp_path: Path) -> None:
    # given
    profiles: dict[str, Any] = {
        "image_gen": {
            "3d": {"expected_seconds": 700.5, "background_eligible": True},
            "icon": {"expected_seconds": 9, "background_eligible": False},
        },
        "mine": {"a": {"background_eligible": True}, "b": {"expected_seconds": 5, "background_eligible": True}, "c": 1},
        "broken": None,
    }
    # when
    manager = BackgroundTaskManager.from_profiles(tmp_path, "mei", profiles, {"mine:b": 50, "image_gen:icon": 8})
    # then
    keys = ["image_gen:3d", "image_gen:icon", "mine:a", "mine:b", "mine:c", "image_gen:chibi", "generate_3d_model"]
    assert [700, 8, 60, 50, None, None, 30] == [manager.expected_seconds(key) for key in keys]
    assert not BackgroundTaskManager.from_profiles(tmp_path, profiles=profiles).is_eligible("image_gen:icon")


def test_a_registry_has_the_profiles(tmp_path: Path) -> None:
    # given
    registry = Registry()
    registry.add_command("video", "cut", ["ffmpeg"], expected_seconds=40)
    registry.add_command("video", "probe", ["ffprobe"])
    # when
    manager = BackgroundTaskManager.from_profiles(tmp_path, profiles=registry.profiles())
    # then
    assert (40, False) == (manager.expected_seconds("video:cut"), manager.is_eligible("video:probe"))


def test_the_defaults_are_those_of_animaworks() -> None:
    """Schema names and seconds of its release 0.11, core/background.py; a profile's names come with the profile."""
    generate = [
        "character_assets", "fullbody", "bustup", "icon", "chibi", "3d_model", "rigged_model", "animations",
    ]  # fmt: skip
    theirs = {f"generate_{what}": 30 for what in generate} | {"local_llm": 60, "run_command": 60, "machine_run": 600}
    assert theirs == DEFAULT_ELIGIBLE_TOOLS
