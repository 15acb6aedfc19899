"""``animaworks-tool tools`` and ``guide``: what can be called; and where the tools of a command line come from."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from animaworks_tasks.cli.basics import anima_dir, named, put, say
from animaworks_tasks.cli.parser import help_text
from animaworks_tasks.cli.text import as_json, duration, table
from animaworks_tasks.errors import TasksError, UnknownToolError
from animaworks_tasks.fs import layout as layouts
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.tools import arguments, guide
from animaworks_tasks.tools.catalogue import default_language, known, read_tools
from animaworks_tasks.tools.discovery import discover, load_directory, load_entry_points, load_import_path
from animaworks_tasks.tools.registry import Registry


def tools_(options: SimpleNamespace) -> int:
    """List the tools; those that did not load too, with their reasons."""
    source, tools, registry = _known(options)
    if options.json:
        problems = [{"where": where, "reason": reason} for where, reason in registry.problems]
        put(as_json({"source": source, "tools": tools, "problems": problems}))
        return 0
    rows = list(_rows(tools))
    if rows:
        put(table(rows))
    else:
        say(no_tools(options))
    if source == "catalogue":
        say("these are the tools that the host had when it last started; one that was added since needs its next start")
    report_problems(registry)
    return 0


def guide_(options: SimpleNamespace) -> int:
    """Print the guide."""
    _, tools, registry = _known(options)
    anima = named_anima(options.anima_dir)
    language = options.language or (default_language() if anima is None else known(layouts.Layout(anima))[1])
    text = guide.guide(tools, language)
    put(as_json({"language": language, "guide": text}) if options.json else text)
    report_problems(registry)
    return 0


def print_help(anima: str | None, name: str, argv: Sequence[str]) -> int:
    """
    Print the help that a submit asks for, instead of queueing it: what the host has published, or else is found here.

    Args:
        anima: The Anima's directory; None for what the environment names.
        name: The tool.
        argv: What follows.

    Raises:
        UnknownToolError: There is no such tool or subcommand, or no host has published it yet.
    """
    source, tools, _ = _known(SimpleNamespace(anima_dir=anima, tools=[], registry=[]))
    name, argv = arguments.split(tools, name, argv)
    if source == "files" and name not in tools:
        problem = f"nothing is known of {name!r} before a host has published its tools, as each does when it starts"
        raise UnknownToolError(f"{problem}; nothing was queued, and `animaworks-tool tools` lists what is known")
    put(help_of(tools, name, argv, submits=True))
    return 0


def help_of(
    tools: Mapping[str, Any], name: str, argv: Sequence[str], *,
    wanted: bool = False, is_here: bool = False, submits: bool = False,
) -> str:  # fmt: skip
    """
    Return the help that is asked for, of a tool or of one of its subcommands; empty where none is.

    Args:
        tools: The catalogue's mapping.
        name: The tool.
        argv: What follows.
        wanted: Whether it is asked for before the tool's name.
        is_here: Whether the tool can be called here; else it is always to be submitted. A module that is here has help
            of its own.
        submits: Whether a submit asks; its help is ours, whatever the tool is.
    """

    def called(command: str, spec: Mapping[str, Any]) -> str:
        submit = "submit " if submits or not is_here or spec.get("long_running") else ""
        return f"animaworks-tool {submit}{arguments.usage_of(command, spec)}"

    specs = tools.get(name, {})
    if wanted or (argv and argv[0] in arguments.HELP and arguments.typed(specs)):
        return "".join(f"usage: {called(command, spec)}\n" for command, _, spec in arguments.commands({name: specs}))
    if not arguments.asks_help(specs, argv):
        return ""
    subcommand, spec = arguments.find(tools, name, arguments.before_dashes(argv))
    command, has_own = arguments.command(name, subcommand, spec), spec["parameters"] is None and "usage" not in spec
    if has_own and is_here and not submits:
        return ""
    _, _, more = (spec.get("usage") or "").partition("\n")
    if has_own and any(each.get("direct") for each in specs.values()):
        more = f"`animaworks-tool {command} --help` shows more"
    text = help_text(called(command, spec), spec.get("summary", ""), map(_row, spec["parameters"] or ()))
    return f"{text}\n{more}\n" if (more := more.strip("\n")) else text


def _row(parameter: Mapping[str, Any]) -> tuple[str, str]:
    text, default = parameter.get("help", ""), parameter.get("default")
    more = "" if default in (None, False, []) else f"(default: {default})"
    return arguments.usage("", [parameter]).strip(), f"{text} {more}".strip()


def named_anima(given: str | None) -> str | None:
    """Return the Anima's directory, or None where there is none: tools that are no Anima's can do without."""
    return anima_dir(given) if named(given) or os.path.isdir(layouts.home()) else None


def registry_of(options: SimpleNamespace, anima: str | None) -> Registry:
    """
    Return the tools that *options* name, and after them those that are always looked for.

    Raises:
        TasksError: What was named is not there, or does not load.
    """
    found = Registry()
    if options.registry:
        sys.path.insert(0, os.getcwd())  # as `python -m` does; for a console script it is the script's directory
    for path in options.registry:
        load_import_path(found, path)
    for directory in options.tools:
        if not os.path.isdir(directory):
            raise TasksError(f"there is no directory {directory}: correct --tools")
        load_directory(found, directory)
    if anima is not None:
        found.add_registry(discover(anima), skip_taken=True)
        return found
    everybodys = Registry()
    load_entry_points(everybodys)
    load_directory(everybodys, _common_tools(), direct=True)
    found.add_registry(everybodys, skip_taken=True)
    return found


def no_tools(options: SimpleNamespace) -> str:
    """Return a message: where no tools were found, and what to do."""
    own = named(options.anima_dir) or layouts.home()
    places = [os.path.join(own, "tools"), _common_tools()]
    remedy = "put one there, install a package of them, or name others with --tools or --registry"
    return f"there are no tools in {' or '.join(places)}: {remedy}"


def report_problems(registry: Registry) -> None:
    """Write to stderr which files are no tools, and why."""
    for where, reason in registry.problems:
        say(f"did not load: {one_line(where, 300)}: {one_line(reason, 500)}")


def _known(options: SimpleNamespace) -> tuple[str, Mapping[str, Any], Registry]:
    """Return the host's catalogue if there is one, or else what is found here; and the registry it was found with."""
    anima = named_anima(options.anima_dir)
    if anima is not None and not options.tools and not options.registry:
        layout = layouts.Layout(anima)
        try:
            return "catalogue", read_tools(layout), Registry()
        except FileNotFoundError:  # no host has been here yet
            pass
        except (OSError, ValueError) as error:
            reason = one_line(getattr(error, "strerror", None) or str(error), 200)
            say(f"the host's tools cannot be listed: {layout.catalogue}: {reason}; `animaworks-tool doctor` says more")
    registry = registry_of(options, anima)
    return "files", registry.catalogue()["tools"], registry


def _common_tools() -> str:
    return os.path.join(layouts.data_dir(os.environ), "common_tools")


def _rows(tools: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for command, _, spec in arguments.commands(tools):
        mark, seconds = ("⚠", spec["expected_seconds"]) if spec["long_running"] else ("", None)
        takes = "" if seconds is None else duration(seconds)
        yield mark, arguments.usage_of(command, spec), takes, one_line(spec["summary"], 200)
