"""A module is a tool as it stands, and its profile is read without running it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from animaworks_tasks.errors import RegistryError, ToolLoadError
from animaworks_tasks.tools.reference import Reference
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.tool import FunctionTarget
from tests.tools.functions import plain

if TYPE_CHECKING:
    from types import ModuleType

PROFILE_MODULE = '''
"""Make images."""
EXECUTION_PROFILE: dict[str, dict[str, object]] = {
    "3d": {"expected_seconds": 600, "background_eligible": True},
    "info": {"expected_seconds": 2, "background_eligible": False, "gated": True, "summary": "Say what it can do."},
}

def cli_main(argv=None):
    print("made", argv)
'''


def test_a_literal_profile_is_read_without_running_the_module(modules: Path) -> None:
    # given a module that cannot be imported
    (modules / "image_gen.py").write_text("raise RuntimeError('imported')\n" + PROFILE_MODULE)
    for module in ("image_gen", modules / "image_gen.py"):
        registry = Registry()
        # when
        registry.add_module("image_gen", module)
        # then
        assert {"image_gen:3d": (True, 600), "image_gen:info": (False, 2)} == {
            tool.key: (tool.long_running, tool.expected_seconds) for tool in registry.tools()
        }
        info = registry.get("image_gen", "info")
        assert (True, "Say what it can do.", None) == (info.gated, info.summary, info.parameters)
        with pytest.raises(ToolLoadError, match="tool 'image_gen info' does not load: RuntimeError: imported"):
            info.load()


def test_a_computed_profile_costs_an_import(modules: Path) -> None:
    # given
    (modules / "slow_tools.py").write_text(
        "FACTS = {'expected_seconds': 60, 'background_eligible': True}\n"
        "EXECUTION_PROFILE = {name: FACTS for name in ('x', 'y')}\n"
        "cli_main = lambda argv: print(argv)\n"
    )
    registry = Registry()
    # when
    registry.add_module("slow", "slow_tools")
    # then
    assert ["slow:x", "slow:y"] == [tool.key for tool in registry.tools()]
    assert sys.modules["slow_tools"].cli_main is registry.get("slow", "x").load()


def test_an_imported_module_is_a_tool_as_it_stands(modules: Path) -> None:
    (modules / "imaging.py").write_text(PROFILE_MODULE)
    imaging = importlib.import_module("imaging")

    registry = Registry()
    registry.add_module("image_gen", imaging)
    assert imaging.cli_main is registry.get("image_gen", "3d").load()
    assert FunctionTarget(Reference(module="imaging", file=str(modules / "imaging.py"), qualname="cli_main")) == (
        registry.get("image_gen", "3d").target
    )


def test_a_module_that_has_no_file_cannot_be_registered() -> None:
    module: ModuleType = type(sys)("conjured")
    with pytest.raises(RegistryError, match="has no file"):
        Registry().add_module("conjured", module)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "is no tool: it has neither EXECUTION_PROFILE and cli_main"),
        ("EXECUTION_PROFILE = {'x': {}}", r"is no tool: it has EXECUTION_PROFILE, and no function cli_main\(argv\)"),
        ("def cli_main(argv): ...", "is no tool: it has cli_main, and no EXECUTION_PROFILE"),
        ("EXECUTION_PROFILE = {}", "must be a dict of subcommands"),
        ("EXECUTION_PROFILE = {'x': 60}", "must be a dict of subcommands"),
        ("EXECUTION_PROFILE = {1: {}}", "must be a dict of subcommands"),
        ("EXECUTION_PROFILE = {'x': {}}", "'x' has no usable 'background_eligible'"),
        ("EXECUTION_PROFILE = {'x': {'expected_seconds': True, 'background_eligible': 1}}", "'expected_seconds' and"),
        ("EXECUTION_PROFILE = {'x': {'expected_seconds': 1, 'background_eligible': True, 'gated': 'no'}}", "'gated'"),
        ("EXECUTION_PROFILE = {'x': {'expected_seconds': 1, 'background_eligible': True, 'summary': 1}}", "'summary'"),
        ("EXECUTION_PROFILE = {'x y': {'expected_seconds': 1, 'background_eligible': True}}", "is no name"),
        ("EXECUTION_PROFILE = {[]: {}}", "unhashable"),
    ],
)
def test_a_profile_that_is_not_as_expected_is_explained(modules: Path, source: str, reason: str) -> None:
    main = "" if "is no tool" in reason else "\ndef cli_main(argv): ..."
    (modules / "wrong.py").write_text(source + main)
    with pytest.raises((RegistryError, ToolLoadError), match=reason):
        Registry().add_module("wrong", "wrong")


@pytest.mark.parametrize("given", ["", "'expected_seconds': None"])
def test_a_subcommand_that_takes_long_and_gives_no_time_is_promised_a_minute(modules: Path, given: str) -> None:
    """As BackgroundTaskManager has it; one that does not take long promises nothing."""
    # given
    source = (
        f"EXECUTION_PROFILE = {{'slow': {{'background_eligible': True, {given}}}, "
        f"'quick': {{'background_eligible': False, {given}}}}}"
    )
    (modules / "timeless.py").write_text(f"{source}\ndef cli_main(argv): ...")
    registry = Registry()
    # when
    registry.add_module("timeless", "timeless")
    # then
    assert [60, None] == [tool.expected_seconds for tool in registry.tools()]
    assert [True, False] == [tool.long_running for tool in registry.tools()]


@pytest.mark.parametrize("profile", ["{'x': {'expected_seconds': 1, 'background_eligible': True}}", "dict(x={})"])
def test_an_async_cli_main_is_refused_with_what_to_do_instead(modules: Path, profile: str) -> None:
    (modules / "wrong.py").write_text(f"EXECUTION_PROFILE = {profile}\nasync def cli_main(argv): ...")
    with pytest.raises(RegistryError, match=r"^wrong is no tool: its cli_main is async: .* calls asyncio.run"):
        Registry().add_module("wrong", "wrong")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("nowhere_at_all", "there is no module"),
        ("nowhere_at_all.tools", "ModuleNotFoundError"),
        ("broken", "SyntaxError"),
        ("./nowhere.py", "FileNotFoundError"),
        ("exits", "SystemExit: 3"),
        ("exiting.tools", "SystemExit: 4"),
    ],
)
def test_a_module_that_does_not_load_is_reported_as_such(modules: Path, module: str, reason: str) -> None:
    (modules / "broken.py").write_text("def\n")
    (modules / "exits.py").write_text("raise SystemExit(3)\n")
    (modules / "exiting").mkdir()
    (modules / "exiting" / "__init__.py").write_text("raise SystemExit(4)\n")
    with pytest.raises(ToolLoadError, match=reason):
        Registry().add_module("x", module)


def test_of_a_module_that_clashes_nothing_is_registered(modules: Path) -> None:
    (modules / "image_gen.py").write_text(PROFILE_MODULE)
    registry = Registry()
    registry.add("image_gen", "info", plain)
    with pytest.raises(RegistryError, match="image_gen info"):
        registry.add_module("image_gen", "image_gen")
    assert ["image_gen:info"] == [tool.key for tool in registry.tools()]
