"""
Where tools come from besides code that registers them: directories, packages, import paths, and entry points.

A tool that does not load is listed in the registry's problems, with the reason, and breaks nothing else.

A file is a tool if it has EXECUTION_PROFILE and ``cli_main`` (then it is named after the file), or if it makes a
:class:`Registry` and registers functions there, or both. One that makes no Registry is not executed if its profile is a
literal; one that does is, once per process.
"""

import functools
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Final

from animaworks_tasks.errors import RegistryError, ToolLoadError
from animaworks_tasks.fs import files, layout
from animaworks_tasks.tools import profile
from animaworks_tasks.tools.reference import Reference, failing_as_tool
from animaworks_tasks.tools.registry import Permits, Registry, Veto
from animaworks_tasks.tools.tool import FunctionTarget

ENTRY_POINTS: Final = "animaworks_tasks.tools"

_EMPTY: Final = "its Registry is empty; register functions in it before it is looked at, when the module is imported"
_NAME_IT: Final = (
    "; a function that is to be a tool itself is registered with @registry.tool(...), and the registry is what is named"
)
_FILLED_NOTHING: Final = f"it was called with a Registry, and put nothing into it{_NAME_IT}"
_FILLS_NOTHING: Final = f"a function that is named is called with a Registry to fill, and this one fills none{_NAME_IT}"


def discover(
    anima_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    core: str | None = None,
    permits: Permits | None = None,
    veto: Veto | None = None,
) -> Registry:
    """
    Return the tools that are installed for one Anima: what a host runs.

    Of several tools with one name the first wins, and this is the order: the core's, entry points, the Anima's own
    (``<anima_dir>/tools``), the common ones (``<data_dir>/common_tools``). What does not load is in
    :attr:`Registry.problems`, with its reason, and breaks nothing else.

    Args:
        anima_dir: The Anima's directory. It need not have tools.
        data_dir: AnimaWorks' data directory; None is ``ANIMAWORKS_DATA_DIR`` or else ``~/.animaworks``.
        core: A package whose modules are tools, ``"core.tools"`` in AnimaWorks; None for none.
        permits: Which permissions are given; see :attr:`Registry.permits`.
        veto: Which calls are refused; see :attr:`Registry.veto`.

    Raises:
        ToolLoadError: There is no package *core*, or it does not import. A module in it that does not is a problem.
    """
    registry = Registry(permits=permits, veto=veto)
    if core is not None:
        load_package(registry, core)
    load_entry_points(registry)
    load_directory(registry, Path(anima_dir) / "tools", direct=True)
    load_directory(registry, Path(data_dir or layout.data_dir(os.environ)) / "common_tools", direct=True)
    return registry


def load_directory(registry: Registry, directory: str | os.PathLike[str], *, direct: bool = False) -> None:
    """
    Add the tools in the ``*.py`` files of *directory*, in the order of their names.

    A leading ``_`` is no tool. One tool may have its subcommands in several files; a file with a subcommand that an
    earlier one has is a problem. A tool whose name is taken in *registry* is passed over: that one has precedence.

    Args:
        registry: Where they are added.
        directory: It need not be there.
        direct: It is one where ``animaworks-tool`` looks by itself, so the guide may have them called directly.
    """
    try:
        names = sorted(files.names(os.fspath(directory)))
    except OSError as error:
        registry.problems.append((str(directory), f"{type(error).__name__}: {error}"))
        return
    paths = [Path(directory, name) for name in names if name.endswith(".py") and not name.startswith(("_", "."))]
    _load_together(registry, [(path.stem, str(path)) for path in paths if path.is_file()], direct=direct)


def load_package(registry: Registry, package: str) -> None:
    """
    Add the tools in the modules of an importable package (AnimaWorks' own: ``core.tools``), as :func:`load_directory`.

    A shell can call them directly, by AnimaWorks' own command, which is installed with them.

    Raises:
        ToolLoadError: There is no such package.
    """
    found = pkgutil.iter_modules([os.path.dirname(Reference.find(package).file)])
    # In AnimaWorks a package is what tools share.
    names = [each.name for each in found if not each.name.startswith("_") and not each.ispkg]
    _load_together(registry, [(name, f"{package}.{name}") for name in names], direct=True)


def load_entry_points(registry: Registry) -> None:
    """
    Add the tools that installed packages offer in the group ``animaworks_tasks.tools``.

    Each is a Registry, a callable that fills the Registry it is given, or a module as in a directory, which is named
    after the entry point. A tool whose name is taken is passed over, and listed as a problem: it was installed to be
    used.
    """
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        where = f"entry point {entry.name}"
        found = _try(registry, where, entry.name, entry.module, entry.attr or "")
        registry.problems += [(where, reason) for reason in _passed_over(found, registry)]
        registry.add_registry(found, skip_taken=True, direct=True)


def load_import_path(registry: Registry, path: str) -> None:
    """
    Add the tools at an import path, ``package.module`` or ``package.module:attribute``; as an entry point.

    Where *registry* has no :attr:`Registry.permits`, it takes over that of the Registry found there. Of two with a
    :attr:`Registry.veto` both are asked.

    Raises:
        ToolLoadError: It does not load.
        RegistryError: It is none of the things that an entry point can be.
    """
    module, _, qualname = path.partition(":")
    reference = Reference.find(module, qualname)
    name = reference.module.rpartition(".")[2] or Path(reference.file).stem
    found = _tools_at(name, reference)
    registry.add_registry(found, skip_taken=True)
    _take_over(registry, found)


def _load_together(registry: Registry, modules: Sequence[tuple[str, str]], *, direct: bool = False) -> None:
    """Add the tools of modules that lie side by side, each given by its name and its import path or file."""
    here, places = Registry(), dict[str, str]()
    for name, where in modules:
        found = _try(here, where, name, where)
        known = set(map(id, here.tools()))  # a file may share the tools of its Registry with others
        new = [tool for tool in found.tools() if id(tool) not in known]
        clash = next((tool for tool in new if tool.key in places), None)
        if clash is not None:
            reason = f"there is a tool {clash.command!r} in {places[clash.key]} already; choose another subcommand"
            here.problems.append((where, f"nothing of it is taken: {reason}"))
            continue
        places |= {tool.key: where for tool in new}
        here.add_registry(found)
    registry.add_registry(here, skip_taken=True, direct=direct)


def _try(registry: Registry, where: str, name: str, module: str, qualname: str = "") -> Registry:
    """Return the tools at a module or an attribute; where that fails, none, and a problem in *registry*."""
    try:
        return _tools_at(name, Reference.find(module, qualname))
    except (RegistryError, ToolLoadError) as error:
        reason = error.reason if isinstance(error, ToolLoadError) and error.tool == where else str(error)
        if reason.startswith(f"{where} "):  # the problem names the place already
            reason = f"it {reason.removeprefix(f'{where} ')}"
        registry.problems.append((where, reason))
        return Registry()


def _passed_over(found: Registry, registry: Registry) -> list[str]:
    """Return a sentence for each tool in *found* that is not added, because *registry* has its name."""
    known = registry.tools()
    first = {tool.name: tool for tool in reversed(known)}
    names = dict.fromkeys(tool.name for tool in found.tools() if tool.name in first and tool not in known)
    there = "its tool {!r} is passed over: there is one of this name already{}; give it another name"
    return [there.format(name, first[name].whence) for name in names]


def _take_over(registry: Registry, other: Registry) -> None:
    """Let *registry* have the permissions of *other*, if it has none; of two vetoes both are asked."""
    registry.permits = other.permits if registry.permits is None else registry.permits
    if registry.veto is None or registry.veto is other.veto:
        registry.veto = other.veto
    elif other.veto is not None:
        registry.veto = functools.partial(_first_refusal, registry.veto, other.veto)


def _first_refusal(one: Veto, other: Veto, tool: str, subcommand: str, argv: tuple[str, ...]) -> str | None:
    said = one(tool, subcommand, argv)
    return other(tool, subcommand, argv) if said is None else said


def _tools_at(name: str, reference: Reference) -> Registry:
    """Return what *reference* leads to as a registry; a module with a profile becomes the tool *name*."""
    found = Registry()
    if not reference.qualname and profile.read(reference) is not None:
        found.add_module(name, reference.module or reference.file)
        if not profile.makes_registry(reference):
            return found
    code = reference.load()
    objects = vars(code).values() if isinstance(code, ModuleType) else [code]
    registries = {id(each): each for each in objects if isinstance(each, Registry)}  # one may have two names
    for each in registries.values():
        found.add_registry(each)
        _take_over(found, each)
    if callable(code):
        if not _fills_registries(code):
            raise RegistryError(f"{reference} has no tools: {_FILLS_NOTHING}")
        with failing_as_tool(str(reference)):
            code(found)
    elif not registries and not found.tools():
        helper = "" if reference.module else " (a helper beside tools has a name that begins with _)"
        raise RegistryError(f"{reference} is no tool: {profile.lack(code)}{helper}")
    if not found.tools() and not found.problems:
        raise RegistryError(f"{reference} has no tools: {_FILLED_NOTHING if callable(code) else _EMPTY}")
    return found


def _fills_registries(function: Callable[..., object]) -> bool:
    """Return whether calling *function* with a Registry could fill it: it takes one, is not async, and is no tool."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    around = [each for each in vars(module).values() if isinstance(each, Registry)] if module else []
    targets = [tool.target for registry in around for tool in registry.tools()]
    is_tool = any(isinstance(target, FunctionTarget) and target.function is function for target in targets)
    if is_tool or inspect.iscoroutinefunction(function):
        return False
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError) as error:
        return isinstance(error, ValueError)  # of a builtin, which has no signature: perhaps
    return True
