"""
What is wrong with a store that no host mends by itself, and what to do about it: ``animaworks-tool doctor``.

A check changes nothing. It opens records for reading only, because the close of what was open for writing wakes every
executor, and holds a record's lock for no longer than a look. So it works beside hosts, and where nothing can be
written. What :func:`fix` does is what recovery does, quarantine and permissions: nothing is lost by it.
"""

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from animaworks_tasks.errors import RecordError, TasksError
from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.layout import FORMAT, Layout
from animaworks_tasks.fs.process import file_size_limit
from animaworks_tasks.notifications.delivery import Fate, delivery_status
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store import enqueue, recovery, rejection, transitions, views
from animaworks_tasks.store.finding import Finding, about, problem, shown, some, warning
from animaworks_tasks.store.place import Place, ids, unfit
from animaworks_tasks.store.rejection import NOTE
from animaworks_tasks.store.rules import changed_at, is_due, may_begin_again
from animaworks_tasks.store.watch import is_hosted
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import OnInterrupt, State, Task, is_task_id
from animaworks_tasks.task.pending import RECORD_SIZE, SIZE_LIMIT
from animaworks_tasks.tools.catalogue import known_tools, read_tools
from animaworks_tasks.tools.tool import MAX_ATTEMPTS

_ROUNDS: Final = 3  # what is mended may show what was hidden: a directory that was closed, what is wrong in it
_LITTLE_ROOM, _FEW_FILES = 64 << 20, 1000  # bytes: a result of a few dozen megabytes still fits; files
_LONG_UNREAD, _STOPPING = 86400.0, 60.0  # seconds until somebody should have read it; that a stop may take
_AHEAD, _FAR = timedelta(minutes=1), timedelta(days=366)  # by which clocks may differ; for which a task may wait
# An orphan may, where its submitter said so: what its tool says only a host knows, so we take it to say nothing.
_MAY_RUN_AGAIN: Final = partial(may_begin_again, on_interrupt=OnInterrupt.FAIL, max_attempts=MAX_ATTEMPTS)
_FIX: Final = "`animaworks-tool doctor --fix`"


def check(place: Place, *, shared: bool = False) -> list[Finding]:
    """
    Return what is not as it should be; nothing where all is well, or where no task was ever submitted.

    Args:
        place: The store.
        shared: Whether its user says that the locks of a network file system exclude other machines.
    """
    found: list[Finding] = []
    try:
        found += _foundation(place)
        if found or not os.path.lexists(place.layout.root):
            return found  # what is in it cannot be judged
        doubts = partial(_doubts, shared=shared)
        for look in (_permissions, doubts, _file_system, _records, _running, _notifications, _strangers):
            found += look(place)
    except OSError as error:
        where = error.filename or place.layout.root
        what = f"{where} cannot be looked at: {error.strerror or error}; what comes after it was not checked"
        found.append(problem(where, what, "see that this user may read it, or run this as the user who runs the host"))
    return found


def fix(place: Place, *, shared: bool = False) -> list[str]:
    """Mend what can be mended without losing anything; return what was done, and what could not be, a line each."""
    done: list[str] = []
    for _ in range(_ROUNDS):
        found = check(place, shared=shared)
        mendable = [(finding.where, finding.mend) for finding in found if finding.mend is not None]
        for where, mend in mendable:
            try:
                done.append(mend(place))
            except (OSError, TasksError) as error:
                done.append(f"not mended: {where}: {getattr(error, 'strerror', None) or error}")
        if not mendable:
            break
    return list(dict.fromkeys(done))


def _foundation(place: Place) -> Iterator[Finding]:
    """Find what keeps us from looking any further: what is missing, not ours, or of another format."""
    layout = place.layout
    try:
        device = os.lstat(layout.root).st_dev
    except FileNotFoundError:  # the first submit makes it
        above = next(path for path in map(str, Path(layout.root).parents) if os.path.lexists(path))
        if not os.access(above, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            todo = "see that this user may write there, or run this as the user who runs the host"
            yield problem(above, f"{above} may not be written by this user, so no task can be kept there", todo)
        return
    everything = (*enqueue.directories(layout), layout.format)
    missing = [path for path in everything if not os.path.lexists(path)]
    for path in (path for path in everything[:-1] if path not in missing):
        status = os.lstat(path)
        troubles = {
            "is not a directory": not stat.S_ISDIR(status.st_mode),
            f"belongs to another user (uid {status.st_uid})": status.st_uid != os.geteuid(),
            "lies on another file system than the rest": status.st_dev != device,
        }
        for trouble in filter(troubles.get, troubles):
            todo = "make it a directory of the user who runs the host, and run this as that user"
            yield problem(path, f"{path} {trouble}, so no host can keep anything there", todo)
    found = b"" if layout.format in missing else files.read(layout.format, limit=100)
    if not found and os.path.lexists(f"{layout.root}/locks"):
        what = f"{layout.root} is in the format of an earlier release, so nothing in it is seen"
        todo = f"end the hosts of that release; the next host that starts converts it, as {_FIX} does"
        yield problem(layout.root, what, todo, _make)
    elif found not in {b"", FORMAT}:
        what = f"the format of {layout.root} is {found!r}, and this release knows {FORMAT!r} alone"
        yield problem(layout.format, what, "use a newer release")
    elif missing:
        what = f"missing, so what belongs there cannot be kept: {some(missing)}"
        yield problem(missing[0], what, f"{_FIX} makes it, as any host does when it starts", _make)


def _make(place: Place) -> str:
    enqueue.create(place.layout, place.disk)
    return f"made all that belongs to {place.layout.root}"


def _permissions(place: Place) -> Iterator[Finding]:
    """Find what other users may read or write: they would read what tools said, or have us run what they like."""
    layout = place.layout
    for path in enqueue.directories(layout):
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        if mode != files.DIRECTORY_MODE:
            finding = problem if mode & 0o022 or ~mode & files.DIRECTORY_MODE else warning
            effect = "write there, and so have tools run" if mode & 0o022 else "read there what tools said"
            what = f"{path} has mode {mode:04o}: " + (f"others can {effect}" if mode & 0o077 else "we cannot use it")
            yield finding(path, what, f"{_FIX}, or `chmod 700 {path}`", partial(_chmod, path, files.DIRECTORY_MODE))


def _doubts(place: Place, *, shared: bool) -> Iterator[Finding]:
    """Find who else could change what is on the way to the store, and a file system that is none for it."""
    own = enqueue.directories(place.layout)
    for doubt in enqueue.doubts(place.layout, shared=shared):
        if doubt.mode is None or doubt.where not in own:  # or else it was found above
            inside = Path(doubt.where).is_relative_to(place.layout.anima)
            mend = None if doubt.mode is None or not inside else partial(_chmod, doubt.where, doubt.mode)
            finding = problem if doubt.refuses else warning
            yield finding(doubt.where, doubt.what, doubt.todo if mend is None else f"{_FIX}, or {doubt.todo}", mend)


def _chmod(path: str, mode: int, _: Place) -> str:
    os.chmod(path, mode)
    return f"closed to others: {shown(path)}"


def _file_system(place: Place) -> Iterator[Finding]:
    """Find what the file system cannot do, with a probe in tmp/; and whether it is full."""
    root = place.layout.root
    try:
        trouble = unfit(place.disk, "check.probe")
    except OSError as error:
        what = f"{root} cannot be written: {error.strerror}; so no task is submitted, run or ended"
        yield problem(root, what, "free some room, or see that it is mounted for writing")
        return
    if trouble is not None:
        yield problem(root, f"{trouble}, so no host works in {root}", "move the Anima to a local file system")
    status = os.statvfs(root)
    room, few = status.f_bavail * status.f_frsize, status.f_files > 0 and status.f_favail < _FEW_FILES
    if room < _LITTLE_ROOM or few:
        left = f"{status.f_favail} more files" if few else f"{room >> 20} MiB"
        todo = "free some; `animaworks-tool prune --older-than 7d` forgets old tasks"
        yield problem(root, f"the disk is nearly full: there is room for {left}", todo)


def _records(place: Place) -> Iterator[Finding]:
    """Find what cannot be read, tasks that nobody starts, and what cannot be true of a task."""
    layout, now, tasks = place.layout, place.clock(), dict[str, Task]()
    for directory, ending, find in (  # in the order in which a task moves on: the last look at it counts
        (layout.pending, ".json", place.pending),
        (layout.running, ".task", place.running),
        (layout.done, ".task", place.done),
    ):
        for task_id in sorted(ids(directory, ending)):
            try:
                tasks[task_id] = find(task_id)
            except (FileNotFoundError, codec.ForeignRecordError):
                continue
            except RecordError as error:
                yield from _unreadable(place, f"{directory}/{task_id}{ending}", task_id, error.reason)
    try:
        _ = os.path.lexists(layout.catalogue) and read_tools(layout)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(str(error), 200)
        what = f"the catalogue of tools cannot be used: {reason}; so calls are checked only when they are run"
        yield problem(layout.catalogue, what, "restart the host, which writes it; it should be of this release")
    waiting = [task for task in tasks.values() if task.state is State.PENDING]
    due = [] if is_hosted(layout) else [task.id for task in waiting if is_due(task, now)]
    yield from about(warning, due, "no host is here to start what waits", "start the host, or `animaworks-tool run`")
    far = [task.id for task in waiting if not is_due(task, now + _FAR)]
    yield from about(warning, far, "not to be started for a year", "if it is not meant so, `animaworks-tool cancel ID`")
    ahead = [each.id for each in tasks.values() if max(each.submitted_at, changed_at(each)[0]) > now + _AHEAD]
    yield from about(warning, ahead, "from the future, so order and ages are wrong", "see whether the clock is right")
    results = {task.id: os.path.join(layout.root, task.result_file) for task in tasks.values() if task.result_file}
    lost = [task_id for task_id, path in results.items() if not os.path.isfile(path) and place.ended(task_id)]
    yield from about(warning, lost, "the file of the result is missing", "`animaworks-tool show ID` has its beginning")


def _unreadable(place: Place, path: str, task_id: str, reason: str) -> Iterator[Finding]:
    what, mend = f"{shown(path)} cannot be read: {reason}", partial(_recover, task_id)
    if path.startswith(place.layout.pending):
        is_ripe = not 0 <= files.age(path) < rejection.RIPE_AFTER
        todo = f"correct it; a host rejects it {rejection.RIPE_AFTER:.0f} s after it was written, as {_FIX} does"
        yield warning(path, f"{what}; so it is not run", todo, mend if is_ripe else None)
    elif not place.runs(task_id):
        todo = f"{_FIX} moves it to quarantine/; its task has run, so do not repeat it blindly"
        yield problem(path, f"{what}; so nobody learns how its task ended", todo, mend)
    elif not is_orphan(place, task_id):
        yield warning(path, what, f"nothing: its owner lives; `animaworks-tool wait {task_id}` tells the end")


def _running(place: Place) -> Iterator[Finding]:
    """Find tasks whose owner died, where no host is here to recover them, and those that run for too long."""
    tools, hosted = known_tools(place.layout) or {}, is_hosted(place.layout)
    for task_id in sorted(ids(place.layout.running, ".task")):
        if not is_orphan(place, task_id):
            with contextlib.suppress(FileNotFoundError, RecordError):  # it has ended; it was found before
                task = place.running(task_id)
                if (reason := held_up(place.layout, task)) is not None:
                    what, _, todo = reason.partition(": ")
                    yield problem(task_id, f"task {task_id}: {what}", todo)
                yield from _late(place, task, tools)
        elif not hosted:
            what = f"task {task_id} is in running/, and its owner died, so it does not end"
            todo = f"start the host, which treats it as its tool wishes; or {_FIX}, as its submitter wished"
            yield problem(task_id, what, todo, partial(_recover, task_id))


def held_up(layout: Layout, task: Task) -> str | None:
    """Return why the outcome of a running task cannot be stored now, if it has one, and what to do; or else None."""
    ended = "if its tool has ended, its outcome is kept in memory"
    with contextlib.suppress(OSError):
        status = os.statvfs(layout.root)
        if status.f_bavail * status.f_frsize < RECORD_SIZE:
            return f"the disk is full; {ended} until there is room: make some"
    limit = file_size_limit(task.owner_pid or 0)
    if limit is None or limit >= RECORD_SIZE:
        return None
    todo = f"`prlimit --pid {task.owner_pid} --fsize=unlimited` lets it be stored"
    return f"its process may not write a file of more than {limit} bytes; {ended} for ten minutes: {todo}"


def is_orphan(place: Place, task_id: str) -> bool:
    """Return whether the owner of a running task died, also where what it had started still holds the lock."""
    try:
        lock = locks.hold(place.layout.running_record(task_id))
    except files.UnreadableFileError:  # a link, a directory: nobody can hold it
        return True
    except OSError:  # it is not there any more, or the file system has no locks, and nobody knows
        return False
    if lock is None:
        owner = views.owner_of(place.layout, task_id)
        return owner is not None and owner.is_dead()
    lock.release()
    return place.runs(task_id)


def _late(place: Place, task: Task, tools: Mapping[str, Any]) -> Iterator[Finding]:
    spec, now = tools.get(task.tool, {}).get(task.subcommand, {}), place.clock()
    runs = (now - (task.started_at or now)).total_seconds()
    limit = spec.get("timeout_seconds") if task.timeout_seconds is None else task.timeout_seconds
    expected = spec.get("expected_seconds") if task.expected_seconds is None else task.expected_seconds
    what = f"task {task.id} ({one_line(task.name, 100)}) has been running for {runs:.0f} s"
    if limit is not None and runs > limit + _STOPPING:
        todo = f"`animaworks-tool cancel {task.id}`; a tool in a thread cannot be stopped: then restart the host"
        yield problem(task.id, f"{what} and may for {limit:g}, as process {task.owner_pid}", todo)
    elif expected is not None and runs > expected:
        yield warning(task.id, f"{what}, not {expected:g}", f"`animaworks-tool logs -f {task.id}` shows what it does")


def _notifications(place: Place) -> Iterator[Finding]:
    """Find notifications that cannot be read, that nobody reads, that others took, and that were never left."""
    layout, unread = place.layout, []
    for name in (name for name in sorted(files.names(layout.notifications)) if name.endswith(".md") and name[0] != "."):
        path, task_id = f"{layout.notifications}/{name}", name.removesuffix(".md")
        try:
            files.read(path, limit=SIZE_LIMIT)
        except FileNotFoundError:
            continue
        except files.UnreadableFileError as error:
            mend = partial(_notify_anew, path, task_id) if is_task_id(task_id) else None
            todo = "move it away" if mend is None else f"{_FIX} moves it to quarantine/, and notifies of its task anew"
            yield problem(path, f"{shown(path)} cannot be read: {error.strerror}; so no agent sees it", todo, mend)
        if is_task_id(task_id) and files.age(path) > _LONG_UNREAD:
            unread.append(task_id)
    todo = f"see that the heartbeat drains them; of a drain that does not end, `fuser -v {layout.notifications}` knows"
    yield from about(warning, unread, "nobody has read the notification for more than a day", todo)
    # In this order: finish notifies before it takes the name in running/ away, acknowledging moves the notification to
    # .read/, and prune takes the record away before it.
    ended = [each for each in sorted(ids(layout.done, ".task")) if not place.runs(each)]
    notified = {*files.names(layout.notifications), *files.names(layout.read)}
    missing = [each for each in ended if f"{each}.md" not in notified and place.ended(each)]
    events = defaultdict[str, list[Mapping[str, Any]]](list)
    for event in place.journal.read() if missing else ():
        events[str(event.get("task_id"))].append(event)
    fates = {each: delivery_status(events[each], waits=False, read=False, ended=True).fate for each in missing}
    for task_id in (each for each in missing if fates[each] is Fate.MISSING):
        what = f"the notification of task {task_id} was never left, so no agent learns of its end"
        yield problem(task_id, what, f"{_FIX} leaves it", partial(_recover, task_id))
    for fate in (Fate.TAKEN, Fate.UNKNOWN):
        todo = "nothing, if AnimaWorks drains them itself; `animaworks-tool show ID` tells the agent what it missed"
        found = [each for each in missing if fates[each] is fate]
        yield from about(warning, found, f"the notification {fate.value}", todo)


def _notify_anew(path: str, task_id: str, place: Place) -> str:
    rejection.quarantine(place, path, os.path.basename(path), "it was no notification that could be read")
    return _recover(task_id, place) if place.ended(task_id) else f"moved {shown(path)} to quarantine/"


def _strangers(place: Place) -> Iterator[Finding]:
    """Find what other programs took or left, an earlier release among them; and what lies in quarantine/."""
    layout = place.layout
    known = {layout.pending: (".json",), layout.running: (".task", ".cancel"), layout.done: (".task",)}
    strange = [f"{where}/{name}" for where in known for name in files.names(where) if not name.endswith(known[where])]
    taken = [path for path in sorted(strange) if path.endswith(".processing")]
    todo = "turn off AnimaWorks' own watcher for this Anima; then name each file <id>.json, or delete it"
    yield from about(problem, taken, "another watcher takes tasks out of pending/, and they do not run here", todo)
    earlier = [path for path in sorted(strange) if path.endswith(".json")]
    earlier += filter(os.path.lexists, (f"{layout.root}/{name}" for name in ("locks", "doorbell", "ages")))
    what = "an earlier release has been at work here since the store was converted"
    yield from about(problem, earlier, what, "end it or upgrade it; see what these files say, and remove them")
    rest = sorted(set(strange) - {*taken, *earlier})
    todo = "see whose it is; the name of a task is 12 lowercase hex digits and .json"
    yield from about(warning, rest, "nobody here reads it", todo)
    kept = [f"{layout.quarantine}/{name}" for name in sorted(files.names(layout.quarantine)) if not name.endswith(NOTE)]
    todo = f"<name>{NOTE} says why, and whether it ran: submit its call anew, or do not, and delete the two"
    yield from about(warning, kept, "kept, because it could not be read", todo)


def _recover(task_id: str, place: Place) -> str:
    """Do for one task what a host does: reject what cannot be read, recover an orphan, notify of what ended."""
    try:
        place.pending(task_id)
        # What waits of a task that ended is taken away by a claim; where the outcome cannot be read, recovery has it.
        if place.ended(task_id) and (own := transitions.claim(place, task_id)) is not None:
            transitions.requeue(place, own, began=False)  # it was pruned just now
    except (FileNotFoundError, codec.ForeignRecordError):
        pass
    except RecordError as error:
        rejection.reject(place, f"{task_id}.json", task_id, error.reason)
    if place.runs(task_id):
        recovery.recover_one(place, task_id, _MAY_RUN_AGAIN)
    elif (task := rejection.outcome(place, task_id)) is not None:
        transitions.notify(place, task)
    where = place.directory_of(task_id) or place.layout.quarantine
    return f"recovered task {task_id}: it is in {os.path.basename(where)}/ now"
