"""Arguments are plain data, and a call is checked against them without importing anybody's tool."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animaworks_tasks.errors import UnknownToolError, WrongArgumentError
from animaworks_tasks.tools import arguments

FILE: dict[str, Any] = {"name": "file", "kind": "positional", "type": "path"}
REST = {"name": "rest", "kind": "positional", "type": "str", "many": True, "default": []}
LANGUAGE = {"name": "language", "kind": "option", "type": "str", "choices": ["ja", "en"], "default": "ja"}
WIDTH = {"name": "max_width", "kind": "option", "type": "int", "default": 0}
GAIN = {"name": "gain", "kind": "option", "type": "float", "default": 1.0}
TAGS = {"name": "tag", "kind": "option", "type": "str", "many": True, "default": []}
FAST = {"name": "fast", "kind": "flag", "type": "bool", "default": False}
AUDIO: list[dict[str, Any]] = [FILE, LANGUAGE, WIDTH, GAIN, TAGS, FAST]

TOOLS: dict[str, dict[str, dict[str, Any]]] = {
    "local_llm": {"generate": {"parameters": None}, "chat": {"parameters": None}},
    "transcribe": {"audio": {"parameters": AUDIO}},
}


def parse(*argv: str, parameters: list[dict[str, Any]] = AUDIO) -> dict[str, Any]:
    return arguments.parse("transcribe audio", parameters, argv)


def problem(*argv: str, parameters: list[dict[str, Any]] = AUDIO) -> str:
    with pytest.raises(WrongArgumentError) as caught:
        parse(*argv, parameters=parameters)
    assert caught.value.usage.startswith("transcribe audio")
    return caught.value.problem


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        (["a.wav"], {"file": "a.wav"}),
        (["a.wav", "--language", "en"], {"file": "a.wav", "language": "en"}),
        (["--language=en", "a.wav"], {"file": "a.wav", "language": "en"}),
        (["a.wav", "--max-width", "-5"], {"file": "a.wav", "max_width": -5}),
        (["a.wav", "--gain", "-.5"], {"file": "a.wav", "gain": -0.5}),
        (["a.wav", "--tag", "x", "--tag=--y", "--tag="], {"file": "a.wav", "tag": ["x", "--y", ""]}),
        (["a.wav", "--fast"], {"file": "a.wav", "fast": True}),
        (["a.wav", "--no-fast"], {"file": "a.wav", "fast": False}),
        (["--fast", "--", "--language"], {"file": "--language", "fast": True}),
        (["-"], {"file": "-"}),
        (["-1"], {"file": "-1"}),
        ([""], {"file": ""}),
    ],
)
def test_what_was_given_is_returned_in_its_type_and_what_was_not_is_left_out(
    argv: list[str], values: dict[str, Any]
) -> None:
    assert values == parse(*argv)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "missing: FILE"),
        (["a", "b c"], "'b c' is one word too many (a value with spaces needs quotes)"),
        (["a", "--langauge", "en"], "unknown option --langauge: did you mean --language?"),
        (["a", "--lang=en"], "unknown option --lang: did you mean --language?"),
        (["a", "-5x"], "unknown option -5x: choose from --language, --max-width, --gain, --tag, --fast, --no-fast"),
        (["a", "--language"], "--language needs a value (one that begins with a dash: --language=VALUE)"),
        (["a", "--language", "--fast"], "--language needs a value (one that begins with a dash: --language=VALUE)"),
        (["a", "--language", "en", "--language=ja"], "--language is given twice"),
        (["a", "--fast", "--no-fast"], "--no-fast is given twice"),
        (["a", "--fast=yes"], "--fast takes no value"),
        (["a", "--language", "jp"], "--language cannot be 'jp': choose from ja, en"),
        (["a", "--language", "jaa"], "--language cannot be 'jaa': did you mean ja?"),
        (["a", "--max-width", "1.5"], "--max-width must be a whole number, not '1.5'"),
        (["a", "--gain", "loud"], "--gain must be a finite number, not 'loud'"),
        (["a", "--gain", "nan"], "--gain must be a finite number, not 'nan'"),
        (["a", "--gain=-inf"], "--gain must be a finite number, not '-inf'"),
        (["a", "--gain", "1e999"], "--gain must be a finite number, not '1e999'"),
    ],
)
def test_each_mistake_has_its_own_message(argv: list[str], expected: str) -> None:
    assert expected == problem(*argv)


def test_all_that_is_missing_is_named_at_once() -> None:
    # given a required option and a required flag besides
    level = {"name": "level", "kind": "option", "type": "int"}
    sure = {"name": "sure_", "kind": "flag", "type": "bool"}
    # when, then
    assert "missing: FILE, --level, --sure or --no-sure" == problem(parameters=[FILE, level, sure])


def test_a_command_without_options_says_so() -> None:
    assert "unknown option --x: it takes none" == problem("--x", parameters=[FILE])


def test_a_positional_that_takes_the_rest_takes_all_of_it() -> None:
    assert {"file": "a", "rest": ["b", "c"]} == parse("a", "b", "--", "c", parameters=[FILE, REST])
    assert {"file": "a"} == parse("a", parameters=[FILE, REST])


def test_a_list_without_a_default_wants_at_least_one() -> None:
    assert "missing: REST" == problem(parameters=[{"name": "rest", "kind": "positional", "type": "str", "many": True}])


def test_the_usage_line_shows_what_must_and_what_may_be_given() -> None:
    line = arguments.usage("transcribe audio", [LANGUAGE, FAST, FILE, WIDTH, GAIN, TAGS, REST])
    assert line == (
        "transcribe audio FILE [REST ...] [--language {ja,en}] [--fast] [--max-width INT] [--gain NUMBER] "
        "[--tag TEXT]..."
    )


def test_the_usage_line_of_a_flag_shows_the_word_that_changes_something() -> None:
    on, unset = {**FAST, "default": True}, {**FAST, "default": None}
    required = {"name": "fast", "kind": "flag", "type": "bool"}
    kind = {"name": "kind", "kind": "positional", "type": "str", "choices": ["a", "b"]}
    target = {"name": "out", "kind": "option", "type": "path"}
    assert "t s [--no-fast]" == arguments.usage("t s", [on])
    assert "t s [--fast | --no-fast]" == arguments.usage("t s", [unset])
    assert "t s (--fast | --no-fast)" == arguments.usage("t s", [required])
    assert "t s {a,b} --out PATH" == arguments.usage("t s", [kind, target])


def test_the_usage_line_leaves_to_the_tool_what_only_the_tool_knows() -> None:
    assert "image_gen 3d ..." == arguments.usage_of("image_gen 3d", {"parameters": None})


@pytest.mark.parametrize(
    ("argv", "subcommand"),
    [
        (["generate", "hello"], "generate"),
        (["-m", "llama3", "generate", "hello"], "generate"),
        (["--model=chat", "generate", "hello"], "generate"),
        (["-m", "chat", "generate"], "generate"),  # an option's value, since another can be meant
        (["--model=x", "chat"], "chat"),
        (["-v", "generate", "hello"], "generate"),  # -v may take a value, but then there would be no subcommand
    ],
)
def test_the_subcommand_is_the_first_word_that_can_be_one(argv: list[str], subcommand: str) -> None:
    assert subcommand == arguments.check(TOOLS, "local_llm", argv)


@pytest.mark.parametrize(
    ("tool", "argv", "message"),
    [
        (
            "transcibe",
            ["audio"],
            "there is no tool 'transcibe' (`animaworks-tool tools` lists all): did you mean transcribe?",
        ),
        ("qqq", [], "there is no tool 'qqq' (`animaworks-tool tools` lists all): choose from local_llm, transcribe"),
        ("local_llm", [], "local_llm needs a subcommand: generate, chat"),
        ("local_llm", ["-v"], "local_llm needs a subcommand: generate, chat"),
        ("local_llm", ["-m", "x", "genrate", "hi"], "local_llm has no subcommand 'genrate': did you mean generate?"),
        ("local_llm", ["-m", "x"], "local_llm has no subcommand 'x': choose from generate, chat"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(tool: str, argv: list[str], message: str) -> None:
    with pytest.raises(UnknownToolError) as caught:
        arguments.find(TOOLS, tool, argv)
    assert caught.value.problem.startswith(message)
    assert caught.value.usage == ("local_llm {generate,chat} ..." if tool == "local_llm" else "")


def test_a_typed_tool_takes_its_arguments_after_the_subcommand() -> None:
    assert "audio" == arguments.check(TOOLS, "transcribe", ["audio", "a.wav", "--fast"])
    with pytest.raises(WrongArgumentError, match="'--fast' stands before the subcommand 'audio'"):
        arguments.check(TOOLS, "transcribe", ["--fast", "audio", "a.wav"])
    with pytest.raises(WrongArgumentError, match="missing: FILE"):
        arguments.check(TOOLS, "transcribe", ["audio"])


WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["-", "--", "-x", "-1", "-.", "--=", "--fast", "--no-fast=", "--tag", "--gain", "--gain=1_0"]),
)


@given(st.lists(WORDS))
def test_no_command_line_breaks_the_parser(argv: list[str]) -> None:
    """Whatever is typed is either understood, as JSON, or refused with a WrongArgumentError."""
    try:
        values = parse(*argv)
    except WrongArgumentError:
        return
    json.dumps(values, allow_nan=False)


VALUES: dict[str, st.SearchStrategy[str | int | float]] = {
    "str": st.text(),
    "int": st.integers(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Draw parameters, and for each a value."""
    parameters: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    for number, kind in enumerate(draw(st.lists(st.sampled_from(["positional", "option", "flag"]), max_size=6))):
        name = f"a_{number}"
        parameter: dict[str, Any] = {
            "name": name,
            "kind": kind,
            "type": "bool" if kind == "flag" else draw(st.sampled_from([*VALUES])),
        }
        value: object = draw(st.booleans() if kind == "flag" else VALUES[parameter["type"]])
        if kind == "option" and draw(st.booleans()):
            parameter["many"], value = True, [value]
        parameters.append(parameter)
        values[name] = value
    return parameters, values


def words(parameter: dict[str, Any], value: object) -> list[str]:
    option = "--" + parameter["name"].replace("_", "-")
    match parameter["kind"], value:
        case "flag", bool():
            return [option if value else option.replace("--", "--no-")]
        case "option", list():
            return [f"{option}={each}" for each in value]
        case "option", _:
            return [f"{option}={value}"]
    return []


@given(calls())
def test_whatever_values_can_be_written_come_back_as_they_were(
    call: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    # given a command line: options first, then positionals, which may begin with dashes
    parameters, values = call
    options = [word for each in parameters for word in words(each, values[each["name"]])]
    positionals = [str(values[each["name"]]) for each in parameters if each["kind"] == "positional"]
    # when
    parsed = arguments.parse("t s", parameters, [*options, "--", *positionals])
    # then
    assert values == parsed
    assert all(f"--{each['name'].replace('_', '-')}" in arguments.usage("t s", parameters)
               for each in parameters if each["kind"] != "positional")  # fmt: skip


def test_checking_arguments_imports_nothing_that_takes_time() -> None:
    """A submit has a few milliseconds for all of its imports."""
    # given
    script = """
import sys
before = set(sys.modules)
import animaworks_tasks.tools.arguments as arguments
arguments.parse("t s", [{"name": "n", "kind": "positional", "type": "int"}], ["1"])
print(*sorted(set(sys.modules) - before))
"""
    # when
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # then
    ours = {f"animaworks_tasks{name}" for name in ("", ".errors", ".tools", ".tools.arguments")}
    assert ours == set(printed.split()) - {"__future__"}
