"""``animaworks-tool TOOL SUBCOMMAND``: a tool called here and now, as if it were a program of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from animaworks_tasks.cli import main
from tests.cli.conftest import Said, Tool
from tests.processes import gone, until

PROGRAM = [sys.executable, "-c", "import sys; from animaworks_tasks.cli import main; sys.exit(main())"]

FUNCTIONS = """\
import os
import sys
from pathlib import Path
from typing import Literal

from animaworks_tasks import BadArgument, MissingCredential, Registry, TaskCancelled, ToolContext

registry = Registry()


@registry.tool("cat", "draw", expected_seconds=120)
def draw(file: Path, *, size: int = 3, style: Literal["ink", "oil"] = "ink", loud: bool = False) -> dict[str, object]:
    '''Draw a cat.'''
    print("drawing")
    return {"file": str(file), "size": size, "where": os.environ.get("ANIMAWORKS_ANIMA_DIR")}


@registry.tool("cat", "count")
def count(*names: str, context: ToolContext) -> int:
    '''Count cats.'''
    context.logger.info("counting")
    context.progress(0.5, "half of them")
    context.raise_if_cancelled()
    return len(names)


@registry.tool("cat", "many")
def many() -> str:
    '''Return more than a record holds.'''
    return "猫" * 100_000


@registry.tool("cat", "keep")
def keep(context: ToolContext) -> str:
    '''Leave a file.'''
    (context.scratch / "cat.txt").write_text("meow")
    return str(context.scratch / "cat.txt")


@registry.tool("cat", "nothing")
async def nothing() -> None:
    '''Return nothing, later.'''


@registry.tool("cat", "fail")
def fail(how: str) -> None:
    if how == "credential":
        raise MissingCredential("CAT_KEY is not set", hint="ask the cat")
    if how == "argument":
        raise BadArgument("that is a dog")
    if how == "stop":
        raise TaskCancelled("enough")
    raise KeyError(how)


SAY = "import sys; print(*sys.argv[1:]); sys.exit(len(sys.argv) > 3)"
SLEEP = '''
import os, sys, time
print(os.getpid(), flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
print("asleep", flush=True)
time.sleep(60)
'''
registry.add_command("shell", "say", [sys.executable, "-c", SAY])
registry.add_command("shell", "known", [sys.executable, "-c", SAY], usage="WORD...", summary="Say it.")
registry.add_command("shell", "sleep", [sys.executable, "-c", SLEEP])
"""

MODULE = """\
import sys

EXECUTION_PROFILE = {
    "go": {"expected_seconds": 5, "background_eligible": False},
    "slow": {"expected_seconds": 0, "background_eligible": True},
}


def cli_main(argv=None):
    if "--help" in argv:
        print("the module's own help")
        return
    print("result", *argv)
    print("remark", file=sys.stderr)
    if "fail" in argv:
        sys.exit(3)
    if "usage" in argv:
        sys.exit(2)
"""


pytestmark = pytest.mark.usefixtures("anima")


@pytest.fixture
def anima(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Anima with tools, named by the environment."""
    tools = tmp_path / "mei/tools"
    tools.mkdir(parents=True)
    (tools / "cats.py").write_text(FUNCTIONS)
    (tools / "mod.py").write_text(MODULE)
    (tools / "bad.py").write_text("def (\n")
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power in these tests
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is held back and cannot be written is the harder case
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "mei"


def test_what_a_function_returns_is_the_output_and_what_it_prints_a_remark(tool: Tool, anima: Path) -> None:
    said = tool("cat", "draw", "a.png", "--size", "4")
    wanted = {"file": f"{os.getcwd()}/a.png", "size": 4, "where": str(anima)}
    assert (0, wanted) == (said.status, json.loads(said.out))
    assert said.err.endswith("\ndrawing\n")
    assert "2\n" == tool("cat", "count", "tom", "felix").out
    assert re.search(r"INFO counting\n$", tool("cat", "count").err)
    assert Said(0, "", "") == tool("cat", "nothing")
    assert "猫" * 100_000 + "\n" == tool("cat", "many").out


def test_what_a_module_prints_is_the_output_as_it_comes(tool: Tool) -> None:
    assert Said(0, "result go -x\n", "remark\n") == tool("mod", "go", "-x")
    said = tool("mod", "go", "fail")
    assert (1, "result go fail\n") == (said.status, said.out)
    assert "remark\nanimaworks-tool: mod go failed (tool): remark\n" == said.err
    assert 2 == tool("mod", "go", "usage").status


def test_a_command_is_run_as_it_is(tool: Tool) -> None:
    assert Said(0, "a b\n", "") == tool("shell", "say", "a b")
    said = tool("shell", "say", "1", "2", "3")
    assert (1, "1 2 3\n") == (said.status, said.out)
    assert "animaworks-tool: shell say failed (tool): exit status 1\n" == said.err


def test_a_long_running_tool_says_that_it_should_have_been_submitted(tool: Tool) -> None:
    said = tool("cat", "draw", "my cat.png")
    assert 0 == said.status
    assert said.err.startswith(
        "animaworks-tool: ⚠ cat draw takes about 2 min: `animaworks-tool submit cat draw 'my cat.png'` would have"
    )
    assert "⚠" in tool("mod", "slow").err
    assert "⚠" not in tool("mod", "go").err


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("credential", 1, "failed (credentials): CAT_KEY is not set\nanimaworks-tool: what to do: ask the cat\n"),
        ("argument", 2, "failed (arguments): that is a dog\n"),
        ("stop", 130, "was stopped: TaskCancelled: enough\n"),
        ("else", 1, "failed (tool): KeyError: 'else'\n"),
    ],
)
def test_a_failure_is_reported_with_its_cause_and_hint(tool: Tool, how: str, status: int, reason: str) -> None:
    said = tool("cat", "fail", how)
    assert (status, "") == (said.status, said.out)
    assert said.err.endswith(f"animaworks-tool: cat fail {reason}")
    assert (how == "else") == ("Traceback" in said.err)  # only the tool's author can do anything about that one


def test_json_tells_all_of_it(tool: Tool) -> None:
    said = tool("-j", "mod", "go")
    wanted = {"tool": "mod", "subcommand": "go", "outcome": "completed", "cause": None, "error": None, "hint": None}
    assert {**wanted, "result": "result go\n"} == json.loads(said.out)
    said = tool("--json", "cat", "fail", "credential")
    failed = {"outcome": "failed", "cause": "credentials", "error": "CAT_KEY is not set", "hint": "ask the cat"}
    assert (1, failed) == (said.status, {key: json.loads(said.out)[key] for key in failed})
    assert "cancelled" == json.loads(tool("-j", "cat", "fail", "stop").out)["outcome"]


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["cat"], 2, "cat needs a subcommand: draw, count, many, keep, nothing, fail\nusage: cat {draw,"),
        (["cat", "drow"], 2, "cat has no subcommand 'drow': did you mean draw?"),
        (["cat", "draw"], 2, "missing: FILE\nusage: cat draw FILE [--size INT]"),
        (["kat", "draw"], 2, "'kat' is neither a command nor a tool: did you mean cat?\nusage: animaworks-tool"),
        (["bad"], 1, "{anima}/tools/bad.py is no tool that can be called: SyntaxError"),
    ],
)
def test_a_wrong_call_is_refused_with_its_reason(
    tool: Tool, anima: Path, words: list[str], status: int, reason: str
) -> None:
    said = tool(*words)
    assert (status, "") == (said.status, said.out)
    assert said.err.startswith(f"animaworks-tool: {reason.replace('{anima}', str(anima))}")


def test_help_is_the_tools(tool: Tool) -> None:
    assert (
        "usage: animaworks-tool submit cat draw FILE [--size INT] [--style {ink,oil}] [--loud]\n"
        in tool("cat", "-h").out
    )
    assert tool("cat", "--help").out == tool("--help", "cat").out
    wanted = """\
usage: animaworks-tool submit cat draw FILE [--size INT] [--style {ink,oil}] [--loud]

Draw a cat.

  FILE
  [--size INT]             (default: 3)
  [--style {ink,oil}]      (default: ink)
  [--loud]
"""
    assert wanted == tool("cat", "draw", "a.png", "--help").out
    assert "usage: animaworks-tool cat fail HOW\n\n  HOW\n" == tool("cat", "fail", "-h").out
    assert "the module's own help\n" == tool("mod", "go", "--help").out
    assert 2 == tool("cat", "drow", "--help").status
    assert "1\n" == tool("cat", "count", "--", "--help").out


def test_help_never_runs_a_command(tool: Tool) -> None:
    """A program may not know the word, and make an archive of that name. After ``--`` it gets it, and ``-h`` always."""
    assert Said(0, "usage: animaworks-tool shell say ...\n", "") == tool("shell", "say", "--help", "a")
    assert Said(0, "usage: animaworks-tool shell known WORD...\n\nSay it.\n", "") == tool(
        "shell", "known", "a", "--help"
    )
    assert Said(0, "-- --help\n", "") == tool("shell", "say", "--", "--help")
    assert Said(0, "-h\n", "") == tool("shell", "say", "-h")
    assert "usage: animaworks-tool shell known WORD...\n" in tool("shell", "--help").out


def test_a_tool_and_its_subcommand_may_be_written_as_notifications_write_them(tool: Tool) -> None:
    assert tool("cat", "count", "tom").out == tool("cat:count", "tom").out == "1\n"
    assert tool("cat", "draw", "--help").out == tool("cat:draw", "--help").out
    assert "cat has no subcommand 'drow': did you mean draw?" in tool("cat:drow").err


def test_tools_may_be_named_on_the_command_line(tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/mod.py").write_text(MODULE.replace("result", "another result"))
    assert "another result go\n" == tool("--tools", str(tmp_path / "more"), "mod", "go").out
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR")
    assert 2 == tool("mod", "go").status
    assert 0 == tool("--anima-dir", str(tmp_path / "mei"), "mod", "go").status
    assert str(tmp_path / "mei") == os.environ["ANIMAWORKS_ANIMA_DIR"]
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", "")


def test_files_that_a_tool_leaves_stay_and_are_named(tool: Tool) -> None:
    said = tool("cat", "keep")
    file = Path(said.out.strip())
    assert "meow" == file.read_text()
    assert f"files of this call are kept in {file.parent}" in said.err


def test_progress_stands_in_one_line_on_a_terminal(
    tool: Tool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert 0 == main(["cat", "count", "tom"])
    assert capsys.readouterr().err.endswith("counting\n\r\x1b[K50% half of them\r\x1b[K")


def test_a_process_without_a_console_can_call_tools(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tool
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert 0 == main(["mod", "go"])


def test_a_reader_that_has_left_stops_the_tool_quietly(anima: Path) -> None:
    assert anima
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as output:
        done = subprocess.run([*PROGRAM, "mod", "go"], stdout=output, stderr=subprocess.PIPE, check=False)
    assert 141 == done.returncode
    assert b"Traceback" not in done.stderr.rpartition(b"BrokenPipeError")[2]


def test_that_nobody_hears_the_remarks_stops_nothing(anima: Path) -> None:
    assert anima
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, "mod", "slow"], stdout=subprocess.PIPE, stderr=full, check=False)
    assert (0, b"result slow\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_tool_and_what_it_started(anima: Path, number: signal.Signals) -> None:
    command = [*PROGRAM, "shell", "sleep", str(anima / "gate")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pid = int(process.stdout.readline())
        (anima / "gate").touch()
        # The second line comes the way of the first: an exception out of nowhere now meets no code that runs for the
        # first time, and so none of coverage.py's, which would not get over it.
        assert b"asleep\n" == process.stdout.readline()
        process.send_signal(number)
        assert b"animaworks-tool: shell sleep was stopped\n" == process.stderr.read()
    assert 130 == process.returncode
    until(lambda: gone(pid))
