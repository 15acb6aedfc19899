"""
Claim one task, run it, finish it: the same wherever a backend puts it.

The process that runs :func:`run_task` owns the task from the claim until the outcome is stored. The *invoker* of this
process makes the call: in this thread, or, in a supervisor, in the tool process that it supervises.
"""

import errno
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from animaworks_tasks.errors import NotPermittedError, RecordError, UnknownToolError, UsageError
from animaworks_tasks.fs import slots
from animaworks_tasks.fs.locks import Lock
from animaworks_tasks.store.protocol import Claim, Store
from animaworks_tasks.store.rules import may_begin_again, never_began
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import RAN_TOO_LONG, Cause, Task
from animaworks_tasks.task.states import Event
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.secrets import without_secrets
from animaworks_tasks.tools.tool import Tool
from animaworks_tasks.worker.call import Report, call

logger = logging.getLogger("animaworks_tasks")

_WORTH_A_RETRY: Final = {Cause.TOOL, Cause.CRASHED, Cause.TIMEOUT}  # other causes fail the same way again
_ERROR_LIMIT: Final = 4000  # characters; an error may quote the name of a tool, which may be as long as a record
_LONGEST_BACKOFF: Final = 600.0  # seconds
_PATIENCE: Final = 600.0  # seconds for which a write that the disk refuses is tried again
_LAST_TRIES: Final = 5.0  # seconds for the same in a supervisor that shuts down
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}


class NotBegunError(Exception):
    """An invoker raises this instead of calling the tool: the task is requeued as if it had never been claimed."""


class ResourceTakenError(Exception):
    """All slots of the resource that a task needs are taken: it stays pending, and was not touched."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.resource = resource


Invoker = Callable[[Tool, Task, Store, Claim, float], Report]


def call_here(tool: Tool, task: Task, store: Store, claim: Claim, timeout: float) -> Report:
    """Call the tool in this thread. Nothing stops it at its timeout, but it ends as timed out when it returns."""
    store.publish_view(claim)
    return call(tool, task, store.workspace(task.id), deadline=time.monotonic() + timeout)


_invoke: Invoker = call_here
_is_leaving: Callable[[], bool] | None = None  # returns whether this process shuts down; None in one but a supervisor


def invoke_with(invoker: Invoker, is_leaving: Callable[[], bool] | None = None) -> None:
    """
    Let *invoker* make all calls of this process: what a supervisor does at its start.

    Args:
        invoker: Makes the calls.
        is_leaving: Returns whether this process shuts down, and must not wait long for the disk; None in a process
            that is no supervisor.
    """
    global _invoke, _is_leaving
    _invoke, _is_leaving = invoker, is_leaving


@attrs.frozen
class Vetted:
    """
    What a host says of a record before it is claimed, perhaps by another process, which cannot ask its veto.

    Attributes:
        record: What it says, byte for byte; nothing else may be claimed.
        refusal: Why its call must not be made; None lets it pass.
    """

    record: bytes
    refusal: NotPermittedError | None = None


def vet(store: Store, registry: Registry, task_id: str) -> Vetted | None:
    """
    Ask the veto of *registry* about a task that waits; None where there is no veto.

    Raises:
        OSError: The record could not be read.
    """
    if registry.veto is None:
        return None
    record = b""  # which no task has: what cannot be read cannot be vetted, and is not run
    try:
        record = store.read_record(task_id) or record
        task = codec.decode(record, task_id)
        tool = registry.resolve(task.tool, task.argv)
        registry.check_permission(tool)
        registry.check_veto(tool, task.argv)
    except NotPermittedError as error:
        return Vetted(record, error)
    except (RecordError, UsageError):  # the process that claims it finds this too, and records it
        pass
    return Vetted(record)


def run_task(
    store: Store,
    registry: Registry,
    task_id: str,
    due_by: datetime | None = None,
    vetted: Vetted | None = None,
    limits: Mapping[str, int] | None = None,
) -> Task | None:
    """
    Claim the task, run it and finish it.

    Args:
        store: Where it is.
        registry: What it may call.
        task_id: As returned by :meth:`Store.submit`.
        due_by: Claim it only if its ``not_before`` is not after this; None claims it in any case.
        vetted: What the host's veto said of it; by default that of *registry* is asked, which stays in its process.
        limits: How many tasks of this user may use each resource of this machine at once; None sets no limit.

    Returns:
        The task as it is stored then: DONE, or PENDING again for another attempt. None: it could not be claimed, or its
        record is not the one that was vetted.

    Raises:
        ResourceTakenError: It needs a resource that is taken. It stays pending.
        OSError: The store could not be written for ten minutes. The task's lock is free: recovery finishes or requeues
            it. Supervisors and daemon threads wait for room on a full disk without limit.
    """
    vetted = vetted or vet(store, registry, task_id)
    slot = None
    if limits and registry.has_resources():
        vetted = vetted or Vetted(store.read_record(task_id) or b"")  # what is claimed is what was asked for a slot
        slot = _slot(registry, vetted.record, task_id, limits)
    try:
        claim = store.claim(task_id, due_by=due_by, **({} if vetted is None else {"record": vetted.record}))
        if claim is None:
            return None
        claim.slot = slot
        try:
            return _run(store, registry, claim, None if vetted is None else vetted.refusal)
        finally:
            give_up(claim)
    finally:
        if slot is not None:
            slot.release()


def _slot(registry: Registry, record: bytes, task_id: str, limits: Mapping[str, int]) -> Lock | None:
    """Take a slot of what a task needs; None where it needs nothing that is limited."""
    try:
        task = codec.decode(record, task_id)
    except RecordError:
        return None
    resource = registry.resource(task.tool, task.argv)
    if resource is None or resource not in limits:
        return None
    slot = slots.take(resource, limits[resource])
    if slot is None:
        raise ResourceTakenError(resource)
    return slot


def give_up(claim: Claim) -> None:
    """Release the lock of a claim that is not finished: recovery then finds an orphan, as after the owner's death."""
    if claim.lock is not None:
        claim.lock.release()


def _run(store: Store, registry: Registry, claim: Claim, refusal: NotPermittedError | None) -> Task:
    try:
        if refusal is not None:
            raise refusal
        tool = registry.resolve(claim.task.tool, claim.task.argv)
        registry.check_permission(tool)
    except UsageError as error:
        cause = Cause.REJECTED if isinstance(error, UnknownToolError | NotPermittedError) else Cause.ARGUMENTS
        reason = without_secrets(str(error), os.environ)[:_ERROR_LIMIT]
        changes = never_began(claim.task) | {"cause": cause, "error": reason}
        return _finish(store, claim, Event.FAIL, **changes)
    claim.task = attrs.evolve(claim.task, subcommand=tool.subcommand)
    try:
        return run_owned(store, claim, tool, _invoke)
    except NotBegunError:
        return _patiently(lambda: store.requeue(claim, began=False), claim.task.id)


def run_owned(store: Store, claim: Claim, tool: Tool, invoke: Invoker) -> Task:
    """
    Call *tool* for a task that this process owns, and finish it.

    Raises:
        OSError: As :func:`run_task`; the lock is still held.
    """
    given = claim.task.timeout_seconds
    timeout = tool.timeout_seconds if given is None else given
    # The directory in which the record lies, not the one that it names: anyone may have copied or written it.
    here = attrs.evolve(claim.task, anima_dir=store.location)
    report = invoke(tool, here, store, claim, timeout)
    return _conclude(store, claim, tool, report, timeout)


def _conclude(store: Store, claim: Claim, tool: Tool, report: Report, timeout: float) -> Task:
    kept = {name: getattr(report, name) for name in ("result", "result_file", "result_size", "result_tail")}
    if (report.cancelled and not report.timed_out) or store.workspace(claim.task.id).cancel_requested():
        return _finish(store, claim, Event.CANCEL, error=report.error or "it was cancelled", hint=report.hint, **kept)
    if report.timed_out:
        error = f"{RAN_TOO_LONG} {timeout:g} s" + (f": {report.error}" if report.error else "")
        report = attrs.evolve(report, cause=Cause.TIMEOUT, error=error)
    if report.cause is None:
        return _finish(store, claim, Event.COMPLETE, **kept)
    if report.cause is Cause.INTERRUPTED and _survives(tool, claim.task):
        return _patiently(lambda: store.requeue(claim), claim.task.id)
    retries = tool.retries if claim.task.retries is None else claim.task.retries
    if report.cause in _WORTH_A_RETRY and claim.task.attempt <= retries:
        pause = backoff(claim.task.attempt)
        line = f"attempt {claim.task.attempt} failed: {report.error}; the next one is in {pause:.1f} s\n"
        store.workspace(claim.task.id).write_log(line.encode("utf-8", "backslashreplace"))
        return _patiently(lambda: store.requeue(claim, pause=pause), claim.task.id)
    return _finish(store, claim, Event.FAIL, cause=report.cause, error=report.error, hint=report.hint, **kept)


def backoff(attempt: int) -> float:
    """Return the seconds to wait after failed attempt number *attempt*: 1, 2, 4 ... 600, and up to a quarter more."""
    return min(2.0 ** min(attempt - 1, 16), _LONGEST_BACKOFF) * random.uniform(1.0, 1.25)  # noqa: S311 - no secret


def _finish(store: Store, claim: Claim, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - as Store.finish
    try:
        return _patiently(lambda: store.finish(claim, event, **changes), claim.task.id)
    except RecordError as refused:  # the result cannot be stored, but this error can
        error = f"its outcome could not be stored: {refused.reason}"
        return _patiently(lambda: store.finish(claim, Event.FAIL, cause=Cause.RESULT, error=error), claim.task.id)


def _patiently(step: Callable[[], Task], task_id: str) -> Task:
    """Repeat *step* while the disk refuses it, for a night perhaps: only this process knows the outcome."""
    since, pause = time.monotonic(), 0.1
    while True:
        try:
            return step()
        except OSError as error:
            leaving = _is_leaving is not None and _is_leaving()
            # A thread that is no daemon must end some time: its process waits for it. A supervisor may wait.
            may_wait = threading.current_thread().daemon if _is_leaving is None else not leaving
            if error.errno in _NO_ROOM and may_wait:
                since = time.monotonic()
            if time.monotonic() - since > (_LAST_TRIES if leaving else _PATIENCE):
                raise
            logger.warning("the outcome of task %s cannot be stored yet, trying again: %s", task_id, error)
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def may_run_again(registry: Registry) -> Callable[[Task], bool]:
    """Return the function by which recovery asks whether an orphan may run again, as its tool or submitter says."""

    def answer(task: Task) -> bool:
        try:
            tool = registry.resolve(task.tool, task.argv)
        except UsageError:
            return False
        return _survives(tool, task)

    return answer


def _survives(tool: Tool, task: Task) -> bool:
    return may_begin_again(task, on_interrupt=tool.on_interrupt, max_attempts=tool.max_attempts)
