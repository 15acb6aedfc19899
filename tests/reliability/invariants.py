"""
What must be true of a store once somebody has cleaned up, whatever happened before.

A process under test says what it promises, and what it does that nobody may do twice, in lines of words:

    submitted ID [KEY]      a submit was acknowledged
    ran ID ATTEMPT          the tool began
    left ID ATTEMPT         the tool came to its end
    finished ID OUTCOME     the caller got the outcome
    shown ID                a drain handed the notification out
    acknowledged ID         the drain has put it away
    pruning                 from here on, tasks that have ended may be forgotten, and their keys used again
    pruned ID               it was forgotten: the id never comes back
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from animaworks_tasks import Cause, State, Task
from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.render import MarkdownRenderer
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import is_task_id
from animaworks_tasks.task.pending import digest

Runs = Callable[[str], int]

_RENDER: Final = MarkdownRenderer()


def once(_: str) -> int:
    """The policy of a tool that is never run again by itself."""
    return 1


def problems(anima: str | os.PathLike[str], said: Iterable[str], *, runs: Runs = once) -> list[str]:
    """
    Say what is wrong with a store in which nobody works any more; nothing, if all promises were kept.

    Args:
        anima: Its Anima's directory.
        said: What processes have said, in order.
        runs: How often the tool of a task may begin, by id.
    """
    heard = [line.split() for line in said]
    return [*_on_disk(Layout(anima), pruning=["pruning"] in heard), *_as_said(Layout(anima), heard, runs)]


def _on_disk(layout: Layout, *, pruning: bool) -> Iterator[str]:
    for place in (layout.pending, layout.running):
        yield from (f"STUCK {os.path.basename(place)}/{name}" for name in sorted(os.listdir(place)))
    waiting, read = set(_stems(layout.notifications, ".md")), set(_stems(layout.read, ".md"))
    done = set(_stems(layout.done, ".task"))
    # A prune that is killed leaves what was acknowledged; the record goes first, so that none lacks its notification.
    yield from (
        f"NOTICE {stem} of a task that has not ended" for stem in (waiting if pruning else waiting | read) - done
    )
    yield from (f"TWICE {stem} is notified of" for stem in waiting & read)
    for stem in sorted(done):
        try:
            task = codec.decode(_bytes(layout.done, f"{stem}.task"), stem)
        except RecordError as error:
            yield f"OUTCOME {stem} cannot be read: {error.reason}"
            continue
        if task.state is not State.DONE:
            yield f"OUTCOME {stem} says {task.state.value}"
            continue
        yield from _notification(
            layout, task, [d for d, s in ((layout.notifications, waiting), (layout.read, read)) if stem in s]
        )
    yield from _views(layout, done, pruning=pruning)
    yield from _keys(layout, done)
    yield from _quarantine(layout, done)


def _keys(layout: Layout, done: set[str]) -> Iterator[str]:
    for name in os.listdir(layout.keys):
        try:
            task_id = json.loads(_bytes(layout.keys, name))["task_id"]
        except (ValueError, KeyError):
            yield f"KEY {name} cannot be read"
            continue
        if task_id not in done:
            yield f"KEY {name} leads to {task_id}, which is nowhere"


def _notification(layout: Layout, task: Task, places: Sequence[str]) -> Iterator[str]:
    if not places:
        yield f"SILENCE about {task.id}"
    for place in places:
        text = _bytes(place, f"{task.id}.md").decode("utf-8", "replace")
        if text != _RENDER(task):
            yield f"NOTICE {task.id} in {os.path.relpath(place, layout.anima)} says something else: {text[:80]!r}"


def _views(layout: Layout, done: set[str], *, pruning: bool) -> Iterator[str]:
    for stem in _stems(layout.root, ".json"):
        data = _bytes(layout.root, f"{stem}.json")
        try:
            whole = isinstance(json.loads(data), dict)
        except ValueError:
            whole = False
        if not whole:
            yield f"VIEW {stem} is no JSON object: {data[:40]!r}"
        elif stem not in done:
            if not pruning:
                yield f"VIEW {stem} of a task that has not ended"
        elif data != _bytes(layout.done, f"{stem}.task"):
            yield f"VIEW {stem} does not show how it ended"


def _quarantine(layout: Layout, done: set[str]) -> Iterator[str]:
    names = set(os.listdir(layout.quarantine))
    for name in sorted(names):
        if name.endswith(".why.txt"):
            if name.removesuffix(".why.txt") not in names:
                yield f"QUARANTINE {name} is about nothing"
            continue
        if name + ".why.txt" not in names:
            yield f"QUARANTINE {name} is not explained"
        stem = name.split(".", 1)[0]
        if stem not in done:
            yield f"QUARANTINE {name} belongs to no task that ended"
        elif codec.decode(_bytes(layout.done, f"{stem}.task"), stem).cause is not Cause.REJECTED:
            yield f"QUARANTINE {name} was not rejected"


def _as_said(layout: Layout, said: Sequence[Sequence[str]], runs: Runs) -> Iterator[str]:
    yield from _kept(layout, said)
    yield from _keyed(layout, said)
    yield from _run(said, runs)
    yield from _acknowledged(layout, said)


def _kept(layout: Layout, said: Sequence[Sequence[str]]) -> Iterator[str]:
    """What was acknowledged has ended, and what was said of its end is true."""
    done = set(_stems(layout.done, ".task"))
    submitted = {words[1] for words in said if words[0] == "submitted"}
    promised = submitted | {words[1] for words in said if words[0] in {"finished", "acknowledged"}}
    yield from (f"LOST {task_id}" for task_id in sorted(promised - _forgettable(said) - done))
    for task_id in sorted(submitted & done):
        if _cause(layout, task_id) is Cause.REJECTED:
            yield f"SPOILT {task_id}: what was acknowledged could not be read"
    for task_id in sorted(promised & done):
        outcomes = {words[2]: None for words in said if words[:2] == ["finished", task_id]}
        found = _outcome(layout, task_id)
        if found is not None and set(outcomes) - {found}:
            yield f"CHANGED {task_id}: {', then '.join(outcomes)} was said, and {found} is stored"


def _forgettable(said: Sequence[Sequence[str]]) -> set[str]:
    """Return what a prune may have taken: what the agent was shown, which may be acknowledged, said or not."""
    return {words[1] for words in said if words[0] == "shown"} if ["pruning"] in said else set()


def _keyed(layout: Layout, said: Sequence[Sequence[str]]) -> Iterator[str]:
    """A key leads to one task as long as that is kept, and an id that was forgotten never comes back."""
    leads: dict[str, str] = {}
    forgotten: set[str] = set()
    for words in said:
        if words[0] == "pruning":
            leads.clear()
        if words[0] == "pruned":
            forgotten.add(words[1])
        if words[0] == "submitted" and words[1] in forgotten:
            yield f"BACK {words[1]} is acknowledged after it was forgotten"
        if words[0] == "submitted" and words[2:] and leads.setdefault(words[2], words[1]) != words[1]:
            yield f"KEY {words[2]} leads to {leads[words[2]]} and to {words[1]}"
    done = set(_stems(layout.done, ".task"))
    for key, task_id in leads.items():
        if task_id in done - _forgettable(said) and not os.path.lexists(os.path.join(layout.keys, digest(key))):
            yield f"KEY {key} of {task_id} is gone"


def _run(said: Sequence[Sequence[str]], runs: Runs) -> Iterator[str]:
    """A tool begins as often as its policy says, and while a task runs it is nobody else's."""
    began = Counter(words[1] for words in said if words[0] == "ran")
    yield from (f"RAN {task_id} {number} times" for task_id, number in began.items() if number > runs(task_id))
    attempts = Counter(tuple(words[1:]) for words in said if words[0] == "ran")
    yield from (f"ATTEMPT {attempt[1]} of {attempt[0]} began twice" for attempt, n in attempts.items() if n > 1)
    finished: set[str] = set()
    running: dict[str, str] = {}  # where a process died, it never left
    for word, task_id, *rest in (words for words in said if len(words) > 1):
        if word in {"ran", "left"} and task_id in finished:
            yield f"OWNED {task_id} by two: it {word} when it had finished"
        if word == "left" and running.get(task_id) != rest[0]:
            yield f"OWNED {task_id} by two: attempt {running.get(task_id)} ran before {rest[0]} left"
        if word == "ran":
            running[task_id] = rest[0]
        if word == "finished":
            finished.add(task_id)


def _acknowledged(layout: Layout, said: Sequence[Sequence[str]]) -> Iterator[str]:
    """What was acknowledged is never shown again."""
    acknowledged: set[str] = set()
    for words in said:
        if words[0] == "acknowledged":
            acknowledged.add(words[1])
        if words[0] == "shown" and words[1] in acknowledged:
            yield f"AGAIN {words[1]} is shown after it was acknowledged"
    for task_id in sorted(acknowledged & set(_stems(layout.notifications, ".md"))):
        yield f"AGAIN {task_id} waits after it was acknowledged"


def _outcome(layout: Layout, task_id: str) -> str | None:
    task = _task(layout, task_id)
    return task and task.outcome and task.outcome.value


def _cause(layout: Layout, task_id: str) -> Cause | None:
    task = _task(layout, task_id)
    return task and task.cause


def _task(layout: Layout, task_id: str) -> Task | None:
    try:
        return codec.decode(_bytes(layout.done, f"{task_id}.task"), task_id)
    except RecordError:
        return None  # reported elsewhere


def _stems(directory: str, suffix: str) -> list[str]:
    stems = [name.removesuffix(suffix) for name in os.listdir(directory) if name.endswith(suffix)]
    return sorted(stem for stem in stems if is_task_id(stem))


def _bytes(directory: str, name: str) -> bytes:
    with open(os.path.join(directory, name), "rb") as file:
        return file.read()


def words(*parts: Any) -> str:  # noqa: ANN401 - whatever has words
    """Return one line of what a process says."""
    return " ".join(map(str, parts))
