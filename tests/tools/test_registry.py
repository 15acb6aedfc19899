"""A registry knows each tool by what it takes, and finds its code again in another process."""

from __future__ import annotations

import asyncio
import collections
import copy
import enum
import functools
import importlib
import json
import pickle
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pytest

from animaworks_tasks.cli.commands import COMMANDS as cli_commands  # noqa: N811 - it is a mapping
from animaworks_tasks.errors import (
    NotPermittedError,
    RegistryError,
    ToolLoadError,
    UnknownToolError,
    WrongArgumentError,
)
from animaworks_tasks.task.model import OnInterrupt
from animaworks_tasks.tools import registry as registry_module
from animaworks_tasks.tools.context import ToolContext
from animaworks_tasks.tools.reference import Reference
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.tool import COMMANDS, CommandTarget, FunctionTarget, ModuleTarget, Tool

if TYPE_CHECKING:
    from decimal import Decimal
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


class Format(enum.Enum):
    ZIP = "zip"
    TAR = "tar.gz"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def echo(word: str) -> str:
    return word


def pack(  # noqa: D417, PLR0913 - one parameter of every kind, not all of them described
    folder: Path,
    context: ToolContext,
    *more: Path,
    format: Format = Format.ZIP,  # noqa: A002 - a tool's author names options for the people who type them
    level: Level = Level.LOW,
    mode: Literal["fast", "small"] = "fast",
    passes: Literal[1, 2] = 1,
    size: float | None = None,
    exclude: list[str] = [],  # noqa: B006 - the plain way to say it, never changed here
    verbose: bool = False,
) -> Decimal:
    """
    Pack a folder into an archive.

    It may take long.

    Args:
        folder: What to pack,
            with everything in it.
        *more: Other folders.
        size (float): Megabytes: at most.
        exclude: Names that are left out.

    Returns:
        size: Not a parameter.
    """
    raise NotImplementedError  # never called: its signature and its docstring are what is tested


async def fetch(url: str, *, timeout: int) -> str:  # noqa: ASYNC109 - the tool's own option
    """Fetch a page."""
    return f"{url} {timeout}"


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: object) -> list[object]:
        return [function(*args), function(*args)]

    return wrapper


def plain(text: str) -> str:
    return text


class Greeter:
    def greet(self, name: str) -> str:
        return f"hello {name}"

    def __call__(self, name: Path) -> str:
        """Greet a file."""
        return f"hello {name}"


def registered(function: Callable[..., Any], **options: Any) -> Tool:  # noqa: ANN401 - any of a tool's options
    registry = Registry()
    registry.add("a", "b", function, **options)
    return registry.get("a", "b")


def python(*arguments: str | Path, directory: Path) -> str:
    """Run a script as a user would, and return what it printed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Signatures


def test_a_signature_is_the_command_line() -> None:
    assert registered(pack).usage == (
        "a b FOLDER [MORE ...] [--format {zip,tar.gz}] [--level {LOW,HIGH}] [--mode {fast,small}] [--passes {1,2}] "
        "[--size NUMBER] [--exclude TEXT]... [--verbose]"
    )


def test_a_docstring_is_the_summary_and_the_help() -> None:
    # given, when
    tool = registered(pack)
    # then
    helps = {each["name"]: each["help"] for each in tool.parameters or () if "help" in each}
    assert "Pack a folder into an archive." == tool.summary
    assert {
        "folder": "What to pack, with everything in it.",
        "more": "Other folders.",
        "size": "Megabytes: at most.",
        "exclude": "Names that are left out.",
    } == helps


def test_a_call_has_the_types_that_the_function_asks_for() -> None:
    # given
    tool, context = registered(pack), object()
    line = "b in x y --format tar.gz --level HIGH --mode small --passes 2 --size 1 --exclude a --exclude b --verbose"
    # when
    args, kwargs = tool.bind(line.split(), context)  # type: ignore[arg-type] # it is only passed on
    # then
    assert (Path("in"), context, Path("x"), Path("y")) == args
    assert {
        "format": Format.TAR, "level": Level.HIGH, "mode": "small", "passes": 2, "size": 1.0, "exclude": ["a", "b"],
        "verbose": True,
    } == kwargs  # fmt: skip
    assert isinstance(kwargs["level"], Level)


def test_what_was_not_given_is_the_functions_own_default() -> None:
    args, kwargs = registered(pack).bind(["b", "in"], None)
    assert (Path("in"), None) == args
    assert (Format.ZIP, None, []) == (kwargs["format"], kwargs["size"], kwargs["exclude"])


def test_arguments_after_an_option_that_was_not_given_arrive() -> None:
    def join(first: str, sep: str = "-", *rest: str) -> str:
        return sep.join([first, *rest])

    args, kwargs = registered(join).bind(["b", "x", "y"], None)
    assert "x-y" == join(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "usage"),
    [
        (lambda by: 1 / int(by), "a b BY"),
        (lambda n=1, x=1.5, p=Path(), s="", f=False, c=Format.ZIP, z=None: (n, x, p, s, f, c, z),
         "a b [--n INT] [--x NUMBER] [--p PATH] [--s TEXT] [--f] [--c {zip,tar.gz}] [--z TEXT]"),
        (fetch, "a b URL --timeout INT"),
        (Greeter(), "a b NAME"),
        (Greeter().greet, "a b NAME"),
        (functools.partial(plain, "x"), "a b"),
        (functools.partial(Greeter()), "a b NAME"),
        (len, "a b OBJ"),
    ],
)  # fmt: skip
def test_anything_that_can_be_called_can_be_a_tool(function: Callable[..., Any], usage: str) -> None:
    assert usage == registered(function).usage


def test_sequences_and_unions_are_read_as_what_they_hold() -> None:
    def many(
        paths: Sequence[Path], sizes: tuple[int, ...] = (), out: str | Path | None = None, deep: object = 1
    ) -> None:
        """Do nothing."""

    # when
    args, kwargs = registered(many).bind(["b", "x", "y", "--sizes=1", "--sizes=2", "--out=o", "--deep=d"], None)
    # then
    assert (([Path("x"), Path("y")], (1, 2), Path("o"), "d"), {}) == (args, kwargs)
    assert "a b PATHS ... [--sizes INT]... [--out PATH] [--deep TEXT]" == registered(many).usage


def _annotated(annotation: object) -> Callable[..., Any]:
    def function(value: Any) -> None:  # noqa: ANN401 - replaced below
        """Do nothing."""

    function.__annotations__["value"] = annotation
    return function


def _yielding() -> Iterator[int]:
    yield 1


async def _yielding_asynchronously() -> AsyncIterator[int]:
    yield 1


class Yielding:
    def __call__(self) -> Iterator[int]:
        yield 1


def _gone() -> Callable[..., Any]:
    """Return a function that its module does not have, or no longer."""

    def function(text: str) -> str:
        return text

    function.__qualname__ = "gone"
    return function


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda **options: options, "no command line can express \\*\\*options: name each option"),
        (_annotated(dict[str, str]), "parameter value: no command line can express dict\\[str, str\\]"),
        (_annotated(bytes), "parameter value: no command line can express bytes"),
        (_annotated(int | str), "no command line can express int | str"),
        (_annotated(list[bool]), "a list of lists or of flags"),
        (_annotated(list[list[str]]), "a list of lists or of flags"),
        (_annotated(tuple[int, int]), "no command line can express tuple"),
        (_annotated(list), "parameter value: list of what\\? Say it: list\\[str\\]"),
        (_annotated(tuple), "parameter value: tuple of what\\? Say it: tuple\\[str, ...\\]"),
        (_annotated("Nowhere"), "an annotation cannot be resolved .*TYPE_CHECKING"),
        (lambda cache=False, no_cache=False: (cache, no_cache), "two parameters would both be --no-cache"),
        ("no function", "its signature cannot be read"),
        (_yielding, "it is a generator function: .*Return the result"),
        (functools.partial(_yielding), "it is a generator function"),
        (_yielding_asynchronously, "it is a generator function"),
        (Yielding(), "it is a generator function"),
        (Greeter.greet, "it is a method, and nobody would give it its object"),
        (functools.wraps(Greeter.greet)(lambda *args: args), "it is a method"),
    ],
)
def test_a_signature_that_no_command_line_can_express_is_refused(function: Any, reason: str) -> None:  # noqa: ANN401 - no function either
    with pytest.raises(RegistryError, match=f"^a b: .*{reason}"):
        registered(function)


def test_a_signature_that_names_what_does_not_exist_is_refused_with_a_hint() -> None:
    """From Python 3.14 on it may do so wherever annotations are evaluated late; before, where an object makes it up."""

    class Odd:
        @property
        def __signature__(self) -> object:
            raise NameError("name 'Nowhere' is not defined")

        def __call__(self) -> None: ...

    with pytest.raises(RegistryError, match=r"^a b: an annotation cannot be resolved \(name 'Nowhere' .*TYPE_CHECKING"):
        registered(Odd())


LATE = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from pathlib import Path
    from animaworks_tasks import ToolContext
    from elsewhere import Nowhere

def good(file: Path, *more: Path, context: ToolContext, out: Path | None = None) -> Nowhere: ...
def bad(file: list[Nowhere]) -> None: ...
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once before Python 3.14")
def test_annotations_that_are_evaluated_late_may_name_what_only_type_checkers_import() -> None:
    namespace: dict[str, Any] = {}
    exec(compile(LATE, "late", "exec", dont_inherit=True), namespace)  # noqa: S102 - this file's are all text
    described = registered(namespace["good"]).parameters
    assert [("file", "path"), ("more", "path"), ("out", "path")] == [(each["name"], each["type"]) for each in described]
    with pytest.raises(RegistryError, match=r"^a b: an annotation cannot be resolved \(name 'Nowhere' .*TYPE_CHECKING"):
        registered(namespace["bad"])


def test_a_call_whose_words_are_no_text_is_refused_by_name() -> None:
    registry = Registry()
    registry.add("a", "b", lambda number: number)
    argv: list[Any] = ["b", 5]
    with pytest.raises(TypeError, match="the words of a call are text, and 5 is int: convert it to str"):
        registry.resolve("a", argv)


def test_a_list_that_takes_the_rest_must_be_the_last_positional() -> None:
    def function(files: list[str], out: str) -> None:
        """Do nothing."""

    with pytest.raises(RegistryError, match="must be the last positional"):
        registered(function)


# The table


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
        ({"retries": -1}, "'retries' must be >= 0: -1"),
        ({"retries": 1.5}, "retries must be a whole number, not 1.5"),
        ({"max_attempts": 0}, "'max_attempts' must be >= 1: 0"),
        ({"on_interrupt": "perhaps"}, "on_interrupt must be 'fail' or 'retry', not 'perhaps'"),
        ({"gated": "yes"}, "gated must be True or False, not 'yes'"),
        ({"summary": 3}, "summary must be text, not 3"),
        ({"timeout": 5}, "there is no option timeout: did you mean timeout_seconds?"),
        ({"colour": "red"}, "there is no option colour: choose from expected_seconds, long_running, "),
    ],
)
def test_an_impossible_option_is_refused_when_the_tool_is_registered(options: dict[str, Any], reason: str) -> None:
    """The message names the option, what it may be, and what it was."""
    with pytest.raises(RegistryError) as refused:
        registered(plain, **options)
    assert str(refused.value).startswith(f"a b: {reason}")


def test_the_options_that_are_checked_are_those_that_there_are() -> None:
    assert list(registry_module._OPTIONS) == list(registry_module.ToolOptions.__annotations__)


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
        "long_running": False, "expected_seconds": None, "timeout_seconds": 1800.0, "gated": True, "direct": False,
        "summary": "", "parameters": None,
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


# Modules


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the import path, whose modules are forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    return tmp_path


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
    assert ModuleTarget(Reference(module="imaging", file=str(modules / "imaging.py"), qualname="cli_main")) == (
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


# In another process


def test_a_registry_is_packed_anew_only_where_a_tool_or_a_permission_came_or_went() -> None:
    # given
    allowed = {"tool_guarded"}
    registry = Registry(permits=allowed.__contains__)
    registry.add("tool", "echo", echo)
    registry.add("tool", "guarded", echo, gated=True)

    def sent() -> Registry:
        received = pickle.loads(pickle.dumps(registry))
        assert isinstance(received, Registry)
        return received

    # then
    first = sent()
    assert sent() is first, "who is sent the same again need not read it again"
    first.check_permission(first.get("tool", "guarded"))
    allowed.clear()
    with pytest.raises(NotPermittedError):
        sent().check_permission(first.get("tool", "guarded"))
    registry.add("tool", "more", echo)
    assert ["tool echo", "tool guarded", "tool more"] == [tool.command for tool in sent().tools()]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_registry_is_one_of_its_own(copied: Callable[[Registry], Registry]) -> None:
    # given
    class Ours(Registry):
        pass

    registry = Ours(permits=lambda _: True)
    registry.add("tool", "echo", lambda word: word)

    # when
    other = copied(registry)
    other.add("tool", "more", echo)

    # then
    assert (Ours, ["tool echo"]) == (type(other), [tool.command for tool in registry.tools()])
    assert ["tool echo", "tool more"] == [tool.command for tool in other.tools()]
    assert "it" == other.get("tool", "echo").load()("it")


def test_a_pickled_registry_is_unpickled_without_importing_any_tool(modules: Path) -> None:
    # given a registry with a tool in a module of its own
    (modules / "my_tools.py").write_text("def double(n: int) -> int:\n    return 2 * n\n")
    my_tools = importlib.import_module("my_tools")

    registry = Registry()
    registry.add("double", "it", my_tools.double)
    (modules / "registry.pickle").write_bytes(pickle.dumps(registry))
    (modules / "other.py").write_text(
        "import pickle, sys\n"
        "tool = pickle.load(open('registry.pickle', 'rb')).get('double', 'it')\n"
        "print('my_tools' in sys.modules, tool.usage)\n"
        "args, kwargs = tool.bind(['it', '21'], None)\n"
        "print(tool.load()(*args, **kwargs), pickle.loads(pickle.dumps(tool)).portable)\n"
    )
    # when, then
    assert ["False double it N", "42 True"] == python("other.py", directory=modules).splitlines()


@pytest.mark.parametrize("way", ["script.py", "-m script"])
def test_a_function_of_a_script_is_found_without_running_the_script_again(tmp_path: Path, way: str) -> None:
    """The guard ``if __name__ == "__main__"`` stays shut when a tool's process loads the script."""
    # given a script that registers a function, and passes its registry on
    (tmp_path / "script.py").write_text(
        "import pickle, subprocess, sys\n"
        "from animaworks_tasks.tools.registry import Registry\n"
        "registry = Registry()\n"
        "@registry.tool('double', 'it')\n"
        "def double(n: int) -> int:\n"
        "    return 2 * n\n"
        "print('loaded', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    again = pickle.loads(pickle.dumps(registry)).get('double', 'it')\n"
        "    print('same', again.load() is double, flush=True)\n"
        "    open('registry.pickle', 'wb').write(pickle.dumps(registry))\n"
        "    subprocess.run([sys.executable, 'other.py'], check=True)\n"
    )
    (tmp_path / "other.py").write_text(
        "import pickle\n"
        "tool = pickle.load(open('registry.pickle', 'rb')).get('double', 'it')\n"
        "print(tool.load()(21), tool.load() is tool.load())\n"
    )
    # when
    printed = python(*way.split(), directory=tmp_path).splitlines()
    # then
    assert ["loaded", "same True", "loaded", "42 True"] == printed


def test_what_was_typed_in_stays_in_its_process(tmp_path: Path) -> None:
    script = (
        "from animaworks_tasks.tools.registry import Registry\n"
        "def double(n: int) -> int:\n"
        "    return 2 * n\n"
        "registry = Registry()\n"
        "registry.add('double', 'it', double)\n"
        "print(registry.get('double', 'it').portable)\n"
    )
    assert "False\n" == python("-c", script, directory=tmp_path)


@pytest.mark.parametrize(
    "function",
    [lambda: 1, twice(plain), Greeter(), Greeter().greet, functools.partial(plain, "x"), _annotated(str), _gone()],
    ids=["lambda", "wrapped", "object", "method", "partial", "nested", "gone"],
)
def test_a_function_that_only_its_process_can_call_says_so_elsewhere(function: Callable[..., Any]) -> None:
    """Its name may even lead to another function: then that one must not run in its place."""
    # given
    tool = registered(function)
    assert function is tool.load()
    assert not tool.portable
    # when it has been to another process
    pickled = pickle.loads(pickle.dumps(tool))
    # then
    with pytest.raises(ToolLoadError, match=r"'a b' does not load: it is a lambda.*or use ThreadBackend"):
        pickled.load()


def test_an_error_that_says_what_did_not_load_survives_the_way_home(modules: Path) -> None:
    # given a reference to something that was taken away
    (modules / "shrunk.py").write_text("class Here: pass\n")
    reference = Reference.find("shrunk", "Here.gone")
    # when
    with pytest.raises(ToolLoadError) as caught:
        reference.load()
    # then
    assert "tool 'shrunk:Here.gone' does not load: AttributeError: type object 'Here' has no attribute 'gone'" == str(
        pickle.loads(pickle.dumps(caught.value))
    )


def test_a_name_that_leads_elsewhere_in_another_process_does_not_mislead(modules: Path) -> None:
    """A module called like one that the other process finds first is loaded from its own file."""
    # given a function of a module that only looks like the standard library's
    (modules / "tools").mkdir()
    (modules / "tools" / "calendar.py").write_text("def today() -> str:\n    return 'ours'\n")
    reference = Reference(module="calendar", file=str(modules / "tools" / "calendar.py"), qualname="today")
    # when, then
    assert "ours" == reference.load()()
    assert reference.load() is reference.load()


def test_a_module_whose_file_lies_elsewhere_on_another_machine_is_imported_by_name() -> None:
    assert time.sleep is Reference(module="time", file="/another/place/time.py", qualname="sleep").load()


def test_a_module_that_only_its_file_leads_to_is_loaded_from_there(modules: Path) -> None:
    """Test modules and scripts beside a host are imported by names that mean nothing elsewhere."""
    # given
    (modules / "hidden").mkdir()
    (modules / "hidden" / "script").write_text("import functools\nname = __name__\n")  # no suffix either
    reference = Reference(module="nowhere.script", file=str(modules / "hidden" / "script"), qualname="name")
    # when, then
    assert reference.load() in sys.modules
    assert reference.load() != "__main__"


def test_a_file_that_fails_halfway_is_not_taken_for_loaded(modules: Path) -> None:
    # given
    (modules / "fails.py").write_text("x = 1\nraise RuntimeError('late')\n")
    reference = Reference.find(modules / "fails.py", "x")
    # when, then
    for _ in range(2):
        with pytest.raises(ToolLoadError, match="RuntimeError: late"):
            reference.load()
    with pytest.raises(ToolLoadError, match="does not load"):
        attrs.evolve(reference, module="fails.nothing").load()


def test_targets_are_equal_by_where_they_lead() -> None:
    tool = registered(plain)
    assert tool == pickle.loads(pickle.dumps(tool))
    assert {tool: 1}[tool]
    assert FunctionTarget.to(plain) == FunctionTarget(Reference.to(plain))


def test_the_tools_of_a_registry_may_be_added_twice_also_as_those_that_are_called_directly() -> None:
    ours, theirs = Registry(), Registry()
    theirs.add("words", "echo", lambda word: word)
    for _ in range(2):
        ours.add_registry(theirs, direct=True)
    assert [("words echo", True)] == [(tool.command, tool.direct) for tool in ours.tools()]
