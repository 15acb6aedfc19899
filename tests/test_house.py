"""The house keeps its shape: rooms, and imports that go down."""

from __future__ import annotations

from tests import house


def test_imports_go_down() -> None:
    assert [] == house.upward()


def test_imports_do_not_go_round() -> None:
    assert [] == house.circles()


def test_only_six_modules_lie_in_no_room() -> None:
    assert len(house.at_the_root()) <= 6


def test_functions_are_short() -> None:
    assert [] == house.long_functions()
