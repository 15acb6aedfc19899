"""
What can be typed: every command with its options and its help, and where it is carried out.

The parser, the overview, the completion, the documentation's page and all of ``submit``'s own are made from this table.
It imports next to nothing, because ``submit`` reads it each time.
"""

from __future__ import annotations

from animaworks_tasks.errors import UsageError

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

_LONGEST: Final = 10 * 365 * 86400.0  # seconds; ten years, so that every moment has a date


class Argument:
    """
    An option or a positional argument.

    Attributes:
        words: How it is written, ``("-j", "--json")``; of a positional, its name.
        value: What stands for its value in the usage, and says what it is: a DIR, a FILE, the ID of a task, a TOOL, N
            for a whole number, SECONDS, an AGE, else any text. Empty to show the choices; None for a flag.
        summary: What ``--help`` and the completion say of it.
        choices: All that it may be; None for no limit.
        least: The smallest number that it may be; None for no limit.
        default: What it is if it is not given.
        many: Whether an option may be repeated, or a positional takes all words that are left.
        required: Whether an option must be given.
    """

    def __init__(
        self, words: str, value: str | None, summary: str, *, choices: Sequence[str] | None = None,
        least: float | None = None, default: str | None = None, many: bool = False, required: bool = False,
    ) -> None:  # fmt: skip
        self.words, self.value, self.summary = words.split(), value, summary
        self.choices, self.least, self.many, self.required = choices, least, many, required
        self.default: Any = False if value is None else [] if many else default
        self.is_option = words.startswith("-")
        self.name = self.words[-1].strip("-").replace("-", "_")

    def convert(self, text: str) -> str | float:
        """
        Return *text* as the number that is wanted, or as it is.

        Raises:
            ValueError: It is none, or too small or too large; the message does not name the argument.
        """
        if self.value not in {"N", "SECONDS"}:
            return text
        is_whole = self.value == "N"
        try:
            number = int(text) if is_whole else float(text)
        except ValueError:
            wanted = "whole number" if is_whole else "number of seconds"
            raise ValueError(f"must be a {wanted}, not {text!r}") from None
        least = number if self.least is None else self.least
        if is_whole and number < least:
            raise ValueError(f"must be at least {least:g}, not {text}")
        if not is_whole and not least <= number <= _LONGEST:  # nan is neither
            raise ValueError(f"must be from {least:g} to {_LONGEST:.0f} seconds, not {text}")
        return number


class Command:
    """
    A command.

    Attributes:
        module: Where it is carried out, by the function that has its name and an underscore.
        takes: What the overview shows of its arguments.
        summary: What the overview says of it.
        description: What its ``--help`` says of it.
        arguments: What it takes.
        exits: Its exit statuses, where it has others than most.
        usage: Its usage line; None for the one that argparse makes.
        example: How it is called, say.
    """

    def __init__(
        self, module: str, takes: str, summary: str, description: str, *arguments: Argument,
        exits: str = "0 done, 1 failed, 2 wrong usage; `animaworks-tool --help` lists all", usage: str | None = None,
        example: str | None = None,
    ) -> None:  # fmt: skip
        self.module, self.takes, self.summary, self.description = module, takes, summary, description
        self.arguments, self.exits, self.usage, self.example = (*_COMMON, *arguments), exits, usage, example


def take(words: Sequence[str], arguments: Sequence[Argument], usage: str) -> tuple[dict[str, Any], list[str]]:
    """
    Return the values of the options at the beginning of *words*, by name, and the words that follow.

    Args:
        words: As typed.
        arguments: What may be given; positionals are not looked at.
        usage: For the error.

    Raises:
        UsageError: An option is unknown, or its value is missing or wrong.
    """
    known = {word: each for each in arguments for word in each.words if each.is_option}
    given: dict[str, Any] = {each.name: each.default for each in known.values()}
    position = 0
    while position < len(words) and words[position].startswith("-"):
        option, equals, text = words[position].partition("=")
        argument = known.get(option)
        if argument is None or (equals and argument.value is None):
            raise UsageError(f"there is no option {words[position]} here; --help shows those that there are", usage)
        position += 1
        if argument.value is None:
            given[argument.name] = True
            continue
        if not equals:
            if position == len(words):
                raise UsageError(f"{option} needs a value", usage)
            text = words[position]
            position += 1
        try:
            value = argument.convert(text)
        except ValueError as error:
            raise UsageError(f"{option} {error}", usage) from None
        given[argument.name] = [*given[argument.name], value] if argument.many else value
    return given, list(words[position:])


_ANIMA_DIR: Final = Argument("--anima-dir", "DIR", "the Anima's directory; default: ANIMAWORKS_ANIMA_DIR")
_JSON: Final = Argument("-j --json", None, "print JSON")
_HELP: Final = Argument("-h --help", None, "show what can be typed, and do nothing")
_COMMON: Final = (_HELP, _ANIMA_DIR, _JSON)
_SOURCES: Final = (
    Argument("--tools", "DIR", "a directory of tools; before the Anima's own", many=True),
    Argument(
        "--registry", "PKG.MODULE[:ATTR]",
        "a Registry, or a module that has one; looked for in the current directory too", many=True,
    ),
)  # fmt: skip
_ID: Final = Argument("id", "ID", "the task, or the first four digits of its id or more")


def _language(of: str, default: str | None = "ja") -> Argument:
    shown = default or "the host's"
    return Argument("--language", "", f"of {of}; default {shown}", choices=("ja", "en"), default=default)


def _age(option: str, summary: str) -> Argument:
    return Argument(option, "AGE", f"{summary}: 90s, 5min, 12h, 30d")


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
        "to the tool.",
        Argument("tool", "TOOL", "the tool; `animaworks-tool tools` lists them"),
        Argument("argv", "ARGS", "what the tool takes: its subcommand, and what that takes", many=True),
        Argument("--key", "KEY", "a name for this work: while a task with it is kept, there will be no second one"),
        Argument("--priority", "N", "higher runs earlier; default 0"),
        Argument("--delay", "SECONDS", "start it no earlier than in so many seconds", least=0),
        Argument("--timeout", "SECONDS", "longest run of one attempt; default: the tool's value", least=0.001),
        Argument("--retries", "N", "how often a failure is run again; default: the tool's value", least=0),
        exits="0 it is queued; 1 it is not, or a power cut may still take it away, as stderr says; 2 wrong usage",
        usage="animaworks-tool [--anima-dir DIR] submit [OPTIONS] TOOL [ARGS...]",
        example="animaworks-tool submit --timeout 900 transcribe audio talk.wav",
    ),
    "run": Command(
        "host", "", "run what is submitted, in the foreground, until Ctrl-C",
        "Run what is submitted, in the foreground. Ctrl-C takes no more and waits for what runs; a second one leaves: "
        "in processes, tasks go on and end by themselves. SIGTERM leaves at once, threads are given ten seconds.",
        *_SOURCES,
        Argument("--max-workers", "N", "tasks at once; default: processors, at most 4", least=1),
        Argument(
            "--permit", "PERMISSION",
            "one that is given, TOOL_SUBCOMMAND, for gated subcommands; instead of what a --registry says", many=True,
        ),
        Argument("--backend", "", "where tools run; default process", choices=("process", "thread"), default="process"),
        Argument("--until-idle", None, "leave when nothing runs and nothing is due, instead of waiting for more"),
        _language("the notifications"),
    ),
    "list": Command(
        "listing", "[--watch]", "what is pending, running, and was done last",
        "List tasks: running, pending, and the ten that were done last.",
        Argument("--all", None, "all that are kept, not only the ten that were done last"),
        Argument(
            "--state", "", "only those; of the done ones too, all",
            choices=("pending", "running", "done", "completed", "failed", "cancelled"),
        ),
        Argument("--limit", "N", "at most so many", least=1),
        Argument("--watch", None, "go on showing them as they change, until Ctrl-C"),
    ),
    "show": Command(
        "show", "ID", "everything about one task, and what to do next",
        "Show everything about one task, and what to do next.",
        _ID,
        Argument("--result", None, "print the whole result, and nothing else"),
    ),
    "logs": Command(
        "follow", "ID [-f]", "what its tool printed", "Print what the tool of a task wrote to stdout and stderr.",
        _ID,
        Argument("-f --follow", None, "go on until the task is done"),
    ),
    "wait": Command(
        "follow", "ID...", "until all of them are done",
        "Wait until tasks are done, and say how they ended. An agent need not: its notification comes by itself.",
        Argument("ids", "ID", "the tasks", many=True),
        Argument("--timeout", "SECONDS", "give up after so long; exit status 3", least=0),
        exits="0 all completed; 1 one failed or was cancelled; 3 not all are done after --timeout; they go on",
    ),
    "cancel": Command(
        "change", "ID", "ask for a task to stop",
        "Ask for a task to stop: a pending one ends at once, a running one in seconds.",
        _ID,
        _language("the notification", default=None),
    ),
    "retry": Command(
        "change", "ID", "submit a task that is done once more",
        "Submit a task that is done once more, as a new task; prints its receipt.",
        _ID,
    ),
    "notifications": Command(
        "change", "[--ack]", "what finished tasks left to be read", "Print what finished tasks left to be read.",
        Argument("--ack", None, "acknowledge what was printed: it will not be shown again"),
    ),
    "tools": Command(
        "tools", "", "the tools that there are; ⚠ takes long: submit it, do not call it",
        "List the tools; ⚠ takes long: submit it, do not call it.",
        *_SOURCES,
    ),
    "guide": Command(
        "tools", "", "the same, for an agent's system prompt",
        "Print the tool guide that goes into an agent's system prompt.",
        *_SOURCES,
        _language("the guide"),
    ),
    "events": Command(
        "show", "[--task ID]", "what happened, when; and whether a notification was delivered, and to whom",
        "Print what happened to tasks, the oldest first, and what became of a notification.",
        Argument("--task", "ID", "only of this task, and what became of its notification; also of one that was pruned"),
        _age("--since", "only what is not older"),
    ),
    "report": Command(
        "report.command", "--html FILE", "a page to look at: a timeline, durations, failures, all tasks",
        "Write one self-contained HTML page: a timeline of tasks, durations per tool against expectation, failures by "
        "cause, and a table of tasks. The file is replaced as a whole, and only you may read it.",
        Argument("--html", "FILE", "where the page is written; - is stdout", required=True),
        Argument("--limit", "N", "only the N done last, and N that wait; default 1000", least=1),
        _age("--since", "not what was done longer ago"),
    ),
    "doctor": Command(
        "housekeeping", "[--fix]", "whether the store is well, and what to do where it is not",
        "Look whether the store is well: files, tasks, the file system, and who is at work there. Hosts may go on.",
        Argument("--fix", None, "mend what can be mended without losing anything"),
        _language("the notifications that are left", default=None),
        exits="0 well; 1 there are problems left. What is marked (fix) is mended with --fix",
    ),
    "prune": Command(
        "housekeeping", "", "forget what was done long ago, and was read",
        "Forget tasks that were done long ago: record, log, results. What nobody has acknowledged stays.",
        _age("--older-than", "tasks that ended longer ago (default 30d, unless there is a --keep)"),
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
