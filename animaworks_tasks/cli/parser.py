"""The commands other than ``submit``: what each takes, its help, and where it is carried out."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any, Final, NoReturn

import attrs

import animaworks_tasks
from animaworks_tasks.cli.basics import put, take
from animaworks_tasks.errors import UsageError

USAGE: Final = "animaworks-tool [--anima-dir DIR] [-j] COMMAND|TOOL ..."
OVERVIEW: Final = f"""\
usage: {USAGE}

Submit slow tools, go on with other work, and read later what came of them.

  submit TOOL [ARGS...]       queue a call of a tool; prints a receipt at once
  TOOL SUBCOMMAND [ARGS...]   call a tool here and now, and wait for it

commands:
  run                         run what is submitted, in the foreground, until Ctrl-C
  list [--watch]              what is pending, running, and was done last
  show ID                     everything about one task, and what to do next
  logs ID [-f]                what its tool printed
  wait ID...                  until all of them are done
  cancel ID                   ask for a task to stop
  retry ID                    submit a task that is done once more
  notifications [--ack]       what finished tasks left to be read
  tools                       the tools that there are; ⚠ takes long: submit it, do not call it
  guide                       the same, for an agent's system prompt
  events [--task ID]          what happened, when; and whether a notice was delivered, and to whom
  report --html FILE          a page to look at: a timeline, durations, failures, all tasks
  doctor [--fix]              whether the store is well, and what to do where it is not
  prune                       forget what was done long ago, and was read
  completion SHELL            lets bash, zsh or fish complete all of this

An ID may be shortened to its first four digits or more, as long as it is one task's. The Anima is the directory that
--anima-dir names, or the environment variable ANIMAWORKS_ANIMA_DIR. -j prints JSON. COMMAND --help tells more.

exit status:
  0    done
  1    the task failed or was cancelled, or what was asked for could not be done; the reason is on stderr
  2    wrong usage
  3    `wait --timeout`: not all of them are done
  130  Ctrl-C
  141  whoever read the output has left
  any  TOOL SUBCOMMAND: with what the tool ended its process by itself, of which nobody is left to tell (os._exit)
"""

_EXITS: Final = "exit status: 0 done, 1 failed, 2 wrong usage; `animaworks-tool --help` lists all"
_LONGEST: Final = timedelta(days=36500)  # longer ago is before the calendar begins, sooner or later
_NEXT_STEPS: Final = {  # after what argparse says, where the usage line does not tell
    "required: ID": "; `animaworks-tool list` shows the ids",
    "unrecognized arguments": "; --help shows what can be given",
    "expected one argument": "; --help shows which",
}
_UNITS: Final = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


class Parser(argparse.ArgumentParser):
    """
    argparse's, which raises instead of leaving the program.

    Attributes:
        actions: What it takes, in order.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's
        self.actions: list[argparse.Action] = []
        super().__init__(**options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:  # noqa: ANN401 - argparse's
        """Take one argument more."""
        self.actions.append(super().add_argument(*names, **options))
        return self.actions[-1]

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, with the usage line and the next step."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise UsageError(message + next((step for sign, step in _NEXT_STEPS.items() if sign in message), ""), usage)


def execute(name: str, words: Sequence[str]) -> int:
    """
    Carry out the command *name* with the options and arguments *words*.

    Raises:
        UsageError: It does not take them.
    """
    parser = parser_of(name)
    if "-h" in words or "--help" in words:  # before anything is found missing, and through put(), which flushes
        put(parser.format_help())
        return 0
    options = parser.parse_intermixed_args(words)
    carry_out: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"animaworks_tasks.cli.{COMMANDS[name].module}"), f"{name}_"
    )
    return carry_out(options)


def parser_of(name: str) -> Parser:
    """Return the parser of the command *name*."""
    command = COMMANDS[name]
    parser = Parser(
        prog=f"animaworks-tool {name}", description=command.description, epilog=command.exits, allow_abbrev=False
    )
    parser.add_argument("--anima-dir", metavar="DIR", help="the Anima's directory; default: ANIMAWORKS_ANIMA_DIR")
    parser.add_argument("-j", "--json", action="store_true", help="print JSON")
    command.arguments(parser)
    return parser


def without_a_command(options: Sequence[str]) -> int:
    """Do what *options* alone ask for: help, or the version."""
    if "--version" in options:
        put(f"animaworks-tool {animaworks_tasks.__version__}\n")
        return 0
    if "--help" in options or "-h" in options:
        put(OVERVIEW)
        return 0
    take(
        options, values=("--anima-dir", "--tools", "--registry"), flags=("-j", "--json"), usage=USAGE
    )  # or else why not
    raise UsageError("name a command or a tool; `animaworks-tool --help` lists them", USAGE)


def _at_least(least: float, kind: type[int | float]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not least <= number < float("inf"):  # nan is neither
            raise argparse.ArgumentTypeError(f"must be at least {least:g}, not {text}")
        return number

    return convert


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write it as 90s, 5min, 12h or 30d")
    try:
        age = timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        age = timedelta.max
    if age > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is too long; at most {_LONGEST.days}d, which is a century")
    return age


def _id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the task, or the first four digits of its id or more")


def _language(parser: argparse.ArgumentParser, what: str, default: str | None = "ja") -> None:
    told = default or "the host's"
    parser.add_argument("--language", choices=["ja", "en"], default=default, help=f"of {what}; default {told}")


def tool_sources(parser: argparse.ArgumentParser) -> None:
    """Let *parser* take the places where tools are, besides those that are always looked at."""
    parser.add_argument(
        "--tools", metavar="DIR", action="append", default=[], help="a directory of tools; before the Anima's own"
    )
    parser.add_argument(
        "--registry",
        metavar="PKG.MODULE[:ATTR]",
        action="append",
        default=[],
        help="a Registry, or a module that has one; looked for in the current directory too",
    )


def _run(parser: argparse.ArgumentParser) -> None:
    tool_sources(parser)
    parser.add_argument(
        "--max-workers", metavar="N", type=_at_least(1, int), help="tasks at once; default: processors, at most 4"
    )
    parser.add_argument(
        "--permit",
        metavar="PERMISSION",
        action="append",
        default=[],
        help="one that is given, TOOL_SUBCOMMAND, for gated subcommands; instead of what a --registry says",
    )
    parser.add_argument(
        "--backend", choices=["process", "thread"], default="process", help="where tools run; default process"
    )
    parser.add_argument(
        "--until-idle",
        action="store_true",
        help="leave when nothing runs and nothing is due, instead of waiting for more",
    )
    _language(parser, "the notifications")


def _list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="all that are kept, not only the ten that were done last")
    parser.add_argument(
        "--state",
        choices=["pending", "running", "done", "completed", "failed", "cancelled"],
        help="only those; of the done ones too, all",
    )
    parser.add_argument("--limit", metavar="N", type=_at_least(1, int), help="at most so many")
    parser.add_argument("--watch", action="store_true", help="go on showing them as they change, until Ctrl-C")


def _show(parser: argparse.ArgumentParser) -> None:
    _id(parser)
    parser.add_argument("--result", action="store_true", help="print the whole result, and nothing else")


def _logs(parser: argparse.ArgumentParser) -> None:
    _id(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the task is done")


def _wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+", help="the tasks")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_at_least(0, float), help="give up after so long; exit status 3"
    )


def _cancel(parser: argparse.ArgumentParser) -> None:
    _id(parser)
    _language(parser, "the notification", default=None)


def _notifications(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ack", action="store_true", help="acknowledge what was printed: it will not be shown again")


def _guide(parser: argparse.ArgumentParser) -> None:
    tool_sources(parser)
    _language(parser, "the guide")


def _events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", metavar="ID", help="only of this task, and what became of its notice; also of one that was pruned"
    )
    parser.add_argument("--since", metavar="AGE", type=_age, help="only what is not older: 90s, 5min, 12h, 30d")


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", metavar="FILE", required=True, help="where the page is written; - is stdout")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_at_least(1, int),
        help="only the N done last, and N that wait; default 1000",
    )
    parser.add_argument("--since", metavar="AGE", type=_age, help="not what was done longer ago: 90s, 5min, 12h, 30d")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fix", action="store_true", help="mend what can be mended without losing anything")
    _language(parser, "the notifications that are left", default=None)


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=["bash", "zsh", "fish"], help="bash, zsh or fish")


def _prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        type=_age,
        help="tasks that ended longer ago: 90s, 5min, 12h, 30d; default 30d, unless there is a --keep",
    )
    parser.add_argument("--keep", metavar="N", type=_at_least(0, int), help="besides, all but the N that ended last")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be forgotten")


@attrs.frozen
class _Command:
    """
    One command.

    Attributes:
        module: Where it is carried out, by the function that has its name and an underscore.
        description: What ``--help`` says of it.
        arguments: Adds what it takes to a parser.
        exits: What ``--help`` says of its exit status.
    """

    module: str
    description: str
    arguments: Callable[[argparse.ArgumentParser], None]
    exits: str = _EXITS


COMMANDS: Final[Mapping[str, _Command]] = {
    "run": _Command(
        "host",
        "Run what is submitted, in the foreground. Ctrl-C takes no more and waits for what runs; a second one leaves: "
        "in processes, tasks go on and end by themselves. SIGTERM leaves at once, threads are given ten seconds.",
        _run,
    ),
    "list": _Command("watch", "List tasks: running, pending, and the ten that were done last.", _list),
    "show": _Command("show", "Show everything about one task, and what to do next.", _show),
    "logs": _Command("follow", "Print what the tool of a task wrote to stdout and stderr.", _logs),
    "wait": _Command(
        "follow",
        "Wait until tasks are done, and say how they ended. An agent need not: its notification comes by itself.",
        _wait,
        "exit status: 0 all completed; 1 one failed or was cancelled; 3 not all are done after --timeout; they go on",
    ),
    "cancel": _Command(
        "change", "Ask for a task to stop: a pending one ends at once, a running one in seconds.", _cancel
    ),
    "retry": _Command("change", "Submit a task that is done once more, as a new task; prints its receipt.", _id),
    "notifications": _Command("change", "Print what finished tasks left to be read.", _notifications),
    "tools": _Command("tools", "List the tools; ⚠ takes long: submit it, do not call it.", tool_sources),
    "guide": _Command("tools", "Print the tool guide that goes into an agent's system prompt.", _guide),
    "events": _Command(
        "events", "Print what happened to tasks, the oldest first, and what became of a notice.", _events
    ),
    "report": _Command(
        "report.command",
        "Write one self-contained HTML page: a timeline of tasks, durations per tool against expectation, failures by "
        "cause, and a table of tasks. The file is replaced as a whole, and only you may read it.",
        _report,
    ),
    "doctor": _Command(
        "housekeeping",
        "Look whether the store is well: files, tasks, the file system, and who is at work there. Hosts may go on.",
        _doctor,
        "exit status: 0 well; 1 there are problems left. What is marked (fix) is mended with --fix",
    ),
    "completion": _Command(
        "completion",
        "Print the script with which a shell completes commands, options, tools and task ids. bash and zsh: put "
        "`source <(animaworks-tool completion SHELL)` into ~/.bashrc or ~/.zshrc, there after compinit; fish: put "
        "`animaworks-tool completion fish | source` into ~/.config/fish/config.fish.",
        _completion,
    ),
    "prune": _Command(
        "housekeeping",
        "Forget tasks that were done long ago: record, log, results. What nobody has acknowledged stays.",
        _prune,
    ),
}
