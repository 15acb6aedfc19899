"""
State diagrams, drawn while the site is built.

Mermaid itself would be fetched by the reader's browser, or be three megabytes in the repository, and ours have a few
states in a row: straight arrows to the next one, those that pass one over the row, those that go back below it.
"""

from __future__ import annotations

import re
from html import escape
from itertools import chain, pairwise
from typing import Final

_EDGE: Final = re.compile(r"(\S+) --> (\S+): (.+)")
_START, _END = "start", "end"  # what Mermaid both calls [*]
_LETTER: Final = 7  # how wide one is, about
_HALF: Final = {_START: (7, 7), _END: (7, 7)}  # half of a state's width and height
_HALF_OF_OTHERS: Final = (50, 20)
_ROW: Final = 125  # where the row is
_BOW: Final = 80  # how far an arrow swings out that is not straight
_LINE: Final = 16  # between lines of a label
_HEAD: Final = (
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L10 5L0 10z" fill="currentColor"/></marker></defs>'
)


def draw(source: str) -> str:
    """Return *source*, a ``stateDiagram-v2`` of Mermaid, as a figure in HTML."""
    edges = [
        (_START if a == "[*]" else a, _END if b == "[*]" else b, label.split(", "))
        for a, b, label in _EDGE.findall(source)
    ]
    states = list(dict.fromkeys(state for a, b, _ in edges for state in (a, b)))
    places = _places(states, edges)
    width, height = places[states[-1]] + 20, _ROW + _BOW + 10
    told = "; ".join(f"{a} to {b}: {', '.join(labels)}" for a, b, labels in edges)
    shapes = [*(_state(name, x) for name, x in places.items()), *(_arrow(places, *edge) for edge in edges)]
    return (
        f'<div class="diagram"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(told)}" '
        f'font-size="13" text-anchor="middle" fill="currentColor">{_HEAD}{"".join(shapes)}</svg></div>'
    )


def _places(states: list[str], edges: list[tuple[str, str, list[str]]]) -> dict[str, int]:
    """Return where each state is, with room for what is written between neighbours."""
    places = {states[0]: 20}
    for a, b in pairwise(states):
        written = [labels for source, target, labels in edges if (source, target) == (a, b)]
        longest = max(map(len, chain.from_iterable(written)), default=0)
        places[b] = places[a] + _half(a)[0] + _half(b)[0] + _LETTER * longest + 30
    return places


def _half(name: str) -> tuple[int, int]:
    return _HALF.get(name, _HALF_OF_OTHERS)


def _state(name: str, x: int) -> str:
    if name in _HALF:
        ring = f'<circle cx="{x}" cy="{_ROW}" r="9" fill="none" stroke="currentColor"/>' if name == _END else ""
        return f'<circle cx="{x}" cy="{_ROW}" r="6"/>{ring}'
    across, up = _half(name)
    return (
        f'<rect x="{x - across}" y="{_ROW - up}" width="{2 * across}" height="{2 * up}" rx="8" fill="none" '
        f'stroke="currentColor" stroke-width="1.5"/>'
        f'<text x="{x}" y="{_ROW + 5}" font-weight="bold">{escape(name)}</text>'
    )


def _arrow(places: dict[str, int], source: str, target: str, labels: list[str]) -> str:
    states = list(places)
    begin, end = places[source], places[target]
    middle = (begin + _half(source)[0] + end - _half(target)[0]) // 2
    if states.index(target) - states.index(source) == 1:
        path = f"M{begin + _half(source)[0]} {_ROW}H{end - _half(target)[0] - 2}"
        bottom = _ROW - 8
    else:
        side = -1 if end > begin else 1  # over the row or below it
        edge = _ROW + side * _HALF_OF_OTHERS[1]
        path = f"M{begin} {edge}C{begin} {_ROW + side * _BOW} {end} {_ROW + side * _BOW} {end} {edge + 2 * side}"
        bottom = _ROW - _BOW + 10 if side < 0 else _ROW + _BOW
    lines = "".join(
        f'<text x="{middle}" y="{bottom - _LINE * (len(labels) - 1 - position)}">{escape(label)}</text>'
        for position, label in enumerate(labels)
    )
    return f'<path d="{path}" fill="none" stroke="currentColor" marker-end="url(#head)"/>{lines}'
