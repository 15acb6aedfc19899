"""
A tool as data: what it is called, what it takes, how long it may run, and what is called.

A tool can be pickled, and unpickled without importing its code: a function object stays behind, and is loaded again,
through its reference, only where it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypedDict

import attrs

from animaworks_tasks.errors import RegistryError, ToolLoadError
from animaworks_tasks.task.model import OnInterrupt, at_least, policy, seconds
from animaworks_tasks.tools import signature
from animaworks_tasks.tools.arguments import convert, locate, nearest, parse, usage_of
from animaworks_tasks.tools.context import ToolContext
from animaworks_tasks.tools.reference import Reference, is_at_its_name

COMMANDS: Final = frozenset({  # of animaworks-tool: no tool may have such a name, because it could not be called there
    "cancel", "completion", "doctor", "events", "guide", "list", "logs", "notifications", "prune", "report", "retry",
    "run", "show", "submit", "tools", "wait",
})  # fmt: skip
NAME: Final = r"\w[\w.-]*"
SHORTEST_TIMEOUT: Final = 1800.0  # seconds; the default for a tool without expected_seconds
MAX_ATTEMPTS: Final = 3  # runs that may end with the death of the owner, by default

NOT_PORTABLE: Final = (
    "it is a lambda, stands inside a function, or is not what its module has under its name (a decorator returned "
    "something else), so only the process that registered it can call it: define it at the top of a module, or use "
    "ThreadBackend"
)
_FACTS: Final = (
    "long_running", "expected_seconds", "timeout_seconds", "gated", "permission", "direct", "named", "summary",
)  # fmt: skip
_JSON_TYPES: Final = {"int": "integer", "float": "number", "bool": "boolean"}  # else text


@attrs.frozen
class FunctionTarget:
    """
    A Python function: a typed one, or ``cli_main(argv)`` of a module with EXECUTION_PROFILE, which prints its result.

    Attributes:
        reference: Where it is; None if only this process can call it.
        function: The function itself, None where it is to be loaded. It is not pickled with the target.
    """

    reference: Reference | None
    function: Callable[..., Any] | None = attrs.field(default=None, eq=False)

    @property
    def portable(self) -> bool:
        """Whether another process can load it: it stands at the top of a module, under its own name."""
        return self.reference is not None and (self.function is None or is_at_its_name(self.function))

    def __reduce__(self) -> tuple[object, ...]:
        # Its name may lead to something else than the function that was registered, for example to the same without
        # its decorator. Better refused in the other process than run differently.
        return type(self), (self.reference if self.portable else None,)


@attrs.frozen
class CommandTarget:
    """
    A plain command; there is no shell.

    Attributes:
        argv: The program and its first arguments; those of the call follow.
        usage: What it takes, for people; None where nobody has said it.
    """

    argv: tuple[str, ...] = attrs.field(validator=attrs.validators.min_len(1))
    usage: str | None = None


Target = FunctionTarget | CommandTarget


class ToolOptions(TypedDict, total=False):
    """The options of any tool; :meth:`Registry.tool` says what each means. None stands for the default."""

    expected_seconds: float | None
    long_running: bool | None
    timeout_seconds: float | None
    retries: int
    on_interrupt: OnInterrupt | str
    max_attempts: int
    grace_seconds: float
    summary: str
    gated: bool
    resource: str | None


def _name(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not re.fullmatch(NAME, value):
        raise ValueError(f"{attribute.name} {value!r} is no name: letters, digits, '_', '-' and '.' make one")


@attrs.frozen(kw_only=True)
class Tool:
    """
    One subcommand of a tool, as the registry knows it.

    Attributes:
        name: The tool's name, without the subcommand.
        subcommand: The subcommand.
        target: What is called.
        expected_seconds: A promise to the agent, past which a task is overdue; None promises nothing.
        long_running: Whether it is to be submitted instead of called.
        timeout_seconds: Longest run of one attempt; by default the larger of 1800 and twice the expectation.
        retries: How often a failure is run again.
        on_interrupt: What to do with a task whose owner died.
        max_attempts: How many runs are begun at most where the owner dies in each; by default 3, or retries + 1.
        grace_seconds: Time between SIGTERM and SIGKILL.
        summary: What it does, in one line; may be empty.
        parameters: What it takes; None if only it knows, as a command or a module does.
        gated: Whether it needs a permission, ``<name>_<subcommand>``.
        resource: What only so many tasks may use at once; None needs none.
        gate: What stands for the subcommand there; empty is itself. The profile of a module may have another word.
        direct: Whether a shell can call it as well, because `animaworks-tool` finds it without the host.
        named: Whether its subcommand is typed, which the parser of a module decides; None where only that parser knows,
            and may know others.
    """

    name: str = attrs.field(validator=_name)
    subcommand: str = attrs.field(validator=_name)
    target: Target
    expected_seconds: float | None = attrs.field(default=None, validator=seconds)
    long_running: bool = attrs.field(validator=attrs.validators.instance_of(bool))
    timeout_seconds: float = attrs.field(validator=seconds)
    retries: int = attrs.field(default=0, validator=at_least(0))
    on_interrupt: OnInterrupt = attrs.field(default=OnInterrupt.FAIL, converter=policy)
    max_attempts: int = attrs.field(validator=at_least(1))
    grace_seconds: float = attrs.field(default=5.0, validator=seconds)
    summary: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    parameters: tuple[Mapping[str, Any], ...] | None = attrs.field(default=None, hash=False)
    gated: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    resource: str | None = attrs.field(default=None, validator=attrs.validators.optional(_name))
    gate: str = ""
    direct: bool = attrs.field(default=False, eq=False)
    named: bool | None = True

    @long_running.default
    def _promises(self) -> bool:
        return self.expected_seconds is not None

    @max_attempts.default
    def _a_few(self) -> int:
        return max(self.retries + 1, MAX_ATTEMPTS)

    @timeout_seconds.default
    def _generous(self) -> float:
        return max(SHORTEST_TIMEOUT, 2 * float(self.expected_seconds or 0))

    @property
    def key(self) -> str:
        """``tool:subcommand``, the name by which agents and AnimaWorks know it."""
        return f"{self.name}:{self.subcommand}"

    @property
    def command(self) -> str:
        """``tool subcommand``, as it is typed; the tool alone where the subcommand is not."""
        return self.name if self.named is False else f"{self.name} {self.subcommand}"

    @property
    def permission(self) -> str | None:
        """The permission that it needs; None if it is not gated."""
        return f"{self.name}_{self.gate or self.subcommand}" if self.gated else None

    @property
    def usage(self) -> str:
        """The line that shows how it is called."""
        return usage_of(self.command, self.spec)

    @property
    def spec(self) -> dict[str, Any]:
        """Its entry in the catalogue, fit for JSON."""
        facts = {name: getattr(self, name) for name in _FACTS}
        if isinstance(self.target, CommandTarget):
            facts["usage"] = self.target.usage
        if self.resource is not None:
            facts["resource"] = self.resource
        return facts | {"parameters": None if self.parameters is None else [dict(each) for each in self.parameters]}

    @property
    def origin(self) -> str:
        """Where its code is, for people; empty for a command, and where it is not known."""
        return str(getattr(self.target, "reference", None) or "")

    @property
    def whence(self) -> str:
        """Its origin in brackets, to be added to a sentence; empty where it is not known."""
        return f" ({self.origin})" if self.origin else ""

    @property
    def portable(self) -> bool:
        """Whether another process can run it."""
        return isinstance(self.target, CommandTarget) or self.target.portable

    def load(self) -> Callable[..., Any]:
        """
        Return what Python is to call: the function, or the module's ``cli_main``.

        Raises:
            ToolLoadError: Its code does not load here, or was left behind in the process that registered it.
            TypeError: It is a command, which has no code.
        """
        target = self.target
        if isinstance(target, CommandTarget):
            raise TypeError(f"{self.key} is a command: run its argv")
        if target.function is not None:
            return target.function
        if target.reference is None:
            raise ToolLoadError(self.command, NOT_PORTABLE)
        try:
            loaded: Callable[..., Any] = target.reference.load()
        except ToolLoadError as error:
            raise ToolLoadError(self.command, error.reason) from error.__cause__
        return loaded

    def bind(self, argv: Sequence[str], context: ToolContext | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        Return the arguments to call a function tool with.

        Args:
            argv: As in the task: the subcommand and what follows it.
            context: Given to the parameter annotated with ToolContext, if there is one.

        Raises:
            WrongArgumentError: *argv* does not fit its parameters.
            ToolLoadError: Its code does not load here.
        """
        return signature.bind(self.load(), parse(self.command, self.parameters or (), argv[1:]), context)

    def words(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        """
        Return the ``argv`` that calls a function tool with these arguments.

        Raises:
            TypeError: It does not take them, or one cannot be written as words; the message names it.
        """
        try:
            return (self.subcommand, *signature.words(self.load(), self.parameters or (), args, kwargs))
        except TypeError as error:
            raise TypeError(f"{self.command}: {error}") from None

    def command_line(self, argv: Sequence[str]) -> list[str]:
        """Return the argument list of a command tool for *argv* of a task, whose subcommand only we need."""
        if not isinstance(self.target, CommandTarget):
            raise TypeError(f"{self.key} is no command")
        position = locate([self.subcommand], argv)
        return [*self.target.argv, *(word for i, word in enumerate(argv) if i != position)]

    def json_schema(self) -> dict[str, Any]:
        """Return its arguments as a JSON Schema of an object; see :meth:`Registry.json_schema`."""
        argv = {"name": "argv", "type": "str", "many": True, "default": [], "help": "the words after the subcommand"}
        parameters: Sequence[Mapping[str, Any]] = [argv] if self.parameters is None else self.parameters
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.command,
            "type": "object",
            **({"description": self.summary} if self.summary else {}),
            "properties": {each["name"]: _property(each) for each in parameters},
            "required": [each["name"] for each in parameters if "default" not in each],
            "additionalProperties": False,
        }


def _property(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _JSON_TYPES.get(parameter["type"], "string")}
    if "choices" in parameter:
        schema["enum"] = [convert(parameter, text) for text in parameter["choices"]]
    if parameter.get("many"):
        schema = {"type": "array", "items": schema} | ({} if "default" in parameter else {"minItems": 1})
    if parameter.get("default") is not None:
        schema["default"] = parameter["default"]
    return schema | ({"description": parameter["help"]} if "help" in parameter else {})


def make_tool(name: str, subcommand: str, target: Target, **options: Any) -> Tool:  # noqa: ANN401 - ToolOptions
    """
    Return the tool with these options; None stands for the default.

    Raises:
        RegistryError: It cannot have that name, no command line can express the signature of its function, or an option
            does not exist or cannot be that; the message says why.
    """
    try:
        if name in COMMANDS:
            raise RegistryError(f"`animaworks-tool {name}` is a command already: choose another name")
        if unknown := [option for option in options if option not in ToolOptions.__annotations__]:
            raise RegistryError(f"there is no option {unknown[0]}{nearest(unknown[0], ToolOptions.__annotations__)}")
        facts: dict[str, Any] = {}
        if isinstance(target, FunctionTarget) and target.function is not None:
            facts["parameters"] = signature.describe(target.function)
            facts["summary"] = next(iter(signature.documentation(target.function).splitlines()), "")
        facts |= {option: value for option, value in options.items() if value is not None}
        return Tool(name=name, subcommand=subcommand, target=target, **facts)
    except (TypeError, ValueError) as error:
        raise RegistryError(f"{name} {subcommand}: {error.args[0]}") from error
