"""What a tool returns comes back as what it was, by the function's annotation, or not at all."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from animaworks_tasks.worker.result import as_text
from animaworks_tasks.worker.value import from_text

AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
Name = NewType("Name", str)


@dataclasses.dataclass(frozen=True)
class Empty:
    pass


@attrs.frozen
class Doubled:
    """Made of its own field, it is another."""

    number: int = attrs.field(converter=lambda number: number * 2)


Bare = collections.namedtuple("Bare", "a")  # noqa: PYI024 - one without types


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2
    BOTH = ("red", 2)


@dataclasses.dataclass(frozen=True)
class Size:
    width: int
    height: float | None = None
    area: float = dataclasses.field(init=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "area", self.width * (self.height or 1))


@attrs.frozen
class Picture:
    path: Path
    _size: Size
    at: datetime | None = None
    colours: Sequence[Colour] = ()


class Row(NamedTuple):
    name: str
    sizes: list[Size]


class Facts(TypedDict):
    name: str
    more: NotRequired[dict[int, Colour]]


PICTURE = Picture(Path("a/b.png"), Size(3, 1.5), AT, [Colour.RED, Colour.BOTH])
VALUES: list[tuple[Any, Any]] = [
    ("text", str), ("5", str), ('"quoted"', str), ("", str), (None, str | None), ("null", str | None),
    (5, int), (True, bool), (1.5, float), (math.inf, float), (-1e300, float), (None, type(None)), (1, int | float),
    (1.0, int | float), (True, int | bool), ("red", Literal["red", 2]), (2, Literal["red", 2]),
    (Colour.RED, Colour), (Colour.BLUE, Colour | None), (Colour.BOTH, Colour), (Path("a b"), Path), (AT, datetime),
    (AT.date(), date), (AT.time(), type(AT.time())), (Size(3), Size), (PICTURE, Picture), ([PICTURE], list[Picture]),
    (Row("a", [Size(1)]), Row), ({"name": "a"}, Facts), ({"name": "a", "more": {1: Colour.RED}}, Facts),
    ([1, "a", None], list[Any]), ((1, "a"), tuple[int, str]), ((1, 2, 3), tuple[int, ...]), ((1, 2), tuple),
    ({1, 2}, set[int]), (frozenset({"a"}), frozenset[str]), ([], list[int]), ({}, dict[str, int]),
    ({Path("a"): [AT]}, Mapping[Path, list[datetime]]), ({1: True}, dict[int, bool]), ({True: 1}, dict[bool, int]),
    ([Size(1), None], list[Size | None]), (Size(1), Size | Picture), (["a"], Iterable[str]), (Name("a"), Name),
    (Empty(), Empty), ([Empty()], list[Empty]), (Empty(), Empty | None), (Bare(1), Bare),
    ({"a": 1}, dict[str, int] | str), ("a", dict[str, int] | str), ([{"a": [1.5]}], list), ({"a": 1}, dict),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), VALUES, ids=str)
def test_a_value_comes_back_as_what_it_was(value: object, kind: object) -> None:
    found = from_text(as_text(value), kind)
    assert (type(value), value) == (type(found), found)


@given(st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.text()), st.data())
def test_plain_values_come_back_or_are_refused_and_are_never_another(value: object, data: st.DataObject) -> None:
    """Of a union that also fits something else, there is an error rather than the other one."""
    kinds = data.draw(st.lists(st.sampled_from([str, int, float, bool, list[str], Path]), max_size=3))
    union: Any = list[str] if isinstance(value, list) else type(value)
    for kind in kinds:
        union |= kind
    if isinstance(value, str) and value.startswith("["):
        return
    with contextlib.suppress(ValueError):
        found = from_text(as_text(value), union)
        assert (type(value), value) == (type(found), found)


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        ("text", int, "'text' is no int"),
        (5, str | int, "it may be '5' or 5: let the tool return one type"),
        ("a", str | Path, "it may be 'a' or"),
        (None, int, "None is no int"),
        ({"width": 1}, Size, "Size and the result differ in area, height"),
        ({"width": "1", "height": None, "area": 0}, Size, "width: '1' is no int"),
        ([1, "a"], list[int], "'a' is no int"),
        ([1], tuple[int, int], "zip"),
        (Doubled(1), Doubled, "Doubled makes something else of its own fields"),
        (AT.date(), datetime, "'2026-01-02' is no datetime"),
        (b"bytes", bytes, "'bytes' is no bytes"),
        ({}, complex, "complex is not among the types that come back"),
        ("green", Colour, "'green' is no Colour"),
        ("x" * 200, int, r"x\.\.\. is no int"),
    ],
)
def test_what_does_not_come_back_is_refused_and_says_why(value: object, kind: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        from_text(as_text(value), kind)


def test_without_an_annotation_it_is_the_text() -> None:
    assert "5" == from_text(as_text(5), Any)
    assert from_text(None, object) is None
