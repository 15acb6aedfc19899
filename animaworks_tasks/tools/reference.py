"""
Where code is, in a form that another process can use, and how to load it from there, once per process.

A file that Python cannot import by a name gets a private name, in a private package that stands for its directory. So
it may import its neighbours (``from ._helper import x``), and directories of one name do not mix.
"""

import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import operator
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, Self

import attrs

from animaworks_tasks.errors import TaskCancelled, ToolLoadError

_PRIVATE: Final = "_animaworks_tool_"  # packages that stand for a directory of tools begin so
_OURS: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
_IMPORTLIB: Final = os.path.dirname(importlib.util.__file__)
_loading = threading.RLock()  # importlib locks only what it imports by name; re-entered where one file loads another
_here = threading.local()  # whether this thread loads something


@attrs.frozen(kw_only=True)
class Reference:
    """
    The way to a function or a module.

    Attributes:
        module: The name by which it is imported; empty for a file that has none, such as a script.
        file: Its file, absolute. It decides where the name leads elsewhere; empty where only the name is known.
        qualname: The way to it inside the module; empty for the module itself.
    """

    module: str = ""
    file: str = ""
    qualname: str = ""

    @classmethod
    def to(cls, code: Callable[..., Any] | ModuleType) -> Self | None:
        """
        Return the reference to a function or a module, or None if there is no way to it from another process.

        There is none to a lambda, to what is defined inside a function, and to what was typed in at a prompt.
        """
        is_module = isinstance(code, ModuleType)
        qualname = "" if is_module else getattr(code, "__qualname__", "<>")  # an object that is called has no name
        name = str(getattr(code, "__name__" if is_module else "__module__", ""))
        module = sys.modules.get(name)
        if module is None or "<" in qualname:
            return None
        file = getattr(module, "__file__", None) or ""
        if name in {"__main__", "__mp_main__"} or name.startswith(_PRIVATE):
            # Run with -m, a script has a name of its own. Under that name its `if __name__ == "__main__"` stays shut.
            spec = getattr(module, "__spec__", None)
            name = spec.name if spec is not None and name == "__main__" and spec.name != name else ""
            if not os.path.isfile(file):
                return None
        return cls(module=name, file=os.path.abspath(file) if file else "", qualname=qualname)

    @classmethod
    def find(cls, module: str | os.PathLike[str], qualname: str = "") -> Self:
        """
        Return the reference to a module by its import path or its file, without importing it (only its packages).

        Args:
            module: A path with a slash, or ending in ``.py``, is a file.
            qualname: The way to the code inside the module.

        Raises:
            ToolLoadError: There is no such module.
        """
        name = os.fspath(module)
        if os.sep in name or name.endswith(".py"):
            return cls(file=os.path.abspath(name), qualname=qualname)
        with failing_as_tool(name):
            spec = importlib.util.find_spec(name)
        if spec is None:
            raise ToolLoadError(name, f"there is no module {name!r}")
        return cls(module=name, file=(spec.has_location and spec.origin) or "", qualname=qualname)

    def load(self) -> Any:  # noqa: ANN401 - code may be anything
        """
        Return the code, importing it if this process has not done so.

        Raises:
            ToolLoadError: Importing raised, whatever it was, or the module has nothing of this name.
        """
        before, _here.loads = is_loading(), True
        try:
            with failing_as_tool(str(self), self.file):
                return functools.reduce(getattr, filter(None, self.qualname.split(".")), self._module())
        finally:
            _here.loads = before

    def __str__(self) -> str:
        return ":".join(filter(None, (self.module or self.file, self.qualname)))

    def _module(self) -> ModuleType:
        for name in (self.module, "__main__"):
            if _is_same(getattr(sys.modules.get(name), "__file__", None), self.file):
                return importlib.import_module(name)  # waits where another thread is still importing it
        if self.module and (not os.path.isfile(self.file) or self._is_found()):
            return importlib.import_module(self.module)
        private = _private_name(self.file)
        with _loading:
            return sys.modules.get(private) or _execute(private, self.file)

    def _is_found(self) -> bool:
        """Return whether importing the module would read its file."""
        with contextlib.suppress(ToolLoadError):
            return _is_same(Reference.find(self.module).file, self.file)
        return False


def is_loading() -> bool:
    """Return whether this thread is importing the code of a tool."""
    return getattr(_here, "loads", False)


@contextlib.contextmanager
def failing_as_tool(tool: str, file: str = "") -> Iterator[None]:
    """
    Turn whatever foreign code raises while it is loaded into a :class:`ToolLoadError`.

    That may be a BaseException: SystemExit, what ``pytest.importorskip`` raises, a panic in an extension of Rust's.
    What gets through is a Ctrl-C, and what stops the call that loads the code.
    """
    try:
        yield
    except (KeyboardInterrupt, TaskCancelled):
        raise
    except BaseException as error:
        raise ToolLoadError(tool, _described(error) + _hint(error, file)) from error


def _described(error: BaseException) -> str:
    """Return what was raised while foreign code was loaded, and in which line of it."""
    kind = type(error).__name__
    try:
        text = f"{kind}: {error}"
    except Exception:  # noqa: BLE001 - anybody's __str__
        text = f"{kind} (which cannot be printed)"
    if isinstance(error, SyntaxError):  # which says itself where it is
        return text
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    foreign = [(os.path.basename(file), line) for file, line in lines if not _is_ours(file)]
    return text + (" ({}, line {})".format(*foreign[-1]) if foreign else "")


def _hint(error: BaseException, file: str) -> str:
    """Return how to import the module that *file* did not find, if it lies beside it; else nothing."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if not name or not os.path.isfile(os.path.join(os.path.dirname(file), f"{name}.py")):
        return ""
    return f"; it lies beside it, so write `from .{name} import ...`"


def _is_ours(file: str) -> bool:
    return file.startswith(("<frozen importlib", _OURS)) or os.path.dirname(file) == _IMPORTLIB


def _private_name(file: str) -> str:
    """Return the private name of a file; if it can be imported, it is that by which its neighbours import it."""
    directory, name = os.path.split(file)
    stem, ending = os.path.splitext(name)
    if ending != ".py" or not stem.isidentifier():
        stem = _unique(stem, name)
    directory = os.path.realpath(directory)
    return f"{_PRIVATE}{_unique(os.path.basename(directory), directory)}.{stem}"


def _unique(word: str, text: str) -> str:
    """Return *word* as an identifier that is different for each *text*."""
    return re.sub(r"\W", "_", word) + "_" + hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _is_same(one: str | None, other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)


def _execute(name: str, file: str) -> ModuleType:
    package = name.rpartition(".")[0]
    if package not in sys.modules:  # what it holds is found in its directory, as in that of any package
        place = importlib.machinery.ModuleSpec(package, None, is_package=True)
        place.submodule_search_locations = [os.path.dirname(file)]
        sys.modules[package] = importlib.util.module_from_spec(place)
    loader = importlib.machinery.SourceFileLoader(name, file)  # named, because a script need not end in .py
    spec = importlib.machinery.ModuleSpec(name, loader, origin=file)
    spec.has_location = True  # it gets a __file__
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses, pickle and its own registrations look it up there
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def is_at_its_name(function: Callable[..., Any]) -> bool:
    """Return whether the function's module has it under its own name, as pickle checks."""
    try:
        found: object = operator.attrgetter(function.__qualname__)(sys.modules[function.__module__])
    except (AttributeError, KeyError):
        return False
    return bool(found == function)
