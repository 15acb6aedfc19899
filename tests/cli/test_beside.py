"""Two distributions with one command: each word reaches the program that knows it, whichever was installed last."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import venv
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from animaworks_tasks import Registry, TaskStore
from animaworks_tasks.cli import main

ROOT = Path(__file__).resolve().parents[2]
WITH_LINES, WITHOUT = True, False
OURS, THEIRS = "animaworks_tasks", "stand_in"

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "stand-in"
version = "0.11.0"
[project.scripts]
animaworks-tool = "core.tools:cli_dispatch"
[tool.hatch.build.targets.wheel]
packages = ["core"]
[tool.hatch.build]
dev-mode-dirs = ["."]
"""
ENTRY = "[console_scripts]\nanimaworks-tool = core.tools:cli_dispatch\n"
DISPATCH = """\
import json, os, sys

def cli_dispatch():
{lines}
    print(json.dumps({{"theirs": sys.argv[1:], "anima": os.environ.get("ANIMAWORKS_ANIMA_DIR"), "core": __file__}}))
    sys.exit(7 if "fail" in sys.argv else 0)
"""
PROFILES = {
    "web_search": '{"search": {"expected_seconds": 15, "background_eligible": False}}',
    "gmail": '{"unread": {"expected_seconds": 15, "background_eligible": False}}',
    "local_llm": '{"generate": {"expected_seconds": 300, "background_eligible": True}, '
    '"list": {"expected_seconds": 5, "background_eligible": False}}',
}
MODULE = "EXECUTION_PROFILE = {}\ndef cli_main(argv=None):\n    print('a module', argv)\n"
HIJACK = "import os, sys\nos.write(2, b'hijacked')\nos._exit(99)\n"


@attrs.frozen
class Done:
    status: int
    out: str
    err: str

    @property
    def theirs(self) -> list[str] | None:
        """The words that reached their program; None if it was not theirs."""
        line = self.out.splitlines()[-1] if self.out else ""
        words: list[str] | None = json.loads(line)["theirs"] if line.startswith('{"theirs"') else None
        return words


@attrs.frozen
class Environment:
    """A virtual environment with its own programs; what ours needs is taken from where our tests run."""

    home: Path

    @property
    def bin(self) -> Path:
        return self.home / "venv" / "bin"

    def pip(self, *words: str | Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.bin / "python", "--quiet", "--disable-pip-version-check")
        done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stdout + done.stderr

    def install(self, *what: str | Path) -> None:
        self.pip("install", "--no-index", "--no-deps", "--no-warn-script-location", "--force-reinstall", *what)

    def type(self, *words: str | Path, program: str = "animaworks-tool", cwd: Path | None = None, **more: str) -> Done:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST", "PYTHON"))},
            "ANIMAWORKS_ANIMA_DIR": str(self.home / "mei"),
            "ANIMAWORKS_DATA_DIR": str(self.home / "data"),
            **more,
        }
        done = subprocess.run(
            [self.bin / program, *words], env=environment, cwd=cwd or self.home, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Return the wheel of ours, or of theirs, with the four lines of the docs or without; built when first asked."""
    built: dict[tuple[str, bool], Path] = {}

    def build(name: str, lines: bool) -> Path:  # noqa: FBT001 - WITH_LINES or WITHOUT
        key = (name, name == THEIRS and lines)
        if key not in built:
            place = tmp_path_factory.mktemp("wheel")
            source = ROOT if name == OURS else their_source(place / "source", lines=lines)
            options = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", place)
            subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], check=True, timeout=120)
            (built[key],) = place.glob("*.whl")
        return built[key]

    return build


def their_source(place: Path, *, lines: bool) -> Path:
    docs = (ROOT / "docs" / "animaworks.md").read_text("utf-8")
    (four,) = [piece for piece in re.findall(r"```py\n(.*?)```", docs, re.DOTALL) if "is_command" in piece]
    four = textwrap.dedent(four).strip()
    assert 4 == len(four.splitlines())
    tools = place / "core" / "tools"
    tools.mkdir(parents=True)
    (place / "pyproject.toml").write_text(PROJECT)
    (tools.parent / "__init__.py").touch()
    text = textwrap.indent(four, "    ") if lines else ""
    (tools / "__init__.py").write_text(DISPATCH.format(lines=text))
    for name in PROFILES:
        (tools / f"{name}.py").touch()
    return place


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    venv.create(tmp_path / "venv", with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    others = sysconfig.get_path("purelib")
    # Without its .pth files: ours is not to be found where it is being worked on.
    (site / "others.pth").write_text(f"{others}\n")
    (tmp_path / "mei" / "tools").mkdir(parents=True)
    return Environment(tmp_path)


@pytest.fixture
def _hosted(environment: Environment) -> None:
    """Let a host have published the tools of the core."""
    registry = Registry()
    for name, profile in PROFILES.items():
        path = environment.home / f"{name}.py"
        path.write_text(MODULE.replace("{}", profile))
        registry.add_module(name, path)
    TaskStore(environment.home / "mei").publish_catalogue(registry.catalogue())


def their_words_reach_them(environment: Environment) -> None:
    for words in (
        ["web_search", "q"], ["call_human", "subject", "the body"], ["internal", "list-background-tasks"],
        ["gmail", "unread", "-n", "3"], ["local_llm", "list"], ["local_llm", "--help"], ["vault", "get", "fail"],
        ["web_search", "search", "two words"], ["local_llm", "generate", "x"],
    ):  # fmt: skip
        done = environment.type(*words)
        assert (words, 7 if "fail" in words else 0) == (done.theirs, done.status), done


def our_words_reach_us(environment: Environment) -> None:
    submitted = environment.type("submit", "local_llm", "generate", "hello")
    assert submitted.theirs is None
    task_id = json.loads(submitted.out)["task_id"]
    (record,) = (environment.home / "mei/state/background_tasks/pending").iterdir()
    assert "version" in json.loads(record.read_text("utf-8"))  # which theirs does not write
    assert "pending" in environment.type("show", task_id).out
    assert 3 == environment.type("--anima-dir", environment.home / "mei", "wait", "--timeout", "0", task_id).status
    assert 0 == environment.type("cancel", task_id).status
    assert task_id in environment.type("notifications").out
    assert environment.type("guide").out.startswith("# ツールの使い方")


@pytest.mark.slow
@pytest.mark.usefixtures("_hosted")
@pytest.mark.parametrize(
    ("order", "lines"),
    [((THEIRS, OURS), WITHOUT), ((THEIRS, OURS), WITH_LINES), ((OURS, THEIRS), WITH_LINES)],
    ids=["ours last", "ours last, with the lines", "theirs last, with the lines"],
)
def test_each_word_reaches_the_program_that_knows_it(
    order: tuple[str, str], *, lines: bool, environment: Environment, wheel: Callable[[str, bool], Path]
) -> None:
    for each in order:
        environment.install(wheel(each, lines))
    their_words_reach_them(environment)
    our_words_reach_us(environment)


@pytest.mark.slow
def test_where_theirs_is_last_it_has_all_until_its_source_has_the_lines(
    environment: Environment, wheel: Callable[[str, bool], Path]
) -> None:
    """And uninstalling either takes the command away from both, until the other is installed again."""
    environment.install(wheel(OURS, WITHOUT))
    environment.install(wheel(THEIRS, WITHOUT))
    assert ["submit", "x"] == environment.type("submit", "x").theirs
    assert ["call_human"] == environment.type("-m", "animaworks_tasks", "call_human", program="python").theirs
    environment.pip("uninstall", "--yes", "stand-in")
    assert not (environment.bin / "animaworks-tool").exists()
    environment.install(wheel(OURS, WITHOUT))
    assert 2 == environment.type("call_human").status
    assert "'call_human' is neither a command nor a tool" in environment.type("call_human").err
    environment.install(wheel(THEIRS, WITHOUT))
    environment.pip("uninstall", "--yes", "animaworks_tasks")
    assert not (environment.bin / "animaworks-tool").exists()


@pytest.mark.slow
def test_a_core_in_the_current_directory_is_never_imported(
    environment: Environment, wheel: Callable[[str, bool], Path]
) -> None:
    """Neither the package, in any of the ways in which Python would find it there, nor metadata that names it."""
    # given a directory in which an agent, or somebody else, has left these
    here = environment.home / "here"
    (here / "core").mkdir(parents=True)
    for name in ("__init__.py", "tools.py"):
        (here / "core" / name).write_text(HIJACK)
    (here / "planted-1.dist-info").mkdir()
    (here / "planted-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (here / "planted-1.dist-info" / "entry_points.txt").write_text(ENTRY)
    environment.install(wheel(OURS, WITHOUT))
    ways: list[tuple[list[str], str, dict[str, str]]] = [
        ([], "animaworks-tool", {}),
        (["-m", "animaworks_tasks"], "python", {}),
        ([], "animaworks-tool", {"PYTHONPATH": f":{environment.home}"}),
        ([], "animaworks-tool", {"PYTHONPATH": str(here)}),
    ]

    # when theirs is not installed, then it is not found
    for options, program, more in ways:
        done = environment.type(*options, "call_human", program=program, cwd=here, **more)
        assert (2, "") == (done.status, done.out), done

    # and when it is, then it is the installed one
    environment.install(wheel(THEIRS, WITHOUT), wheel(OURS, WITHOUT))
    for options, program, more in ways:
        done = environment.type(*options, "web_search", "q", program=program, cwd=here, **more)
        assert (["web_search", "q"], "") == (done.theirs, done.err), done
        assert str(environment.home / "venv") in json.loads(done.out)["core"]


@pytest.mark.slow
def test_one_that_is_installed_from_its_checkout_is_found_there_too(
    environment: Environment, wheel: Callable[[str, bool], Path]
) -> None:
    source = their_source(environment.home / "checkout", lines=False)
    environment.install("--no-build-isolation", "--editable", source)
    environment.install(wheel(OURS, WITHOUT))
    for options, program in (([], "animaworks-tool"), (["-m", "animaworks_tasks"], "python")):
        done = environment.type(*options, "web_search", "q", program=program, cwd=source)
        assert ["web_search", "q"] == done.theirs, done


@pytest.mark.slow
def test_what_stands_before_the_name_goes_along_and_so_do_precedence_and_gates(
    environment: Environment, wheel: Callable[[str, bool], Path]
) -> None:
    # given an Anima with a tool of the core's name, one of its own with a gated subcommand, and a typed one
    environment.install(wheel(THEIRS, WITHOUT))
    environment.install(wheel(OURS, WITHOUT))
    tools = environment.home / "mei" / "tools"
    (tools / "gmail.py").write_text(MODULE.replace("{}", PROFILES["gmail"]))
    gated = '{"open": {"background_eligible": False}, "shut": {"background_eligible": False, "gated": True}}'
    (tools / "door.py").write_text(MODULE.replace("{}", gated))
    (tools / "gate.py").write_text(
        'import argparse\nEXECUTION_PROFILE = {"shut": {"background_eligible": False, "gated": True}}\n'
        "def cli_main(argv=None):\n p = argparse.ArgumentParser()\n p.add_argument('what')\n p.parse_args(argv)\n"
    )
    (tools / "typed.py").write_text(
        "from animaworks_tasks import Registry\nregistry = Registry()\n"
        "@registry.tool('typed', 'go')\ndef go() -> str:\n    return 'went'\n"
    )
    kaede = environment.home / "kaede"
    kaede.mkdir()

    # then
    done = environment.type("--anima-dir", kaede, "-j", "web_search", "q")
    assert ["web_search", "q", "-j"] == done.theirs
    assert str(kaede) == json.loads(done.out)["anima"]
    assert ["web_search", "--help"] == environment.type("-h", "web_search").theirs
    assert ["gmail", "unread"] == environment.type("gmail", "unread").theirs
    assert ["door", "shut"] == environment.type("door", "shut").theirs
    assert "a module ['open']\n" == environment.type("door", "open").out
    assert ["gate", "the door"] == environment.type("gate", "the door").theirs
    assert "went\n" == environment.type("typed", "go").out
    # what was named is ours to call, and an end of the options stays one
    assert "a module ['unread']\n" == environment.type("--tools", tools, "gmail", "unread").out
    assert ["web_search", "-j", "--", "-foo"] == environment.type("-j", "web_search", "--", "-foo").theirs
    # and theirs does without an Anima, also where the variable names none that is there
    assert ["call_human"] == environment.type("call_human", ANIMAWORKS_ANIMA_DIR="/nowhere").theirs
    assert 1 == environment.type("--anima-dir", "/nowhere", "call_human").status


def test_where_the_current_directory_may_not_be_searched_a_direct_call_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> bool:
        raise PermissionError(13, "Permission denied", ".")

    monkeypatch.setattr(os.path, "samefile", refuse)
    (tmp_path / "door.py").write_text(MODULE.replace("{}", '{"open": {"background_eligible": False}}'))
    assert 0 == main(["--tools", str(tmp_path), "door", "open"])
    assert "a module ['open']\n" == capsys.readouterr().out


@pytest.mark.usefixtures("_hosted")
def test_what_ours_does_not_know_is_handed_to_theirs_with_what_the_catalogue_says(
    environment: Environment, tmp_path: Path
) -> None:
    """The same in short: their files and metadata on Python's path, as after an installation; ours as it stands."""
    # given
    source = their_source(tmp_path / "site", lines=False)
    (source / "stand_in-1.dist-info").mkdir()
    (source / "stand_in-1.dist-info" / "entry_points.txt").write_text(ENTRY)
    program = "import sys; from animaworks_tasks.cli import main; sys.exit(main())"

    def typed(*words: str) -> Done:
        variables = {"PYTHONPATH": str(source), "ANIMAWORKS_ANIMA_DIR": str(environment.home / "mei")}
        done = subprocess.run(
            [sys.executable, "-c", program, *words], env=os.environ | variables, cwd=tmp_path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert list(words) == Done(done.returncode, done.stdout, done.stderr).theirs, done
        return Done(done.returncode, done.stdout, done.stderr)

    # then
    assert (7, "") == (typed("internal", "tasks", "fail").status, typed("internal", "tasks").err)
    assert "" == typed("web_search", "q").err
    slow = "⚠ local_llm generate takes about 5 min: `animaworks-tool submit local_llm generate hi` would have returned"
    assert slow in typed("local_llm", "generate", "hi").err
    quick = "local_llm list is quick: submit is not needed, `animaworks-tool local_llm list ...` returns its result"
    assert quick in typed("local_llm", "list").err
    assert "" == typed("local_llm", "generate", "--help").err
    # and what neither a catalogue nor we know, of several words
    assert "" == typed("call_human", "the subject", "the body").err
