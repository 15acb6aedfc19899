"""
What can be typed: every command with its options and its help, and where it is carried out.

The help, the overview, the completion and the documentation's page are made from this table, and every line is read by
it. It imports next to nothing, because ``submit`` reads it each time: argparse alone would take longer than a submit.
"""

from __future__ import annotations

from animaworks_tasks.errors import UsageError
from animaworks_tasks.tools.arguments import convert

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Final

_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}  # seconds, in the order in which they are written
_EXAMPLES: Final = "90 (seconds), 5m, 1h30m, 2d"
_LONGEST: Final = 36500  # days; a century, so that every moment has a date


class Argument:
    """
    An option or a positional argument.

    Attributes:
        words: How it is written, ``("-j", "--json")``; of a positional, its name.
        value: What stands for its value in the usage, and says what it is: a DIR, a FILE, the ID of a task, a TOOL, N
            for a whole number, a DURATION, else any text. Empty to show the choices; None for a flag.
        summary: What ``--help`` and the completion say of it.
        choices: All that it may be; None for no limit.
        least: The smallest number that it may be; None for no limit.
        default: What it is if it is not given.
        many: Whether an option may be repeated, or a positional takes all words that are left.
        required: Whether an option must be given; a positional must.
    """

    def __init__(
        self, words: str, value: str | None, summary: str, *, choices: Sequence[str] | None = None,
        least: float | None = None, default: str | None = None, many: bool = False, required: bool = False,
    ) -> None:  # fmt: skip
        self.words, self.value, self.summary = words.split(), value, summary
        self.choices, self.least, self.many = choices, least, many
        self.default: Any = False if value is None else [] if many else default
        self.is_option = words.startswith("-")
        self.required = required or not self.is_option
        self.name = self.words[-1].strip("-").replace("-", "_")

    def convert(self, text: str | None) -> object:
        """
        Return *text* as the number or the seconds that are wanted, or as it is; True for a flag, which has none.

        Raises:
            ValueError: It cannot be that; the message does not name the argument.
        """
        if text is None or self.value is None:
            if text is None and self.value is None:
                return True
            raise ValueError("needs a value" if text is None else "takes no value")
        wanted = {"type": "int" if self.value == "N" else "str", "choices": self.choices}
        value: Any = seconds(text) if self.value == "DURATION" else convert(wanted, text)
        if self.least is not None and value < self.least:
            raise ValueError(f"must be at least {self.least:g}, not {text}")
        return value


def seconds(text: str) -> float:
    """
    Return the seconds of a length of time: ``90``, ``5m``, ``1.5h``, ``2d``, or as we write it, ``1 h 30 min``.

    Raises:
        ValueError: It is none, or longer than a century; the message has an example.
    """
    parts, rest = [], text.replace("min", "m")
    for unit, size in _UNITS.items():
        if unit in rest:
            number, _, rest = rest.partition(unit)
            parts.append((number, size))
    if not parts:
        parts, rest = [(rest, 1)], ""
    try:
        if rest.strip() or any(number.strip("0123456789. ") for number, _ in parts):
            raise ValueError  # noqa: TRY301 - the ways of being no length of time share one message
        total = sum(float(number) * size for number, size in parts)
    except ValueError:
        raise ValueError(f"{text!r} is no length of time: write it as {_EXAMPLES}") from None
    if total > _LONGEST * _UNITS["d"]:
        raise ValueError(f"{text} is too long; at most {_LONGEST}d, which is a century")
    return total


class Command:
    """
    A command.

    Attributes:
        module: Where it is carried out, by the function that has its name and an underscore.
        takes: What the overview and the usage line show of its arguments.
        summary: What the overview says of it.
        description: What its ``--help`` says of it.
        arguments: What it takes.
        exits: Its exit statuses, where it has others than most.
    """

    def __init__(
        self, module: str, takes: str, summary: str, description: str, *arguments: Argument,
        exits: str = "0 done, 1 failed, 2 wrong usage; `animaworks-tool --help` lists all",
    ) -> None:  # fmt: skip
        self.module, self.takes, self.summary, self.description = module, takes, summary, description
        self.arguments, self.exits = (*_COMMON, *arguments), exits


def scan(
    words: Sequence[str], arguments: Sequence[Argument], *, leading: bool = False
) -> Iterator[tuple[str, str | None]]:
    """
    Yield each option in *words* with its value, if it has one, and each word of no option as ("", word): all after --.

    Args:
        words: As typed.
        arguments: What may be given; other options are taken for flags.
        leading: Whether the first word of no option ends the options.
    """
    options = {word: each for each in arguments for word in each.words if each.is_option}
    valued = {word for word, each in options.items() if each.value is not None}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word[:2] in options.keys() - valued and word[2:]:  # several flags in one word: -fj
            rest[:0] = [f"-{letter}" for letter in word[1:]]
            continue
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            yield "", word
            if leading:
                break
        elif option in valued and not equals:
            yield option, rest.pop(0) if rest else None
        else:
            yield option, value if equals else None
    yield from (("", word) for word in rest)


def take(
    words: Sequence[str], arguments: Sequence[Argument], usage: str, *, leading: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """
    Return the values of the *arguments* in *words*, by name, and the words that are left over; see :func:`scan`.

    Where the options are *leading*, all words that follow are left over.

    Raises:
        UsageError: An option is unknown, or a value is missing or wrong; with this *usage*.
    """
    options = {word: each for each in arguments for word in each.words if each.is_option}
    places = [each for each in arguments if not each.is_option and not leading]
    given: dict[str, Any] = {each.name: each.default for each in arguments}
    left: list[str] = []
    for option, text in scan(words, arguments, leading=leading):
        if not option and not places:
            left.append(text or "")
            continue
        if option and option not in options:
            raise UsageError(f"there is no option {option} here; --help shows those that there are", usage)
        argument = options[option] if option else places[0] if places[0].many else places.pop(0)
        try:
            value = argument.convert(text)
        except ValueError as error:
            raise UsageError(f"{option or argument.value} {error}", usage) from None
        given[argument.name] = [*given[argument.name], value] if argument.many else value
    return given, left


_ANIMA_DIR: Final = Argument(
    "--anima-dir", "DIR", "the Anima's directory; default: ANIMAWORKS_ANIMA_DIR, or a home of yours"
)
_JSON: Final = Argument("-j --json", None, "print JSON")
_HELP: Final = Argument("-h --help", None, "show what can be typed, and do nothing")
_SHARED: Final = Argument("--shared", None, "take a store on a network file system: its locks exclude other machines")
_COMMON: Final = (_HELP, _ANIMA_DIR, _JSON, _SHARED)
_SOURCES: Final = (
    Argument("--tools", "DIR", "a directory of tools; before the Anima's own", many=True),
    Argument("--registry", "PKG.MODULE[:ATTR]", "a Registry or its module; in the current directory too", many=True),
)  # fmt: skip
_ID: Final = Argument("id", "ID", "the task, or the first four digits of its id or more, as `list` shows it")
_STATES: Final = ("pending", "running", "done", "completed", "failed", "cancelled")


def _language(of: str, default: str = "that of the host") -> Argument:
    return Argument("--language", "", f"of {of}; default: {default}", choices=("ja", "en", "ko"))


USAGE: Final = "animaworks-tool [--anima-dir DIR] [-j] COMMAND|TOOL ..."
ENTRANCE: Final = (*_COMMON, *_SOURCES, Argument("--version", None, "print which version this is"))  # before a command
EXITS: Final = {
    "0": "done",
    "1": "the task failed or was cancelled, or what was asked for could not be done; the reason is on stderr",
    "2": "wrong usage",
    "3": "`wait --timeout`: not all of them are done",
    "130": "Ctrl-C",
    "141": "the reader of the output has left",
    "any": "TOOL SUBCOMMAND: what the tool itself ended its process with (os._exit); nobody is left to say more",
}
COMMANDS: Final[Mapping[str, Command]] = {
    "submit": Command(
        "submit", "TOOL [ARGS...]", "queue a call of a tool; prints a receipt at once",
        "Queue a call of a tool and return at once. A host (`animaworks-tool run`, or one that embeds the library) "
        "runs it, and leaves a notification when it is done. Prints a receipt as JSON. Everything after TOOL belongs "
        "to the tool: `animaworks-tool submit --timeout 15m transcribe audio talk.wav`. But --help there queues "
        "nothing, and prints what the tool takes; after a -- it is the tool's too.",
        Argument("tool", "TOOL", "the tool; `animaworks-tool tools` lists them"),
        Argument("argv", "ARGS", "what the tool takes: its subcommand, and what that takes", many=True),
        Argument("--key", "KEY", "a name for this work: while a task with it is kept, there will be no second one"),
        Argument("--priority", "N", "higher runs earlier; default 0"),
        Argument("-q --quiet", None, "print the id of the task alone"),
        Argument("--delay", "DURATION", f"start it no earlier than in so long: {_EXAMPLES}"),
        Argument("--timeout", "DURATION", "longest run of one attempt; default: the tool's value", least=0.001),
        Argument("--retries", "N", "how often a failure is run again; default: the tool's value", least=0),
        exits="0 it is queued; 1 it is not, or a power cut may still take it away, as stderr says; 2 wrong usage",
    ),
    "run": Command(
        "host", "", "run what is submitted, in the foreground, until Ctrl-C",
        "Run what is submitted, in the foreground. Ctrl-C takes no more and waits for what runs; a second one leaves: "
        "in processes, tasks go on and end by themselves. SIGTERM leaves at once, threads are given ten seconds.",
        *_SOURCES,
        Argument("--max-workers", "N", "tasks at once; default: processors, at most 4", least=1),
        Argument("--permit", "TOOL_SUBCOMMAND", "a permission that is given; instead of a --registry's", many=True),
        Argument("--backend", "", "where tools run; default process", choices=("process", "thread"), default="process"),
        Argument("--until-idle", None, "leave when nothing runs and nothing is due, instead of waiting for more"),
        _language("the notifications", "ja if ANIMAWORKS_ANIMA_DIR is set, or else the locale's"),
    ),
    "list": Command(
        "listing", "[--watch]", "what is pending, running, and was done last",
        "List tasks: running, pending, and the ten that were done last.",
        Argument("--all", None, "all that are kept, not only the ten that were done last"),
        Argument("--state", "", "only those; of the done ones too, all", choices=_STATES),
        Argument("--limit", "N", "at most so many", least=1),
        Argument("--watch", None, "go on showing them as they change, until Ctrl-C"),
    ),
    "show": Command(
        "show", "ID", "everything about one task, and what to do next",
        "Show everything about one task, and what to do next.",
        _ID, Argument("--result", None, "print the whole result, and nothing else"),
    ),
    "logs": Command(
        "show", "ID [-f]", "what its tool printed", "Print what the tool of a task wrote to stdout and stderr.",
        _ID, Argument("-f --follow", None, "go on until the task is done"),
    ),
    "wait": Command(
        "show", "ID...", "until all of them are done",
        "Wait until tasks are done, and say how they ended. An agent need not: its notification comes by itself.",
        Argument("ids", "ID", "the tasks, as `list` shows them", many=True),
        Argument("--timeout", "DURATION", f"give up after so long, {_EXAMPLES}; exit status 3"),
        exits="0 all completed; 1 one failed or was cancelled; 3 not all are done after --timeout; they go on",
    ),
    "cancel": Command(
        "change", "ID", "ask for a task to stop",
        "Ask for a task to stop: a pending one ends at once, a running one in seconds.",
        _ID, _language("the notification"),
    ),
    "retry": Command(
        "change", "ID", "submit a task that is done once more",
        "Submit a task that is done once more, as a new task; prints its receipt.", _ID,
    ),
    "notifications": Command(
        "change", "[--ack]", "what finished tasks left to be read", "Print what finished tasks left to be read.",
        Argument("--ack", None, "acknowledge what was printed: it will not be shown again"),
    ),
    "tools": Command(
        "tools", "", "the tools that there are; ⚠ takes long: submit it, do not call it",
        "List the tools; ⚠ takes long: submit it, do not call it.", *_SOURCES,
    ),
    "guide": Command(
        "tools", "", "the same, for an agent's system prompt",
        "Print the tool guide that goes into an agent's system prompt.", *_SOURCES, _language("the guide"),
    ),
    "events": Command(
        "show", "[--task ID]", "what happened, when; and whether a notification was delivered, and to whom",
        "Print what happened to tasks, the oldest first, and what became of a notification.",
        Argument("--task", "ID", "only of this task, and what became of its notification; also of one that was pruned"),
        Argument("--since", "DURATION", f"only what is not older: {_EXAMPLES}"),
    ),
    "report": Command(
        "report.command", "--html FILE", "a page to look at: a timeline, durations, failures, all tasks",
        "Write one self-contained HTML page: a timeline of tasks, durations per tool against expectation, failures by "
        "cause, and a table of tasks. The file is replaced as a whole, and only you may read it.",
        Argument("--html", "FILE", "where the page is written; - is stdout", required=True),
        Argument("--limit", "N", "only the N done last, and N that wait; default 1000", least=1),
        Argument("--since", "DURATION", f"not what was done longer ago: {_EXAMPLES}"),
    ),
    "doctor": Command(
        "change", "[--fix]", "whether the store is well, and what to do where it is not",
        "Look whether the store is well: files, tasks, the file system, and who is at work there. Hosts may go on.",
        Argument("--fix", None, "mend what can be mended without losing anything"),
        _language("the notifications that are left"),
        exits="0 well; 1 there are problems left. What is marked (fix) is mended with --fix",
    ),
    "prune": Command(
        "change", "", "forget what was done long ago, and was read",
        "Forget tasks that were done long ago: record, log, results. What nobody has acknowledged stays.",
        Argument("--older-than", "DURATION", f"what ended longer ago: {_EXAMPLES}; default 30d, without a --keep"),
        Argument("--keep", "N", "besides, all but the N that ended last", least=0),
        Argument("--dry-run", None, "only say what would be forgotten"),
    ),
    "completion": Command(
        "complete", "SHELL", "lets bash, zsh or fish complete all of this",
        "Print the script with which a shell completes commands, options, tools and task ids. bash and zsh: put "
        "`source <(animaworks-tool completion SHELL)` into ~/.bashrc or ~/.zshrc, there after compinit; fish: put "
        "`animaworks-tool completion fish | source` into ~/.config/fish/config.fish.",
        Argument("shell", "SHELL", "bash, zsh or fish", choices=("bash", "zsh", "fish")),
    ),
}  # fmt: skip


def usage(name: str) -> str:
    """Return the usage line of a command."""
    return f"animaworks-tool [--anima-dir DIR] {name} [OPTIONS] {COMMANDS[name].takes}".rstrip()
