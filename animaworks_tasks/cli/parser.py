"""The line of every command but ``submit``, and all help; both are made from the table of commands."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Final

from animaworks_tasks.cli.basics import put
from animaworks_tasks.cli.commands import COMMANDS, ENTRANCE, EXITS, USAGE, Argument, take, usage
from animaworks_tasks.errors import UsageError
from animaworks_tasks.fs.layout import home

_WIDTH: Final = 80  # columns
_MEANT: Final = (
    "An ID may be shortened to its first four digits or more, as long as it is one task's. TOOL:SUBCOMMAND, as "
    "notifications write it, is TOOL SUBCOMMAND. The Anima is the directory that --anima-dir names, or the environment "
    "variable ANIMAWORKS_ANIMA_DIR; or else, once `animaworks-tool run` or TaskStore() has made it, "
)


def execute(name: str, words: Sequence[str]) -> int:
    """
    Carry out the command *name* with the options and arguments *words*.

    Raises:
        UsageError: It does not take them.
    """
    if "-h" in words or "--help" in words:  # before an argument is found missing
        put(help_of(name))
        return 0
    given, left = take(words, COMMANDS[name].arguments, usage(name))
    for each in COMMANDS[name].arguments:
        if each.required and given[each.name] in (None, []):
            raise UsageError(f"required: {_shown(each)}, {each.summary}", usage(name))
    if left:
        raise UsageError(f"{left[0]!r} is one word too many; --help shows what can be given", usage(name))
    module = import_module(f"animaworks_tasks.cli.{COMMANDS[name].module}")
    status: int = getattr(module, f"{name}_")(SimpleNamespace(**given))
    return status


def help_of(name: str) -> str:
    """Return what ``animaworks-tool NAME --help`` prints."""
    command = COMMANDS[name]
    rows = [(_shown(each), each.summary) for each in command.arguments]
    return f"{help_text(usage(name), command.description, rows)}\n{_wrapped(f'exit status: {command.exits}')}\n"


def help_text(called: str, description: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return the help of a command or of a tool: how it is *called*, what it does, and what it takes."""
    parts = (f"usage: {called}", _wrapped(description), _rows(rows, 23).rstrip())
    return "\n\n".join(filter(None, parts)) + "\n"


def overview() -> str:
    """Return what ``animaworks-tool --help`` prints."""
    commands = [(f"{name} {command.takes}".strip(), command.summary) for name, command in COMMANDS.items()]
    commands.insert(1, ("TOOL SUBCOMMAND [ARGS...]", "call a tool here and now, and wait for it"))
    options = [(_shown(each), each.summary) for each in ENTRANCE]
    return f"""\
usage: {USAGE}

Submit slow tools, go on with other work, and read later what came of them.

commands (COMMAND --help says more):
{_rows(commands, 28)}
options before the command:
{_rows(options, 28)}
{_wrapped(_MEANT + home())}.

exit status:
{_rows(EXITS.items(), 3)}"""


def _shown(argument: Argument) -> str:
    value = argument.value or ("{" + ",".join(argument.choices) + "}" if argument.choices else "")
    return f"{', '.join(argument.words)} {value}".rstrip() if argument.is_option else value


def _rows(rows: Iterable[tuple[str, str]], width: int) -> str:
    """Return *rows* as lines, the second column from *width* on; beneath what is longer than that."""
    indent = " " * (width + 4)
    wrapped = ((left, f"\n{indent}" if len(left) > width else "  ", _wrapped(right, indent)) for left, right in rows)
    return "".join(f"  {left:<{width}}{gap}{right}".rstrip() + "\n" for left, gap, right in wrapped)


def _wrapped(text: str, indent: str = "") -> str:
    """Return *text* in lines that end between two words; what stands in backquotes is one word."""
    words = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\xa0"), text)
    lines = textwrap.wrap(words, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    return f"\n{indent}".join(lines).replace("\xa0", " ")
