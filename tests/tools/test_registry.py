"""The table of tools: what may go into it, and how a call finds its tool there."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from animaworks_tasks.cli.commands import COMMANDS as cli_commands  # noqa: N811 - it is a mapping
from animaworks_tasks.errors import RegistryError, UnknownToolError, WrongArgumentError
from animaworks_tasks.task.model import OnInterrupt
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.tool import COMMANDS, CommandTarget, Tool, ToolOptions
from tests.tools.functions import fetch, plain, registered


def test_a_decorated_function_stays_as_it_is() -> None:
    # given
    registry = Registry()
    # when
    decorated = registry.tool("web", "fetch", expected_seconds=30)(fetch)
    # then
    assert fetch is decorated
    assert "x 1" == asyncio.run(decorated("x", timeout=1))
    assert registry.is_long_running("web:fetch")


def test_options_have_the_defaults_of_the_design() -> None:
    plain_tool, slow = registered(plain), registered(plain, expected_seconds=2000, on_interrupt="retry", retries=2)
    assert (False, 1800, 0, OnInterrupt.FAIL, 5) == (
        plain_tool.long_running, plain_tool.timeout_seconds, plain_tool.retries, plain_tool.on_interrupt,
        plain_tool.grace_seconds,
    )  # fmt: skip
    assert (True, 4000, 2, OnInterrupt.RETRY) == (
        slow.long_running, slow.timeout_seconds, slow.retries, slow.on_interrupt,
    )  # fmt: skip
    assert not registered(plain, expected_seconds=2, long_running=False).long_running
    assert 1800 == registered(plain, timeout_seconds=None, long_running=None).timeout_seconds
    assert ("a:b", "a b", "Other.") == (slow.key, slow.command, registered(plain, summary="Other.").summary)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout_seconds": float("inf")}, "timeout_seconds must be a finite number of seconds, not inf"),
        ({"expected_seconds": -1}, "expected_seconds must be a finite number of seconds, not -1"),
        ({"expected_seconds": "60"}, "expected_seconds must be a number of seconds, not '60'"),
        ({"expected_seconds": True}, "expected_seconds must be a number of seconds, not True"),
        ({"grace_seconds": float("nan")}, "grace_seconds must be a finite number of seconds, not nan"),
        ({"retries": -1}, "retries must be at least 0, not -1"),
        ({"retries": 1.5}, "retries must be a whole number, not 1.5"),
        ({"max_attempts": 0}, "max_attempts must be at least 1, not 0"),
        ({"on_interrupt": "perhaps"}, "on_interrupt must be 'fail' or 'retry', not 'perhaps'"),
        ({"gated": "yes"}, "'gated' must be <class 'bool'> (got 'yes' that is a"),
        ({"summary": 3}, "'summary' must be <class 'str'> (got 3 that is a"),
        ({"timeout": 5}, "there is no option timeout: did you mean timeout_seconds?"),
        ({"colour": "red"}, "there is no option colour: choose from expected_seconds, long_running, "),
    ],
)
def test_an_impossible_option_is_refused_when_the_tool_is_registered(options: dict[str, Any], reason: str) -> None:
    """The message names the option, what it may be, and what it was."""
    with pytest.raises(RegistryError) as refused:
        registered(plain, **options)
    assert str(refused.value).startswith(f"a b: {reason}")


def test_each_option_is_an_attribute_of_a_tool() -> None:
    assert set(ToolOptions.__annotations__) <= {field.name for field in attrs.fields(Tool)}


@pytest.mark.parametrize("name", ["", "a b", "-a", "a:b", "../a", "a\nb", "."])
def test_a_name_is_one_word(name: str) -> None:
    with pytest.raises(RegistryError, match="is no name"):
        Registry().add(name, "x", plain)
    with pytest.raises(RegistryError, match="is no name"):
        Registry().add("x", name, plain)


def test_a_command_of_the_program_is_no_name_of_a_tool() -> None:
    """The guide would have the agent call it directly, and the command would answer."""
    assert {*cli_commands} == COMMANDS
    for name in COMMANDS:
        with pytest.raises(RegistryError, match=f"^{name} b: `animaworks-tool {name}` is a command"):
            Registry().add(name, "b", plain)
    Registry().add("machine", "run", plain)  # a subcommand may be called so


def test_a_taken_name_is_refused_and_nothing_changes() -> None:
    # given
    registry, other = Registry(), Registry()
    registry.add("a", "b", plain)
    other.add("x", "y", plain)
    other.add("a", "b", fetch)
    # when
    with pytest.raises(RegistryError, match="there is already a tool 'a b'"):
        registry.add("a", "b", fetch)
    with pytest.raises(RegistryError, match="there is already a tool 'a b'"):
        registry.add_registry(other)
    # then
    assert [plain] == [tool.load() for tool in registry.tools()]


def test_a_merge_keeps_order_takes_problems_and_may_skip_taken_tools() -> None:
    # given
    registry, other = Registry(), Registry()
    registry.add("a", "b", plain)
    other.add("x", "y", plain)
    other.add("a", "c", fetch)
    other.problems.append(("somewhere", "broken"))
    # when
    registry.add_registry(other, skip_taken=True)
    # then
    assert ["a:b", "x:y"] == [tool.key for tool in registry.tools()]
    assert [("somewhere", "broken")] == registry.problems


def test_an_unknown_tool_is_answered_with_the_nearest() -> None:
    registry = Registry()
    registry.add("archive", "make", plain)
    with pytest.raises(UnknownToolError, match="did you mean archive"):
        registry.get("achive", "make")
    with pytest.raises(UnknownToolError, match="did you mean make"):
        registry.resolve("archive", ["mak", "x"])
    assert not registry.is_long_running("archive:make")
    assert not registry.is_long_running("nothing")


def test_a_call_is_resolved_as_a_submitter_checks_it() -> None:
    registry = Registry()
    registry.add("archive", "make", plain)
    assert "archive:make" == registry.resolve("archive", ["make", "x"]).key
    with pytest.raises(WrongArgumentError, match="missing: TEXT"):
        registry.resolve("archive", ["make"])


def test_a_call_whose_words_are_no_text_is_refused_by_name() -> None:
    registry = Registry()
    registry.add("a", "b", lambda number: number)
    argv: list[Any] = ["b", 5]
    with pytest.raises(TypeError, match="the words of a call are text, and 5 is int: convert it to str"):
        registry.resolve("a", argv)


def test_the_tools_of_a_registry_may_be_added_twice_also_as_those_that_are_called_directly() -> None:
    ours, theirs = Registry(), Registry()
    theirs.add("words", "echo", lambda word: word)
    for _ in range(2):
        ours.add_registry(theirs, direct=True)
    assert [("words echo", True)] == [(tool.command, tool.direct) for tool in ours.tools()]


# Commands


def test_a_command_gets_the_arguments_of_the_call_and_no_shell() -> None:
    # given
    registry = Registry()
    registry.add_command("video", "cut", ["ffmpeg", "-i"], summary="Cut.", expected_seconds=9)
    # when
    tool = registry.resolve("video", ["-y", "cut", "in.mp4; rm -rf /"])
    # then
    assert ["ffmpeg", "-i", "-y", "in.mp4; rm -rf /"] == tool.command_line(["-y", "cut", "in.mp4; rm -rf /"])
    assert CommandTarget(("ffmpeg", "-i")) == tool.target
    assert tool.portable
    with pytest.raises(TypeError, match="is a command"):
        tool.load()
    with pytest.raises(TypeError, match="is no command"):
        registered(plain).command_line(["b"])


@pytest.mark.parametrize("argv", ["ffmpeg -i", [], [1]])
def test_a_command_is_a_list_of_words(argv: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(RegistryError, match="there is no shell"):
        Registry().add_command("video", "cut", argv)


@pytest.mark.parametrize("usage", [["FILE"], 3, b"FILE"])
def test_what_a_command_takes_is_said_in_text(usage: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(RegistryError, match=r"^video cut: usage must be text that says what it takes, not "):
        Registry().add_command("video", "cut", ["ffmpeg"], usage=usage)


@pytest.mark.parametrize(
    ("argv", "usage"),
    [
        (["count", "--help"], "words count TEXT"),
        (["count", "a", "--help", "--", "b"], "words count TEXT"),
        (["pack", "--help", "letter.txt"], "words pack ARCHIVE"),
        (["--help", "list"], "words list ..."),
    ],
)
def test_help_is_no_argument_of_a_function_or_a_command(argv: list[str], usage: str) -> None:
    """Called from Python, or written into a record by hand, it is refused before anything runs."""
    # given
    registry = Registry()
    registry.add("words", "count", lambda text: text)
    registry.add_command("words", "pack", ["tar", "-czf"], usage="ARCHIVE\nand more")
    registry.add_command("words", "list", ["tar", "-tzf"])
    # when
    with pytest.raises(WrongArgumentError) as refused:
        registry.resolve("words", argv)
    # then
    assert usage == refused.value.usage
    command = " ".join(usage.split()[:2])
    assert f"`animaworks-tool {command} --help` prints what this takes; a tool gets the word after --" in str(
        refused.value
    )
    # and it is what it says
    assert "pack" == registry.resolve("words", ["pack", "--", "--help"]).subcommand
    assert "count" == registry.resolve("words", ["count", "--", "--help"]).subcommand
