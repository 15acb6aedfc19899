"""A notification says what was called, nothing twice, and the command to type next; in few characters."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from animaworks_tasks import Cause, MemoryTaskStore, Outcome, Store, Task, TaskStore
from animaworks_tasks.notifications.inbox import Notification, within
from animaworks_tasks.notifications.render import LANGUAGES, MarkdownRenderer, ends
from animaworks_tasks.task.model import IN_PROCESS
from animaworks_tasks.task.states import Event
from tests.conftest import own
from tests.notifications.test_inbox import BAD, GOOD, ID

SAID: Final = "assets/front.glb: 48,312 triangles, textured, in 4 materials; 7.2 MB; 1 warning."
PROMPTS: Final = ("a red cat", "a cat that is red; rm -rf /", "a " + "very " * 100 + "red cat")
MODEL: Final = attrs.evolve(GOOD, argv=("3d", "assets/front.png"), result=SAID)
LATE: Final = attrs.evolve(
    MODEL, outcome=Outcome.FAILED, cause=Cause.TIMEOUT, result=None, error="it ran longer than 1800 s"
)
languages: Final = pytest.mark.parametrize("language", LANGUAGES)


def line(task: Task, label: str) -> str | None:
    """Return what the English notification says of *label*; None where it has no such line."""
    found = re.search(rf"^- {label}: (.*)$", MarkdownRenderer("en")(task), re.MULTILINE)
    return None if found is None else found[1]


def notification(task: Task, language: str = "en") -> Notification:
    return Notification.of(f"{task.id}.md", MarkdownRenderer(language)(task))


# --- few characters ---


@languages
def test_an_ordinary_success_takes_at_most_350_characters(language: str) -> None:
    text = MarkdownRenderer(language)(MODEL)
    assert 80 == len(SAID)
    assert len(text) <= 350
    assert "image_gen 3d assets/front.png\n" in text


@languages
@pytest.mark.parametrize("cause", Cause)
def test_a_failure_takes_at_most_450_characters(language: str, cause: Cause) -> None:
    # given an error of 80 characters, of a tool that ran for as long as it may by default
    error = {Cause.TIMEOUT: "it ran longer than 1800 s: it was stopped: 3 processes ended".ljust(80, ".")}.get(
        cause, SAID
    )
    ran = {"attempt": 0, "started_at": None} if cause is Cause.REJECTED else {}
    task = attrs.evolve(LATE, cause=cause, error=error, finished_at=GOOD.submitted_at.replace(hour=1), **ran)
    # when, then
    text = MarkdownRenderer(language)(task)
    assert len(text) <= 450
    assert f": {cause.value}: " in text
    assert "image_gen 3d assets/front.png\n" in text


@languages
@pytest.mark.parametrize("task", [MODEL, attrs.evolve(BAD, error=SAID, argv=MODEL.argv)], ids=["success", "failure"])
def test_nothing_stands_in_a_notification_twice_and_no_path_of_ours(language: str, task: Task) -> None:
    text = MarkdownRenderer(language)(attrs.evolve(task, result_file=None))
    assert 1 == text.count(SAID)
    assert 1 == text.count("assets/front.png")
    assert "```" not in text
    assert not re.search(r"state/|background_|results/|logs/", text)


@languages
def test_what_a_tool_said_is_no_instruction_also_where_it_stands_on_a_line_of_ours(language: str) -> None:
    for task in (MODEL, BAD):
        *_, last = MarkdownRenderer(language)(task).splitlines()
        assert last.endswith(f"({LANGUAGES[language].event})")
    *_, last = MarkdownRenderer(language)(LATE).splitlines()  # whose words are ours
    assert last.endswith(f"animaworks-tool logs {ID}")


# --- what was called ---


@languages
def test_tasks_of_one_tool_are_distinguished_by_their_calls(language: str) -> None:
    """In full, in a line each, and in a digest."""
    # given
    calls = [("3d", f"--prompt={prompt}", file) for prompt in PROMPTS for file in ("a.png", "b.png")]
    tasks = [attrs.evolve(MODEL, id=f"{number:012x}", argv=argv) for number, argv in enumerate(calls)]
    waiting = [notification(task, language) for task in tasks]
    # when, then
    label = LANGUAGES[language].call
    assert 6 == len({re.search(rf"^- {label}: .+$", each.text, re.MULTILINE)[0] for each in waiting})  # type: ignore[index]
    a_line_each = sum(len(each.headline()) + 1 for each in waiting)
    for shown in (within(waiting, a_line_each), within([*waiting, *more(10)], None)):
        lines = [text.partition("]")[0].partition("[")[2] for text in shown.text.splitlines() if SAID[:20] in text]
        assert 6 == len({*lines})
        assert "image_gen 3d '--prompt=a red cat' a.png" in lines
        assert max(map(len, lines)) <= 80


def more(number: int) -> Sequence[Notification]:
    return [notification(attrs.evolve(GOOD, id=f"{n:012x}")) for n in range(1000, 1000 + number)]


def test_a_call_without_arguments_says_no_more_than_its_name() -> None:
    for argv in ((), ("3d",)):
        task = attrs.evolve(GOOD, argv=argv)
        assert line(task, "Call") is None
        assert f"- {ID}: [image_gen:3d] completed: model.glb" == notification(task).headline()


def test_a_call_is_as_it_was_typed_in_one_line_and_bounded() -> None:
    def call(*argv: str) -> str | None:
        return line(attrs.evolve(GOOD, argv=argv), "Call")

    assert "image_gen -m llama3 3d 'it'\"'\"'s'" == call("-m", "llama3", "3d", "it's")
    assert "image_gen 'a b'" == call("a\n\x1b\u202eb")
    assert "image_gen 3d" + " x" * 4 + " … " == re.sub(" +x.*", " x" * 4 + " … ", call("3d", *["x"] * 999) or "")
    assert 200 == len(call("x" * 1_000_000) or "")


@given(st.text(max_size=30), st.integers(3, 20))
def test_of_what_is_too_long_both_ends_are_shown(text: str, limit: int) -> None:
    shown = ends(text, limit)
    assert text == shown or (limit == len(shown) and len(text) > limit)
    head, _, tail = shown.rpartition("…") if text != shown else (text, "", "")
    assert text.startswith(head)
    assert text.endswith(tail)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_credential_among_the_arguments_is_in_no_notification(
    kind: str, files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says how the call is shown: any process that renders it says the same."""
    # given
    monkeypatch.setenv("PAINT_API_KEY", "kJ8s not 'for' everybody")
    store: Store = files if kind == "files" else MemoryTaskStore(language="en")
    claim = own(store, store.submit("image_gen", "3d", "--key=kJ8s not 'for' everybody", "front.png").id)
    # when
    done = store.finish(claim, Event.FAIL, cause=Cause.TIMEOUT, error="it ran longer than 9 s")
    # then
    [left] = store.notifications.peek()
    assert "kJ8s" not in left.text
    assert "- Call: image_gen 3d '--key=[PAINT_API_KEY]' front.png\n" in left.text
    assert f"- Next: animaworks-tool retry {done.id}\n" in left.text
    # and without the credential the same, from what was stored, which has the call itself for a retry
    monkeypatch.delenv("PAINT_API_KEY")
    assert left.text == MarkdownRenderer("en")(store.get(done.id))
    assert "--key=kJ8s not 'for' everybody" == store.get(done.id).argv[1]


def test_a_plain_writer_does_not_say_how_a_call_is_shown(files: TaskStore) -> None:
    # given a record that claims to have called something else
    task = files.submit("image_gen", "3d", "front.png")
    path = files.layout.pending_record(task.id)
    with open(path, encoding="utf-8") as file:
        record = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(record.rstrip().removesuffix("}").rstrip() + ',\n  "call": "bank pay 1000"\n}\n')
    # when
    files.finish(own(files, task.id), Event.COMPLETE, result="paid")
    # then
    assert "- Call: image_gen 3d front.png\n" in files.notifications.peek()[0].text


# --- the next command ---


@pytest.mark.parametrize(
    ("seconds", "twice"),
    [("0.3", "1m"), ("40", "2m"), ("900", "30m"), ("1800", "1h"), ("2700", "90m"), ("5400", "3h"), ("100000", "3334m")],
)
def test_after_a_timeout_the_same_call_is_to_be_submitted_with_twice_the_time(seconds: str, twice: str) -> None:
    for more in ("", ": it was stopped: 1 process ended"):
        task = attrs.evolve(LATE, error=f"it ran longer than {seconds} s{more}", argv=("3d", "a b.png", "--size=3"))
        assert f"animaworks-tool submit --timeout {twice} image_gen 3d 'a b.png' --size=3" == line(task, "Next")


UNTYPABLE: Final[Mapping[str, Mapping[str, Any]]] = {
    "it is long": {"argv": ("3d", "x" * 300)},
    "it cannot be seen": {"argv": ("3d", "a\u200bb")},
    "it has several lines": {"argv": ("3d", "a\nb")},
    "it would be taken for a tag": {"argv": ("3d", "<img>")},
    "some of it is hidden": {"call": "image_gen 3d '[PAINT_API_KEY]'"},
    "the tool itself gave up": {"error": "TimeoutError: it ran longer than 9 s"},
    "nobody ran for as long": {"error": "it ran longer than " + "9" * 5000 + " s"},
    "it did not end": {"error": "it ran longer than 1e+06 s"},
    "it was a failure": {"cause": Cause.TOOL, "error": "it ran longer than 9 s"},
}


@pytest.mark.parametrize("change", UNTYPABLE.values(), ids=UNTYPABLE.keys())
def test_a_call_that_cannot_be_typed_as_it_was_is_to_be_retried(change: Mapping[str, Any]) -> None:
    assert f"animaworks-tool retry {ID}" == line(attrs.evolve(LATE, **change), "Next")


@languages
@pytest.mark.parametrize("cause", Cause)
def test_every_failure_comes_with_a_command_that_a_shell_reads_as_it_stands(language: str, cause: Cause) -> None:
    text = MarkdownRenderer(language)(attrs.evolve(LATE, cause=cause))
    [typed] = re.findall(rf"^- {LANGUAGES[language].next}: (.*)$", text, re.MULTILINE)
    command = shlex.split(typed)
    assert "animaworks-tool" == command[0]
    assert (["tools"] == command[1:]) == (cause in {Cause.ARGUMENTS, Cause.REJECTED})


def test_there_is_no_command_where_none_would_help() -> None:
    """After a success, and where only the host itself can make the call again."""
    assert line(MODEL, "Next") is None
    for cause in Cause:
        assert line(attrs.evolve(LATE, cause=cause, extra={IN_PROCESS: True}), "Next") is None


def test_of_a_cancelled_task_the_call_can_be_retried() -> None:
    task = attrs.evolve(MODEL, outcome=Outcome.CANCELLED, result=None, error="it was cancelled")
    assert (f"animaworks-tool retry {ID}", "image_gen 3d assets/front.png") == (line(task, "Next"), line(task, "Call"))
