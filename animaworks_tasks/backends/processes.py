"""
Calls in processes that outlive their host.

Each call runs in a *supervisor*: a small process in a session of its own that runs no foreign code, holds the task's
lock, and watches its child, a warm tool process. If the host dies, the supervisor finishes its task and exits. If the
tool process dies, the supervisor records that. See ``supervisor.py`` and ``tool_process.py``.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from typing import Any, Literal

import animaworks_tasks
from animaworks_tasks.backends.protocol import P, T, Traits
from animaworks_tasks.backends.threads import ThreadBackend
from animaworks_tasks.errors import BackendError


class ProcessBackend:
    """
    Runs each call in a supervisor process and the tool in a child of it; both are kept for the next call.

    Supervisors are started when they are needed, with the environment and ``sys.path`` that the host then has.

    Args:
        max_tasks_per_worker: A tool process is replaced after so many tasks; None is no limit.
        on_host_exit: What happens to running tasks when the executor stops. ``"detach"``: they go on and finish.
            ``"stop"``: they are stopped, and failed as interrupted, or requeued if they may run again. If the host is
            killed, they always go on.
    """

    def __init__(
        self, *, max_tasks_per_worker: int | None = None, on_host_exit: Literal["detach", "stop"] = "detach"
    ) -> None:
        if on_host_exit not in {"detach", "stop"}:
            raise ValueError(f"on_host_exit is 'detach' or 'stop', not {on_host_exit!r}")
        if max_tasks_per_worker is not None and max_tasks_per_worker < 1:
            raise ValueError(f"max_tasks_per_worker must be at least 1, not {max_tasks_per_worker}")
        self._max_tasks = max_tasks_per_worker
        interrupt = self.interrupt if on_host_exit == "stop" else None
        self.traits = Traits(outlives_host=True, needs_pickling=True, callbacks_may_submit=True, interrupt=interrupt)
        self._threads = ThreadBackend()  # each busy supervisor has one that waits for it
        self._mutex = threading.Lock()
        self._idle: list[_Supervisor] = []
        self._busy: set[_Supervisor] = set()
        self._closed = self._interrupted = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Start the call soon in a supervisor; never block.

        Its future raises BackendError if the supervisor dies: then the task's record and lock say how it ended.

        Raises:
            BackendError: It was shut down.
            TypeError: The call cannot be pickled.
        """
        try:
            message = pickle.dumps((fn, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(f"what goes to another process must be picklable: {error}") from error
        return self._threads.submit(self._run, message)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Accept no more calls. *wait* until running calls have ended; without, they go on and finish on their own."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        with self._mutex:
            self._closed = True
            supervisors = [*self._idle, *self._busy]
            self._idle.clear()
        for supervisor in supervisors:
            supervisor.disconnect()

    def interrupt(self) -> None:
        """
        Stop all calls, and start no more; return at once.

        Their tasks are finished as interrupted. The future of a call that had not begun raises BackendError.
        """
        with self._mutex:
            self._interrupted = True
            for supervisor in self._busy:
                supervisor.interrupt()

    def _run(self, message: bytes) -> Any:  # noqa: ANN401 - what the call returns
        with self._mutex:
            idle = self._idle.pop() if self._idle else None
        for candidate in (idle, None):  # one that died while it was idle has not begun the call
            supervisor = candidate or _Supervisor(self._max_tasks)
            with self._use(supervisor):
                if supervisor.send(message):
                    return supervisor.result()
        raise BackendError("a supervisor process ended before it had received its task; nothing ran")

    @contextlib.contextmanager
    def _use(self, supervisor: _Supervisor) -> Iterator[None]:
        with self._mutex:
            self._busy.add(supervisor)
        try:
            if self._interrupted:
                supervisor.disconnect()
                raise BackendError("it was interrupted before a supervisor had received it; nothing ran")
            yield
        finally:
            with self._mutex:
                self._busy.discard(supervisor)
                if supervisor.alive and not self._closed:
                    self._idle.append(supervisor)
                else:
                    supervisor.disconnect()


class _Supervisor:
    """The host's side of one supervisor process."""

    def __init__(self, max_tasks: int | None) -> None:
        ours, theirs = socket.socketpair()
        directory = os.path.dirname(os.path.dirname(os.path.abspath(animaworks_tasks.__file__)))
        path = f"import sys; sys.path.insert(0, {directory!r})"
        program = f"from animaworks_tasks.backends.supervisor import main; main({theirs.fileno()}, {max_tasks!r})"
        self._connection = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [os.fsdecode(get_executable() or sys.executable), "-P", "-c", f"{path}; {program}"],
                stdin=subprocess.DEVNULL,
                # Not the host's: the reader of a pipe waits for its last writer.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        # So that it does not become a zombie when it ends.
        threading.Thread(target=self._process.wait, name="animaworks_tasks-reaper", daemon=True).start()
        self.alive = True
        self.send(pickle.dumps(list(sys.path)))

    def send(self, message: bytes) -> bool:
        """Send *message* and return whether the process could receive it."""
        try:
            self._connection.send_bytes(message)
        except OSError:
            self.disconnect()
            return False
        return True

    def result(self) -> Any:  # noqa: ANN401 - what the call returns
        """Wait for the end of the call; return its result or raise its exception."""
        try:
            good, value = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our own process wrote it
        except (EOFError, OSError) as error:
            self.disconnect()
            problem = "the connection to the supervisor process was closed; see the task's record"
            raise BackendError(problem) from error
        if good:
            return value
        raise value

    def interrupt(self) -> None:
        """Have the process stop its task with all descendants, finish it as interrupted, and exit."""
        self.alive = False
        self._process.terminate()

    def disconnect(self) -> None:
        """Close the connection: an idle process exits, a busy one finishes its task first."""
        self.alive = False
        # Closing it would not end a recv that waits in another thread.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as host:
            host.shutdown(socket.SHUT_RDWR)
