"""HTML, built so that text cannot become markup: what is no :class:`Markup` is escaped; there is no other way in."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

from animaworks_tasks.notifications.render import one_line

_LONGEST: Final = 2000  # characters of one text
_VOID: Final = {"meta", "line", "rect", "path", "circle"}


class Markup(str):
    """Text that is HTML, and ours."""

    __slots__ = ()


Content = str | Iterable[str]


def text(value: str) -> Markup:
    """Return *value* as text on a page: in one line, no invisible characters, escaped; a space at its end stays."""
    if isinstance(value, Markup):
        return value
    before, after = (" " if end == " " else "" for end in (value[:1], value[1:][-1:]))
    return Markup(before + html.escape(one_line(value, _LONGEST)) + after)


def tag(name: str, /, *content: Content, **attributes: object) -> Markup:
    """
    Return an element.

    Args:
        name: Its name.
        *content: What is in it.
        **attributes: ``class_`` is ``class``, and ``aria_label`` is ``aria-label``; those that are None are left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not content:
        return Markup(f"<{name}{given}/>" if name != "meta" else f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(content)}</{name}>")


def join(content: Iterable[Content]) -> Markup:
    """Return one after the other."""
    return Markup("".join(text(each) if isinstance(each, str) else join(each) for each in content))
