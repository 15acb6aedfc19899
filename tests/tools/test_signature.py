"""A function's signature is the command line, its docstring the help; what no command line can express is refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks.errors import RegistryError
from tests.tools.functions import Format, Greeter, Level, annotated, fetch, pack, plain, registered


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


def _yielding() -> Iterator[int]:
    yield 1


async def _yielding_asynchronously() -> AsyncIterator[int]:
    yield 1


class Yielding:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda **options: options, "no command line can express \\*\\*options: name each option"),
        (annotated(dict[str, str]), "parameter value: no command line can express dict\\[str, str\\]"),
        (annotated(bytes), "parameter value: no command line can express bytes"),
        (annotated(int | str), "no command line can express int | str"),
        (annotated(list[bool]), "a list of lists or of flags"),
        (annotated(list[list[str]]), "a list of lists or of flags"),
        (annotated(tuple[int, int]), "no command line can express tuple"),
        (annotated(list), "parameter value: list of what\\? Say it: list\\[str\\]"),
        (annotated(tuple), "parameter value: tuple of what\\? Say it: tuple\\[str, ...\\]"),
        (annotated("Nowhere"), "an annotation cannot be resolved .*TYPE_CHECKING"),
        (lambda cache=False, no_cache=False: (cache, no_cache), "two parameters would both be --no-cache"),
        (lambda help=False: help, "a parameter would be --help, which prints what the tool takes: rename it"),  # noqa: A006 - wrong on purpose
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


def test_a_list_that_takes_the_rest_must_be_the_last_positional() -> None:
    def function(files: list[str], out: str) -> None:
        """Do nothing."""

    with pytest.raises(RegistryError, match="must be the last positional"):
        registered(function)
