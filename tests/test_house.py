"""The house keeps its shape: rooms, and imports that go down."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from animaworks_tasks import backends
from tests import house

POOLS = {"ThreadPoolExecutor", "ProcessPoolExecutor"}
BACKENDS = {name for name in backends.__all__ if name.endswith("Backend")} | POOLS


def test_imports_go_down() -> None:
    assert [] == house.upward()


def test_imports_do_not_go_round() -> None:
    assert [] == house.circles()


def test_only_six_modules_lie_in_no_room() -> None:
    assert len(house.at_the_root()) <= 6


def test_functions_are_short() -> None:
    assert [] == house.long_functions()


def asks_of_class(source: str) -> Iterator[str]:
    """Yield each question in *source* whether something is a certain backend, as it stands there."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name("isinstance" | "issubclass"), args=[_, classes]) | ast.MatchClass(cls=classes):
                asked: list[ast.expr] = [classes]
            case ast.Compare(left=left, comparators=right):  # type(backend) is ThreadBackend
                asked = [left, *right]
            case _:
                continue
        found = {word for each in asked for word in ast.walk(each)}
        if BACKENDS & {getattr(word, "id", getattr(word, "attr", None)) for word in found}:
            yield ast.unparse(node) if isinstance(node, ast.expr) else ast.unparse(asked[0])


def test_nothing_outside_asks_of_which_class_a_backend_is() -> None:
    for name, path in house.modules().items():
        if house.room(name) != "backends":
            assert [] == list(asks_of_class(path.read_text(encoding="utf-8"))), name


@pytest.mark.parametrize(
    "question",
    [
        "isinstance(backend, ThreadBackend)",
        "isinstance(backend, backends.ProcessBackend | int)",
        "isinstance(backend, (int, InlineBackend))",
        "issubclass(kind, FuturesBackend)",
        "type(backend) is ThreadBackend",
        "isinstance(pool, futures.ProcessPoolExecutor)",
        "match backend:\n    case ThreadBackend(): pass",
    ],
)
def test_such_a_question_is_found_however_it_is_asked(question: str) -> None:
    assert 1 == len(list(asks_of_class(question)))
    assert [] == list(asks_of_class("backend = ThreadBackend() if inline else make(ProcessBackend)"))
