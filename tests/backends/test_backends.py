"""What every backend promises, and what is particular to those that live in the host; processes have their own file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from multiprocessing import get_context
from pathlib import Path

import attrs
import pytest

from animaworks_tasks import Backend, FuturesBackend, InlineBackend, ProcessBackend, ThreadBackend, Traits
from animaworks_tasks.backends import traits_of
from animaworks_tasks.errors import BackendError
from tests.processes import PATIENCE, until
from tests.tools_for_tests import divide, make_unpicklable, wait_and_return

EVERYWHERE = ["thread", "process", "pool of threads", "pool of processes", "plain pool of threads", "inline"]
AT_ONCE = [name for name in EVERYWHERE if name != "inline"]


@pytest.fixture(scope="module")
def pool() -> Iterator[futures.Executor]:
    """Somebody else's pool of processes: starting one takes longer than all that is done with it."""
    with futures.ProcessPoolExecutor(2, get_context("spawn")) as processes:
        yield processes


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    make: dict[str, Callable[[], Backend]] = {
        "thread": ThreadBackend,
        "process": ProcessBackend,
        "pool of threads": lambda: FuturesBackend(futures.ThreadPoolExecutor(2)),
        "pool of processes": lambda: FuturesBackend(request.getfixturevalue("pool")),
        "plain pool of threads": lambda: futures.ThreadPoolExecutor(2),
        "inline": InlineBackend,
    }
    made = make[request.param]()
    yield made
    made.shutdown()


@pytest.mark.parametrize("backend", EVERYWHERE, indirect=True)
def test_a_call_is_made_and_its_future_has_what_came_of_it(backend: Backend) -> None:
    assert 3.5 == backend.submit(divide, 7, by=2).result(PATIENCE)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        backend.submit(divide, 7, by=0).result(PATIENCE)
    assert 7 == backend.submit(divide, 7, by=1).result(PATIENCE)


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_calls_are_made_at_once_and_shutting_down_waits_for_them(backend: Backend, tmp_path: Path) -> None:
    # given two calls, and nobody waits for either
    gates = [tmp_path / "0", tmp_path / "1"]
    calls = [backend.submit(wait_and_return, gate, gate.name) for gate in gates]

    # when the second one can go on first
    gates[1].touch()
    assert "1" == calls[1].result(PATIENCE)
    assert not calls[0].done()
    gates[0].touch()
    backend.shutdown(wait=True)

    # then somebody else's pool is not ours to wait for
    assert calls[0].done() or isinstance(backend, FuturesBackend)
    assert "0" == calls[0].result(PATIENCE)


@pytest.mark.parametrize("backend", ["thread", "process"], indirect=True)
def test_a_backend_that_was_shut_down_takes_no_more_calls(backend: Backend) -> None:
    backend.submit(divide, 7, by=2).result(PATIENCE)
    backend.shutdown()
    backend.shutdown(cancel_futures=True)
    with pytest.raises(BackendError, match="shut down"):
        backend.submit(divide, 7, by=2)


@pytest.mark.parametrize("backend", ["pool of threads", "pool of processes"], indirect=True)
def test_somebody_elses_pool_is_not_shut_down_with_us(backend: Backend) -> None:
    backend.shutdown(wait=True, cancel_futures=True)
    assert 3.5 == backend.submit(divide, 7, by=2).result(PATIENCE)


# --- what a backend says of itself ---


def test_any_futures_executor_is_what_the_defaults_say() -> None:
    with futures.ThreadPoolExecutor(1) as threads:
        assert Traits() == traits_of(threads) == traits_of(FuturesBackend(threads))
        assert not any(attrs.astuple(Traits()))


def test_calls_in_a_pool_of_processes_need_pickling_wrapped_or_not(pool: futures.Executor) -> None:
    assert Traits(needs_pickling=True) == traits_of(pool) == traits_of(FuturesBackend(pool))


@pytest.mark.parametrize("backend", ["thread", "process", "inline"], indirect=True)
def test_a_call_leaves_its_process_where_a_backend_says_so(backend: Backend) -> None:
    traits = traits_of(backend)
    call = backend.submit(os.getpid)
    assert call.done() or not traits.runs_inline
    assert (call.result(PATIENCE) != os.getpid()) == traits.needs_pickling


@pytest.mark.parametrize("backend", ["thread", "process"], indirect=True)
def test_a_callback_hands_the_next_call_over_where_a_backend_says_that_it_may(backend: Backend) -> None:
    # given
    assert traits_of(backend).callbacks_may_submit
    next_call: futures.Future[futures.Future[float]] = futures.Future()

    def go_on(_: futures.Future[int]) -> None:
        next_call.set_result(backend.submit(divide, 7, by=2))

    # when
    first = backend.submit(os.getpid)
    first.add_done_callback(go_on)

    # then
    assert 3.5 == next_call.result(PATIENCE).result(PATIENCE)


def test_what_runs_in_processes_is_interrupted_by_a_host_that_leaves_only_if_it_was_asked_to() -> None:
    for word, interrupts in (("detach", False), ("stop", True)):
        backend = ProcessBackend(on_host_exit=word)
        assert backend.traits.outlives_host
        assert interrupts == (backend.traits.interrupt is not None)


# --- threads ---


def test_a_thread_is_used_again_once_it_is_free() -> None:
    # given a backend with an idle thread
    backend = ThreadBackend()
    first = backend.submit(threading.get_ident).result(PATIENCE)
    until(lambda: backend._idle)

    # then
    assert first == backend.submit(threading.get_ident).result(PATIENCE)
    backend.shutdown()


def test_a_call_for_which_there_can_be_no_thread_is_refused_and_not_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    backend, made = ThreadBackend(), threading.Event()

    # when
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="new thread"):
            backend.submit(made.set)

    # then
    assert 2 == backend.submit(divide, 4, by=2).result(PATIENCE)
    backend.shutdown(wait=True)
    assert not made.is_set()


def test_shutting_down_without_waiting_returns_while_a_call_runs(tmp_path: Path) -> None:
    backend = ThreadBackend()
    call = backend.submit(wait_and_return, tmp_path / "gate", "ended by itself")
    backend.shutdown(wait=False)
    assert not call.done()
    (tmp_path / "gate").touch()
    assert "ended by itself" == call.result(PATIENCE)


def test_a_call_that_was_cancelled_before_its_turn_is_not_made(tmp_path: Path) -> None:
    # given
    backend, made = ThreadBackend(), threading.Event()
    running = backend.submit(wait_and_return, tmp_path / "gate", "ran")
    until(running.running)
    backend._idle = 1
    waiting = backend.submit(made.set)

    # when
    waiting.cancel()
    (tmp_path / "gate").touch()
    backend.shutdown(wait=True)

    # then
    assert not made.is_set()


def test_threads_that_never_come_back_do_not_keep_a_host_from_exiting() -> None:
    program = (
        "import threading, animaworks_tasks\n"
        "begun = threading.Event()\n"
        "def for_ever():\n"
        "    begun.set()\n"
        "    threading.Event().wait()\n"
        "animaworks_tasks.ThreadBackend().submit(for_ever)\n"
        "begun.wait()\n"
        "print('bye')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=True)
    assert (b"bye\n", b"") == (done.stdout, done.stderr)


# --- processes, as far as they are a backend like others ---


def test_a_call_that_cannot_go_to_another_process_is_refused() -> None:
    backend = ProcessBackend()
    with pytest.raises(TypeError, match="must be picklable"):
        backend.submit(lambda: None)
    backend.shutdown()


def test_what_cannot_be_pickled_in_another_process_is_returned_as_text() -> None:
    backend = ProcessBackend()
    with pytest.raises(RuntimeError, match="lock"):
        backend.submit(make_unpicklable).result(PATIENCE)
    backend.shutdown()


@pytest.mark.parametrize("count", [0, -1])
def test_a_worker_makes_at_least_one_call(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, not {count}"):
        ProcessBackend(max_tasks_per_worker=count)


# --- inline ---


def test_a_call_inline_is_over_when_it_has_been_submitted() -> None:
    call = InlineBackend().submit(threading.get_ident)
    assert call.done()
    assert threading.get_ident() == call.result()
