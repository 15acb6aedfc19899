"""Credentials in the environment do not reach what the agent reads."""

import json
import sys
from pathlib import Path

import pytest

from animaworks_tasks import (
    Executor,
    InlineBackend,
    MemoryTaskStore,
    Registry,
    Task,
    TaskStore,
    ToolContext,
    ToolError,
    run_task,
)
from animaworks_tasks.tools.secrets import without_secrets
from animaworks_tasks.worker.call import _TAIL, RESULT_LIMIT

KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize(
    "name",
    ["API_KEY", "NOVELAI_TOKEN", "token", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "MESHY_APIKEY", "BASIC_AUTH", "KEY"],
)
def test_what_looks_like_a_credential_is_replaced_by_its_name(name: str) -> None:
    assert f"sent [{name}] twice: [{name}]" == without_secrets(f"sent {KEY} twice: {KEY}", {name: KEY})


@pytest.mark.parametrize("name", ["KEYBOARD", "PATH", "MONKEY", "AUTHOR", "TOKENIZER", "LANG"])
def test_other_variables_are_left_alone(name: str) -> None:
    assert KEY == without_secrets(KEY, {name: KEY})


PEM = '-----BEGIN KEY-----\nMIIE"\\日本\n-----END KEY-----\n'


@pytest.mark.parametrize(
    "written",
    [PEM, PEM.strip(), json.dumps([PEM]), json.dumps([PEM], ensure_ascii=False), repr(ValueError(PEM)), repr([PEM])],
)
def test_a_value_is_found_as_it_is_written_by_json_and_by_python(written: str) -> None:
    found = without_secrets(written, {"SSH_KEY": PEM})
    assert "[SSH_KEY]" in found
    assert "MIIE" not in found


def test_what_is_left_of_a_value_without_spaces_is_left_alone_if_it_is_short() -> None:
    assert "a test" == without_secrets("a test", {"API_KEY": "    test    "})


def test_a_short_value_is_left_alone() -> None:
    assert "a test" == without_secrets("a test", {"API_KEY": "test"})


def test_the_longer_of_two_values_goes_first() -> None:
    assert "[B_KEY]" == without_secrets(KEY + "-more", {"A_KEY": KEY, "B_KEY": KEY + "-more"})


def test_a_tool_that_prints_or_raises_its_key_does_not_tell_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("MESHY_API_KEY", KEY)
    registry, store = Registry(), MemoryTaskStore()

    def refuse() -> None:
        raise ValueError(f"401 for key {KEY}")

    registry.add("meshy", "refuse", refuse)
    registry.add("meshy", "tell", lambda: f"the key is {KEY}")
    executor = Executor(store, registry, backend=InlineBackend()).start()

    # when
    for name in ("refuse", "tell"):
        executor.submit_sync("meshy", name)
    executor.run_until_idle_sync()

    # then
    notifications = [notification.text for notification in store.notifications.peek()]
    assert 2 == sum("[MESHY_API_KEY]" in text for text in notifications)
    assert not any(KEY in text for text in notifications)
    assert not any(KEY in f"{task.result}{task.error}" for task in store.list())


def run(registry: Registry, store: MemoryTaskStore | TaskStore) -> Task:
    task = run_task(store, registry, store.submit("tool", "run").id)
    assert task is not None
    return task


def test_a_key_in_data_is_found_though_json_has_escaped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("SSH_KEY", PEM)
    registry = Registry()
    registry.add("tool", "run", lambda: {"key": PEM})
    # when, then
    assert '{\n  "key": "[SSH_KEY]"\n}' == run(registry, MemoryTaskStore()).result


def test_a_key_is_replaced_before_a_large_result_is_cut_and_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a result with the key where its beginning is cut, and where its end is
    monkeypatch.setenv("MESHY_API_KEY", KEY)
    registry, store = Registry(), TaskStore(tmp_path, durability="process")
    head = "x" * (RESULT_LIMIT // 2 - _TAIL - 9) + KEY
    registry.add("tool", "run", lambda: head.ljust(2 * RESULT_LIMIT, "x") + KEY + "x" * (_TAIL - 9))
    # when
    task = run(registry, store)
    # then
    assert "xxx[MESHY_AP" in f"...{task.result}"
    assert f"{task.result_tail}".startswith("_API_KEY]xxx")
    assert "sk-0" not in f"{task.result}{task.result_tail}"
    assert "[MESHY_API_KEY]xxx" in Path(store.layout.root, f"{task.result_file}").read_text()


@pytest.mark.parametrize("way", ["error", "hint", "stderr", "exit", "command"])
def test_a_key_is_replaced_before_a_long_error_is_cut(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # given an error that is cut in the middle of the key, at its head or at its tail
    monkeypatch.setenv("MESHY_API_KEY", KEY)
    beginning, end = "x" * 3990 + KEY + "x" * 100, "x" * 100 + KEY + "x" * 3990
    registry = Registry()

    def tool() -> None:
        if way in {"error", "hint"}:
            raise ToolError(beginning if way == "error" else "no", hint=beginning)
        print(end if way == "stderr" else "", file=sys.stderr)
        sys.exit(3 if way == "stderr" else end)

    if way == "command":
        registry.add_command("tool", "run", ["sh", "-c", f"echo {end} >&2; exit 3"])
    else:
        registry.add("tool", "run", tool)
    # when
    task = run(registry, MemoryTaskStore())
    # then
    said = f"{task.error}{task.hint}"
    assert "xxx" in said
    assert "sk-0" not in said
    assert "cdef" not in said


def test_a_key_in_a_progress_message_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("MESHY_API_KEY", KEY)
    registry, store, seen = Registry(), MemoryTaskStore(), []

    def tool(context: ToolContext) -> None:
        context.progress(0.5, f"asking with {KEY}")
        seen.append(store.read_progress(context.task_id))

    registry.add("tool", "run", tool)
    # when
    run(registry, store)
    # then
    assert ["asking with [MESHY_API_KEY]"] == [progress and progress.message for progress in seen]
