"""
Calls in processes that outlive their host.

Each call runs in a *supervisor*: a small process in a session of its own that runs no foreign code, holds the task's
lock, and watches over a warm tool process, its child. If the host dies, the supervisor finishes its task, records it
and exits. If the tool dies, the supervisor says so. See ``supervisor.py`` and ``tool_process.py``.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from typing import Any, Literal, ParamSpec, TypeVar

import animaworks_tasks
from animaworks_tasks.backends.protocol import Traits
from animaworks_tasks.backends.threads import ThreadBackend
from animaworks_tasks.errors import BackendError

P = ParamSpec("P")
T = TypeVar("T")


class ProcessBackend:
    """
    Runs each call in a supervisor process, with the tool in a child of that; both are kept warm for the next call.

    Supervisors are started when they are needed, with the host's environment and ``sys.path`` of that moment.

    Args:
        max_tasks_per_worker: A tool process is replaced after so many tasks; None keeps it.
        on_host_exit: What becomes of running tasks when the executor stops. ``"detach"``: they go on, and end, on their
            own. ``"stop"``: they are stopped, and settled as interrupted: failed, or pending again where they may run
            again. A host that is killed can stop nobody: then they go on in any case.
    """

    def __init__(
        self, *, max_tasks_per_worker: int | None = None, on_host_exit: Literal["detach", "stop"] = "detach"
    ) -> None:
        if on_host_exit not in {"detach", "stop"}:
            raise ValueError(f"on_host_exit is 'detach' or 'stop', not {on_host_exit!r}")
        if max_tasks_per_worker is not None and max_tasks_per_worker < 1:
            raise ValueError(f"max_tasks_per_worker must be at least 1, not {max_tasks_per_worker}")
        self._max_tasks = max_tasks_per_worker
        self.traits = Traits(
            outlives_host=True,
            needs_pickling=True,
            callbacks_may_submit=True,
            interrupt=self.interrupt if on_host_exit == "stop" else None,
        )
        self._threads = ThreadBackend()  # one waits for each supervisor that is busy
        self._mutex = threading.Lock()
        self._idle: list[_Supervisor] = []
        self._calls: set[_Call] = set()  # those that have not ended
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Start the call soon in a supervisor; never block.

        Its future raises BackendError if the supervisor dies: the task's record and lock then tell what became of it.

        Raises:
            BackendError: It was shut down.
            TypeError: The call cannot be pickled.
        """
        try:
            call = _Call(pickle.dumps((fn, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL))
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(f"what goes to another process must be picklable: {error}") from error
        with self._mutex:
            self._calls.add(call)
        try:
            future: Future[T] = self._threads.submit(self._run, call)
        except BaseException:
            self._end(call)
            raise
        future.add_done_callback(lambda _: self._end(call))  # once more, for one that was cancelled before it ran
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Take no more calls. With *wait*, until those that run have ended; without, they go on, and end, alone."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        with self._mutex:
            self._closed = True
            supervisors = [*self._idle, *(call.supervisor for call in self._calls if call.supervisor is not None)]
            self._idle.clear()
        for supervisor in supervisors:
            supervisor.leave()

    def interrupt(self) -> None:
        """
        Let what was submitted be stopped, and settled as interrupted where it had begun; returns at once.

        The futures tell of the end: of a call that no supervisor has taken yet, a BackendError.
        """
        with self._mutex:
            for call in self._calls:
                call.interrupted = True
                if call.supervisor is not None:
                    call.supervisor.interrupt()

    def _run(self, call: _Call) -> Any:  # noqa: ANN401 - what the call returns
        try:
            return self._begun(call).result()
        finally:
            self._end(call)

    def _begun(self, call: _Call) -> _Supervisor:
        with self._mutex:
            supervisor = self._idle.pop() if self._idle else None
        for candidate in (supervisor, None):  # one that died while idle knows nothing of the call
            supervisor = candidate or _Supervisor(self._max_tasks)
            with self._mutex:
                call.supervisor = supervisor
                if call.interrupted:
                    raise BackendError("it was interrupted before a supervisor had taken it; nothing ran")
            if supervisor.begin(call.message):
                return supervisor
        raise BackendError("a supervisor process ended before it had taken its task; nothing ran")

    def _end(self, call: _Call) -> None:
        with self._mutex:
            if call not in self._calls:
                return
            self._calls.discard(call)
            if call.supervisor is None:
                return
            if call.supervisor.alive and not self._closed:
                self._idle.append(call.supervisor)
            else:
                call.supervisor.leave()


class _Call:
    """A call on its way through a backend; *supervisor* is who was chosen for it, None at first."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.supervisor: _Supervisor | None = None
        self.interrupted = False


class _Supervisor:
    """One supervisor process, seen from its host."""

    def __init__(self, max_tasks: int | None) -> None:
        ours, theirs = socket.socketpair()
        home = os.path.dirname(os.path.dirname(os.path.abspath(animaworks_tasks.__file__)))
        program = (
            f"import sys; sys.path.insert(0, {home!r});"
            "from animaworks_tasks.backends.supervisor import main;"
            f"main({theirs.fileno()}, {max_tasks!r})"
        )
        self._connection = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [os.fsdecode(get_executable() or sys.executable), "-P", "-c", program],
                stdin=subprocess.DEVNULL,
                # Not the host's: whoever reads those waits for their last writer, which would be us.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        # It may outlive our interest in it, but not become a zombie.
        threading.Thread(target=self._process.wait, name="animaworks_tasks-reaper", daemon=True).start()
        self.alive = True
        self.begin(pickle.dumps(list(sys.path)))

    def begin(self, message: bytes) -> bool:
        """Send a message; False if nobody is there to take it."""
        try:
            self._connection.send_bytes(message)
        except OSError:
            self.leave()
            return False
        return True

    def result(self) -> Any:  # noqa: ANN401 - what the call returns
        """Wait for the end of the call and return, or raise, what came of it."""
        try:
            good, value = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our own process wrote it
        except (EOFError, OSError) as error:
            self.leave()
            raise BackendError(
                "the supervisor process has gone, or we left it; the task's record tells more"
            ) from error
        if good:
            return value
        raise value

    def interrupt(self) -> None:
        """Ask the process to stop its task, tree and all, to settle it, and to go."""
        self.alive = False
        self._process.terminate()

    def leave(self) -> None:
        """Part with the process: idle, it exits; busy, it ends its task first."""
        self.alive = False
        # Closing it would not end a recv that waits in another thread.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as host:
            host.shutdown(socket.SHUT_RDWR)
