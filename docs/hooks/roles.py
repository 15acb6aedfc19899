"""
Docstrings as the site shows them: what they say in reST becomes Markdown.

    :meth:`Store.submit`        a link to it; plain code where it has no page: it is private, or not ours
    * TasksError    catch it    an item of a list that names something: the same
    Raises: StoreError: ...     the same, although a module need not import what its functions let pass

A role is looked up as a reader of the source would: in the class, in the module, then anywhere in the package. One that
leads nowhere is a warning, which fails a strict build. All docstrings are looked at, the private ones too.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import griffe

logger = logging.getLogger("mkdocs.plugins.roles")  # mkdocs counts the warnings of loggers below its own

_API: Final = Path(__file__).resolve().parent.parent / "api"
_ROLE: Final = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([^`]+)`")
_SHORT: Final = re.compile(r":[a-z]+:`~")
_ITEM: Final = re.compile(r"^( *)([*+-]) (\w+)(?: {2,}(.+))?$", re.MULTILINE)
_RAISES: Final = re.compile(r"^Raises:\n(?: {4}.*\n?|\n)+", re.MULTILINE)
_RAISED: Final = re.compile(r"^ {4}(\w+)(?=: )", re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites each docstring of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:  # noqa: ANN401 - griffe's
        """Rewrite the docstrings of *pkg*."""
        if pkg.name != "animaworks_tasks":
            return
        names = _Names(pkg)
        for obj in _everything(pkg):
            if obj.docstring is not None:
                _import_errors(obj.docstring.value, obj, names)
                obj.docstring.value = _markdown(obj.docstring.value, obj, names)


def _import_errors(text: str, obj: griffe.Object, names: _Names) -> None:
    for section in _RAISES.findall(text):
        for name in _RAISED.findall(section):
            error = names.look_up(name, obj)
            if error is not None and name not in obj.module.members:
                obj.module.set_member(name, griffe.Alias(name, error, parent=obj.module))


def _markdown(text: str, obj: griffe.Object, names: _Names) -> str:
    def role(found: re.Match[str]) -> str:
        shown = found[1].rpartition(".")[2] if _SHORT.match(found[0]) else found[1].lstrip(".")
        target = names.look_up(found[1], obj)
        if target is None and found[1].partition(".")[0] not in {*sys.stdlib_module_names, "rich"}:
            logger.warning("%s:%s: %s leads nowhere", obj.relative_filepath, obj.lineno, found[0])
        return names.link(shown, target)

    def item(found: re.Match[str]) -> str:
        target = names.look_up(found[3], obj)
        indent = 2 * found[1]  # Markdown wants four where we write two
        told = f": {found[4]}" if found[4] else ""
        return found[0] if target is None else f"{indent}{found[2]} {names.link(found[3], target)}{told}"

    return _ITEM.sub(item, _ROLE.sub(role, text))


class _Names:
    """What there is in a package, and where the site shows it: ``::: name`` on a page of the reference."""

    def __init__(self, package: griffe.Module) -> None:
        self._package = package
        self._anywhere = {obj.name: obj for obj in _everything(package) if not isinstance(obj.parent, griffe.Class)}
        self._shown: dict[str, str] = {}
        for page in sorted(_API.glob("*.md")):
            for path in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
                obj = _below(package, path.removeprefix(f"{package.name}.").split("."))
                if obj is not None:  # or else mkdocstrings says that there is none
                    self._shown[obj.path] = path
                    self._anywhere[obj.name] = obj  # of two with one name it is the public one that is meant

    def look_up(self, name: str, obj: griffe.Object) -> griffe.Object | None:
        """Return what *name* means in the docstring of *obj*."""
        parts = name.removeprefix(f"{self._package.name}.").lstrip(".").split(".")
        scope: griffe.Object | None = self._package if name.startswith((".", f"{self._package.name}.")) else obj
        while scope is not None:
            found = _below(scope, parts)
            if found is not None:
                return found
            scope = scope.parent
        first = self._anywhere.get(parts[0])
        return None if first is None else _below(first, parts[1:])

    def link(self, text: str, target: griffe.Object | None) -> str:
        """Return *text* as code, with a link where the site shows *target*."""
        below = ""
        while target is not None:
            if target.path in self._shown:
                return f"[`{text}`][{self._shown[target.path]}{below}]"
            # What has no docstring of its own is told of in that of its class.
            below = f".{target.name}{below}" if below or target.docstring else ""
            target = target.parent
        return f"`{text}`"


def _below(scope: griffe.Object, parts: list[str]) -> griffe.Object | None:
    found: griffe.Object | None = scope
    for part in parts:
        member = None if found is None else found.all_members.get(part)
        found = None if member is None else _final(member)
    return found


def _final(obj: griffe.Object | griffe.Alias) -> griffe.Object | None:
    """Return what an import leads to; None if that is outside of the package."""
    try:
        return obj.final_target if isinstance(obj, griffe.Alias) else obj
    except griffe.AliasResolutionError:
        return None


def _everything(obj: griffe.Object) -> Iterator[griffe.Object]:
    yield obj
    for member in list(obj.members.values()):
        if isinstance(member, griffe.Object):
            yield from _everything(member)
