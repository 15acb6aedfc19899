"""A registry goes to another process, which finds each tool's code again without being led to another's."""

from __future__ import annotations

import copy
import functools
import importlib
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from animaworks_tasks.errors import NotPermittedError, ToolLoadError
from animaworks_tasks.tools.reference import Reference
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.tool import FunctionTarget
from tests.tools.functions import Greeter, annotated, plain, registered


def echo(word: str) -> str:
    return word


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: object) -> list[object]:
        return [function(*args), function(*args)]

    return wrapper


def python(*arguments: str | Path, directory: Path) -> str:
    """Run a script as a user would, and return what it printed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _gone() -> Callable[..., Any]:
    """Return a function that its module does not have, or no longer."""

    def function(text: str) -> str:
        return text

    function.__qualname__ = "gone"
    return function


def test_a_registry_is_packed_anew_only_where_a_tool_or_a_permission_came_or_went() -> None:
    # given
    allowed = {"tool_guarded"}
    registry = Registry(permits=allowed.__contains__)
    registry.add("tool", "echo", echo)
    registry.add("tool", "guarded", echo, gated=True)

    def sent() -> Registry:
        received = pickle.loads(pickle.dumps(registry))
        assert isinstance(received, Registry)
        return received

    # then
    first = sent()
    assert sent() is first, "who is sent the same again need not read it again"
    first.check_permission(first.get("tool", "guarded"))
    allowed.clear()
    with pytest.raises(NotPermittedError):
        sent().check_permission(first.get("tool", "guarded"))
    registry.add("tool", "more", echo)
    assert ["tool echo", "tool guarded", "tool more"] == [tool.command for tool in sent().tools()]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_registry_is_one_of_its_own(copied: Callable[[Registry], Registry]) -> None:
    # given
    class Ours(Registry):
        pass

    registry = Ours(permits=lambda _: True)
    registry.add("tool", "echo", lambda word: word)

    # when
    other = copied(registry)
    other.add("tool", "more", echo)

    # then
    assert (Ours, ["tool echo"]) == (type(other), [tool.command for tool in registry.tools()])
    assert ["tool echo", "tool more"] == [tool.command for tool in other.tools()]
    assert "it" == other.get("tool", "echo").load()("it")


def test_a_pickled_registry_is_unpickled_without_importing_any_tool(modules: Path) -> None:
    # given a registry with a tool in a module of its own
    (modules / "my_tools.py").write_text("def double(n: int) -> int:\n    return 2 * n\n")
    my_tools = importlib.import_module("my_tools")

    registry = Registry()
    registry.add("double", "it", my_tools.double)
    (modules / "registry.pickle").write_bytes(pickle.dumps(registry))
    (modules / "other.py").write_text(
        "import pickle, sys\n"
        "tool = pickle.load(open('registry.pickle', 'rb')).get('double', 'it')\n"
        "print('my_tools' in sys.modules, tool.usage)\n"
        "args, kwargs = tool.bind(['it', '21'], None)\n"
        "print(tool.load()(*args, **kwargs), pickle.loads(pickle.dumps(tool)).portable)\n"
    )
    # when, then
    assert ["False double it N", "42 True"] == python("other.py", directory=modules).splitlines()


@pytest.mark.parametrize("way", ["script.py", "-m script"])
def test_a_function_of_a_script_is_found_without_running_the_script_again(tmp_path: Path, way: str) -> None:
    """The guard ``if __name__ == "__main__"`` stays shut when a tool's process loads the script."""
    # given a script that registers a function, and passes its registry on
    (tmp_path / "script.py").write_text(
        "import pickle, subprocess, sys\n"
        "from animaworks_tasks.tools.registry import Registry\n"
        "registry = Registry()\n"
        "@registry.tool('double', 'it')\n"
        "def double(n: int) -> int:\n"
        "    return 2 * n\n"
        "print('loaded', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    again = pickle.loads(pickle.dumps(registry)).get('double', 'it')\n"
        "    print('same', again.load() is double, flush=True)\n"
        "    open('registry.pickle', 'wb').write(pickle.dumps(registry))\n"
        "    subprocess.run([sys.executable, 'other.py'], check=True)\n"
    )
    (tmp_path / "other.py").write_text(
        "import pickle\n"
        "tool = pickle.load(open('registry.pickle', 'rb')).get('double', 'it')\n"
        "print(tool.load()(21), tool.load() is tool.load())\n"
    )
    # when
    printed = python(*way.split(), directory=tmp_path).splitlines()
    # then
    assert ["loaded", "same True", "loaded", "42 True"] == printed


def test_what_was_typed_in_stays_in_its_process(tmp_path: Path) -> None:
    script = (
        "from animaworks_tasks.tools.registry import Registry\n"
        "def double(n: int) -> int:\n"
        "    return 2 * n\n"
        "registry = Registry()\n"
        "registry.add('double', 'it', double)\n"
        "print(registry.get('double', 'it').portable)\n"
    )
    assert "False\n" == python("-c", script, directory=tmp_path)


@pytest.mark.parametrize(
    "function",
    [lambda: 1, twice(plain), Greeter(), Greeter().greet, functools.partial(plain, "x"), annotated(str), _gone()],
    ids=["lambda", "wrapped", "object", "method", "partial", "nested", "gone"],
)
def test_a_function_that_only_its_process_can_call_says_so_elsewhere(function: Callable[..., Any]) -> None:
    """Its name may even lead to another function: then that one must not run in its place."""
    # given
    tool = registered(function)
    assert function is tool.load()
    assert not tool.portable
    # when it has been to another process
    pickled = pickle.loads(pickle.dumps(tool))
    # then
    with pytest.raises(ToolLoadError, match=r"'a b' does not load: it is a lambda.*or use ThreadBackend"):
        pickled.load()


def test_an_error_that_says_what_did_not_load_survives_the_way_home(modules: Path) -> None:
    # given a reference to something that was taken away
    (modules / "shrunk.py").write_text("class Here: pass\n")
    reference = Reference.find("shrunk", "Here.gone")
    # when
    with pytest.raises(ToolLoadError) as caught:
        reference.load()
    # then
    assert "tool 'shrunk:Here.gone' does not load: AttributeError: type object 'Here' has no attribute 'gone'" == str(
        pickle.loads(pickle.dumps(caught.value))
    )


def test_a_name_that_leads_elsewhere_in_another_process_does_not_mislead(modules: Path) -> None:
    """A module called like one that the other process finds first is loaded from its own file."""
    # given a function of a module that only looks like the standard library's
    (modules / "tools").mkdir()
    (modules / "tools" / "calendar.py").write_text("def today() -> str:\n    return 'ours'\n")
    reference = Reference(module="calendar", file=str(modules / "tools" / "calendar.py"), qualname="today")
    # when, then
    assert "ours" == reference.load()()
    assert reference.load() is reference.load()


def test_a_module_whose_file_lies_elsewhere_on_another_machine_is_imported_by_name() -> None:
    assert time.sleep is Reference(module="time", file="/another/place/time.py", qualname="sleep").load()


def test_a_module_that_only_its_file_leads_to_is_loaded_from_there(modules: Path) -> None:
    """Test modules and scripts beside a host are imported by names that mean nothing elsewhere."""
    # given
    (modules / "hidden").mkdir()
    (modules / "hidden" / "script").write_text("import functools\nname = __name__\n")  # no suffix either
    reference = Reference(module="nowhere.script", file=str(modules / "hidden" / "script"), qualname="name")
    # when, then
    assert reference.load() in sys.modules
    assert reference.load() != "__main__"


def test_a_file_that_fails_halfway_is_not_taken_for_loaded(modules: Path) -> None:
    # given
    (modules / "fails.py").write_text("x = 1\nraise RuntimeError('late')\n")
    reference = Reference.find(modules / "fails.py", "x")
    # when, then
    for _ in range(2):
        with pytest.raises(ToolLoadError, match="RuntimeError: late"):
            reference.load()
    with pytest.raises(ToolLoadError, match="does not load"):
        attrs.evolve(reference, module="fails.nothing").load()


def test_targets_are_equal_by_where_they_lead() -> None:
    tool = registered(plain)
    assert tool == pickle.loads(pickle.dumps(tool))
    assert {tool: 1}[tool]
    assert FunctionTarget(Reference.to(plain), plain) == FunctionTarget(Reference.to(plain))
