"""``animaworks-tool TOOL SUBCOMMAND ...``: call a tool here and now, as if it were a program of its own."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any, BinaryIO, Final

from animaworks_tasks.cli import beside
from animaworks_tasks.cli.basics import not_needed, put, say, write_all
from animaworks_tasks.cli.commands import COMMANDS, USAGE
from animaworks_tasks.cli.text import as_json, duration
from animaworks_tasks.cli.tools import help_of, named_anima, registry_of
from animaworks_tasks.errors import TasksError, UsageError
from animaworks_tasks.fs.layout import ANIMA_DIR_VARIABLE, Layout
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.memory import MemoryWorkspace
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.task.pending import new_id
from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.catalogue import known_tools
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.tool import FunctionTarget, Tool
from animaworks_tasks.worker.call import Report
from animaworks_tasks.worker.call import call as call_tool

_STOPPED: Final = 130  # exit status


def call(options: Mapping[str, Any], name: str, argv: Sequence[str]) -> int:
    """
    Call the tool *name*: its stdout, or what it returns, is ours; all else that it prints goes to stderr.

    Args:
        options: Those before the tool's name, all of :data:`~animaworks_tasks.cli.commands.ENTRANCE`.
        name: The tool.
        argv: What follows.

    Raises:
        UsageError: There is no such tool, or it does not take these arguments.
    """
    theirs = beside.find()
    is_there = options["anima_dir"] or os.path.isdir(os.environ.get(ANIMA_DIR_VARIABLE, ""))
    anima = named_anima(options["anima_dir"]) if is_there or theirs is None else None  # theirs does without
    if anima is not None:
        os.environ[ANIMA_DIR_VARIABLE] = os.path.abspath(anima)  # where the tool looks for it
    registry = registry_of(SimpleNamespace(**options), anima)
    found = registry.catalogue()["tools"]
    name, argv = arguments.split(found, name, argv)
    is_here = name in found
    tools = found if is_here or anima is None else known_tools(Layout(anima)) or {}
    is_named = is_here and (options["tools"] or options["registry"])  # what was named has precedence
    if theirs and not is_named and _is_theirs(theirs, name, argv, tools.get(name, {}), registry if is_here else None):
        flags = [flag for flag, option in (("--help", "help"), ("-j", "json")) if options[option]]
        _hint(name, [*flags, *argv], tools.get(name, {}), is_here=False)
        end = argv.index("--") if "--" in argv else len(argv)
        beside.hand_over(theirs, [name, *argv[:end], *flags, *argv[end:]])  # it takes them after the name
    if name not in tools:
        raise _unknown(name, registry)
    if text := help_of(tools, name, argv, wanted=options["help"], is_here=is_here):
        put(text)
        return 0
    if not is_here:
        arguments.find(tools, name, argv)  # raises where no host would accept it
        line = one_line(shlex.join([name, *argv]), 200)
        raise TasksError(f"only the host of this Anima has {name}, and can call it: `animaworks-tool submit {line}`")
    tool = registry.resolve(name, argv)
    if registry.permits is not None:  # without a host there are no permissions to check
        registry.check_permission(tool)
    registry.check_veto(tool, argv)
    _hint(name, argv, tools[name], is_here=True)
    return _call(tool, argv, as_data=options["json"])


def _hint(name: str, argv: Sequence[str], specs: Mapping[str, Mapping[str, Any]], *, is_here: bool) -> None:
    """Say that a call takes long; or of one that goes to AnimaWorks that it does not, where others of the tool do."""
    try:
        subcommand, spec = arguments.find({name: specs}, name, argv)
    except UsageError:  # theirs has it, or says what is wrong with it
        return
    if not set(arguments.HELP).isdisjoint(argv):
        return
    command = arguments.command(name, subcommand, spec)
    if spec.get("long_running"):
        takes = "long" if spec["expected_seconds"] is None else f"about {duration(spec['expected_seconds'])}"
        submit = f"animaworks-tool submit {one_line(shlex.join([name, *argv]), 200)}"
        say(f"⚠ {command} takes {takes}: `{submit}` would have returned at once; it runs here now, and Ctrl-C stops it")
    elif not is_here and any(each["long_running"] for each in specs.values()):
        say(not_needed(command))


def _is_theirs(
    theirs: str, name: str, argv: Sequence[str], specs: Mapping[str, Mapping[str, Any]], here: Registry | None
) -> bool:
    """
    Return whether AnimaWorks' command is to carry out a call: what is not here, unless only the host can have it.

    Of what is here: a module in a directory of tools, where the core has one of this name, which has precedence; or
    where it is gated, and there is nobody here to say what is permitted.

    Args:
        theirs: AnimaWorks' command.
        name: The tool.
        argv: What follows.
        specs: What is known of it.
        here: Where it is registered, if it is here.
    """
    if here is None:
        return not specs or any(spec["parameters"] is None for spec in specs.values())
    if not all(_is_module_in_a_directory(tool) for tool in here.tools() if tool.name == name):
        return False
    try:
        gated = here.permits is None and here.resolve(name, argv).gated
    except UsageError:  # it will say so
        gated = False
    return gated or beside.has_tool(theirs, name)


def _is_module_in_a_directory(tool: Tool) -> bool:
    """Return whether *tool* is a ``cli_main`` in a file that is found by its path, and not by a module's name."""
    reference = tool.target.reference if isinstance(tool.target, FunctionTarget) else None
    return tool.parameters is None and reference is not None and not reference.module


def _call(tool: Tool, argv: Sequence[str], *, as_data: bool) -> int:
    terminal = _Terminal()
    returns = tool.parameters is not None  # the others print their result
    called: dict[str, Any] = {"tool": tool.name, "subcommand": tool.subcommand}
    task = Task(**called, id=new_id(), argv=argv, submitted_at=utc_now(), attempt=1, cwd=os.getcwd())
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what the tool started is stopped too
    try:
        # As data, the report has all that was printed.
        out = (lambda _: None) if as_data else None if returns else terminal.print
        report = call_tool(tool, task, terminal, log=terminal.write_log, stdout=out, as_typed=True)
    except KeyboardInterrupt:
        say(f"{tool.command} was stopped")
        return _STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
        terminal.clear()
    if terminal.refused is not None:
        raise terminal.refused
    whole = terminal.results.get("result.txt")
    result = report.result if whole is None else whole.decode("utf-8", "replace")
    if as_data:
        outcome = "cancelled" if report.cancelled else "failed" if report.cause else "completed"
        why = {"cause": report.cause and report.cause.value, "error": report.error, "hint": report.hint}
        put(as_json({**called, "outcome": outcome, **why, "result": result}))
    elif returns and result:
        put(result if result.endswith("\n") else result + "\n")
    return _verdict(tool, report)


def _verdict(tool: Tool, report: Report) -> int:
    """Say why it failed, if it did, and return the exit status."""
    if report.cancelled:
        say(f"{tool.command} was stopped: {one_line(report.error or '', 500)}")
        return _STOPPED
    if report.cause is None:
        return 0
    say(f"{tool.command} failed ({report.cause.value}): {one_line(report.error or '', 500)}")
    if report.hint:
        say(f"what to do: {one_line(report.hint, 500)}")
    return 2 if report.cause is Cause.ARGUMENTS else 1


class _Terminal(MemoryWorkspace):
    """
    The workspace of a tool that is called directly: the streams of this process; large results stay in memory.

    Attributes:
        refused: Why its output could not be written; the call is of no use then.
    """

    def __init__(self) -> None:
        super().__init__(cancelled=lambda: False, clock=utc_now)  # Ctrl-C raises an exception instead
        # Taken now: while the tool runs, sys.stdout and sys.stderr are redirected to us.
        self._out: BinaryIO | None = None if sys.stdout is None else sys.stdout.buffer
        self._err: BinaryIO | None = None if sys.stderr is None else sys.stderr.buffer
        self._shows_progress = sys.stderr is not None and sys.stderr.isatty()
        self._progress_stands = False
        self.refused: OSError | None = None

    def print(self, data: bytes) -> None:
        """Write to stdout what the tool prints there; a closed stdout stops the tool."""
        self.clear()
        try:
            if self._out is not None:
                write_all(self._out, data)
        except OSError as error:
            self.refused = error
            raise

    def write_log(self, data: bytes) -> None:
        """Write to stderr all that is not the result; that nobody reads it is no reason to stop."""
        self.clear()
        with contextlib.suppress(OSError):
            if self._err is not None:
                write_all(self._err, data)

    def report_progress(self, fraction: float | None, message: str) -> None:
        """Show it in a line that the next one replaces, on a terminal only."""
        if self._shows_progress:
            percent = "" if fraction is None else f"{fraction:.0%} "
            self.write_log(f"\r\x1b[K{percent}{one_line(message, 70)}".encode("utf-8", "backslashreplace"))
            self._progress_stands = True

    def clear(self) -> None:
        """Remove the line of progress."""
        if self._progress_stands:
            self._progress_stands = False
            self.write_log(b"\r\x1b[K")

    def scratch(self) -> Path:
        """Return a directory of this call's own; it stays, because the result may name files in it."""
        if self._scratch is None:
            self._scratch = Path(mkdtemp(prefix="animaworks-tool-"))
            say(f"files of this call are kept in {self._scratch}")
        return self._scratch


def _unknown(name: str, registry: Registry) -> TasksError:
    for where, reason in registry.problems:
        if Path(where).stem == name:
            return TasksError(f"{where} is no tool that can be called: {one_line(reason, 500)}")
    names = {**COMMANDS, **{tool.name: None for tool in registry.tools()}}
    near = [each for each in names if each.startswith(name)] or get_close_matches(name, names)
    guess = f": did you mean {' or '.join(near)}?" if near else "; `animaworks-tool tools` lists the tools"
    return UsageError(f"{name!r} is neither a command nor a tool{guess}", USAGE)
