"""A module's own parser has the last word on its subcommands, and the guide shows those that it has."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from animaworks_tasks import Executor, InlineBackend, MemoryTaskStore, Outcome, Registry, Task
from animaworks_tasks.errors import NotPermittedError, UnknownToolError
from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.profile import subcommands
from animaworks_tasks.tools.reference import Reference

# In the shapes of AnimaWorks' tools: names that differ from the profile's, none at all, and what the source hides.
WIKI = """
import argparse
EXECUTION_PROFILE = {
    "find": {"expected_seconds": 15, "background_eligible": False},
    "get_page": {"expected_seconds": 5, "background_eligible": False},
    "export": {"expected_seconds": 500, "background_eligible": True},
    "write_page": {"expected_seconds": 5, "background_eligible": False, "gated": True},
    "post": {"expected_seconds": 5, "background_eligible": False, "gated": True},
    "of_a_schema": {"expected_seconds": 5, "background_eligible": False},
}
def cli_main(argv=None):
    parser = argparse.ArgumentParser(prog="wiki")
    parser.add_argument("--site", default="main")
    sub = parser.add_subparsers(dest="command")
    p = sub.add_parser("find", help="Find pages")
    p.add_argument("words", nargs="*")
    p = sub.add_parser("get-page", help="Get a page")
    p.add_argument("page")
    p = sub.add_parser("write-page", help="Write a page")
    p.add_argument("page")
    sub.add_parser("export")
    sub.add_parser("post")
    p = sub.add_parser("labels", help="Labels", aliases=["tags"])
    deeper = p.add_subparsers(dest="deeper")
    deeper.add_parser("of", help="Not one of the tool's own")
    args = parser.parse_args(argv)
    print(args.command, getattr(args, "page", None))
"""
SEARCH = """
import argparse
EXECUTION_PROFILE = {"search": {"expected_seconds": 15, "background_eligible": False, "summary": "Search the web"}}
def cli_main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("query")
    print("hits for", parser.parse_args(argv).query)
"""
OTHER = """
EXECUTION_PROFILE = {"now": {"background_eligible": False}, "week": {"background_eligible": True}}
def cli_main(argv=None):
    print("weather", *argv)
"""
GATED = OTHER.replace('"now": {', '"now": {"gated": True, ').replace("weather", "gated")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry()
    for name, source in (("wiki", WIKI), ("search", SEARCH), ("weather", OTHER), ("gated", GATED)):
        (tmp_path / f"{name}.py").write_text(source)
        found.add_module(name, tmp_path / f"{name}.py")
    return found


def outcome_of(registry: Registry, tool: str, *argv: str) -> Task:
    """Submit a call, run it, and return what became of it."""

    async def run() -> Task:
        async with Executor(MemoryTaskStore(), registry, backend=InlineBackend()) as executor:
            task = await executor.submit(tool, *argv)
            return await executor.wait(task.id)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("tool", "argv", "key", "printed"),
    [
        ("wiki", ["get-page", "x"], "wiki:get-page", "get-page x"),
        ("wiki", ["get-page", "find"], "wiki:get-page", "get-page find"),  # a word of the profile is an argument
        ("wiki", ["--site", "s", "get-page", "x"], "wiki:get-page", "get-page x"),
        ("wiki", ["tags"], "wiki:tags", "tags None"),
        ("search", ["q"], "search:search", "hits for q"),
        ("search", ["two words"], "search:search", "hits for two words"),
        ("weather", ["tokyo"], "weather:tokyo", "weather tokyo"),
        ("weather", ["New York, N.Y."], "weather:week", "weather New York, N.Y."),  # which takes longest
        ("weather", ["week", "tokyo"], "weather:week", "weather week tokyo"),
        ("weather", ["--days", "3", "week"], "weather:week", "weather --days 3 week"),
    ],
)
def test_a_word_that_only_the_tool_knows_reaches_it(
    registry: Registry, tool: str, argv: list[str], key: str, printed: str
) -> None:
    task = outcome_of(registry, tool, *argv)
    assert (Outcome.COMPLETED, key, printed) == (task.outcome, task.name, str(task.result).strip())
    # and a submitter elsewhere says the same of it
    assert key == f"{tool}:{arguments.check(registry.catalogue()['tools'], tool, argv)}"


@pytest.mark.parametrize(
    ("tool", "argv", "message"),
    [
        ("wiki", ["exprt", "x"], "wiki has no subcommand 'exprt': did you mean export?"),
        ("wiki", ["of_a_schema"], "wiki has no subcommand 'of_a_schema'"),  # the profile speaks of it, the parser not
        ("wiki", ["--help"], "wiki needs a subcommand: find, export"),
        ("weather", ["--help"], "weather needs a subcommand: now, week"),
        ("gated", ["soon"], "gated has no subcommand 'soon'"),  # it could be another name of what needs a permission
    ],
)
def test_a_word_that_cannot_be_meant_is_refused_at_once(
    registry: Registry, tool: str, argv: list[str], message: str
) -> None:
    with pytest.raises(UnknownToolError, match=re.escape(message)):
        registry.resolve(tool, argv)


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ('p = argparse.ArgumentParser()\n sub = p.add_subparsers()\n sub.add_parser("a", help="A")', [(["a"], "A")]),
        ('p = argparse.ArgumentParser()\n p.add_subparsers().add_parser("a", aliases=["b"])', [(["a", "b"], "")]),
        ("p = argparse.ArgumentParser()\n p.parse_args(argv)", []),
        ("p = ArgumentParser()\n p.add_argument('words', nargs='*')\n args = p.parse_args(argv)", []),
        ("p = argparse.ArgumentParser()\n add_to(p)\n p.parse_args(argv)", None),
        ('p = argparse.ArgumentParser()\n sub = p.add_subparsers()\n sub.add_parser("a")\n more(to=sub)', None),
        ("p = argparse.ArgumentParser()\n sub = p.add_subparsers()\n for n in NAMES: sub.add_parser(n)", None),
        ("p = parser()\n p.parse_args(argv)", None),
        ("print(*argv)", None),
        ("p = ArgumentParser()\n s = p.add_subparsers()\n s.add_parser('a')\n more([s], s.add_parser)", None),
        ("p = ArgumentParser()\n add = p.add_subparsers().add_parser\n add('a')\n p.parse_args(argv)", None),
        ("p = ArgumentParser()\n s = p.add_subparsers()\n s.add_parser('a', aliases=['?', 'b c'])", [(["a"], "")]),
    ],
)
def test_subcommands_are_read_where_the_source_tells_them_all(
    tmp_path: Path, source: str, read: list[tuple[list[str], str]] | None
) -> None:
    (tmp_path / "tool.py").write_text(f"def cli_main(argv=None):\n {source}\n")
    assert read == subcommands(Reference.find(tmp_path / "tool.py"))


def test_what_is_outside_the_profile_is_quick_and_not_gated_and_what_is_gated_is_never_missed(
    registry: Registry,
) -> None:
    labels = registry.resolve("wiki", ["labels", "of"])
    assert ("labels", False, None, False) == (
        labels.subcommand, labels.long_running, labels.expected_seconds, labels.gated,
    )  # fmt: skip
    assert 5 == registry.resolve("wiki", ["get-page", "x"]).expected_seconds  # but for the hyphen it is in the profile
    for argv in (["post"], ["write-page", "x"], ["--site", "x", "post"], ["bogus", "post"]):
        with pytest.raises(NotPermittedError):
            registry.check_permission(registry.resolve("wiki", argv))


# What is gated must not be had under another name. The profile gates post, and the parser has more names for it.
GUARDED = """
import argparse
EXECUTION_PROFILE = {PROFILE}
def cli_main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("-v", action="store_true")
    sub = parser.add_subparsers()
    PARSERS
    parser.parse_args(argv)
"""


@pytest.mark.parametrize(
    ("gated", "parsers", "argv", "permission"),
    [
        ("post", 'sub.add_parser("post", aliases=["send"])', ["send"], "guarded_post"),
        ("write-page", 'sub.add_parser("write_page")', ["write_page"], "guarded_write-page"),
        ("write_page", 'sub.add_parser("write-page")', ["write-page"], "guarded_write_page"),
        ("insert_task", 'sub.add_parser("add")', ["add"], "guarded_add"),
        ("post", 'sub.add_parser("post"); sub.add_parser("quick")', ["-v", "post", "quick"], "guarded_post"),
        (
            "pages",
            'pages = sub.add_parser("pages").add_subparsers(); pages.add_parser("quick")',
            ["pages", "quick"],
            "guarded_pages",
        ),
    ],
)
def test_what_is_gated_is_had_under_no_other_name(
    tmp_path: Path, gated: str, parsers: str, argv: list[str], permission: str
) -> None:
    profile = {gated: {"background_eligible": False, "gated": True}, "quick": {"background_eligible": False}}
    (tmp_path / "guarded.py").write_text(GUARDED.replace("{PROFILE}", repr(profile)).replace("PARSERS", parsers))
    registry = Registry()
    registry.add_module("guarded", tmp_path / "guarded.py")
    tool = registry.resolve("guarded", argv)
    assert permission == tool.permission
    with pytest.raises(NotPermittedError):
        registry.check_permission(tool)


@pytest.mark.parametrize(
    "source",
    [
        "sub.add_parser('f', aliases=None)", "sub.add_parser(1)", "sub.add_parser()", "sub.add_parser(*names)",
        "sub.add_parser(" + "+".join("x" for _ in range(600)) + ")", "f(" * 90 + ")" * 90,
    ],
)  # fmt: skip
def test_odd_source_breaks_no_module(tmp_path: Path, source: str) -> None:
    (tmp_path / "odd.py").write_text(
        "EXECUTION_PROFILE = {'a': {'background_eligible': True}}\n"
        f"def cli_main(argv):\n p = ArgumentParser()\n sub = p.add_subparsers()\n {source}\n p.parse_args(argv)\n"
    )
    registry = Registry()
    registry.add_module("odd", tmp_path / "odd.py")
    assert registry.is_long_running("odd:a")


def test_a_word_that_chooses_what_is_done_is_left_to_the_module(tmp_path: Path) -> None:
    """Without subparsers, and with several subcommands in the profile, a word may name one of these after all."""
    (tmp_path / "chooses.py").write_text(
        SEARCH.replace('"query"', '"query", choices=["search", "news"]').replace(
            "}}", '}, "news": {"expected_seconds": 900, "background_eligible": True}}'
        )
    )
    registry = Registry()
    registry.add_module("chooses", tmp_path / "chooses.py")
    assert ["search", "news"] == [registry.resolve("chooses", [word]).subcommand for word in ("search", "news")]


def test_the_guide_shows_what_the_tools_own_help_shows(registry: Registry) -> None:
    direct = Registry()
    direct.add_registry(registry, direct=True)
    called = [line for line in direct.guide("en").splitlines() if line.startswith("- ")]
    assert [
        "- ⚠ `wiki export ...` (8 min)",
        "- ⚠ `weather week ...` (60 s)",
        "- ⚠ `gated week ...` (60 s)",
        "- `wiki find ...`: Find pages",
        "- `wiki post ...` (needs the permission `wiki_post`)",
        "- `wiki get-page ...`: Get a page",
        "- `wiki write-page ...` (needs the permission `wiki_write_page`): Write a page",
        "- `wiki labels ...`: Labels",
        "- `wiki tags ...`: Labels",
        "- `search ...`: Search the web",
        "- `weather now ...`",
        "- `gated now ...` (needs the permission `gated_now`)",
    ] == called
    # what a runtime asks by its name in the profile is still known
    assert registry.is_long_running("wiki:export")
    assert {"get_page", "of_a_schema"} <= set(registry.profiles()["wiki"])
