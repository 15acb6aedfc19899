"""Every kind of tool, and every way in which a call of it can end: what the record and the log then say."""

from __future__ import annotations

import asyncio
import enum
import json
import os
import sys
import threading
from collections import UserDict, UserList, UserString, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import attrs
import pytest

from animaworks_tasks import (
    BadArgument,
    Cause,
    MemoryTaskStore,
    MissingCredential,
    Outcome,
    Registry,
    State,
    Store,
    Task,
    TaskCancelled,
    TaskStore,
    ToolContext,
    ToolError,
    run_task,
)
from animaworks_tasks.store.workspace import DirectoryWorkspace
from animaworks_tasks.worker.call import RESULT_LIMIT, call
from tests.processes import in_event_loop, join, until


def ended(registry: Registry, *argv: str, cwd: str | None = None, store: Store | None = None) -> tuple[Task, str]:
    """Run one call of ``tool``; return the task and its log."""
    store = store or MemoryTaskStore()
    task = run_task(store, registry, store.submit("tool", *argv, cwd=cwd).id)
    assert task is not None
    assert State.DONE is task.state
    return task, store.read_log(task.id).decode("utf-8", "replace")


def called(function: Callable[..., object], *argv: str, cwd: str | None = None) -> tuple[Task, str]:
    """Run one call of a typed function."""
    registry = Registry()
    registry.add("tool", "run", function)
    return ended(registry, "run", *argv, cwd=cwd)


def run_module(directory: Path, body: str, *argv: str) -> tuple[Task, str]:
    """Run one call of a module's ``cli_main(argv)`` with this body."""
    lines = "\n    ".join(body.splitlines())
    file = directory / "tool_module.py"
    file.write_text(
        "import argparse, io, os, sys, threading\n"
        'EXECUTION_PROFILE = {"run": {"expected_seconds": 60, "background_eligible": True}}\n'
        f"def cli_main(argv=None):\n    {lines}\n"
    )
    registry = Registry()
    registry.add_module("tool", file)
    return ended(registry, "run", *argv)


def raising(error: BaseException) -> Callable[[], None]:
    def tool() -> None:
        raise error

    return tool


# --- what it returns ---


class Plain:
    def __str__(self) -> str:
        return "plain"

    def __repr__(self) -> str:
        return "Plain()"


class Format(enum.Enum):
    ZIP = "zip"
    TAR = ("tar", "gz")


class Colour(str, enum.Enum):  # noqa: UP042 - whose str is another one than its value
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 2


@dataclass
class Point:
    x: int
    format: Format


@attrs.frozen
class Circle:
    centre: Point
    sizes: set[float]


def knot() -> list[object]:
    tied: list[object] = []
    tied.append(tied)
    return tied


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("日本", "日本"),
        ("", ""),
        (None, None),
        ("lone \udcff", "lone \\udcff"),
        (b"caf\xc3\xa9 \xff", "café �"),
        (bytearray(b"data"), "data"),
        ({"件数": 2}, '{\n  "件数": 2\n}'),
        ([1, 2.5], "[\n  1,\n  2.5\n]"),
        (True, "true"),
        (Path("a/b.png"), "a/b.png"),
        (Plain(), "plain"),
        (["a", Plain()], '[\n  "a",\n  "plain"\n]'),
        (Format.ZIP, "zip"),
        (Colour.RED, "red"),
        (datetime(2026, 11, 26, 12, tzinfo=UTC), "2026-11-26T12:00:00+00:00"),
        (knot(), "[[...]]"),
    ],
    ids=repr,
)
def test_what_a_function_returns_is_the_result_as_text(value: object, result: str | None) -> None:
    task, log = called(lambda: value)
    assert (Outcome.COMPLETED, result, "") == (task.outcome, task.result, log)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1, Format.ZIP), {"x": 1, "format": "zip"}),
        (Circle(Point(1, Format.TAR), {2.5}), {"centre": {"x": 1, "format": ["tar", "gz"]}, "sizes": [2.5]}),
        ([Format.ZIP, Colour.RED, Level.HIGH], ["zip", "red", 2]),
        ({"a": {10, 9, 1}, "b": frozenset("ba"), "c": {"x", 1}}, {"a": [1, 9, 10], "b": ["a", "b"], "c": ["x", 1]}),
        ((1, range(2), deque([3]), UserList([4])), [1, [0, 1], [3], [4]]),
        ([{"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()], [["a"], [1], [["a", 1]]]),
        ([Path("a/b"), b"caf\xc3\xa9"], ["a/b", "café"]),
        ([datetime(2026, 11, 26, tzinfo=UTC), date(2026, 11, 26)], ["2026-11-26T00:00:00+00:00", "2026-11-26"]),
        ([UserDict(a=1), MappingProxyType({"b": {2}})], [{"a": 1}, {"b": [2]}]),
        ({(1, 2): 3, Format.ZIP: 4, Path("p"): 5, 6: 7}, {"(1, 2)": 3, "zip": 4, "p": 5, "6": 7}),
        ([float("nan"), float("inf"), -0.5, Fraction(1, 2), Decimal("0.10")], [None, None, -0.5, 0.5, "0.10"]),
        ([UserString("text"), Plain, timedelta(seconds=90)], ["text", f"{Plain}", "0:01:30"]),
    ],
)
def test_what_has_an_obvious_form_in_json_gets_it_and_the_rest_is_text(value: object, expected: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    task, _ = called(lambda: value)
    assert expected == json.loads(task.result or "", parse_constant=refuse)


def test_what_an_async_function_returns_is_the_result() -> None:
    async def tool() -> str:
        await asyncio.sleep(0)
        return "awaited"

    assert "awaited" == called(tool)[0].result


async def soon() -> str:
    return "now"


def one_by_one() -> Iterator[int]:
    yield 1


async def one_by_one_soon() -> AsyncIterator[int]:
    yield 1


def calling(function: Callable[[], object]) -> Callable[[], object]:
    def tool() -> object:
        return function()

    return tool


class Awaited:
    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    ("tool", "error", "hint"),
    [
        (calling(one_by_one), "generator: nobody has gone through it", "return list(...)"),
        (lambda: map(print, "ab"), "map: nobody has gone through it", "return list(...)"),
        (calling(one_by_one_soon), "async_generator: nobody has gone through it", "go through it in an `async def`"),
        (calling(Awaited), "Awaited: nobody has awaited it", "await it in an `async def`"),
        (lambda: {"parts": [one_by_one()]}, "generator: nobody has gone through it", "return list(...)"),
        (lambda: [soon()], "coroutine: nobody has awaited it", "await it"),
    ],
)
def test_what_was_only_promised_is_no_result(tool: Callable[[], object], error: str, hint: str) -> None:
    """A task whose work was not done does not end as completed; nor is it tried again."""
    registry = Registry()
    registry.add("tool", "run", tool, retries=2)
    task, _ = ended(registry, "run")
    assert (Outcome.FAILED, Cause.RESULT, 1) == (task.outcome, task.cause, task.attempt)
    assert f"it returned an unfinished {error}, so its work was not done" == task.error
    assert f"change the tool's code: {hint}" in (task.hint or "")


def test_a_coroutine_that_an_async_function_returns_is_no_result() -> None:
    async def tool() -> object:
        return soon()

    assert (
        "it returned an unfinished coroutine: nobody has awaited it, so its work was not done" == called(tool)[0].error
    )


def test_a_coroutine_that_a_plain_function_returns_is_run() -> None:
    assert "now" == called(calling(soon))[0].result


def test_a_result_that_cannot_be_written_down_fails_the_task_and_says_so() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    task, _ = called(lambda: [Unprintable()])
    assert (Cause.RESULT, "its result cannot be written down: RuntimeError: no words") == (task.cause, task.error)


def test_of_a_huge_result_the_record_has_the_head_and_a_file_the_whole(tmp_path: Path) -> None:
    # given a result of 1 MB, in characters of three bytes that no cut may split
    whole = "日" * 350_000
    registry, store = Registry(), TaskStore(tmp_path, durability="process")
    registry.add("tool", "run", lambda: whole)

    # when
    task, _ = ended(registry, "run", store=store)

    # then
    assert Outcome.COMPLETED is task.outcome
    assert f"results/{task.id}/result.txt" == task.result_file
    assert whole == Path(store.layout.root, task.result_file).read_text("utf-8")
    # then the record has its beginning, its end and its size, and is no larger for it
    assert (whole[: (RESULT_LIMIT // 2 - 3000) // 3], whole[:1000]) == (task.result, task.result_tail)
    assert len(whole.encode()) == task.result_size


def test_a_huge_result_without_room_on_the_disk_leaves_its_head_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    def no_room(_self: DirectoryWorkspace, _data: bytes) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DirectoryWorkspace, "keep_result", no_room)
    registry = Registry()
    registry.add("tool", "run", lambda: "x" * 100_000)

    # when
    task, _ = ended(registry, "run", store=TaskStore(tmp_path, durability="process"))

    # then
    assert Cause.RESULT is task.cause
    assert "its result of 100000 bytes was not stored: [Errno 28] No space left on device" == task.error
    assert ("x" * (RESULT_LIMIT // 2 - 3000), "x" * 3000, 100_000) == (
        task.result, task.result_tail, task.result_size,
    )  # fmt: skip


# --- what it raises ---


def test_a_function_that_raises_fails_with_type_and_message_and_its_traceback_is_in_the_log() -> None:
    def tool(by: int) -> float:
        return 1 / by

    task, log = called(tool, "0")
    assert (Outcome.FAILED, Cause.TOOL) == (task.outcome, task.cause)
    assert "ZeroDivisionError: division by zero" == task.error
    assert log.startswith("Traceback (most recent call last):\n")
    assert "return 1 / by" in log


def test_an_async_function_that_raises_fails_just_so() -> None:
    async def tool() -> None:
        await asyncio.sleep(0)
        raise KeyError("who")

    task, log = called(tool)
    assert (Cause.TOOL, "KeyError: 'who'") == (task.cause, task.error)
    assert 'raise KeyError("who")' in log


def test_an_exception_without_a_message_is_reported_by_its_type() -> None:
    assert "TimeoutError" == called(raising(TimeoutError()))[0].error


def test_an_exception_that_cannot_be_printed_still_fails_the_task() -> None:
    class Mute(Exception):  # noqa: N818 - it says nothing
        def __str__(self) -> str:
            raise RuntimeError("no words")

    task, log = called(raising(Mute()))
    assert (Cause.TOOL, "Mute (which cannot be printed)") == (task.cause, task.error)
    assert "exception str() failed" in log


def test_an_exception_whose_traceback_cannot_be_printed_still_fails_the_task() -> None:
    class Spiky(Exception):  # noqa: N818 - as above
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]  # it is to fail
            raise RuntimeError("no cause")

    task, log = called(raising(Spiky("ouch")))
    assert (Cause.TOOL, "Spiky: ouch") == (task.cause, task.error)
    assert "Spiky (whose traceback cannot be printed)\n" == log


def test_text_of_an_exception_that_is_not_utf_8_is_kept_readable() -> None:
    assert "ValueError: \\udcff" == called(raising(ValueError("\udcff")))[0].error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ToolError("the printer is on fire", hint="call someone"), Cause.TOOL),
        (BadArgument("the printer is on fire", hint="call someone"), Cause.ARGUMENTS),
        (MissingCredential("the printer is on fire", hint="call someone"), Cause.CREDENTIALS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_tool_says_whose_turn_it_is_and_what_to_do(error: ToolError, cause: Cause) -> None:
    task, log = called(raising(error))
    assert (cause, "the printer is on fire", "call someone") == (task.cause, task.error, task.hint)
    assert log == ""  # it has said what is wrong; a traceback would tell nothing more


def test_an_error_in_a_task_group_is_reported_as_if_it_had_been_raised_alone() -> None:
    """A missing credential stays one: it has its cause and hint, and is not tried again."""

    # given
    async def look_up() -> None:
        raise MissingCredential("the key is not set", hint="set it")

    async def tool() -> None:
        async with asyncio.TaskGroup() as group, asyncio.TaskGroup() as inner:
            inner.create_task(look_up())
            group.create_task(asyncio.sleep(60))

    registry = Registry()
    registry.add("tool", "run", tool, retries=2)

    # when
    task, log = ended(registry, "run")

    # then
    assert (Cause.CREDENTIALS, "the key is not set", "set it") == (task.cause, task.error, task.hint)
    assert (1, "") == (task.attempt, log)


@pytest.mark.parametrize(
    ("errors", "cause", "error", "hint"),
    [
        ([KeyError("a"), TimeoutError("b")], Cause.TOOL, "KeyError: 'a'; TimeoutError: b", None),
        ([TimeoutError("b"), KeyError("a")], Cause.TIMEOUT, "TimeoutError: b; KeyError: 'a'", None),
        ([OSError("x"), ToolError("y", hint="z")], Cause.TOOL, "y; OSError: x", "z"),
        ([ToolError("y"), BadArgument("x", hint="w")], Cause.ARGUMENTS, "x; y", "w"),
        ([BadArgument("x"), ExceptionGroup("", [MissingCredential("k")])], Cause.CREDENTIALS, "k; x", None),
        ([ValueError("same"), ValueError("same")], Cause.TOOL, "ValueError: same", None),
    ],
)
def test_of_several_errors_all_are_named_and_the_one_that_says_most_decides(
    errors: list[Exception], cause: Cause, error: str, hint: str | None
) -> None:
    task, log = called(raising(ExceptionGroup("two of them", errors)))
    assert (cause, error, hint) == (task.cause, task.error, task.hint)
    assert "ExceptionGroup: two of them (2 sub-exceptions)" in log


def test_tasks_of_a_group_that_give_up_because_they_were_asked_to_are_cancelled() -> None:
    group = BaseExceptionGroup("", [TaskCancelled("as you wish"), TaskCancelled("as you wish")])
    task, _ = called(raising(group))
    assert (Outcome.CANCELLED, "TaskCancelled: as you wish") == (task.outcome, task.error)


def test_a_tool_that_gives_up_because_it_was_asked_to_is_cancelled() -> None:
    task, log = called(raising(TaskCancelled("as you wish")))
    assert (Outcome.CANCELLED, "TaskCancelled: as you wish", "") == (task.outcome, task.error, log)


@pytest.mark.parametrize("kind", ["function", "async function", "module"])
@pytest.mark.parametrize(
    ("code", "outcome", "cause", "error"),
    [
        ("", Outcome.COMPLETED, None, None),
        ("0", Outcome.COMPLETED, None, None),
        ("1", Outcome.FAILED, Cause.TOOL, "last words"),
        ("2", Outcome.FAILED, Cause.ARGUMENTS, "last words"),
        ("'no more paper'", Outcome.FAILED, Cause.TOOL, "no more paper"),
    ],
)
def test_a_tool_that_exits_ends_its_task_and_not_its_process(
    kind: str, code: str, outcome: Outcome, cause: Cause | None, error: str | None, tmp_path: Path
) -> None:
    # given
    def tool() -> None:
        print("last words", file=sys.stderr)
        sys.exit(*eval(f"[{code}]"))  # noqa: S307 - one of the five above

    async def async_tool() -> None:
        tool()

    # when
    if kind == "module":
        task, log = run_module(tmp_path, f"print('last words', file=sys.stderr)\nsys.exit({code})")
    else:
        task, log = called(tool if kind == "function" else async_tool)

    # then
    assert (outcome, cause, error) == (task.outcome, task.cause, task.error)
    assert "last words\n" == log


def test_a_tool_that_exits_without_a_word_is_reported_by_its_status() -> None:
    assert "it ended with exit status 3 and said nothing" == called(raising(SystemExit(3)))[0].error


# --- modules ---


def test_what_a_module_prints_is_the_result_and_stands_in_the_log(tmp_path: Path) -> None:
    task, log = run_module(tmp_path, "print('argv', argv)\nprint('aside', file=sys.stderr)", "run", "--fast")
    assert (Outcome.COMPLETED, "argv ['run', 'run', '--fast']\n") == (task.outcome, task.result)
    assert "argv ['run', 'run', '--fast']\naside\n" == log


def test_a_wrong_argument_is_found_by_the_modules_own_parser(tmp_path: Path) -> None:
    body = "p = argparse.ArgumentParser(prog='tool')\np.add_argument('sub')\np.parse_args(argv)"
    task, _ = run_module(tmp_path, body, "--no-such-option")
    assert Cause.ARGUMENTS is task.cause
    assert task.error is not None
    assert task.error.startswith("usage: tool [-h] sub\n")
    assert task.error.endswith("error: unrecognized arguments: --no-such-option")


def test_in_a_process_of_its_own_a_module_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And may read its arguments where a program does."""
    # given a parser without a program name
    monkeypatch.setattr(sys, "argv", ["-c"])
    file = tmp_path / "ret.py"
    file.write_text(
        'import argparse\nEXECUTION_PROFILE = {"run": {"background_eligible": True}}\ndef cli_main(argv=None):\n'
        '    p = argparse.ArgumentParser()\n    p.add_argument("sub")\n    p.parse_args()\n    p.error("no")\n'
    )
    registry, store = Registry(), MemoryTaskStore()
    registry.add_module("ret", file)

    # when
    task = store.submit("ret", "run")
    report = call(registry.get("ret", "run"), task, store.workspace(task.id), all_threads=True)

    # then
    assert "usage: ret [-h] sub" in f"{report.error}"
    assert ["-c"] == sys.argv


@pytest.mark.parametrize(
    ("returned", "outcome"), [("0", Outcome.COMPLETED), ("None", Outcome.COMPLETED), ("3", Outcome.FAILED)]
)
def test_a_module_may_return_its_exit_status(returned: str, outcome: Outcome, tmp_path: Path) -> None:
    assert outcome is run_module(tmp_path, f"return {returned}")[0].outcome


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("async def main(): ...\nreturn main()", "coroutine: nobody has awaited it"),
        ("print('working')\nyield", "generator: nobody has gone through it"),
    ],
)
def test_a_module_that_only_promises_has_failed(body: str, error: str, tmp_path: Path) -> None:
    task, _ = run_module(tmp_path, body)
    assert (Cause.RESULT, f"it returned an unfinished {error}, so its work was not done") == (task.cause, task.error)


def test_a_module_that_raises_fails_with_type_and_message(tmp_path: Path) -> None:
    task, log = run_module(tmp_path, "1 / 0")
    assert (Cause.TOOL, "ZeroDivisionError: division by zero") == (task.cause, task.error)
    assert "Traceback" in log


def test_bytes_that_are_not_utf_8_are_replaced_in_the_result_and_kept_in_the_log(tmp_path: Path) -> None:
    # given
    registry, store = Registry(), MemoryTaskStore()
    file = tmp_path / "bytes_tool.py"
    file.write_text(
        'import sys\nEXECUTION_PROFILE = {"run": {"expected_seconds": 60, "background_eligible": True}}\n'
        'def cli_main(argv):\n    sys.stdout.buffer.write(b"\\x93\\xfa\\x96{\\n")\n'
    )
    registry.add_module("tool", file)

    # when
    task, _ = ended(registry, "run", store=store)

    # then
    assert (Outcome.COMPLETED, "���{\n") == (task.outcome, task.result)
    assert b"\x93\xfa\x96{\n" == store.read_log(task.id)


def test_a_module_may_put_a_stream_of_its_own_over_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back afterwards
    task, _ = run_module(
        tmp_path, "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('wrapped 日本')"
    )
    assert "wrapped 日本\n" == task.result


def test_a_module_may_ask_for_utf_8(tmp_path: Path) -> None:
    assert "日本\n" == run_module(tmp_path, "sys.stdout.reconfigure(encoding='utf-8')\nprint('日本')")[0].result


def test_a_module_that_does_not_load_is_rejected_with_the_reason(tmp_path: Path) -> None:
    # given a module that was all right when it was registered
    file = tmp_path / "late.py"
    profile = 'EXECUTION_PROFILE = {"run": {"expected_seconds": 60, "background_eligible": True}}\n'
    file.write_text(profile + "def cli_main(argv): ...\n")
    registry = Registry()
    registry.add_module("tool", file)
    file.write_text("import no_such_library\n")

    # when
    task, log = ended(registry, "run")

    # then
    assert Cause.REJECTED is task.cause
    why = f"No module named 'no_such_library' ({file.name}, line 1)"
    assert f"tool 'tool run' does not load: ModuleNotFoundError: {why}" == task.error
    assert "import no_such_library" in log


# --- other threads ---


def print_elsewhere() -> None:
    thread = threading.Thread(target=print, args=("from elsewhere",))
    thread.start()
    thread.join()


def test_what_other_threads_print_stays_the_hosts_where_several_tasks_run(capsys: pytest.CaptureFixture[str]) -> None:
    _, log = called(print_elsewhere)
    assert ("", "from elsewhere\n") == (log, capsys.readouterr().out)


def test_what_other_threads_print_is_the_tasks_where_one_runs_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    # given
    registry, store = Registry(), MemoryTaskStore()
    registry.add("tool", "run", print_elsewhere)
    task = store.submit("tool", "run")

    # when
    call(registry.get("tool", "run"), task, store.workspace(task.id), all_threads=True)

    # then
    assert (b"from elsewhere\n", "") == (store.read_log(task.id), capsys.readouterr().out)


# --- where paths begin ---


def all_kinds(one: Path, *more: Path, listed: list[Path], given: Path = Path("default")) -> list[Path]:
    return [one, *more, *listed, given]


PATHS = ("a", "b", "/c", "--listed", "d", "--listed", "e")


def test_relative_paths_begin_where_the_task_was_submitted() -> None:
    task, _ = called(all_kinds, *PATHS, cwd="/there")
    assert ["/there/a", "/there/b", "/c", "/there/d", "/there/e", "/there/default"] == eval(task.result or "")  # noqa: S307


def test_relative_paths_stay_relative_where_nobody_said_where_they_begin() -> None:
    task, _ = called(all_kinds, *PATHS)
    assert ["a", "b", "/c", "d", "e", "default"] == eval(task.result or "")  # noqa: S307 - as above


# --- what a tool does with its context ---


def test_a_tool_knows_its_task_and_attempt_and_logs_into_its_log() -> None:
    def tool(context: ToolContext) -> list[object]:
        context.logger.info("half %s", "way")
        return [context.task_id, context.attempt]

    task, log = called(tool)
    assert f'[\n  "{task.id}",\n  1\n]' == task.result
    assert log.endswith(" INFO half way\n")


def test_a_log_line_that_cannot_be_formatted_does_not_fail_the_tool() -> None:
    def tool(context: ToolContext) -> str:
        context.logger.info("%d", "no number")
        return "went on"

    task, log = called(tool)
    assert "went on" == task.result
    assert "--- Logging error ---" in log


def test_progress_is_clipped_and_its_end_is_never_skipped() -> None:
    # given
    store, registry = MemoryTaskStore(), Registry()
    seen: list[float | None] = []

    def tool(context: ToolContext) -> None:
        for fraction in (float("nan"), 0.5, 7.0):
            context.progress(fraction, "so far")
            progress = store.read_progress(context.task_id)
            assert progress is not None
            seen.append(progress.fraction)

    registry.add("tool", "run", tool)

    # when
    ended(registry, "run", store=store)

    # then the second one, on the heels of the first, is the one that is skipped
    assert [None, None, 1.0] == seen


def test_a_tool_has_a_directory_of_its_own() -> None:
    def tool(context: ToolContext) -> bool:
        (context.scratch / "draft").write_text("x")
        return (context.scratch / "draft").exists()

    assert "true" == called(tool)[0].result


@pytest.mark.parametrize("looks", [True, False])
def test_a_tool_that_took_too_long_is_timed_out_when_it_comes_back(looks: bool) -> None:  # noqa: FBT001 - a parameter
    # given
    def tool(context: ToolContext) -> str:
        if looks:
            context.raise_if_cancelled()
        return "late"

    registry = Registry()
    registry.add("tool", "run", tool, timeout_seconds=0)

    # when
    task, _ = ended(registry, "run")

    # then
    assert (Outcome.FAILED, Cause.TIMEOUT) == (task.outcome, task.cause)
    assert task.error is not None
    assert task.error.startswith("it ran longer than 0 s")
    assert (None if looks else "late") == task.result


# --- async tools ---


def test_an_async_tool_with_a_cancellation_request_is_cancelled_and_cleans_up() -> None:
    # given
    store, registry, cleaned = MemoryTaskStore(), Registry(), threading.Event()
    begun = threading.Event()

    async def tool() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    registry.add("tool", "run", tool)
    task_id = store.submit("tool", "run").id
    running = threading.Thread(target=run_task, args=(store, registry, task_id))
    running.start()
    until(begun.is_set)

    # when
    store.request_cancel(task_id)
    join(running)

    # then
    assert cleaned.is_set()
    assert Outcome.CANCELLED is store.get(task_id).outcome


def test_an_async_tool_that_is_cancelled_by_itself_has_failed() -> None:
    async def tool() -> None:
        raise asyncio.CancelledError

    task, _ = called(tool)
    assert (Outcome.FAILED, Cause.TOOL, "CancelledError") == (task.outcome, task.cause, task.error)


@in_event_loop
async def test_an_async_tool_runs_also_inside_a_loop_that_is_busy_with_it() -> None:
    async def tool() -> str:
        print("printed")
        await asyncio.sleep(0)
        return "done"

    task, log = called(tool)
    assert ("done", "printed\n") == (task.result, log)


@in_event_loop
async def test_an_async_tool_that_raises_inside_a_loop_fails_as_elsewhere() -> None:
    async def tool() -> None:
        await asyncio.sleep(0)
        os.stat("/no/such/file")

    task, _ = called(tool)
    assert "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'" == task.error
