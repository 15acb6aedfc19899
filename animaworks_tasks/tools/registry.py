"""
The table of tools: typed functions, modules with EXECUTION_PROFILE, and commands, all by (tool, subcommand).

Errors in a tool are found when it is registered, errors in a call when it is submitted: :meth:`Registry.catalogue` is
all that a submitter in another process needs to check a call as the registry does.

A registry takes no locks: it is filled before it is used.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Self, TypeVar, Unpack

import attrs

from animaworks_tasks.errors import NotPermittedError, RegistryError, UnknownToolError, UsageError
from animaworks_tasks.task.model import words_of
from animaworks_tasks.tools import arguments, catalogue, guide, profile
from animaworks_tasks.tools.reference import Reference
from animaworks_tasks.tools.tool import CommandTarget, FunctionTarget, Tool, ToolOptions, make_tool

logger = logging.getLogger("animaworks_tasks")

Permits = Callable[[str], bool]
Veto = Callable[[str, str, tuple[str, ...]], str | None]
Specs = dict[str, dict[str, dict[str, Any]]]  # by tool and subcommand

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """
    The tools that a host can run.

    Attributes:
        problems: Pairs of a place and the reason why it has no tool; :func:`discover` and the like add to it.
        permits: Called with a permission, ``<tool>_<subcommand>``, from any thread, returns whether it is given. Where
            it raises, or is None, no permission is given. It is called at each submit and before each run. It stays in
            the host: another process gets the permissions that are given at that moment.
        veto: Called with tool, subcommand and ``argv`` (all words after the tool), from any thread, returns why the
            call must not be made, or None to let it pass; what it raises, or else returns, refuses it too. It is called
            at each submit of an executor, and before each run of a task, also of one that a shell submitted; no other
            task starts meanwhile. It stays in the host: another process runs only the very record that was asked about.
    """

    def __init__(self, *, permits: Permits | None = None, veto: Veto | None = None) -> None:
        self.permits = permits
        self.veto = veto
        self.problems: list[tuple[str, str]] = []
        self._tools: dict[str, dict[str, Tool]] = {}
        self._known_specs: Specs | None = None  # until a tool is added
        self._packed: tuple[frozenset[str], bytes] | None = None  # likewise, and for these permissions

    def tool(self, name: str, subcommand: str, **options: Unpack[ToolOptions]) -> Callable[[F], F]:
        """
        Register the decorated function, sync or async, and leave it as it is.

        Its signature is the command line: parameters without a default are positionals, those with one options, bools
        flags. A parameter annotated with ToolContext is given the context. The docstring's first line is the summary.

        Args:
            name: The tool.
            subcommand: Its subcommand; a tool may have many.
            **options: ``expected_seconds``: how long it takes, promised to the agent. ``long_running``: to be submitted
                instead of called; by default if it promises a time. ``timeout_seconds``: longest run; by default the
                larger of 1800 and twice the expectation. ``retries``: how often a failure is run again (0).
                ``on_interrupt``: "fail" or "retry", if its owner dies; ``max_attempts``: how many runs may end so (3).
                ``grace_seconds``: between SIGTERM and SIGKILL (5). ``summary``: instead of the docstring's. ``gated``:
                needs a permission. ``resource``: what only so many tasks may use at once, a GPU say (none).

        Raises:
            RegistryError: The name is taken, an option impossible, or the signature no command line.
        """

        def register(function: F) -> F:
            self.add(name, subcommand, function, **options)
            return function

        return register

    def add(self, name: str, subcommand: str, function: Callable[..., Any], **options: Unpack[ToolOptions]) -> None:
        """
        Register *function* as :meth:`tool` does, without a decorator.

        Raises:
            RegistryError: As :meth:`tool`.
        """
        self._put([make_tool(name, subcommand, FunctionTarget(Reference.to(function), function), **options)])

    def add_command(
        self, name: str, subcommand: str, argv: Sequence[str], *, usage: str | None = None,
        **options: Unpack[ToolOptions],
    ) -> None:  # fmt: skip
        """
        Register a plain command. There is no shell: *argv* is the program and its first arguments.

        Its ``--help`` prints what is said of it here. Only after a ``--``, which it gets too, is the word given to it.

        Args:
            name: The tool.
            subcommand: Its subcommand.
            argv: The words of a call follow, but for the subcommand.
            usage: What it takes: ``"ARCHIVE FILE..."``. The first line stands in the guide, more in ``--help``. By
                default ``...``; empty says that it takes nothing.
            **options: As for :meth:`tool`.

        Raises:
            RegistryError: As :meth:`tool`; or *argv* is empty or one string, or *usage* no text.
        """
        if isinstance(argv, str) or not argv or not all(isinstance(word, str) for word in argv):
            raise RegistryError(f"{name} {subcommand}: a command is a list of words, not {argv!r}: there is no shell")
        if not isinstance(usage, str | None):
            raise RegistryError(f"{name} {subcommand}: usage must be text that says what it takes, not {usage!r}")
        self._put([make_tool(name, subcommand, CommandTarget(tuple(argv), usage), **options)])

    def add_module(self, name: str, module: ModuleType | str | os.PathLike[str]) -> None:
        """
        Register every subcommand in the EXECUTION_PROFILE of a module, and of the argparse parser in its ``cli_main``.

        Both are read from the source if it tells them, and the module is not imported before it is called. If it does
        not tell what the parser has, and nothing in the profile is gated, any word is left to the parser.

        Args:
            name: The tool.
            module: The module, its import path, or its file (a path with a slash or ``.py``).

        Raises:
            RegistryError: It has no profile or no ``cli_main``, or one that cannot be used.
            ToolLoadError: There is no such module, or it had to be imported and that failed.
        """
        reference = Reference.to(module) if isinstance(module, ModuleType) else Reference.find(module)
        if reference is None:
            raise RegistryError(f"{name}: {module!r} has no file that another process could load")
        found = profile.read(reference)
        if found is None:
            lacks = profile.lack(reference.load())
            raise RegistryError(f"{reference} is no tool: {lacks}; what has a Registry is added with add_registry")
        try:
            facts = profile.check(found)
        except RegistryError as error:
            raise RegistryError(f"{name} ({reference}): {error}") from error
        target = FunctionTarget(attrs.evolve(reference, qualname=profile.MAIN))
        own = profile.subcommands(reference)
        if not own and len(facts) > 1:  # a word may be one of them after all
            own = None
        typed = profile.of_parser(own or [], facts)
        gates = {word: each.pop("gate") for word, each in typed.items()}
        tools = [make_tool(name, subcommand, target, **each) for subcommand, each in (facts | typed).items()]
        named = {tool.subcommand: None if own is None else tool.subcommand in typed for tool in tools}
        self._put(
            [attrs.evolve(each, named=named[each.subcommand], gate=gates.get(each.subcommand, "")) for each in tools]
        )

    def add_registry(self, other: Registry, *, skip_taken: bool = False, direct: bool = False) -> None:
        """
        Register every tool of *other* here too, and take over its problems. A tool that is here already stays once.

        Args:
            other: It stays as it is.
            skip_taken: Pass over all of a tool whose name is taken, instead of refusing a subcommand that is.
            direct: They stand where ``animaworks-tool`` looks by itself, so the guide may have them called directly.

        Raises:
            RegistryError: A name is taken; nothing was taken over.
        """
        known = {id(tool.target) for tool in self.tools()}
        new = [tool for tool in other.tools() if id(tool.target) not in known]
        tools = [tool for tool in new if not (skip_taken and tool.name in self._tools)]
        self._put([attrs.evolve(tool, direct=True) for tool in tools] if direct else tools)
        self.problems += other.problems

    def tools(self) -> list[Tool]:
        """Return all tools, in the order of their registration; the subcommands of a tool stand together."""
        return [tool for subcommands in self._tools.values() for tool in subcommands.values()]

    def get(self, name: str, subcommand: str) -> Tool:
        """
        Return one tool.

        Raises:
            UnknownToolError: There is none, and no call could mean one; the message names the nearest.
        """
        tool = self._tools.get(name, {}).get(subcommand)
        return tool or self._known(name, arguments.find(self._specs(), name, [subcommand])[0])

    def find(self, function: Callable[..., Any]) -> Tool:
        """
        Return the tool that *function* was registered as, the first if it was more than once.

        Raises:
            UnknownToolError: It was not.
        """
        for tool in self.tools():
            if isinstance(tool.target, FunctionTarget) and tool.target.function == function:
                return tool
        name = getattr(function, "__qualname__", repr(function))
        raise UnknownToolError(
            f"{name} is no tool of this registry: register it first, with @registry.tool(name, subcommand)"
        )

    def resolve(self, name: str, argv: Sequence[str]) -> Tool:
        """
        Return the tool that a call means, with its arguments checked as a submitter checks them.

        Args:
            name: The tool.
            argv: The subcommand and its arguments.

        Raises:
            UnknownToolError: There is no such tool or subcommand; the message names the nearest.
            WrongArgumentError: It does not take these arguments; or one before a ``--`` is ``--help``, which neither a
                typed function nor a command is ever given. To a module it is given: its own parser knows the word.
            TypeError: One of these is no text.
        """
        return self._known(name, arguments.check(self._specs(), name, words_of(argv)))

    def check_permission(self, tool: Tool) -> None:
        """
        Let *tool* pass if it is not gated, or its permission is given.

        Raises:
            NotPermittedError: It is gated, and the permission is not given.
        """
        if tool.permission is not None and not self._permitted(tool.permission):
            raise NotPermittedError(tool.command, tool.permission)

    def check_veto(self, tool: Tool, *calls: Sequence[str]) -> None:
        """
        Let *calls* of *tool* pass, each given by its ``argv``, if there is no veto, or it lets them pass.

        Raises:
            NotPermittedError: The veto refuses one of them, or failed; the error says why.
        """
        for argv in calls if self.veto is not None else ():
            if (refusal := _refusal(self.veto, tool, words_of(argv))) is not None:
                raise NotPermittedError(tool.command, None, refusal)

    def is_long_running(self, key: str) -> bool:
        """Return whether ``tool:subcommand`` is to be submitted; False where it is not registered."""
        name, _, subcommand = key.partition(":")
        tool = self._tools.get(name, {}).get(subcommand)
        return tool is not None and tool.long_running

    def profiles(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return all tools as their EXECUTION_PROFILE would have them: by tool, then by subcommand."""
        return {name: {each: profile.of(tool) for each, tool in tools.items()} for name, tools in self._tools.items()}

    def has_resources(self) -> bool:
        """Return whether any tool needs a resource."""
        return any(tool.resource is not None for tool in self.tools())

    def resource(self, name: str, argv: Sequence[str]) -> str | None:
        """Return the resource that a call needs; None where it needs none, or will be rejected."""
        try:
            return self.resolve(name, argv).resource
        except UsageError:
            return None

    def catalogue(self) -> dict[str, Any]:
        """Return what submitters in other processes need to know of the tools, as JSON: names, times, arguments."""
        return {"version": catalogue.VERSION, "tools": copy.deepcopy(self._specs())}

    def json_schema(self, name: str, subcommand: str) -> dict[str, Any]:
        """
        Return the arguments of a tool as a JSON Schema (draft 2020-12) of an object.

        Where only the tool knows its parameters, the object is ``{"argv": [...]}``: the words after the subcommand.

        Raises:
            UnknownToolError: There is no such tool.
        """
        return self.get(name, subcommand).json_schema()

    def guide(self, language: str = "ja") -> str:
        """
        Return the tool guide that goes into an agent's system prompt, in Markdown.

        Args:
            language: "ja" or "en"; for "ko" the guide is English.

        Raises:
            ValueError: It is none of these.
        """
        return guide.guide(self._specs(), language)

    def _known(self, name: str, subcommand: str) -> Tool:
        """Return a tool that the check has let pass; a module's own parser may know more than its profile."""
        tools = self._tools[name]
        if subcommand in tools:
            return tools[subcommand]
        return Tool(name=name, subcommand=subcommand, target=next(iter(tools.values())).target, named=None)

    def _permitted(self, permission: str) -> bool:
        try:
            return self.permits is not None and bool(self.permits(permission))
        except KeyboardInterrupt:
            raise
        except BaseException:  # the host's own code; whatever it raised, it did not give the permission
            logger.exception("%r raised when asked for %s, which is taken for a no", self.permits, permission)
            return False

    def __reduce__(self) -> tuple[object, ...]:
        # A supervisor is sent its registry with every task: it is packed once here, and unpacked once there. So all
        # tasks there share one registry, and nothing there may change it.
        needed = {permission for tool in self.tools() if (permission := tool.permission) is not None}
        given = frozenset(filter(self._permitted, needed))
        packed = self._packed
        if packed is None or packed[0] != given:
            state = {**vars(self), "permits": given.__contains__, "veto": None, "_known_specs": None, "_packed": None}
            packed = self._packed = given, pickle.dumps((type(self), state), pickle.HIGHEST_PROTOCOL)
        return _unpacked, (packed[1],)

    def __copy__(self) -> Self:
        copied = type(self).__new__(type(self))
        state = {"problems": list(self.problems), "_tools": {name: dict(each) for name, each in self._tools.items()}}
        vars(copied).update(vars(self) | state)
        return copied

    def __deepcopy__(self, _memo: object) -> Self:
        return self.__copy__()  # what is in it does not change

    def _put(self, tools: Sequence[Tool]) -> None:
        for tool in tools:
            if taken := self._tools.get(tool.name, {}).get(tool.subcommand):
                problem = f"there is already a tool {tool.command!r}{taken.whence}"
                raise RegistryError(f"{problem}: choose another name or subcommand")
        for tool in tools:
            self._tools.setdefault(tool.name, {})[tool.subcommand] = tool
        self._known_specs = self._packed = None

    def _specs(self) -> Specs:
        """Return the catalogue's entries of all tools; they must not be changed."""
        if self._known_specs is None:
            self._known_specs = {
                name: {each: tool.spec for each, tool in tools.items()} for name, tools in self._tools.items()
            }
        return self._known_specs


def _refusal(veto: Any, tool: Tool, argv: tuple[str, ...]) -> str | None:  # noqa: ANN401 - it may return anything
    try:
        said = veto(tool.name, tool.subcommand, argv)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the host's own code; whatever it raised, it let nothing pass
        logger.exception("the veto %r raised when asked for %s, which is refused", veto, tool.command)
        what = "".join(traceback.format_exception_only(error)).strip()  # also of one that cannot say it itself
        said = f"its veto failed ({what}); ask the operator, the host's log says more"
    if said is None:
        return None
    if not isinstance(said, str):  # a coroutine, say
        logger.error("the veto %r returned %r, neither a str nor None: %s is refused", veto, said, tool.command)
        said = f"its veto returned no reason but {type(said).__name__}; ask the operator"
    # A record takes no half of a character.
    return said.encode("utf-8", "backslashreplace").decode() or "it gives no reason; ask the operator"


@functools.lru_cache(maxsize=16)
def _unpacked(data: bytes) -> Registry:
    kind, state = pickle.loads(data)  # noqa: S301 - what Registry.__reduce__ has packed
    registry: Registry = kind.__new__(kind)
    vars(registry).update(state)
    return registry
