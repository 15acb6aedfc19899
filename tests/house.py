"""
The house in figures: its rooms, how imports go between them, and how much code there is.

    python -m tests.house

Read off the source, nothing of the package is imported.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "animaworks_tasks"

# From the ground up; a room imports from rooms below it, and from itself.
ROOMS: Final = (
    "errors",
    "fs",
    "task",
    "tools",
    "notifications",
    "store",
    "worker",
    "backends",
    "animaworks",
    "background",
    "executor",
    "remote",
    "mcp",
    "cli",
    "testing",
    "_pytest_plugin",
    "__init__",
    "__main__",
)

LONGEST_FUNCTION: Final = 40  # lines beside its docstring
LONGEST_FILE: Final = 400  # lines


def modules() -> dict[str, Path]:
    """Return the package's modules by their names below it; that of a package is the package's."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> Mapping[str, set[str]]:
    """Return which modules of the package each one imports, wherever in it; lazy imports count, those for types too."""
    known = modules()
    return {name: set(_imported(path, known)) - {name} for name, path in known.items()}


def _imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            base = node.module.removeprefix(PACKAGE).removeprefix(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".removeprefix(".")
                yield name if name in known else base or "__init__"


def room(module: str) -> str:
    """Return the room a module lies in."""
    return module.split(".", maxsplit=1)[0]


def upward() -> list[str]:
    """Return the imports from a room below into one above it; an unknown room counts as one."""
    return [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in sorted(others)
        if ROOMS.index(room(module)) < ROOMS.index(room(other))
    ]


def circles() -> list[str]:
    """Return the groups of modules that import each other, directly or by way of others."""
    graph = imports()
    reach: dict[str, set[str]] = {}
    for module in graph:
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        reach[module] = seen
    groups = {frozenset(other for other in reach[module] if module in reach[other]) for module in graph}
    return [" <-> ".join(sorted(group)) for group in groups if group]


def code_lines(path: Path) -> int:
    """Return the lines of code of a file: no docstrings, comments or blank lines."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        lines -= set(_docstring(node))
    return len(lines)


def _docstring(node: ast.AST) -> range:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return range(0)
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return range(first.lineno, (first.end_lineno or first.lineno) + 1)
    return range(0)


def long_functions() -> list[str]:
    """Return the functions that are too long, beside their docstrings."""
    found = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1 - len(_docstring(node))
                if lines > LONGEST_FUNCTION:
                    found.append(f"{name}.{node.name} ({lines})")
    return found


def long_files() -> list[str]:
    """Return the files that are too long."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    return [f"{name} ({number})" for name, number in lines.items() if number > LONGEST_FILE]


def at_the_root() -> list[str]:
    """Return the modules that lie in no room."""
    return sorted(path.name for path in (ROOT / PACKAGE).glob("*.py"))


def main() -> None:
    """Print the figures."""
    found = modules()
    code = {name: code_lines(path) for name, path in found.items()}
    print(f"{len(found)} modules in {len({room(name) for name in found})} rooms")
    print(f"modules at the package's root: {len(at_the_root())} ({', '.join(at_the_root())})")
    print(f"imports up: {len(upward())}", *upward(), sep="\n    ")
    print(f"circles: {len(circles())}", *circles(), sep="\n    ")
    print(f"lines of code: {sum(code.values()):,}")
    for each in ROOMS:
        if size := sum(lines for name, lines in code.items() if room(name) == each):
            print(f"    {each:15}{size:7,}")
    print(f"functions over {LONGEST_FUNCTION} lines: {len(long_functions())}", *long_functions(), sep="\n    ")
    print(f"files over {LONGEST_FILE} lines: {len(long_files())}", *long_files(), sep="\n    ")


if __name__ == "__main__":
    main()
