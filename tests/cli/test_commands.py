"""What every command of ``animaworks-tool`` has in common; every message says what to do next."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

import animaworks_tasks
from animaworks_tasks import TaskStore
from animaworks_tasks.cli import text as cli_text
from animaworks_tasks.cli.commands import COMMANDS, ENTRANCE, seconds
from animaworks_tasks.store.protocol import Progress
from animaworks_tasks.store.rules import utc_now
from tests.cli.conftest import PROGRAM, Tool, complete
from tests.conftest import begin

# What every command has in common.


def test_flags_may_stand_in_one_word_and_all_after_two_dashes_is_no_option(store: TaskStore, tool: Tool) -> None:
    task = complete(store)
    assert tool("logs", "-f", "-j", task.id).out == tool("logs", "-fj", task.id).out
    assert tool("show", task.id).out.splitlines()[0] == tool("show", "--", task.id).out.splitlines()[0]
    assert "no task '--limit'" in tool("show", "--", "--limit").err


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        ([], 2, "name a command or a tool"),
        (["-j"], 2, "name a command or a tool"),
        (["--anima-dir"], 2, "--anima-dir needs a value"),
        (["--anima-dir", __file__, "list"], 1, f"{__file__} is no directory: correct --anima-dir or ANIMAWORKS_ANIMA_"),
        (["lst"], 2, "'lst' is neither a command nor a tool: did you mean list?"),
        (["sub"], 2, "'sub' is neither a command nor a tool: did you mean submit?"),
        (["qqqq"], 2, "'qqqq' is neither a command nor a tool; `animaworks-tool tools` lists the tools"),
        (["--wat", "qqqq"], 2, "there is no option --wat here"),
        (["list", "--wat"], 2, "there is no option --wat here"),
        (["list", "--limit", "0"], 2, "--limit must be at least 1, not 0"),
        (["list", "--limit", "x"], 2, "--limit must be a whole number, not 'x'"),
        (["list", "--state", "asleep"], 2, "--state cannot be 'asleep': choose from pending, running, "),
        (["show"], 2, "required: ID, the task"),
        (["show", "abc"], 2, "'abc' is too short for a task's id: at least its first 4 digits are needed"),
        (["show", "abcd"], 1, "no task 'abcd' in "),
        (["show", "0123456789ab"], 1, "no task '0123456789ab' in "),
        (["logs", "../../../etc/passwd"], 1, "no task '../../../etc/passwd' in "),
        (["wait"], 2, "required: ID, the task"),
        (
            ["wait", "0123456789ab", "--timeout", "-1"],
            2,
            "--timeout '-1' is no length of time: write it as 90 (seconds), 5m, 1h30m, 2d",
        ),
        (
            ["wait", "0123456789ab", "--timeout", "nan"],
            2,
            "--timeout 'nan' is no length of time",
        ),
        (
            ["wait", "0123456789ab", "--timeout", "4000000000"],
            2,
            "--timeout 4000000000 is too long; at most 36500d, which is a century",
        ),
        (["cancel", "0123456789ab"], 1, "no task '0123456789ab' in "),
        (["retry", "0123456789ab"], 1, "no task '0123456789ab' in "),
        (["guide", "--language", "fr"], 2, "--language cannot be 'fr': choose from ja, en"),
        (["run", "--max-workers", "0"], 2, "--max-workers must be at least 1, not 0"),
        (["run", "--backend", "cloud"], 2, "--backend cannot be 'cloud': choose from process, thread"),
        (["run"], 1, "nothing could be run: there are no tools in "),
        (["tools", "--tools", "nowhere"], 1, "there is no directory nowhere: correct --tools"),
        (["tools", "--registry", "no_such_module"], 1, "tool 'no_such_module' does not load: there is no module"),
        (["tools", "--registry", "json"], 1, "json is no tool: it has neither EXECUTION_PROFILE and cli_main, nor a"),
    ],
)
@pytest.mark.usefixtures("anima")
def test_a_wrong_command_line_is_refused_with_its_reason(
    tool: Tool, words: list[str], status: int, reason: str
) -> None:
    said = tool(*words)
    assert (status, "") == (said.status, said.out)
    assert said.err.startswith(f"animaworks-tool: {reason}")
    lines = said.err.splitlines()
    assert (1, 2)[status == 2] >= len(lines)
    assert status == 1 or len(lines) == 1 or lines[1].startswith("usage: animaworks-tool ")


@pytest.mark.parametrize("command", ["list", "run", "notifications", "cancel"])
def test_an_anima_that_is_not_there_is_not_made(tmp_path: Path, tool: Tool, command: str) -> None:
    words = ["0123456789ab"] if command == "cancel" else []
    said = tool("--anima-dir", str(tmp_path / "nobody"), command, *words)
    assert 1 == said.status
    assert f"there is no directory {tmp_path / 'nobody'}: correct --anima-dir or ANIMAWORKS_ANIMA_DIR" in said.err
    assert [] == list(tmp_path.iterdir())


def test_no_anima_is_an_error_that_says_what_to_set(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR", raising=False)
    said = tool("list")
    assert 1 == said.status
    assert said.err.startswith("animaworks-tool: no Anima is named: set ANIMAWORKS_ANIMA_DIR")


def test_an_anima_that_cannot_be_written_is_one_line(anima: Path, tool: Tool) -> None:
    (anima / "state").write_text("a file where a directory belongs")
    said = tool("list")
    assert (1, 1) == (said.status, said.err.count("\n"))
    wanted = f"{anima}/state/background_tasks cannot hold tasks: Not a directory; move away what stands in its place"
    assert wanted in said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_names_all_it_takes(tool: Tool, command: str) -> None:
    said = tool(command, "--help")
    assert 0 == said.status
    assert re.match(rf"usage: animaworks-tool (\[.*\] )?{command} ", said.out)
    assert "exit status: 0 " in said.out
    assert said.out == tool("-h", command).out
    for argument in COMMANDS[command].arguments:
        named = argument.words if argument.is_option else [argument.value or ""]
        assert all(re.search(rf"^  .*{re.escape(word)}\b", said.out, re.MULTILINE) for word in named)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_carried_out_where_the_table_says(command: str) -> None:
    module = import_module(f"animaworks_tasks.cli.{COMMANDS[command].module}")
    assert callable(getattr(module, "submit" if command == "submit" else f"{command}_"))


def test_the_overview_names_every_command_option_and_exit_status(tool: Tool) -> None:
    said = tool("--help")
    assert {*COMMANDS} <= set(re.findall(r"^  (\w+)", said.out, re.MULTILINE))
    for option in ENTRANCE:
        assert f"\n  {', '.join(option.words)}" in said.out
    assert ["0", "1", "2", "3", "130", "141"] == re.findall(r"^  (\d+) ", said.out, re.MULTILINE)
    assert said.out == tool("-j", "-h").out


def test_the_version_is_the_packages(tool: Tool) -> None:
    assert f"animaworks-tool {animaworks_tasks.__version__}\n" == tool("--version").out


# Ids.


def test_the_beginning_of_an_id_is_enough(store: TaskStore, tool: Tool) -> None:
    tasks = {"pending": store.submit("web", "fetch"), "running": begin(store).task, "done": complete(store)}
    for state, task in tasks.items():
        shown = tool("show", task.id[:8], "-j").data
        assert (task.id, state) == (shown["task_id"], shown["state"])
        assert task.id == tool("show", "-j", task.id.upper()).data["task_id"]


def test_the_beginning_of_two_ids_is_not(store: TaskStore, tool: Tool) -> None:
    first, second = "0123456789ab", "01234567cdef"
    for task_id in (first, second):
        Path(store.layout.pending_record(task_id)).touch()
    said = tool("show", "01234567")
    assert 2 == said.status
    assert f"'01234567' is the beginning of 2 ids: {first}, {second}; write more of it" in said.err


# Readers that leave, people that lose patience.


def test_a_reader_that_has_left_is_not_complained_about(store: TaskStore) -> None:
    complete(store)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as output:
        done = subprocess.run([*PROGRAM, "list", "-j"], stdout=output, stderr=subprocess.PIPE, check=False)
    assert (141, b"") == (done.returncode, done.stderr)


def test_ctrl_c_ends_a_wait_without_a_word(store: TaskStore) -> None:
    task = store.submit("web", "fetch")
    with subprocess.Popen([*PROGRAM, "wait", task.id], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "no host is listening" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "" == process.stderr.read()
    assert 130 == process.returncode


def test_a_progress_report_is_put_in_a_line() -> None:
    assert "" == cli_text.said(None)
    assert "40%" == cli_text.said(Progress(0.4, "", utc_now()))
    assert "40% a b" == cli_text.said(Progress(0.4, "a\nb", utc_now()))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"), (0.04, "0 s"), (0.44, "0.4 s"), (9.9, "9.9 s"), (12.3, "12 s"), (59.6, "1 min"),
        (184, "3 min 4 s"), (3600, "1 h"), (7500, "2 h 5 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_times_are_written_as_people_write_them(seconds: float, words: str) -> None:
    assert words == cli_text.duration(seconds)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90", 90), ("0.5", 0.5), ("90s", 90), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("2d", 172_800),
        ("1h30m", 5400), ("1d2h3m4.5s", 93_784.5), ("2 h 5 min", 7500), ("36500d", 36500 * 86400),
    ],
)  # fmt: skip
def test_times_are_read_as_people_write_them(text: str, length: float) -> None:
    assert length == seconds(text)


@pytest.mark.parametrize("length", [0, 0.4, 12, 184, 3600, 7500, 90_000])
def test_times_are_read_as_we_write_them(length: float) -> None:
    assert length == seconds(cli_text.duration(length))


@pytest.mark.parametrize(
    "text",
    ["", " ", "m", "1h30", "30m1h", "5m5m", "-5m", "1h-5m", "1.2.3", "1 5", "1e3", "inf", "nan", "5x", "٣d", "1_0"],
)
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    wanted = f"{text!r} is no length of time: write it as 90 (seconds), 5m, 1h30m, 2d"
    with pytest.raises(ValueError, match=f"^{re.escape(wanted)}$"):
        seconds(text)


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_no_line_of_a_help_is_cut_in_a_word_or_a_command(tool: Tool, words: list[str]) -> None:
    """Nor by a terminal of eighty columns; what could be typed as it stands is not broken either."""
    usage, *lines = tool(*words, "--help").out.splitlines()
    assert usage.startswith("usage: ")
    assert [] == [line for line in lines if len(line) > 80]
    assert [] == [line for line in lines if line.count("`") % 2]
    assert [] == [line for line in lines if re.search(r"[\w-]-$", line)]


def test_letters_are_as_wide_as_a_terminal_shows_them() -> None:
    assert [1, 4, 1] == [cli_text.columns(text) for text in ("a", "日本", "e\u0301")]
