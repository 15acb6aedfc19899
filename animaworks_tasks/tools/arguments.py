"""
What a tool takes, as plain data, and a small parser over it.

A parameter is a JSON-able mapping, the same in a registry and in the catalogue that the host publishes:

    name     the Python parameter; ``some_name`` is ``--some-name`` on the command line
    kind     "positional", "option" (takes a value) or "flag" (``--name`` / ``--no-name``)
    type     "str", "int", "float", "bool" or "path"
    choices  what it may be, as text; absent: anything of its type
    default  what it is if not given, as far as JSON can say it; absent: it must be given
    many     a positional that takes the rest, or an option that may be repeated
    help     one line for people

Nothing but our errors is imported here, and the parser is our own: `animaworks-tool submit` checks arguments with it,
and argparse alone would take longer to import than the whole check may.
"""

from __future__ import annotations

from animaworks_tasks.errors import UnknownToolError, WrongArgumentError

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Final

    Parameter = Mapping[str, Any]
    Spec = Mapping[str, Any]
    Tools = Mapping[str, Mapping[str, Spec]]

HELP: Final = ("-h", "--help")
_VALUES = {"int": "INT", "float": "NUMBER", "path": "PATH"}  # how usage writes the value of an option; else TEXT


def parse(command: str, parameters: Sequence[Parameter], argv: Sequence[str]) -> dict[str, Any]:
    """
    Return the values in *argv*, the words after the subcommand, by the names of the *parameters*.

    What was not given is not in it: the function's own default applies.

    Args:
        command: ``tool subcommand``, for the usage line.
        parameters: What the command takes.
        argv: Options may stand anywhere; ``--`` ends them. A negative number is a value.

    Raises:
        WrongArgumentError: Something is missing, unknown, given twice, or not of its type.
    """
    try:
        return _values(parameters, *_sort(parameters, argv))
    except ValueError as wrong:
        raise WrongArgumentError(str(wrong), usage(command, parameters)) from None


def usage_of(command: str, spec: Spec) -> str:
    """Return the line that shows how *command* is called: of what only the tool knows, what its author says of it."""
    if spec["parameters"] is not None:
        return usage(command, spec["parameters"])
    text = spec.get("usage")
    return f"{command} {'...' if text is None else ''.join(text.splitlines()[:1])}".rstrip()


def usage(command: str, parameters: Sequence[Parameter]) -> str:
    """Return the line that shows how *command* is called."""
    ordered = sorted(parameters, key=lambda parameter: parameter["kind"] != "positional")
    return " ".join([command, *map(_fragment, ordered)])


def split(tools: Tools, name: str, argv: Sequence[str]) -> tuple[str, list[str]]:
    """
    Return the tool and the words of a call; ``TOOL:SUBCOMMAND``, as notifications write it, is two of them.

    A tool that has that very name is meant by it; a subcommand that is not typed is left out.
    """
    tool, _, subcommand = name.partition(":")
    if name in tools or not tool or not subcommand:
        return name, [*argv]
    is_typed = tools.get(tool, {}).get(subcommand, {}).get("named", True) is not False
    return tool, [subcommand, *argv] if is_typed else [*argv]


def asks_help(specs: Mapping[str, Spec], argv: Sequence[str]) -> bool:
    """
    Return whether *argv* asks what a tool with these *specs* takes: with ``--help``, anywhere before a ``--``.

    ``-h`` asks it too, but after the subcommand of a tool that parses its own words: there it is for the tool.
    """
    words = before_dashes(argv)
    if "--help" in words or words[:1] == ["-h"]:
        return True
    position = locate(typed(specs), words)
    return "-h" in words and position is not None and specs[words[position]]["parameters"] is not None


def before_dashes(argv: Sequence[str]) -> list[str]:
    """Return the words of *argv* before the first ``--``."""
    return [*argv[: argv.index("--")]] if "--" in argv else [*argv]


def find(tools: Tools, tool: str, argv: Sequence[str]) -> tuple[str, Spec]:
    """
    Return the subcommand that *argv* names, and its entry in the catalogue.

    It is the first word that is one of the tool's subcommands: ``-m llama3 generate hello`` is ``generate``. A word
    that may be the value of the option before it counts only where no other can be meant. Where only a module's own
    parser knows what a word means, the entry is one that says nothing but that.

    Raises:
        UnknownToolError: There is no such tool, or none of its subcommands is named.
    """
    subcommands = tools.get(tool)
    if subcommands is None:
        raise UnknownToolError(f"there is no tool {tool!r} (`animaworks-tool tools` lists all){nearest(tool, tools)}")
    subcommand = _meant(subcommands, argv)
    if subcommand is None:
        known = typed(subcommands)
        raise UnknownToolError(_no_subcommand(tool, known, argv), f"{tool} {{{','.join(known)}}} ...")
    return subcommand, subcommands.get(subcommand, {"parameters": None})


def commands(tools: Tools) -> Iterator[tuple[str, str, Spec]]:
    """Yield what is typed before the arguments of each tool, the subcommand that this means, and its entry."""
    for name, specs in tools.items():
        for each in typed(specs) or ([_first(specs)] if specs else []):
            yield command(name, each, specs[each]), each, specs[each]


def command(tool: str, subcommand: str, spec: Spec) -> str:
    """Return what is typed before the arguments of a call; *spec* is its entry."""
    return tool if spec.get("named") is False else f"{tool} {subcommand}"


def typed(specs: Mapping[str, Spec]) -> list[str]:
    """Return the subcommands that are typed; none where the words of a module's parser are no subcommands."""
    return [each for each, spec in specs.items() if spec.get("named") is not False]


def _first(specs: Mapping[str, Spec]) -> str:
    """Return the subcommand for which most is to be done: of two that could be meant, the one that is gated."""
    return min(specs, key=lambda each: (not specs[each]["gated"], not specs[each]["long_running"]))


def _meant(specs: Mapping[str, Spec], argv: Sequence[str]) -> str | None:
    """Return the subcommand that *argv* means, as :func:`find` says, or None."""
    subcommands = typed(specs)
    if not subcommands:
        return _first(specs) if specs else None
    position = locate(subcommands, argv)
    if position is not None:
        # An option before it may be a flag, and a value of it the subcommand: one that is gated is never missed.
        gated = (word for word in argv[:position] if word in subcommands and specs[word].get("gated"))
        return next(gated, argv[position])
    word = next((word for word in argv if not _is_option(word)), "")
    if not word or any(spec.get("named", True) is not None or spec["gated"] for spec in specs.values()):
        return None  # of what is gated, a name that is not known could be another
    is_name = word[0].isalnum() and all(each.isalnum() or each in "_-." for each in word)
    return word if is_name else _first(specs)


def locate(subcommands: Collection[str], argv: Sequence[str]) -> int | None:
    """Return where in *argv* the subcommand stands, or None; see :func:`find`."""
    found = [i for i, word in enumerate(argv) if word in subcommands]
    free = [i for i in found if i == 0 or not _is_option(argv[i - 1]) or "=" in argv[i - 1]]
    return next(iter(free or found), None)


def check(tools: Tools, tool: str, argv: Sequence[str]) -> str:
    """
    Check a call against the catalogue and return its subcommand.

    Where the catalogue knows no parameters (modules and commands parse their own), only the subcommand is checked; and
    that nobody asks for the help of a command, which may not know the word, and do something else.

    Raises:
        UnknownToolError: As :func:`find`.
        WrongArgumentError: As :func:`parse`, or something stands before the subcommand, or ``--help`` before a ``--``.
    """
    subcommand, spec = find(tools, tool, argv)
    parameters = spec["parameters"]
    if (parameters is not None or "usage" in spec) and "--help" in before_dashes(argv):
        problem = f"--help is for people: `animaworks-tool {tool} {subcommand} --help` prints what this takes"
        raise WrongArgumentError(f"{problem}; a tool gets the word after --", usage_of(f"{tool} {subcommand}", spec))
    if parameters is not None:
        command = f"{tool} {subcommand}"
        if argv[0] != subcommand:
            problem = f"{argv[0]!r} stands before the subcommand {subcommand!r}: write everything after it"
            raise WrongArgumentError(problem, usage(command, parameters))
        parse(command, parameters, argv[1:])
    return subcommand


def option_words(parameter: Parameter) -> dict[str, bool | None]:
    """Return the words that give *parameter*, each with what it sets a flag to; empty for a positional."""
    name = parameter["name"].strip("_").replace("_", "-")
    if parameter["kind"] == "flag":
        return {f"--{name}": True, f"--no-{name}": False}
    return {f"--{name}": None} if parameter["kind"] == "option" else {}


def convert(parameter: Parameter, text: str) -> str | int | float:
    """
    Return *text* as the JSON value that *parameter* wants.

    Raises:
        ValueError: It is none of the choices, or not of the type; the message says so, without naming the parameter.
    """
    choices = parameter.get("choices")
    if choices is not None and text not in choices:
        raise ValueError(f"cannot be {text!r}{nearest(text, choices)}")
    try:
        if parameter["type"] == "int":
            return int(text)
        if parameter["type"] == "float":
            number = float(text)
            if number - number == 0:  # neither nan nor infinite: JSON has no word for those
                return number
            raise ValueError  # noqa: TRY301 - the two ways of being no number share one message
    except ValueError:
        wanted = "a whole number" if parameter["type"] == "int" else "a finite number"
        raise ValueError(f"must be {wanted}, not {text!r}") from None
    return text


def _sort(parameters: Sequence[Parameter], argv: Sequence[str]) -> tuple[list[str], dict[str, list[str | bool]]]:
    """Return the words that belong to no option, and what was given to each option, by parameter."""
    options = {word: (each, setting) for each in parameters for word, setting in option_words(each).items()}
    words: list[str] = []
    given: dict[str, list[str | bool]] = {}
    rest = list(reversed(argv))
    while rest:
        word = rest.pop()
        if word == "--":
            words += reversed(rest)
            break
        if not _is_option(word):
            words.append(word)
            continue
        option, equals, text = word.partition("=")
        if option not in options:
            raise ValueError(f"unknown option {option}{nearest(option, options) or ': it takes none'}")
        parameter, setting = options[option]
        if parameter["name"] in given and not parameter.get("many"):
            raise ValueError(f"{option} is given twice")
        if setting is not None and equals:
            raise ValueError(f"{option} takes no value")
        if setting is None and not equals:
            if not rest or _is_option(rest[-1]):
                raise ValueError(f"{option} needs a value (one that begins with a dash: {option}=VALUE)")
            text = rest.pop()
        given.setdefault(parameter["name"], []).append(text if setting is None else setting)
    return words, given


def _values(parameters: Sequence[Parameter], words: list[str], given: dict[str, list[str | bool]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    missing = []
    for parameter in parameters:
        texts: Sequence[str | bool] = given.get(parameter["name"], [])
        if parameter["kind"] == "positional":
            texts, words = (words, []) if parameter.get("many") else (words[:1], words[1:])
        if texts:
            try:
                converted = [text if isinstance(text, bool) else convert(parameter, text) for text in texts]
            except ValueError as error:
                raise ValueError(f"{_label(parameter)} {error}") from None
            values[parameter["name"]] = converted if parameter.get("many") else converted[0]
        elif "default" not in parameter:
            missing.append(_label(parameter))
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    if words:
        raise ValueError(f"{words[0]!r} is one word too many (a value with spaces needs quotes)")
    return values


def _is_option(word: str) -> bool:
    """Return whether *word* begins like an option; ``-`` alone and negative numbers are values."""
    try:
        float(word)
    except ValueError:
        return word.startswith("-") and word != "-"
    return False


def _label(parameter: Parameter) -> str:
    """Return *parameter* as a person would write it."""
    return " or ".join(option_words(parameter)) or str(parameter["name"]).strip("_").upper()


def _fragment(parameter: Parameter) -> str:
    """Return one parameter as it stands in the usage line."""
    choices = "{" + ",".join(parameter["choices"]) + "}" if "choices" in parameter else ""
    optional = "default" in parameter
    if parameter["kind"] == "positional":
        text = (choices or _label(parameter)) + (" ..." if parameter.get("many") else "")
        return f"[{text}]" if optional else text
    words = list(option_words(parameter))
    if parameter["kind"] == "flag":
        if optional and parameter["default"] is not None:
            return f"[{words[bool(parameter['default'])]}]"  # only the word that changes something
        return f"[{' | '.join(words)}]" if optional else f"({' | '.join(words)})"
    text = f"{words[0]} {choices or _VALUES.get(parameter['type'], 'TEXT')}"
    return (f"[{text}]" if optional else text) + ("..." if parameter.get("many") else "")


def _no_subcommand(tool: str, subcommands: Collection[str], argv: Sequence[str]) -> str:
    others = [word for word in argv if not _is_option(word)]
    position = locate(others, argv)
    if position is None:
        return f"{tool} needs a subcommand: {', '.join(subcommands)}"
    return f"{tool} has no subcommand {argv[position]!r}{nearest(argv[position], subcommands)}"


def nearest(word: str, names: Iterable[str]) -> str:
    """Return what may have been meant by *word*, as the end of a sentence; empty if there is nothing to choose from."""
    from difflib import get_close_matches  # here, because only an error should pay for it

    names = list(names)
    if near := [name for name in names if name.startswith(word)] or get_close_matches(word, names):
        return f": did you mean {' or '.join(near)}?"
    return f": choose from {', '.join(names)}" if names else ""
