"""HTML in which text cannot become markup: all that is no :class:`Markup` is escaped."""

import html
from collections.abc import Iterable
from typing import Final

from animaworks_tasks.notifications.render import one_line

_LONGEST: Final = 2000  # characters of one text
_VOID: Final = {"meta", "line", "rect", "path", "circle"}


class Markup(str):
    """Text that is HTML already, and needs no escaping."""

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
    present = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    given = "".join(f' {key}="{text(str(value))}"' for key, value in present.items())
    if name in _VOID and not content:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{join(content)}</{name}>")


def join(content: Iterable[Content]) -> Markup:
    """Return all of *content*, joined."""
    return Markup("".join(text(each) if isinstance(each, str) else join(each) for each in content))
