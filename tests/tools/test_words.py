"""A function's arguments as the words of a command line, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from animaworks_tasks import Registry, ToolContext
from animaworks_tasks.errors import UnknownToolError
from tests.tools.functions import Format, Level

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["-", "--", "-x", "--size=1", "-5", "", "a b"]
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PATHS = TEXT.map(Path)


def render(  # noqa: PLR0913 - a parameter of every kind
    name: str,
    folder: Path,
    count: int,
    context: ToolContext,
    *more: str,
    format: Format = Format.ZIP,  # noqa: A002 - the name of an option
    level: Level = Level.LOW,
    mode: Literal["fast", "-s"] = "fast",
    passes: Literal[1, 2] = 1,
    size: float | None = None,
    exclude: Sequence[str] = (),
    sizes: list[int] | None = None,
    verbose: bool = False,
) -> None:
    """Do nothing."""


def returning(registry: Registry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments with which the tool is called that was submitted with these."""
    argv = registry.find(render).words(args, kwargs)
    assert registry.resolve("render", argv).bind(argv, None) == registry.find(render).bind(argv, None)
    return registry.find(render).bind(argv, None)


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry()
    registry.add("render", "it", render)
    return registry


@given(
    args=st.tuples(TEXT, PATHS, st.integers()),
    more=st.lists(TEXT),
    named=st.fixed_dictionaries(
        {},
        optional={
            "format": st.sampled_from(Format),
            "level": st.sampled_from(Level),
            "mode": st.sampled_from(["fast", "-s"]),
            "passes": st.sampled_from([1, 2]),
            "size": NUMBERS | st.none(),
            "sizes": st.lists(st.integers(), min_size=1) | st.none(),
            "verbose": st.booleans(),
        },
    ),
)
@example(("--verbose", Path("--"), -1), ["--"], {"mode": "-s", "size": -1e300})
def test_arguments_become_words_that_call_the_function_with_the_same_arguments(
    registry: Registry, args: tuple[Any, ...], more: list[str], named: dict[str, Any]
) -> None:
    # when
    positional, given_by_name = returning(registry, (*args, *more), named)

    # then, with the context in its place
    assert (*args, None, *more) == positional
    assert named.items() <= given_by_name.items()


@given(st.lists(TEXT))
def test_lists_of_text_come_back_as_lists(registry: Registry, words: list[str]) -> None:
    assert words == list(returning(registry, ("it", Path("there"), 1), {"exclude": words})[1]["exclude"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": object()}, r"name is <object object at \w+>.* is no str"),
        ({"name": 5}, "name is 5: 5 is no str"),
        ({"count": "5"}, "count is '5'"),
        ({"count": True}, "count is True"),
        ({"count": None}, "count is None: there are no words for it, unless it is the default"),
        ({"folder": 5}, "folder is 5"),
        ({"format": "zip"}, "format is 'zip': choose from"),
        ({"verbose": 1}, "verbose is 1"),
        ({"sizes": []}, r"sizes is \[\]: there are no words"),
        ({"exclude": "abc"}, "exclude is 'abc': it must be a list or a tuple"),
        ({"size": 10**400}, "size is 1000"),
        ({"size": math.inf}, "size is inf: only a finite number has a word"),
        ({"name": "\ud800"}, "name is '.ud800': .*surrogates not allowed"),
        ({"frames": 3}, "unexpected keyword argument 'frames'"),
        ({"context": None}, "unexpected keyword argument 'context'"),
    ],
)
def test_what_no_words_can_say_is_refused_by_the_name_of_its_parameter(
    registry: Registry, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TypeError, match=f"render it: .*{problem}"):
        registry.find(render).words((), {"name": "a", "folder": Path("b"), "count": 1} | arguments)


def test_a_function_that_is_no_tool_is_refused_with_the_next_step(registry: Registry) -> None:
    with pytest.raises(UnknownToolError, match="returning is no tool of this registry: register it first, with @reg"):
        registry.find(returning)
