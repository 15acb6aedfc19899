"""The judge can find fault: each kind of harm, done by hand to a store that is in order, is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from animaworks_tasks import Cause, TaskStore
from animaworks_tasks.task.states import Event
from tests.conftest import own
from tests.reliability.invariants import problems, words
from tests.reliability.lives import ONE, TWO, drain, ripen, run, submit


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(ground: Path, said: list[str]) -> TaskStore:
    """One task whose notification waits, and one whose notification was acknowledged."""

    def say(*parts: object) -> None:
        said.append(words(*parts))

    store = TaskStore(ground / "mei", durability="process")
    submit(store, say, TWO)
    run(store, say, TWO)
    drain(store, say)
    submit(store, say)
    run(store, say)
    return store


def test_a_store_in_order_has_no_problems(store: TaskStore, said: list[str]) -> None:
    assert [] == problems(store.location, said)


def _lose(store: TaskStore) -> None:
    for path in (store.layout.done_record(ONE), store.layout.view(ONE)):
        os.unlink(path)
    os.unlink(_notification(store))


def _notification(store: TaskStore) -> str:
    return os.path.join(store.layout.notifications, f"{ONE}.md")


def _write(path: Callable[[TaskStore], str], text: str) -> Callable[[TaskStore], object]:
    def write(store: TaskStore) -> None:
        Path(path(store)).unlink(missing_ok=True)
        Path(path(store)).write_text(text)

    return write


def _enter(store: TaskStore) -> None:
    os.link(store.layout.pending_record(store.submit("tool").id), os.path.join(store.layout.keys, "00"))


HARM: Sequence[tuple[str, Callable[[TaskStore], object]]] = (
    ("LOST", _lose),
    ("STUCK pending/", lambda store: store.submit("tool", "once")),
    ("STUCK running/", lambda store: own(store, store.submit("tool").id)),
    ("STUCK running/", _write(lambda store: os.path.join(store.layout.running, f"{ONE}.cancel"), "")),
    ("KEY", _write(lambda store: os.path.join(store.layout.keys, "00"), "{")),
    ("KEY", _enter),
    ("SILENCE", lambda store: os.unlink(_notification(store))),
    ("TWICE", lambda store: os.link(_notification(store), os.path.join(store.layout.read, f"{ONE}.md"))),
    (
        "AGAIN",
        lambda store: os.link(os.path.join(store.layout.read, f"{TWO}.md"), _notification(store).replace(ONE, TWO)),
    ),
    ("NOTICE", _write(_notification, "something else")),
    ("NOTICE", lambda store: os.link(_notification(store), _notification(store).replace(ONE, "0000000000ff"))),
    ("OUTCOME", _write(lambda store: store.layout.done_record(ONE), "")),
    ("OUTCOME", lambda store: os.replace(_pending(store), store.layout.done_record(ONE))),
    ("VIEW", _write(lambda store: store.layout.view(ONE), "{")),
    ("VIEW", _write(lambda store: store.layout.view(ONE), "{}")),
    ("VIEW", _write(lambda store: store.layout.view("0000000000ff"), "{}")),
    ("QUARANTINE", _write(lambda store: os.path.join(store.layout.quarantine, f"{ONE}.json"), "{")),
    ("QUARANTINE", _write(lambda store: os.path.join(store.layout.quarantine, "0000000000ff.json"), "{")),
    ("QUARANTINE", _write(lambda store: os.path.join(store.layout.quarantine, f"{ONE}.json.why.txt"), "why")),
)


def _pending(store: TaskStore) -> str:
    submit(store, lambda *_: None, "0000000000fe")
    path = store.layout.pending_record("0000000000fe")
    Path(path).write_text(Path(path).read_text().replace("0000000000fe", ONE))
    return path


@pytest.mark.parametrize(("name", "harm"), HARM)
def test_harm_that_is_done_to_files_is_named(
    store: TaskStore, said: list[str], name: str, harm: Callable[[TaskStore], object]
) -> None:
    harm(store)
    assert any(problem.startswith(name) for problem in problems(store.location, said))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("LOST", ["submitted 0000000000ff"]),
        ("RAN", [f"ran {ONE} 2"]),
        ("ATTEMPT", [f"ran {ONE} 1"]),
        ("CHANGED", [f"finished {ONE} failed"]),
        ("OWNED", [f"left {ONE} 1"]),
        ("OWNED", ["ran 0000000000fe 1", "ran 0000000000fe 2", "left 0000000000fe 1"]),
        ("AGAIN", [f"shown {TWO}"]),
        ("AGAIN", [f"acknowledged {ONE}"]),
        ("BACK", ["pruning", "pruned 0000000000ff", "submitted 0000000000ff"]),
        ("KEY", ["submitted 0000000000fe key", "submitted 0000000000ff key"]),
        ("KEY", [f"submitted {ONE} key"]),
    ],
)
def test_what_may_not_be_said_is_named(store: TaskStore, said: list[str], name: str, more: list[str]) -> None:
    assert any(problem.startswith(name) for problem in problems(store.location, [*said, *more]))


def test_a_record_that_was_acknowledged_and_is_spoilt_is_named(store: TaskStore, said: list[str]) -> None:
    # given one that a power cut has torn, and that was rejected for it
    submit(store, lambda *parts: said.append(words(*parts)), "0000000000fe")
    path = Path(store.layout.pending_record("0000000000fe"))
    path.write_text("{")
    ripen(path)
    assert store.claim("0000000000fe") is None
    assert Cause.REJECTED is store.get("0000000000fe").cause

    # then
    assert ["SPOILT 0000000000fe: what was acknowledged could not be read"] == problems(store.location, said)


def test_a_policy_may_allow_further_runs(store: TaskStore, said: list[str]) -> None:
    again = "0000000000fe"
    submit(store, lambda *parts: said.append(words(*parts)), again)
    claim = store.claim(again)
    assert claim is not None
    store.finish(claim, Event.COMPLETE)
    said += [f"ran {again} 1", f"ran {again} 2"]
    assert [f"RAN {again} 2 times"] == problems(store.location, said)
    assert [] == problems(store.location, said, runs=lambda _: 2)
