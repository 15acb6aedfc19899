"""Task <-> bytes: what is a record, what is none and why, and what others read in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from animaworks_tasks import Cause, OnInterrupt, Outcome, State, Task
from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import json as wire
from animaworks_tasks.task.codec import ForeignRecordError, check, decode, encode
from animaworks_tasks.task.pending import ROOM, SIZE_LIMIT

ID: Final = "0123456789ab"
AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
SEEN: Final = object()

# What a plain writer leaves: the eight keys of AnimaWorks and nothing else.
PENDING: Final[dict[str, object]] = {
    "task_id": ID,
    "tool_name": "image_gen",
    "subcommand": "3d",
    "raw_args": ["3d", "メイ.png"],
    "anima_name": "mei",
    "anima_dir": "/animas/mei",
    "submitted_at": 1767225600.25,
    "status": "pending",
}
DONE: Final[dict[str, object]] = {
    "task_id": ID,
    "anima_name": "mei",
    "tool_name": "image_gen:3d",
    "tool_args": {"subcommand": "3d", "raw_args": ["3d"], "anima_dir": "/animas/mei"},
    "status": "completed",
    "created_at": 1767225600.25,
    "completed_at": 1767225601.5,
    "result": "model.glb",
    "error": None,
}


def record(base: dict[str, object], **changes: object) -> bytes:
    """Return the record *base* with *changes*; a key that is changed to SEEN is left out."""
    return json.dumps({key: value for key, value in {**base, **changes}.items() if value is not SEEN}).encode()


def reason(data: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        decode(data, ID)
    assert ID == caught.value.name
    return caught.value.reason


# --- what is a record ---


def test_a_record_of_the_eight_keys_is_a_task() -> None:
    task = decode(record(PENDING), ID)
    assert task == Task(
        id=ID,
        tool="image_gen",
        subcommand="3d",
        argv=("3d", "メイ.png"),
        anima_name="mei",
        anima_dir="/animas/mei",
        submitted_at=AT + timedelta(seconds=0.25),
    )


def test_our_own_pending_record_begins_with_the_eight_keys_in_their_order() -> None:
    task = attrs.evolve(decode(record(PENDING), ID), priority=3, key="mei")
    lines = encode(task).decode()
    assert [*PENDING, "version", "priority", "key"] == list(json.loads(lines))
    assert lines.startswith('{\n  "task_id": "0123456789ab",\n  "tool_name": "image_gen",\n')
    assert '"メイ.png"' in lines
    assert lines.endswith("}\n")
    assert PENDING == {key: value for key, value in json.loads(lines).items() if key in PENDING}


@pytest.mark.parametrize("key", ["subcommand", "anima_name", "anima_dir"])
@pytest.mark.parametrize("value", [SEEN, None])
def test_what_says_nothing_may_be_left_out(key: str, value: object) -> None:
    task = decode(record(PENDING, **{key: value}), ID)
    assert "" == getattr(task, key)


def test_a_whole_number_of_seconds_is_a_time_too() -> None:
    assert AT == decode(record(PENDING, submitted_at=1767225600), ID).submitted_at


@pytest.mark.parametrize(
    ("task", "status", "rest"),
    [
        (
            {"state": State.RUNNING, "attempt": 1, "started_at": AT, "owner_pid": 7},
            "running",
            {"attempt": 1, "started_at": 1767225600.0, "owner_pid": 7},
        ),
        (
            {"state": State.DONE, "outcome": Outcome.COMPLETED, "finished_at": AT, "result": "model.glb"},
            "completed",
            {"completed_at": 1767225600.0, "result": "model.glb", "outcome": "completed"},
        ),
        (
            {"state": State.DONE, "outcome": Outcome.FAILED, "finished_at": AT, "cause": Cause.TOOL, "error": "no"},
            "failed",
            {"completed_at": 1767225600.0, "error": "no", "outcome": "failed", "cause": "tool"},
        ),
        (
            {"state": State.DONE, "outcome": Outcome.CANCELLED, "finished_at": AT},
            "failed",
            {"completed_at": 1767225600.0, "outcome": "cancelled"},
        ),
    ],
    ids=["running", "completed", "failed", "cancelled"],
)
def test_from_the_claim_on_a_record_has_the_shape_that_animaworks_reads(
    task: dict[str, object], status: str, rest: dict[str, object]
) -> None:
    whole = attrs.evolve(decode(record(PENDING), ID), **task)
    assert json.loads(encode(whole)) == {
        "task_id": ID,
        "anima_name": "mei",
        "tool_name": "image_gen:3d",
        "tool_args": {"subcommand": "3d", "raw_args": ["3d", "メイ.png"], "anima_dir": "/animas/mei"},
        "status": status,
        "created_at": 1767225600.25,
        "completed_at": None,
        "result": None,
        "error": None,
        "version": 1,
        **rest,
    }


def test_a_done_record_without_our_own_keys_is_read() -> None:
    task = decode(record(DONE), ID)
    assert ("image_gen", "3d", ("3d",), "model.glb") == (task.tool, task.subcommand, task.argv, task.result)
    assert (State.DONE, Outcome.COMPLETED, timedelta(seconds=1.25)) == (
        task.state,
        task.outcome,
        (task.finished_at or AT) - task.submitted_at,
    )


# --- round trips ---

text: Final = st.text(st.characters(exclude_categories=["Cs"]))
moments: Final = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive bounds
seconds: Final = st.floats(0, 1e9)
json_values: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
lives: Final = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"state": st.just(State.RUNNING), "started_at": moments, "owner_pid": st.integers(1, 1 << 22)}
    ),
    st.fixed_dictionaries(
        {
            "state": st.just(State.DONE),
            "outcome": st.sampled_from([Outcome.COMPLETED, Outcome.CANCELLED]),
            "finished_at": moments,
            "result": st.none() | text,
            "error": st.none() | text,
            "result_file": st.none() | text,
            "result_size": st.none() | st.integers(0, (1 << 53) - 1),
            "result_tail": st.none() | text,
        }
    ),
    st.fixed_dictionaries(
        {
            "state": st.just(State.DONE),
            "outcome": st.just(Outcome.FAILED),
            "cause": st.sampled_from(Cause),
            "finished_at": moments,
            "hint": st.none() | text,
        }
    ),
)
tasks: Final = st.builds(
    lambda life, **rest: Task(**rest, **life),
    life=lives,
    id=st.just(ID),
    tool=text.filter(bool),
    subcommand=text,
    argv=st.lists(text, max_size=4),
    anima_name=text,
    anima_dir=text,
    submitted_at=moments,
    priority=st.integers(1 - (1 << 53), (1 << 53) - 1),
    not_before=st.none() | moments,
    key=st.none() | text,
    retry_of=st.none() | text,
    expected_seconds=st.none() | seconds,
    timeout_seconds=st.none() | seconds,
    retries=st.none() | st.integers(0, (1 << 53) - 1),
    on_interrupt=st.none() | st.sampled_from(OnInterrupt),
    attempt=st.integers(0, (1 << 53) - 1),
    extra=st.dictionaries(text.map("x-{}".format), json_values, max_size=2),
)


@given(tasks)
def test_every_task_comes_back_from_its_record_as_it_was(task: Task) -> None:
    data = check(task)
    assert task == decode(data, ID)
    assert data == encode(decode(data, ID))


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_bytes_they_are_a_record_or_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        decode(data, ID)
    assert caught.value.reason


@given(st.sampled_from([PENDING, DONE]), st.data())
def test_whatever_stands_in_a_key_it_is_read_or_refused_with_a_reason(
    base: dict[str, object], data: st.DataObject
) -> None:
    known = [*base, "version", "priority", "not_before", "key", "retries", "on_interrupt", "attempt", "started_at"]
    more = ["timeout_seconds", "owner_pid", "outcome", "cause", "hint", "result_file", "error", "tool_args"]
    more += ["result_size", "result_tail"]
    changes = data.draw(st.dictionaries(st.sampled_from(known + more), json_values, min_size=1, max_size=3))
    try:
        task = decode(record(base, **changes), ID)
    except RecordError as error:
        assert error.reason  # noqa: PT017 - either is right, and nothing else is
    else:
        assert task == decode(check(task), ID)


def test_keys_that_we_do_not_know_are_kept_to_the_end() -> None:
    # given
    theirs = {"trace": {"span": [1, 2.5, None, True]}, "メモ": "残す"}

    # when
    task = decode(record(PENDING, **theirs), ID)

    # then
    assert theirs == task.extra
    for life in (
        {},
        {"state": State.RUNNING},
        {"state": State.DONE, "outcome": Outcome.CANCELLED},
    ):
        later = json.loads(encode(attrs.evolve(task, **life)))
        assert theirs == {key: later[key] for key in theirs}


def test_keys_of_the_other_shape_do_not_take_the_place_of_ours() -> None:
    """A pending record that has a result already, or an outcome, does not decide how the task ends."""
    # given
    early = {"result": "early", "error": "early", "outcome": "failed", "created_at": 1, "completed_at": 2}
    task = decode(record(PENDING, **early), ID)

    # when
    done = attrs.evolve(task, state=State.DONE, outcome=Outcome.COMPLETED, finished_at=AT, result="late")

    # then
    assert done == decode(check(done), ID)
    found = json.loads(encode(done))
    assert ("late", None, "completed") == (found["result"], found["error"], found["outcome"])
    assert (1767225600.25, 1767225600.0) == (found["created_at"], found["completed_at"])


# --- what is none, and why ---

DEEP: Final = b'{"task_id": "0123456789ab", "x": ' + b"[" * 40 + b"]" * 40 + b"}"
DEEPER: Final = b"[" * 200_000 + b"]" * 200_000

REFUSED: Final = {
    "empty": (b"", "it is empty"),
    "blank": (b" \n\t\n", "it is empty"),
    "truncated": (record(PENDING)[:-5], "it is not JSON: Unterminated string"),
    "not JSON": (b"task", "it is not JSON: Expecting value"),
    "two values": (record(PENDING) * 2, "it is not JSON: Extra data"),
    "a list": (b"[]", "it is JSON, but not an object"),
    "null": (b"null", "it is JSON, but not an object"),
    "not UTF-8": (b'{"a": "\xff"}', "it is not UTF-8: invalid start byte at byte 7"),
    "UTF-16": (record(PENDING).decode().encode("utf-16"), "it is not UTF-8"),
    "too large": (b" " * (SIZE_LIMIT + 1), "it is larger than 1048576 bytes"),
    "deep": (DEEP, "it is nested more than 32 deep"),
    "very deep": (DEEPER, "it is nested more than 32 deep"),
    "NaN": (record(PENDING, submitted_at=float("nan")), "NaN is not a finite number"),
    "infinity": (record(PENDING, priority=float("-inf")), "-Infinity is not a finite number"),
    "a number without end": (b'{"a": 1e999}', "1e999 is not a finite number"),
    "a key twice": (b'{"status": "pending", "status": "done"}', "the key 'status' stands in it twice"),
    "a key twice inside": (b'{"x": {"a": 1, "a": 1}}', "the key 'a' stands in it twice"),
    "half a character": (record(PENDING, tool_name="\ud800"), "it holds half of a character (a lone surrogate)"),
    "half a character in a key": (record(PENDING, **{"\udc00": 1}), "it holds half of a character (a lone surrogate)"),
    "no id": (record(PENDING, task_id=SEEN), "task_id is missing"),
    "id no text": (record(PENDING, task_id=5), "task_id must be text, not int"),
    "id no hex": (record(PENDING, task_id="../../passwd"), "it names another task: task_id is '../../passwd'"),
    "id in capitals": (record(PENDING, task_id=ID.upper()), "it names another task: task_id is '0123456789AB'"),
    "another id": (record(PENDING, task_id="f" * 12), "it names another task: task_id is 'ffffffffffff'"),
    "no tool": (record(PENDING, tool_name=SEEN), "tool_name is missing"),
    "tool null": (record(PENDING, tool_name=None), "tool_name is missing"),
    "tool empty": (record(PENDING, tool_name=""), "Length of 'tool' must be >= 1"),
    "tool a list": (record(PENDING, tool_name=["a"]), "tool_name must be text, not list"),
    "no arguments": (record(PENDING, raw_args=SEEN), "raw_args is missing"),
    "arguments a text": (record(PENDING, raw_args="3d"), "raw_args must be a list of texts"),
    "an argument a number": (record(PENDING, raw_args=["3d", 5]), "raw_args must be a list of texts"),
    "no time": (record(PENDING, submitted_at=SEEN), "submitted_at is missing"),
    "time a text": (record(PENDING, submitted_at="2026"), "submitted_at must be a finite number, not str"),
    "time a truth": (record(PENDING, submitted_at=True), "submitted_at must be a finite number, not bool"),
    "time beyond the calendar": (record(PENDING, submitted_at=1e15), "year"),
    "time beyond reason": (record(PENDING, submitted_at=1e300), "timestamp out of range"),
    "time endless": (
        record(PENDING, submitted_at=SEEN)[:-1] + b', "submitted_at": 1e999}',
        "1e999 is not a finite number",
    ),
    "no status": (record(PENDING, status=SEEN), "status is missing"),
    "status done": (record(PENDING, status="done"), "status is 'done' in a record without tool_args"),
    "priority a fraction": (record(PENDING, priority=1.5), "priority must be a whole number, not float"),
    "priority a truth": (record(PENDING, priority=True), "priority must be a whole number, not bool"),
    "retries negative": (record(PENDING, retries=-1), "retries must be at least 0, not -1"),
    "attempt negative": (record(PENDING, attempt=-1), "attempt must be at least 0, not -1"),
    "timeout negative": (record(PENDING, timeout_seconds=-1), "timeout_seconds must be a finite number of seconds"),
    "policy unknown": (record(PENDING, on_interrupt="maybe"), "on_interrupt must be 'fail' or 'retry', not 'maybe'"),
    "cause unknown": (record(DONE, status="failed", cause="bad luck"), "'bad luck' is not a valid Cause"),
    "outcome unknown": (record(DONE, status="failed", outcome="lost"), "'lost' is not a valid Outcome"),
    "pending with a cause": (record(PENDING, cause="tool"), "a task with outcome None cannot have cause tool"),
    "failed without a cause": (record(DONE, status="failed"), "outcome failed cannot have cause None"),
    "outcomes that disagree": (record(DONE, outcome="failed", cause="tool"), "status is 'completed', and outcome"),
    "outcomes that disagree, turned": (record(DONE, status="failed", outcome="completed"), "status is 'failed', and"),
    "status unknown": (record(DONE, status="lost"), "status is 'lost', not running, completed or failed"),
    "tool_args a list": (record(DONE, tool_args=[]), "tool_args must be an object"),
    "tool_args empty": (record(DONE, tool_args={}), "subcommand is missing"),
    "result a number": (record(DONE, result=5), "result must be text, not int"),
    "newer": (record(PENDING, version=2), "it was written by a newer release (version 2); this one reads up to 1"),
}


@pytest.mark.parametrize(("data", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_record_is_refused_with_its_own_reason(data: bytes, why: str) -> None:
    assert why in reason(data)


def test_a_reason_quotes_no_more_than_fits_a_record() -> None:
    """A reason is stored in the record of the rejected task: what it quotes must not make that too large."""
    for bad in (
        record(PENDING, task_id="\x85" * 160_000),
        json.dumps({"\x85" * 300_000: 1}, ensure_ascii=False).encode()[:-1] + b', "task_id": ""}',
        b'{"%s": 1, "%s": 2}' % ((b"x" * 400_000,) * 2),
        record(PENDING, on_interrupt="\x85" * 100_000),
    ):
        assert len(reason(bad)) <= 300


@pytest.mark.parametrize("task_id", [ID, "cron-7", 5, SEEN])
def test_a_task_for_a_language_model_is_in_order_and_not_ours(task_id: object) -> None:
    with pytest.raises(ForeignRecordError, match="language model"):
        decode(record(PENDING, task_type="llm", task_id=task_id, tool_name=SEEN), ID)


def test_another_task_type_is_a_key_like_any_other() -> None:
    assert {"task_type": "command"} == decode(record(PENDING, task_type="command"), ID).extra


# --- checking our own ---


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"argv": ("\udcff",)}, "surrogates not allowed"),
        ({"argv": ("x" * SIZE_LIMIT,)}, "larger than 1048576 bytes"),
        ({"extra": {"x": float("nan")}}, "nan is not JSON"),
        ({"extra": {"x": {1, 2}}}, "a record cannot hold set"),
        ({"extra": {5: "x"}}, "keys are text, not int"),
        ({"extra": {"version": 5}}, "newer release"),
    ],
)
def test_what_no_reader_would_take_back_is_not_stored(changes: dict[str, object], why: str) -> None:
    with pytest.raises(RecordError, match=why):
        check(attrs.evolve(decode(record(PENDING), ID), **changes))


def test_a_record_can_be_asked_to_leave_room() -> None:
    task = decode(record(PENDING), ID)
    task = attrs.evolve(task, argv=("x" * (SIZE_LIMIT - len(encode(task)) - ROOM // 2),))
    assert len(check(task)) > SIZE_LIMIT - ROOM
    with pytest.raises(RecordError, match=f"larger than {SIZE_LIMIT - ROOM} bytes"):
        check(task, room=ROOM)


# --- JSON without json ---


@given(st.dictionaries(text, json_values, max_size=3))
def test_what_we_write_is_what_json_would_write(value: dict[str, object]) -> None:
    data = wire.dump(value)
    assert (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode() == data
    assert json.loads(data) == wire.load(data)


@given(json_values, st.sampled_from([None, 2]), st.booleans())
def test_what_json_wrote_we_read_as_it_does(value: object, indent: int | None, ascii_only: bool) -> None:  # noqa: FBT001 - drawn
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert json.loads(data) == wire.load(data)


@pytest.mark.parametrize("data", [b"", b"{", b"[1,]", b"1 2", b"NaN", b"-Infinity", b"\xff", b'{"a": 1} x', b"'a'"])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        wire.load(data)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        wire.dump({"x": [number]})
