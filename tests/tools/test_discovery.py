"""Tools are found in directories, at import paths and in installed packages; one that is broken breaks no other."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from animaworks_tasks.errors import RegistryError, TaskCancelled, ToolLoadError
from animaworks_tasks.tools.discovery import discover, load_directory, load_entry_points, load_import_path, load_package
from animaworks_tasks.tools.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = """
print("executed")
EXECUTION_PROFILE = {{"{0}": {{"expected_seconds": 60, "background_eligible": True}}}}
def cli_main(argv=None): ...
"""

TYPED = """
from pathlib import Path
from animaworks_tasks.tools.registry import Registry

registry = also_known_as = Registry()

@registry.tool("{0}", "{1}", expected_seconds=3)
def function(file: Path) -> str:
    return file.name
"""


@pytest.fixture(autouse=True)
def _forget_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "modules", sys.modules.copy())


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for stem, source in files.items():
        (directory / f"{stem}.py").write_text(source)
    return directory


def install(site: Path, entries: str) -> None:
    """Install a package's metadata, as pip would."""
    info = site / "some_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[animaworks_tasks.tools]\n{entries}\n")


def keys(registry: Registry) -> list[str]:
    return [tool.key for tool in registry.tools()]


def test_a_file_with_a_profile_is_a_tool_by_its_name_and_is_not_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    registry = Registry()
    # when
    load_directory(registry, write(tmp_path, image_gen=PROFILE.format("3d"), _helper=PROFILE.format("x")))
    # then
    assert ["image_gen:3d"] == keys(registry)
    assert [] == registry.problems
    assert "" == capsys.readouterr().out


def test_a_file_that_registers_functions_is_executed_once(tmp_path: Path) -> None:
    # given
    first, second = Registry(), Registry()
    write(tmp_path, my_tools=TYPED.format("archive", "make") + "\nprint(__name__)\n")
    # when
    load_directory(first, tmp_path)
    load_directory(second, tmp_path)
    # then
    tool = first.get("archive", "make")
    assert tool.portable
    assert "archive make FILE" == tool.usage
    assert tool.load() is second.get("archive", "make").load()


def test_a_file_whose_profile_is_computed_is_a_tool_too(tmp_path: Path) -> None:
    source = "EXECUTION_PROFILE = dict(x=dict(expected_seconds=1, background_eligible=False))\ndef cli_main(argv): ..."
    registry = Registry()
    load_directory(registry, write(tmp_path, computed=source))
    assert ["computed:x"] == keys(registry)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def", "SyntaxError"),
        ("\0", "null bytes"),
        ("raise SystemExit(2)", "SystemExit: 2 (b.py, line 1)"),
        ("class Panic(BaseException): ...\nraise Panic('at the bottom')", "Panic: at the bottom (b.py, line 2)"),
        ("import pytest\npytest.importorskip('nowhere_at_all')", "Skipped: could not import 'nowhere_at_all'"),
        ("class Mute(Exception):\n    def __str__(self): 1 / 0\nraise Mute", "Mute (which cannot be printed) (b.py, "),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("x = 1", "is no tool: it has neither EXECUTION_PROFILE and cli_main, nor a Registry"),
        ("EXECUTION_PROFILE = {}", "it is no tool: it has EXECUTION_PROFILE, and no function cli_main(argv)"),
        ("def cli_main(argv): ...", "it is no tool: it has cli_main, and no EXECUTION_PROFILE"),
        ("EXECUTION_PROFILE = {}\ndef cli_main(argv): ...", "must be a dict of subcommands"),
        (TYPED.format("b c", "d"), "is no name"),
    ],
)
def test_a_file_that_is_no_tool_is_noted_and_breaks_nothing_else(tmp_path: Path, source: str, reason: str) -> None:
    # given a broken file between two good ones
    registry = Registry()
    directory = write(tmp_path, a=PROFILE.format("x"), b=source, c=TYPED.format("typed", "y"))
    # when
    load_directory(registry, directory)
    # then
    assert ["a:x", "typed:y"] == keys(registry)
    [(where, why)] = registry.problems
    assert str(tmp_path / "b.py") == where
    assert reason in why
    assert f"{where} " not in why


@pytest.mark.parametrize("error", [KeyboardInterrupt, TaskCancelled])
def test_who_stops_the_process_or_the_call_stops_the_import_of_a_tool(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C while tools are looked for is no problem of the tool that is just being imported."""

    # given
    def stop() -> None:
        raise error

    monkeypatch.setattr(threading, "stop_in_a_test", stop, raising=False)
    registry = Registry()
    directory = write(tmp_path, a="import threading\nthreading.stop_in_a_test()")
    # when, then
    with pytest.raises(error):
        load_directory(registry, directory)
    assert [] == registry.problems


def test_a_directory_that_is_not_there_has_no_tools_and_one_that_is_a_file_is_noted(tmp_path: Path) -> None:
    # given
    registry = Registry()
    (tmp_path / "file").touch()
    (tmp_path / "folder.py").mkdir()
    # when
    load_directory(registry, tmp_path / "nowhere")
    load_directory(registry, tmp_path)
    assert [] == registry.problems
    load_directory(registry, tmp_path / "file")
    # then
    [(where, why)] = registry.problems
    assert str(tmp_path / "file") == where
    assert "NotADirectoryError" in why


def test_a_tool_may_have_its_subcommands_in_several_files_of_a_directory(tmp_path: Path) -> None:
    """Between directories the first one has all of a tool."""
    # given
    registry = Registry()
    one = write(tmp_path / "one", a=TYPED.format("letters", "seal"), b=TYPED.format("letters", "open"))
    write(one, letters=PROFILE.format("burn"))
    two = write(tmp_path / "two", c=TYPED.format("letters", "lose"))
    # when
    load_directory(registry, one)
    load_directory(registry, two)
    # then
    assert ["letters:seal", "letters:open", "letters:burn"] == keys(registry)
    assert [] == registry.problems


def test_of_two_files_with_one_subcommand_the_first_has_it_and_the_problem_names_both(tmp_path: Path) -> None:
    # given
    registry = Registry()
    command = "from animaworks_tasks import Registry\nregistry = Registry()\nregistry.add_command('ls', 'a', ['ls'])"
    more = "\nregistry.add('letters', 'open', function)\n"
    write(tmp_path, a=TYPED.format("letters", "seal"), b=TYPED.format("letters", "seal") + more, c=command, d=command)
    # when
    load_directory(registry, tmp_path)
    # then
    assert ["letters:seal", "ls:a"] == keys(registry)
    there_is = "nothing of it is taken: there is a tool"
    assert [
        (
            str(tmp_path / "b.py"),
            f"{there_is} 'letters seal' in {tmp_path / 'a.py'} already; choose another subcommand",
        ),
        (str(tmp_path / "d.py"), f"{there_is} 'ls a' in {tmp_path / 'c.py'} already; choose another subcommand"),
    ] == registry.problems


def test_files_may_register_in_one_registry_of_theirs(tmp_path: Path) -> None:
    # given
    registry = Registry()
    write(tmp_path, _shared="from animaworks_tasks import Registry\nregistry = Registry()\n")
    source = "from ._shared import registry\n@registry.tool('letters', '{}')\ndef function() -> None: ...\n"
    write(tmp_path, a=source.format("seal"), b=source.format("open"))
    # when
    load_directory(registry, tmp_path)
    # then
    assert ["letters:seal", "letters:open"] == keys(registry)
    assert [] == registry.problems


def test_a_tool_file_imports_what_lies_beside_it(tmp_path: Path) -> None:
    """Helpers, which may do so too, and other tools; directories of one name do not mix."""
    # given two directories, which differ in a helper of their helper
    source = "from ._helper import WHO\nfrom . import _helper\n" + TYPED
    for who in ("one", "two"):
        write(
            tmp_path / who / "tools",
            **{who: source.format(who, "b"), f"odd-{who}.v1": source.format(f"odd_{who}", "b")},
            _helper="from ._deeper import WHO",
            _deeper=f"WHO = '{who}'",
        )
    write(tmp_path / "one" / "tools", aaa="from .one import function, registry")
    registry = Registry()
    # when
    load_directory(registry, tmp_path / "one" / "tools")
    load_directory(registry, tmp_path / "two" / "tools")
    # then
    assert [] == registry.problems
    assert {"one:b", "odd_one:b", "two:b", "odd_two:b"} == set(keys(registry))
    codes = {tool.name: vars(sys.modules[tool.load().__module__]) for tool in registry.tools()}
    assert {name: name.removeprefix("odd_") for name in codes} == {name: code["WHO"] for name, code in codes.items()}
    assert codes["one"]["_helper"] is codes["odd_one"]["_helper"] is not codes["two"]["_helper"]
    # and a tool that another one has imported is not loaded twice
    assert codes["one"]["function"] is vars(sys.modules[codes["one"]["__package__"] + ".aaa"])["function"]


def test_the_problem_of_a_wrong_import_of_a_helper_says_how_to_import_it(tmp_path: Path) -> None:
    # given
    registry = Registry()
    write(tmp_path, _helper="x = 1", a="from _helper import x")
    # when
    load_directory(registry, tmp_path)
    # then
    [(_, why)] = registry.problems
    assert why.endswith("(a.py, line 1); it lies beside it, so write `from ._helper import ...`")


@pytest.mark.parametrize(
    ("way", "make"),
    [
        ("from animaworks_tasks import Registry", "Registry()"),
        ("from animaworks_tasks import Registry as Tools", "Tools()"),
        ("import animaworks_tasks", "animaworks_tasks.Registry()"),
    ],
)
def test_a_file_with_a_profile_may_have_a_registry_as_well(tmp_path: Path, way: str, make: str) -> None:
    # given
    registry = Registry()
    more = f"\n{way}\nregistry = {make}\n@registry.tool('letters', 'seal')\ndef seal() -> None: ..."
    write(tmp_path, greet=PROFILE.format("card") + more)
    # when
    load_directory(registry, tmp_path)
    # then
    assert ["greet:card", "letters:seal"] == keys(registry)
    assert [] == registry.problems


def test_a_profile_is_not_executed_for_a_registry_that_is_not_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    registry = Registry()
    more = (
        "\nfrom prometheus import Registry\nfrom x import Registry as R\nregistry, r = Registry(), R()\nother = y()()"
    )
    # when
    load_directory(registry, write(tmp_path, greet=PROFILE.format("card") + more))
    # then
    assert (["greet:card"], []) == (keys(registry), registry.problems)
    assert "" == capsys.readouterr().out


def test_installed_tools_win_over_personal_ones_and_those_over_common_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given the same names in several places, each with another subcommand
    install(tmp_path / "site", "core = core_tools")
    write(tmp_path / "site", core_tools=PROFILE.format("installed"))
    write(tmp_path / "anima" / "tools", core=PROFILE.format("personal"), mine=PROFILE.format("personal"))
    common = {name: PROFILE.format("common") for name in ("core", "mine", "ours")}
    write(tmp_path / "data" / "common_tools", **common)
    monkeypatch.syspath_prepend(tmp_path / "site")
    # when
    registry = discover(tmp_path / "anima", tmp_path / "data")
    # then
    assert ["core:installed", "mine:personal", "ours:common"] == keys(registry)
    assert [] == registry.problems
    # and a shell, which looks in the same places, can call them itself
    assert all(tool.direct for tool in registry.tools())
    # and the data directory is the runtime's, if none is named
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    assert keys(registry) == keys(discover(tmp_path / "anima"))


def test_an_entry_point_is_a_registry_or_fills_one_or_is_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    site = write(
        tmp_path,
        typed=TYPED.format("typed", "a") + "\ndef fill(registry):\n    registry.add('filled', 'b', function)\n"
        "def fail(registry):\n    registry.add('half', 'b', function)\n    raise SystemExit('no luck')\nnumber = 1\n",
        profiled=PROFILE.format("c"),
    )
    install(
        site,
        "a_registry = typed:registry\nb_function = typed:fill\nc_module = profiled\nd_typed = typed\n"
        "e_fails = typed:fail\nf_number = typed:number\ng_gone = typed:gone\nh_nowhere = nowhere_at_all",
    )
    monkeypatch.syspath_prepend(site)
    registry = Registry()
    # when
    load_entry_points(registry)
    # then
    assert {"typed:a", "filled:b", "c_module:c"} == set(keys(registry))
    neither = "it has neither EXECUTION_PROFILE and cli_main, nor a Registry"
    assert [
        ("entry point e_fails", "tool 'typed:fail' does not load: SystemExit: no luck (typed.py, line 15)"),
        ("entry point f_number", f"typed:number is no tool: {neither}"),
        (
            "entry point g_gone",
            "tool 'typed:gone' does not load: AttributeError: module 'typed' has no attribute 'gone'",
        ),
        ("entry point h_nowhere", "tool 'nowhere_at_all' does not load: there is no module 'nowhere_at_all'"),
    ] == registry.problems


def test_an_installed_tool_that_another_one_keeps_out_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who installs two packages with a tool of one name is not left to wonder; the same tool twice is no matter."""
    # given
    command = "from animaworks_tasks import Registry\nregistry = Registry()\nregistry.add_command('ls', '{}', ['ls'])"
    site = write(
        tmp_path,
        first=TYPED.format("sound", "a"),
        second=TYPED.format("sound", "b") + "\nregistry.add('other', 'c', function)\n",
        third=command.format("a"),
        fourth=command.format("b"),
    )
    install(site, "a = first:registry\nb = second:registry\nc = first\nd = third\ne = fourth")
    monkeypatch.syspath_prepend(site)
    registry = Registry()
    # when
    load_entry_points(registry)
    # then
    assert ["sound:a", "other:c", "ls:a"] == keys(registry)
    over = "is passed over: there is one of this name already"
    assert [
        ("entry point b", f"its tool 'sound' {over} (first:function); give it another name"),
        ("entry point e", f"its tool 'ls' {over}; give it another name"),
    ] == registry.problems


def test_what_has_no_tools_says_how_it_would_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given an empty registry, and a function that was meant to be the tool
    empty = "from animaworks_tasks import Registry\nregistry = Registry()\ndef tool(file): ..."
    install(write(tmp_path, empty=empty), "a = empty\nb = empty:tool")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    # when
    load_entry_points(registry)
    # then
    [(_, of_registry), (_, of_function)] = registry.problems
    assert "empty has no tools: its Registry is empty; register functions in it before" in of_registry
    assert "empty:tool has no tools: it was called with a Registry, and put nothing into it" in of_function
    assert "@registry.tool(...)" in of_function


@pytest.mark.parametrize("way", ["async def tool(): ...", "def tool(): ...", "def tool(file, context): ..."])
@pytest.mark.parametrize("decorated", ["", "@registry.tool('a', 'b')\n"])
def test_an_entry_point_that_names_the_tool_itself_is_a_problem_that_says_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, decorated: str
) -> None:
    """It is not called to find out: a tool would take the Registry for its argument."""
    # given
    source = f"from animaworks_tasks import Registry\nregistry = Registry()\n{decorated}{way}\n"
    one = "@registry.tool('a', 'one')\ndef one(text): raise AssertionError('it was called')\n"
    install(write(tmp_path, named=source + one), "a = named:tool\nb = named:one")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    # when
    load_entry_points(registry)
    # then
    assert [] == registry.tools()
    [(_, why), (_, why_one)] = registry.problems
    assert why.startswith(
        "named:tool has no tools: a function that is named is called with a Registry to fill, and this"
    )
    assert why.endswith("is registered with @registry.tool(...), and the registry is what is named")
    assert why.partition(" ")[2] == why_one.partition(" ")[2]


def test_a_tool_that_raises_while_it_is_imported_says_in_which_line(tmp_path: Path) -> None:
    """Its own line: neither ours nor that of what it called, and also where it is we that refuse it."""
    # given
    registry = Registry()
    wrong = "from animaworks_tasks import Registry\nregistry = Registry()\n\nregistry.add('a', 'b', 3)\n"
    write(tmp_path, calls="\n\nint('x')", imports="\nimport nowhere_at_all", syntax="\ndef", wrong=wrong)
    # when
    load_directory(registry, tmp_path)
    # then
    assert ["(calls.py, line 3)", "(imports.py, line 2)", "(syntax.py, line 2)", "(wrong.py, line 4)"] == [
        reason[reason.rindex("(") :] for _, reason in registry.problems
    ]


def test_a_tool_that_is_no_longer_python_says_in_which_line(tmp_path: Path) -> None:
    # given a tool that was found when it was in order
    registry = Registry()
    load_directory(registry, write(tmp_path, mended=PROFILE.format("x")))
    write(tmp_path, mended="pass\ndef")
    # when, then
    with pytest.raises(ToolLoadError, match=r"SyntaxError: invalid syntax \(mended.py, line 2\)$"):
        registry.get("mended", "x").load()


def test_an_import_path_is_loaded_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    (tmp_path / "pkg").mkdir()
    write(tmp_path / "pkg", __init__="", typed=TYPED.format("typed", "a"), profiled=PROFILE.format("c"))
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    # when
    load_import_path(registry, "pkg.typed:registry")
    load_import_path(registry, "pkg.profiled")
    load_import_path(registry, str(write(tmp_path / "files", filed=PROFILE.format("d")) / "filed.py"))
    # then
    assert ["typed:a", "profiled:c", "filed:d"] == keys(registry)
    with pytest.raises(ToolLoadError, match="there is no module"):
        load_import_path(registry, "pkg.nowhere")
    with pytest.raises(RegistryError, match="pkg is no tool"):
        load_import_path(registry, "pkg")
    assert [] == registry.problems


def test_a_package_is_searched_for_tools_under_their_import_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given AnimaWorks' own tools, with a helper beside them
    package = write(
        tmp_path / "acme" / "tools", __init__="", _helper="1 / 0", image_gen=PROFILE.format("3d"), bad="1 / 0"
    )
    write(tmp_path / "acme", __init__="")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    # when
    load_package(registry, "acme.tools")
    # then
    assert ["image_gen:3d"] == keys(registry)
    why = "ZeroDivisionError: division by zero (bad.py, line 1)"
    assert [("acme.tools.bad", why)] == registry.problems
    assert "" == capsys.readouterr().out
    assert callable(registry.get("image_gen", "3d").load())
    assert sys.modules["acme.tools.image_gen"].__file__ == str(package / "image_gen.py")
    with pytest.raises(ToolLoadError, match="there is no module 'acme"):
        load_package(registry, "acme.nothing")
