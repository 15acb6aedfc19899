"""
``animaworks-tool __complete SHELL WORD...``: what the last word, perhaps empty, may become.

A shell asks this on Tab, so it is quick, changes nothing, makes no store, imports nobody's tools, and never fails: what
it cannot find out it does not offer. It answers with a line that says what else may stand there, ``files``,
``directories`` or ``nothing``, and then a line per candidate: the word, and after a tab what it is.

Why our own and no library: the words that matter are in the store, argcomplete would have to be installed beside us and
runs in every Python program on Tab, and what shtab writes knows no task.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from animaworks_tasks.cli.basics import named, put
from animaworks_tasks.cli.commands import COMMANDS, ENTRANCE, Argument, scan
from animaworks_tasks.fs import files, json
from animaworks_tasks.fs.layout import Layout, home
from animaworks_tasks.task import pending
from animaworks_tasks.task.model import is_task_id
from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.catalogue import known_tools

if TYPE_CHECKING:
    from types import SimpleNamespace

_MOST: Final = 60  # tasks of one state
_LONGEST: Final = 80  # characters of a candidate's summary
_PLACES: Final = {"cancel": ("running", "pending"), "retry": ("done",)}  # whose tasks a command is for; else all

_Words = list[tuple[str, str]]  # candidates, with what each is
_Offer = tuple[str, _Words]  # what else may stand there, files, directories or nothing; and the candidates


def complete(words: Sequence[str]) -> int:
    """Print what the last of *words* may become; *words* begin with the name of the shell."""
    before = ""
    try:
        shell, *typed, current = words[0], *_joined([_unquoted(word) for word in words[1:]])
        option, equals, value = current.partition("=")
        if equals and option.startswith("--"):  # --option=value: bash asks for the value only
            typed, current, before = [*typed, option], value, "" if shell == "bash" else f"{option}="
        besides, candidates = _offer(typed, current)
    except Exception:  # noqa: BLE001 - somebody types: a message would land in the command line
        besides, candidates, current = "nothing", [], ""
    fitting = [(word, what) for word, what in candidates if word.startswith(current) and word.isprintable() and word]
    lines = [f"{before}{word}\t{_plain(what)}" for word, what in fitting]
    put("\n".join([besides, *dict.fromkeys(lines)]) + "\n")
    return 0


def _joined(words: Sequence[str]) -> list[str]:
    """Join the words that bash splits: ``--option``, ``=`` and the value."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _unquoted(word: str) -> str:
    """Return *word* without its quotes; nothing in it is expanded."""
    try:
        return " ".join(shlex.split(word))
    except ValueError:  # a quote that is still open
        return word.lstrip("'\"")


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST]


# What may stand where.


def _offer(before: Sequence[str], current: str) -> _Offer:
    free, anima, _ = _read(before, ENTRANCE, leading=True)
    if not free:
        command = Argument("command", "COMMAND", "a command, or a tool")
        return _next(_Store(anima, current), "", (*ENTRANCE, command), before, current)
    name, *words = free
    if name not in COMMANDS:
        return _of_tool(_Store(anima, current), name, words, current)
    arguments = COMMANDS[name].arguments
    free, own, _ = _read(words, arguments, leading=name == "submit")
    store = _Store(own or anima, current)
    if name == "submit" and free:
        return _of_tool(store, free[0], free[1:], current)
    return _next(store, name, arguments, words, current)


def _next(store: _Store, name: str, arguments: Sequence[Argument], words: Sequence[str], current: str) -> _Offer:
    """Return what may stand after *words*, which are those of the command *name*."""
    free, _, awaited = _read(words, arguments)
    if awaited is not None:
        return _values(store, name, awaited)
    if current.startswith("-"):
        return "nothing", [(word, each.summary) for each in arguments for word in each.words if word.startswith("--")]
    positionals = [each for each in arguments if not each.is_option]
    expected = positionals[len(free) :] or [each for each in positionals if each.many]
    return _values(store, name, expected[0]) if expected else ("nothing", [])


def _read(
    words: Sequence[str], arguments: Sequence[Argument], *, leading: bool = False
) -> tuple[list[str], str | None, Argument | None]:
    """Return the words that belong to no option, the Anima that is named, and the option whose value comes next."""
    valued = {word: each for each in arguments for word in each.words if each.value is not None}
    found = list(scan(words, arguments, leading=leading))
    free = [value or "" for option, value in found if not option]
    anima = next((value for option, value in reversed(found) if option == "--anima-dir"), None)
    option, value = found[-1] if found else ("", None)
    return free, anima, valued.get(option) if value is None else None


def _values(store: _Store, command: str, argument: Argument) -> _Offer:
    if argument.choices is not None:
        return "nothing", [(str(choice), "") for choice in argument.choices]
    if argument.value == "ID":
        return "nothing", store.tasks(*_PLACES.get(command, ("running", "pending", "done")))
    if argument.value in {"COMMAND", "TOOL"}:
        commands = [(name, each.summary) for name, each in COMMANDS.items() if argument.value == "COMMAND"]
        tools = [(name, ", ".join(arguments.typed(each))) for name, each in store.tools().items() if name[:1] != "-"]
        return "nothing", commands + tools
    return {"DIR": "directories", "FILE": "files"}.get(argument.value or "", "nothing"), []


def _of_tool(store: _Store, tool: str, words: Sequence[str], current: str) -> _Offer:
    tools = store.tools()
    tool, words = arguments.split(tools, tool, words)
    subcommands = tools.get(tool)
    if subcommands is None:
        return "files", []
    typed = arguments.typed(subcommands)
    position = arguments.locate(typed, words)
    if typed and position is None:
        specs = ((name, subcommands[name]) for name in typed)
        return "nothing", [(name, ("⚠ " if spec["long_running"] else "") + spec["summary"]) for name, spec in specs]
    parameters = None if position is None else subcommands[words[position]]["parameters"]
    if position is None or parameters is None:
        return "files", []
    return _next(store, "", [*map(_argument, parameters)], words[position + 1 :], current)


def _argument(parameter: Mapping[str, Any]) -> Argument:
    """Return a parameter of a tool as if it were one of ours."""
    return Argument(
        " ".join(arguments.option_words(parameter)) or parameter["name"],
        None if parameter["kind"] == "flag" else "FILE" if parameter["type"] == "path" else "",
        str(parameter.get("help", "")),
        choices=parameter.get("choices"),
        many=bool(parameter.get("many")),
    )


def completion_(options: SimpleNamespace) -> int:
    """Print the script with which a shell completes; it asks :func:`complete`."""
    from importlib import resources  # here: completing a word must not wait for them

    from animaworks_tasks.cli.text import as_json

    script = resources.files(__package__).joinpath(f"completion.{options.shell}").read_text(encoding="utf-8")
    put(as_json({"shell": options.shell, "script": script}) if options.json else script)
    return 0


class _Store:
    """
    What is known of an Anima's tools and tasks, by looking at its files only; nothing where none is named.

    Args:
        anima: Its directory; None for what the environment names.
        beginning: Of the word that is completed: what begins otherwise need not be looked at.
    """

    def __init__(self, anima: str | None, beginning: str) -> None:
        self._beginning = beginning
        self._layout = Layout(os.path.expanduser(named(anima) or home()))

    def tools(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Return the tools of the catalogue."""
        return known_tools(self._layout) or {}

    def tasks(self, *places: str) -> _Words:
        """Return the ids of the tasks in these places, with what each is."""
        words: _Words = []
        for place in places:
            directory = os.path.join(self._layout.root, place)
            ids = {os.path.join(directory, name): os.path.splitext(name)[0] for name in files.names(directory)}
            paths = [path for path, word in ids.items() if word.startswith(self._beginning) and is_task_id(word)]
            newest = sorted(paths, key=files.age)[:_MOST]
            words += [(ids[path], _summary(path, place)) for path in newest]
        return words


def _summary(path: str, place: str) -> str:
    """Return what the task of a record is; empty where it cannot be read, or has just moved on."""
    try:
        record: Any = json.load(files.read(path, limit=pending.SIZE_LIMIT))
        words = [record["tool_name"], record.get("subcommand")]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # anybody may have written it
        return ""
    name = ":".join(word for word in words if isinstance(word, str) and word)
    return f"{name} {record.get('outcome', 'done') if place == 'done' else place}"
