"""A host's veto sees each call with its arguments, and nothing runs that it has not seen, byte for byte."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import (
    Backend,
    Cause,
    Executor,
    InlineBackend,
    MemoryTaskStore,
    Outcome,
    ProcessBackend,
    Registry,
    State,
    Task,
    TaskStore,
    ThreadBackend,
    run_task,
)
from animaworks_tasks.cli import main
from animaworks_tasks.errors import NotPermittedError
from animaworks_tasks.tools.discovery import discover, load_import_path
from tests import tools_for_tests
from tests.conftest import ManualClock
from tests.executor.workshop import SELDOM, Workshop, executor_of, plain_record
from tests.processes import PATIENCE, in_event_loop


class Guard:
    """A host's veto against words, which remembers what it was asked. It cannot go to another process."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.asked = set(refused), list[tuple[str, str, tuple[str, ...]]]()

    def __call__(self, tool: str, subcommand: str, argv: tuple[str, ...]) -> str | None:
        self.asked.append((tool, subcommand, argv))
        return next((f"no rule allows {word!r}: read rules.md first" for word in argv if word in self.refused), None)

    def __reduce__(self) -> tuple[object, ...]:
        raise AssertionError("a veto stays in its host")


def guarded(workshop: Workshop, *refused: str) -> Guard:
    workshop.registry.veto = guard = Guard(*refused)
    return guard


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop every executor that a test has started: its watch would be one of this process for the tests that follow."""
    started, start = list[Executor](), Executor.start

    def recorded(executor: Executor) -> Executor:
        started.append(executor)
        return start(executor)

    monkeypatch.setattr(Executor, "start", recorded)
    yield
    for executor in started:
        executor.stop()


@in_event_loop
async def test_the_hosts_own_submit_is_refused_with_the_reason(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    guard = guarded(workshop, "bomb")
    async with executor_of(memory, workshop, backend=InlineBackend()) as executor:
        # when
        with pytest.raises(NotPermittedError) as refused:
            await executor.submit("tool", "echo", "bomb")
        with pytest.raises(NotPermittedError, match="no rule allows 'bomb'"):
            await executor.submit_many("tool", [["echo", "one"], ["echo", "bomb"], ["echo", "two"]])
        # then
        assert [] == list(memory.list())
        reason = "no rule allows 'bomb': read rules.md first"
        assert f"the host of this Anima refuses this call of tool echo: {reason}" == str(refused.value)
        again = pickle.loads(pickle.dumps(refused.value))
        assert (str(refused.value), None, reason) == (str(again), again.permission, again.reason)
        assert [("tool", "echo", ("echo", word)) for word in ("bomb", "one", "bomb")] == guard.asked
        # and what it lets pass is asked about again, and runs
        task = await executor.submit("tool", "echo", "peace")
        assert "peace" == (await executor.wait(task.id)).result
    assert [("tool", "echo", ("echo", "peace"))] * 2 == guard.asked[3:]


@pytest.mark.parametrize("backend", [InlineBackend, ThreadBackend, ProcessBackend])
def test_a_shells_submit_is_refused_by_a_notification(backend: Callable[[], Backend], files: TaskStore) -> None:
    """It cannot ask the host; the veto is a closure, and no process gets it."""
    # given
    store = TaskStore(files.location, language="en", durability="process")
    registry, guard = copy.copy(tools_for_tests.registry), Guard("bomb")
    registry.veto = lambda tool, subcommand, argv: guard(tool, subcommand, argv[:])
    executor = Executor(store, registry, backend=backend(), max_workers=1).start()
    # when
    refused, passed = store.submit("proc", "echo", "bomb"), store.submit("proc", "echo", "peace")
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    # then
    done = store.get(refused.id)
    assert (Outcome.FAILED, Cause.REJECTED, 0) == (done.outcome, done.cause, done.attempt)
    assert "peace" == store.get(passed.id).result
    [text] = [each.text for each in store.notifications.peek() if each.task_id == refused.id]
    assert "this call of proc echo: no rule allows 'bomb': read rules.md first" in text
    assert {("proc", "echo", ("echo", "bomb")), ("proc", "echo", ("echo", "peace"))} == set(guard.asked)


async def later(*_: object) -> None:
    """Stand for what somebody may take for a veto."""


@pytest.mark.filterwarnings("ignore:coroutine 'later' was never awaited")
@pytest.mark.parametrize(
    ("veto", "said"),
    [
        (lambda *_: 1 / 0, "its veto failed (ZeroDivisionError: division by zero); ask the operator"),
        (lambda *_: os.sys.exit("no"), "its veto failed (SystemExit: no); ask the operator"),  # type: ignore[attr-defined]
        (lambda *_: False, "its veto returned no reason but bool; ask the operator"),
        (later, "its veto returned no reason but coroutine; ask the operator"),
    ],
)
def test_what_a_veto_raises_or_returns_amiss_refuses_is_logged_and_said(
    veto: Any,  # noqa: ANN401 - what is none
    said: str,
    memory: MemoryTaskStore,
    workshop: Workshop,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given
    workshop.registry.veto = veto
    executor = executor_of(memory, workshop, backend=InlineBackend()).start()
    task = memory.submit("tool", "echo", "word")
    # when
    executor.run_until_idle_sync()
    # then
    done = memory.get(task.id)
    assert (Cause.REJECTED, []) == (done.cause, workshop.calls)
    assert said in (done.error or "")
    assert "the veto" in caplog.text
    with pytest.raises(NotPermittedError, match=r"refuses this call of tool echo: its veto"):
        executor.submit_sync("tool", "echo", "word")


@pytest.mark.parametrize(
    ("reason", "shown"), [("", "it gives no reason; ask the operator"), ("\ud83d cut in half", "\\ud83d cut in half")]
)
def test_any_reason_can_be_recorded(reason: str, shown: str, memory: MemoryTaskStore, workshop: Workshop) -> None:
    workshop.registry.veto = lambda *_: reason
    task = memory.submit("tool", "echo", "word")
    executor_of(memory, workshop, backend=InlineBackend()).start().run_until_idle_sync()
    done = memory.get(task.id)
    assert Cause.REJECTED is done.cause
    assert (done.error or "").endswith(shown)


def in_place(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def replaced(path: Path, data: bytes) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(data)
    other.replace(path)


def interloper(kind: type[Any], between: list[Callable[[str], object]]) -> Backend:
    """Return a backend of a *kind* that lets something happen *between* the veto and the claim, once each."""

    class Interloping(kind):  # type: ignore[misc]
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - as they are
            if fn is run_task and between:
                between.pop()(args[2])
            return super().submit(fn, *args, **kwargs)  # type: ignore[no-any-return]

    backend: Backend = Interloping()
    return backend


@pytest.mark.parametrize("write", [in_place, replaced])
@pytest.mark.parametrize("kind", [InlineBackend, ThreadBackend, ProcessBackend])
def test_what_a_plain_writer_changed_after_the_veto_is_not_run_before_it_was_asked_again(
    kind: type[Any], write: Callable[[Path, bytes], None], files: TaskStore
) -> None:
    # given a task that passes, and becomes another one before a worker claims it
    store = TaskStore(files.location, language="en", durability="process")
    registry = copy.copy(tools_for_tests.registry)
    registry.veto = guard = Guard("bomb")
    task = store.submit("proc", "echo", "peace")
    record = Path(store.layout.pending, f"{task.id}.json")
    backend = interloper(kind, [lambda _: write(record, record.read_bytes().replace(b"peace", b"bomb"))])
    executor = Executor(store, registry, backend=backend, max_workers=1).start()
    # when
    done = executor.wait_sync(task.id, timeout=PATIENCE)
    executor.stop()
    # then
    assert ["peace", "bomb"] == [argv[1] for _, _, argv in guard.asked]
    assert (Cause.REJECTED, 0, ("echo", "bomb")) == (done.cause, done.attempt, done.argv)


def test_a_single_byte_that_means_nothing_is_enough_to_be_asked_again(files: TaskStore, workshop: Workshop) -> None:
    # given
    guard = guarded(workshop)
    task = files.submit("tool", "echo", "word")
    record = Path(files.layout.pending, f"{task.id}.json")
    backend = interloper(InlineBackend, [lambda _: record.write_bytes(record.read_bytes() + b"\n")])
    executor = executor_of(files, workshop, backend=backend).start()
    # when
    done = executor.wait_sync(task.id, timeout=PATIENCE)
    # then
    assert ("word", 2, 1) == (done.result, len(guard.asked), len(workshop.calls))
    assert (1, 0) == (done.attempt, done.requeued)


def test_a_refused_record_that_is_changed_is_judged_anew(files: TaskStore, workshop: Workshop) -> None:
    """Nor is another call refused than the one that was asked about."""
    guarded(workshop, "bomb")
    task = files.submit("tool", "echo", "bomb")
    record = Path(files.layout.pending, f"{task.id}.json")
    backend = interloper(InlineBackend, [lambda _: in_place(record, record.read_bytes().replace(b"bomb", b"peace"))])
    done = executor_of(files, workshop, backend=backend).start().wait_sync(task.id, timeout=PATIENCE)
    assert ("peace", ["peace"]) == (done.result, workshop.calls)


def test_a_plain_record_is_vetted_and_one_that_is_still_being_written_is_not_run(
    files: TaskStore, workshop: Workshop
) -> None:
    # given a record that nobody can read, when the veto is to be asked, and that is whole when it is claimed
    guard = guarded(workshop, "by hand")
    plain_record(files, "0000000000a1", "{")
    backend = interloper(InlineBackend, [])
    executor = executor_of(files, workshop, backend=backend).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    assert [] == guard.asked
    # when
    plain_record(files, "0000000000a1")
    done = executor.wait_sync("0000000000a1", timeout=PATIENCE)
    # then
    assert (Cause.REJECTED, [("tool", "echo", ("echo", "by hand"))]) == (done.cause, guard.asked)


def test_a_task_that_is_gone_when_it_is_to_be_vetted_harms_nothing(files: TaskStore, workshop: Workshop) -> None:
    # given a veto that takes long enough for somebody to cancel the next task
    def slow(*_: object) -> None:
        files.request_cancel(second.id)

    workshop.registry.veto = slow
    first, second = files.submit("tool", "echo", "one"), files.submit("tool", "echo", "two")
    executor = executor_of(files, workshop, backend=InlineBackend(), max_workers=2).start()
    # when
    executor.run_until_idle_sync(timeout=PATIENCE)
    # then
    assert [Outcome.COMPLETED, Outcome.CANCELLED] == [files.get(each.id).outcome for each in (first, second)]
    assert ["one"] == workshop.calls


def test_a_veto_is_asked_when_a_task_is_due_and_not_before(files: TaskStore, workshop: Workshop) -> None:
    # given
    clock, guard = ManualClock(), guarded(workshop)
    executor = executor_of(files, workshop, backend=InlineBackend(), clock=clock, scan_interval=SELDOM).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    task = files.submit("tool", "echo", "word", not_before=clock.now + timedelta(minutes=1))
    # when
    executor._scheduler.step({task.id})  # type: ignore[union-attr] - as after an event, which starts it unread
    # then
    assert [] == guard.asked
    clock.advance(61)
    executor.run_until_idle_sync(timeout=PATIENCE)
    assert ("word", 1) == (files.get(task.id).result, len(guard.asked))


def test_a_veto_is_asked_before_each_attempt(memory: MemoryTaskStore, workshop: Workshop, clock: ManualClock) -> None:
    # given a tool that fails at first, and a host that changes its mind
    guard = guarded(workshop)
    executor = executor_of(memory, workshop, backend=InlineBackend(), clock=clock).start()
    task = memory.submit("tool", "flaky")
    executor.run_until_idle_sync()
    assert State.PENDING is memory.get(task.id).state
    # when
    guard.refused.add("flaky")
    clock.advance(60)
    executor.run_until_idle_sync()
    # then
    done = memory.get(task.id)
    assert (Cause.REJECTED, 1, 2) == (done.cause, done.attempt, len(guard.asked))


def test_who_runs_a_task_without_an_executor_asks_the_veto_too(files: TaskStore, workshop: Workshop) -> None:
    guarded(workshop, "bomb")
    bad, good = (run_task(files, workshop.registry, files.submit("tool", "echo", word).id) for word in ("bomb", "word"))
    assert bad is not None
    assert good is not None
    assert (Cause.REJECTED, "word", ["word"]) == (bad.cause, good.result, workshop.calls)


def test_without_a_veto_no_record_is_read_for_one(workshop: Workshop) -> None:
    """A store that knows nothing of vetoes serves."""

    class Earlier(MemoryTaskStore):
        def read_record(self, task_id: str) -> bytes | None:
            raise AssertionError(task_id)

        def claim(self, task_id: str, **options: Any) -> Any:  # noqa: ANN401 - as it is
            assert "record" not in options
            return super().claim(task_id, **options)

    store = Earlier()
    executor = executor_of(store, workshop, backend=InlineBackend()).start()
    task: Task = executor.submit_sync("tool", "echo", "word")
    executor.run_until_idle_sync()
    assert "word" == store.get(task.id).result


def test_the_veto_stays_in_the_host_and_a_copy_there_has_it() -> None:
    registry = Registry(veto=Guard())
    assert pickle.loads(pickle.dumps(registry)).veto is None
    assert copy.copy(registry).veto is registry.veto


VETO = """
from animaworks_tasks import Registry
registry = Registry(veto=lambda tool, subcommand, argv: "not at night" if "open" in argv else None)
registry.add_command("door", "set", ["echo"])
"""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path))
    (tmp_path / "mei" / "tools").mkdir(parents=True)
    path = tmp_path / "house_with_a_veto.py"
    path.write_text(VETO)
    return path


def test_the_command_line_asks_the_veto_of_the_registry_that_it_names(
    house: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # given
    named = ["--registry", str(house)]
    # then a direct call
    assert 0 == main([*named, "door", "set", "shut"])
    assert "shut\n" == capfd.readouterr().out
    assert 2 == main([*named, "door", "set", "open"])
    assert "the host of this Anima refuses this call of door set: not at night" in capfd.readouterr().err
    # and a host
    store = TaskStore(house.parent / "mei", language="en", durability="process")
    task = store.submit("door", "set", "open")
    assert 0 == main(["run", *named, "--backend", "thread", "--until-idle"])
    assert Cause.REJECTED is store.get(task.id).cause


def test_of_two_vetoes_both_are_asked_and_none_is_lost_because_it_is_empty(house: Path) -> None:
    class Rules(list[str]):
        """What a host's veto may be: falsy while it refuses nothing."""

        def __call__(self, *_: object) -> str | None:
            return next(iter(self), None)

    rules = Rules()
    registry = Registry(veto=rules)
    load_import_path(registry, str(house))
    tool = registry.get("door", "set")
    registry.check_veto(tool, ["set", "shut"])
    for refused, argv in (("not at night", ["set", "open"]), ("closed today", ["set", "shut"])):
        rules += [refused] if "shut" in argv else []
        with pytest.raises(NotPermittedError, match=refused):
            registry.check_veto(tool, argv)


class Panic(BaseException):
    """What a library in another language may raise; it cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Panic(), SystemExit(1)])
def test_whatever_the_hosts_own_code_raises_the_executor_goes_on(
    memory: MemoryTaskStore, workshop: Workshop, error: BaseException
) -> None:
    # given a veto and permits that end in the worst ways
    def ends(*_: object) -> None:
        raise error

    workshop.registry.add("door", "open", lambda: None, gated=True)
    workshop.registry.permits = ends  # type: ignore[assignment]
    gated, other = memory.submit("door", "open"), memory.submit("tool", "echo", "word")
    executor = executor_of(memory, workshop, backend=ThreadBackend()).start()
    assert Cause.REJECTED is executor.wait_sync(gated.id, timeout=PATIENCE).cause
    assert Outcome.COMPLETED is executor.wait_sync(other.id, timeout=PATIENCE).outcome
    # when, then
    workshop.registry.veto = ends
    vetoed = memory.submit("tool", "echo", "word")
    assert Cause.REJECTED is executor.wait_sync(vetoed.id, timeout=PATIENCE).cause
    executor.stop()


def test_only_the_host_has_a_veto_not_the_tools_of_an_anima(house: Path) -> None:
    (house.parent / "mei" / "tools" / "house_of_mei.py").write_text(VETO)
    guard = Guard()
    assert discover(house.parent / "mei", veto=guard).veto is guard
    assert discover(house.parent / "mei").veto is None
