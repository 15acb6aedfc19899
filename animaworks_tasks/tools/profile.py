"""
Modules as AnimaWorks writes its tools: EXECUTION_PROFILE, a mapping from subcommand to facts, and ``cli_main(argv)``.

    EXECUTION_PROFILE = {"3d": {"expected_seconds": 600, "background_eligible": True}}

A profile that is a literal is read from the source: importing such a module can take half a second, and asking whether
a tool is long-running must not.
"""

import ast
import inspect
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from typing import Any, Final

from animaworks_tasks.errors import RegistryError, ToolLoadError
from animaworks_tasks.tools.reference import Reference
from animaworks_tasks.tools.tool import NAME, Tool

UNKNOWN_TIME: Final = 60  # seconds; of a subcommand that takes long, whose profile gives no number
PROFILE: Final = "EXECUTION_PROFILE"
MAIN: Final = "cli_main"
_OF_A_PARSER: Final = {"add_parser", "add_subparsers", "parse_args"}  # methods

_ASYNC: Final = f"its {MAIN} is async: called, it would run nothing. Make it a plain one that calls asyncio.run(...)"

_MOST_FACADES: Final = 4  # AnimaWorks' image_gen has its profile from a module that has it from another one
_TOO_DEEP: Final = (RecursionError, MemoryError)  # what ast says of source that is nested too deeply

_Bound = ast.expr | ast.stmt | None  # the value of a name, or the statement that binds it

_FACTS: Final[Mapping[str, tuple[type, ...]]] = {
    "expected_seconds": (int, float, type(None)),
    "background_eligible": (bool,),
    "gated": (bool,),
    "summary": (str,),
}
_EXPECTED: Final = (
    f"{PROFILE} must be a dict of subcommands, each with 'background_eligible' (a bool) and perhaps 'expected_seconds' "
    "(a number), 'gated' (a bool) and 'summary' (text)"
)


def read(reference: Reference) -> object | None:
    """
    Return the profile of the module at *reference*, unchecked; None if it has none, or no ``cli_main``.

    The module is imported only if the profile is no literal.

    Raises:
        RegistryError: Its ``cli_main`` is async.
        ToolLoadError: It is not Python, or had to be imported and that failed.
    """
    literal = _read_literal(reference) if reference.file.endswith(".py") else None
    if literal is not None:
        return literal
    module = reference.load()
    profile: object = getattr(module, PROFILE, None)
    main = getattr(module, MAIN, None)
    if profile is None or not callable(main):
        return None
    if inspect.iscoroutinefunction(main):
        raise RegistryError(f"{reference} is no tool: {_ASYNC}")
    return profile


def lack(module: object) -> str:
    """Return what *module* lacks to be a tool, as a clause."""
    has_profile, has_main = getattr(module, PROFILE, None) is not None, callable(getattr(module, MAIN, None))
    if has_profile == has_main:
        return f"it has neither {PROFILE} and {MAIN}, nor a Registry"
    return f"it has {PROFILE}, and no function {MAIN}(argv)" if has_profile else f"it has {MAIN}, and no {PROFILE}"


def makes_registry(reference: Reference) -> bool:
    """Return whether the source of a module makes a :class:`Registry` of ours at its top, without running it."""
    bound = _names(reference) if reference.file.endswith(".py") else {}
    ours = {
        name
        for name, value in bound.items()
        if isinstance(value, ast.ImportFrom) and str(value.module).partition(".")[0] == "animaworks_tasks"
        if any(each.name == "Registry" and (each.asname or each.name) == name for each in value.names)
    }
    calls = [ast.unparse(value.func) for value in bound.values() if isinstance(value, ast.Call)]
    return not ours.isdisjoint(calls) or "animaworks_tasks.Registry" in calls


def check(profile: object) -> dict[str, dict[str, Any]]:
    """
    Return what :class:`Tool` calls the facts in *profile*, by subcommand.

    Raises:
        RegistryError: It lacks something or has it in another type; the message says what is expected.
    """
    if not isinstance(profile, Mapping) or not profile:
        raise RegistryError(f"{_EXPECTED}, not {profile!r}")
    return {subcommand: _check(subcommand, facts) for subcommand, facts in profile.items()}


def subcommands(reference: Reference) -> list[tuple[list[str], str]] | None:
    """
    Return the subcommands of the argparse parser that ``cli_main`` makes: the names and the help of each.

    Nothing is executed. Empty where the parser has none, and its words are what the tool takes; None where the source
    does not tell, or where another function was given the parser, and may have added more.
    """
    try:
        main = _names(reference).get(MAIN)
        main = _names(_module(main, reference)).get(MAIN) if isinstance(main, ast.ImportFrom) else main
        calls = [node for node in ast.walk(main or ast.Pass()) if isinstance(node, ast.Call)]
        calls.sort(key=lambda node: (node.end_lineno, node.end_col_offset))
        methods = [(*ast.unparse(node.func).rpartition(".")[::2], node) for node in calls]
        added = [(of, node) for of, method, node in methods if method == "add_parser"]
        found = [_subcommand(node) for of, node in added if of == added[0][0]]  # deeper ones are added to one of these
        handed_on = {*_handed_on(calls)}
    except (ToolLoadError, ImportError, ValueError, TypeError, *_TOO_DEEP):
        return None
    names, parsers = {method for _, method, _ in methods}, {of for of, method, _ in methods if method in _OF_A_PARSER}
    is_whole = bool(added) == ("add_subparsers" in names) and parsers and parsers.isdisjoint(handed_on)
    return found if is_whole and "ArgumentParser" in names else None


def of_parser(own: list[tuple[list[str], str]], profile: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """
    Return the facts of a parser's subcommands, as *profile* has them under one of their names, with - or _.

    What is not there is quick. It is gated only where the profile gates what the parser has not: it may be the same.
    Each has its permission's word besides, ``gate``.
    """
    facts, spelt = {}, {name.replace("-", "_") for names, _ in own for name in names}
    gates_another = any(each["gated"] for name, each in profile.items() if name.replace("-", "_") not in spelt)
    for names, text in own:
        same = {name.replace("-", "_") for name in names}
        there = [each for each in profile if each.replace("-", "_") in same]
        gate = max(there, key=lambda each: profile[each]["gated"], default=names[0])
        known = profile.get(gate, {"long_running": False, "gated": gates_another})
        for name in names:
            facts[name] = known | {"summary": known.get("summary") or text, "gate": gate}
    return facts


def of(tool: Tool) -> dict[str, Any]:
    """Return the facts of *tool* as a profile would have them."""
    return {"expected_seconds": tool.expected_seconds, "background_eligible": tool.long_running, "gated": tool.gated}


def _check(subcommand: object, facts: object) -> dict[str, Any]:
    if not isinstance(subcommand, str) or not isinstance(facts, Mapping):
        raise RegistryError(f"{_EXPECTED}, not {subcommand!r}: {facts!r}")
    facts = {"expected_seconds": None, "background_eligible": None, "gated": False, "summary": ""} | dict(facts)
    if wrong := [name for name, types in _FACTS.items() if type(facts[name]) not in types]:
        raise RegistryError(f"{subcommand!r} has no usable {' and '.join(map(repr, wrong))}: {_EXPECTED}")
    facts["long_running"] = facts["background_eligible"]
    if facts["long_running"] and facts["expected_seconds"] is None:
        facts["expected_seconds"] = UNKNOWN_TIME
    return {name: facts[name] for name in ("expected_seconds", "long_running", "gated", "summary")}


def _subcommand(call: ast.Call) -> tuple[list[str], str]:
    """Return the names that a call of ``add_parser`` gives, and its help; a ValueError where they are no literals."""
    given = {"help": ast.Constant(""), "aliases": ast.Tuple([])} | {each.arg: each.value for each in call.keywords}
    names = [*map(ast.literal_eval, call.args[:1]), *ast.literal_eval(given["aliases"])]
    text = given["help"].value if isinstance(given["help"], ast.Constant) else ""
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(names)
    return [name for name in names if re.fullmatch(NAME, name)], text if isinstance(text, str) else ""


def _handed_on(calls: list[ast.Call]) -> Iterator[str]:
    """Yield the names among the arguments of *calls*, alone or in a list: a parser, or its ``add_parser``."""
    for call in calls:
        for value in (*call.args, *(each.value for each in call.keywords)):
            for each in (value, *getattr(value, "elts", ())):
                if isinstance(each, ast.Name | ast.Attribute):
                    yield ast.unparse(each).removesuffix(".add_parser")


def _read_literal(reference: Reference) -> object | None:
    bound = _names(reference)
    value = _follow(bound.get(PROFILE), reference)
    if MAIN not in bound or value is None:
        return None
    main = bound[MAIN]
    if isinstance(main, ast.AsyncFunctionDef) and not main.decorator_list:  # which may make a plain function of it
        raise RegistryError(f"{reference} is no tool: {_ASYNC}")
    try:
        profile: object = ast.literal_eval(value)
    except (ValueError, TypeError, *_TOO_DEEP):  # a name or a call; an unhashable key
        return None
    return profile


def _follow(value: _Bound, there: Reference) -> ast.expr | None:
    """Return the profile that *there* imports, perhaps through other modules, without executing any of them."""
    name = PROFILE
    for _ in range(_MOST_FACADES):
        if not isinstance(value, ast.ImportFrom):
            return value if isinstance(value, ast.expr) else None
        name = next(each.name for each in value.names if (each.asname or each.name) == name)
        try:
            there = _module(value, there)
            value = _names(there).get(name)
        except (ToolLoadError, ImportError):  # importing the tool tells why, in Python's own words
            return None
    return None


def _module(statement: ast.ImportFrom, importer: Reference) -> Reference:
    """Return the module that *statement* imports from, found as Python would find it in directories."""
    is_package = os.path.basename(importer.file) == "__init__.py"
    package = importer.module if is_package else importer.module.rpartition(".")[0]
    name = resolve_name("." * statement.level + (statement.module or ""), package)
    places, file = None, ""
    for each in itertools.accumulate(name.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(each, places)
        if spec is None:
            raise ImportError(name)
        places, file = spec.submodule_search_locations or [], (spec.has_location and spec.origin) or ""
    return Reference(module=name, file=file)


def _names(reference: Reference) -> dict[str, _Bound]:
    try:
        with open(reference.file, "rb") as source:
            return dict(_bound(ast.parse(source.read(), os.path.basename(reference.file))))
    except (OSError, SyntaxError, ValueError, *_TOO_DEEP) as error:  # a ValueError is what null bytes raise
        raise ToolLoadError(str(reference), f"{type(error).__name__}: {error}") from error


def _bound(tree: ast.Module) -> Iterator[tuple[str, _Bound]]:
    """Yield the names bound at the top of a module, each with its value, or the statement that binds it."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node
            case ast.Assign(targets=targets, value=value):
                yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                yield name, value
            case ast.ImportFrom(names=names):
                yield from ((each.asname or each.name, node) for each in names)
