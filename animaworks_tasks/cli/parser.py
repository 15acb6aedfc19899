"""The parser of every command but ``submit``, and all help; both are made from the table of commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any, Final, NoReturn

from animaworks_tasks.cli.basics import put
from animaworks_tasks.cli.commands import COMMANDS, ENTRANCE, EXITS, USAGE, Argument
from animaworks_tasks.errors import UsageError

_LONGEST: Final = timedelta(days=36500)  # so that no date is before year 1
_NEXT_STEPS: Final = {  # after what argparse says, where the usage line does not say it
    "required: ID": "; `animaworks-tool list` shows the ids",
    "unrecognized arguments": "; --help shows what can be given",
    "expected one argument": "; --help shows which",
}
_UNITS: Final = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


class Parser(argparse.ArgumentParser):
    """argparse's, which raises instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the usage line and the next step."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise UsageError(message + next((step for sign, step in _NEXT_STEPS.items() if sign in message), ""), usage)


def execute(name: str, words: Sequence[str]) -> int:
    """
    Carry out the command *name* with the options and arguments *words*.

    Raises:
        UsageError: It does not take them.
    """
    parser = parser_of(name)
    if "-h" in words or "--help" in words:  # before argparse finds an argument missing
        put(parser.format_help())
        return 0
    options = parser.parse_intermixed_args(words)
    module = import_module(f"animaworks_tasks.cli.{COMMANDS[name].module}")
    carry_out: Callable[[argparse.Namespace], int] = getattr(module, f"{name}_")
    return carry_out(options)


def parser_of(name: str) -> Parser:
    """Return the parser of the command *name*; that of ``submit`` is good for its help."""
    command = COMMANDS[name]
    parser = Parser(
        prog=f"animaworks-tool {name}", usage=command.usage, description=command.description, add_help=False,
        epilog=f"exit status: {command.exits}", allow_abbrev=False,
    )  # fmt: skip
    for argument in command.arguments:
        parser.add_argument(*argument.words, **_settings(argument))
    if command.example is not None:
        parser.add_argument_group("example", command.example)
    return parser


def _settings(argument: Argument) -> dict[str, Any]:
    """Return the parameters of ``add_argument`` for *argument*."""
    if argument.value is None:
        return {"help": argument.summary, "action": "store_true"}
    settings: dict[str, Any] = {"help": argument.summary, "metavar": argument.value or None, "type": _type(argument)}
    settings |= {"default": argument.default, "choices": argument.choices}
    if argument.is_option:
        return settings | {"required": argument.required, "action": "append" if argument.many else "store"}
    return settings | {"nargs": "+" if argument.many else None}


def _type(argument: Argument) -> Callable[[str], object]:
    def convert(text: str) -> object:
        try:
            return _age(text) if argument.value == "AGE" else argument.convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is no length of time: write it as 90s, 5min, 12h or 30d")
    try:
        age = timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        age = timedelta.max
    if age > _LONGEST:
        raise ValueError(f"{text} is too long; at most {_LONGEST.days}d, which is a century")
    return age


def overview() -> str:
    """Return what ``animaworks-tool --help`` prints."""
    commands = [(f"{name} {command.takes}".strip(), command.summary) for name, command in COMMANDS.items()]
    commands.insert(1, ("TOOL SUBCOMMAND [ARGS...]", "call a tool here and now, and wait for it"))
    options = [(f"{', '.join(each.words)} {each.value or ''}".strip(), each.summary) for each in ENTRANCE]
    return f"""\
usage: {USAGE}

Submit slow tools, go on with other work, and read later what came of them.

commands (COMMAND --help says more):
{_rows(commands, 30)}
options before the command:
{_rows(options, 30)}
An ID may be shortened to its first four digits or more, as long as it is one task's. The Anima is the directory that
--anima-dir names, or the environment variable ANIMAWORKS_ANIMA_DIR.

exit status:
{_rows(EXITS.items(), 5)}"""


def _rows(rows: Iterable[tuple[str, str]], width: int) -> str:
    return "".join(f"  {left:<{width}}{right}\n" for left, right in rows)
