"""Credentials in the environment do not reach what the agent reads."""

import pytest

from animaworks_tasks import Executor, InlineBackend, MemoryTaskStore, Registry
from animaworks_tasks._secrets import without_secrets

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
    notices = [notice.text for notice in store.notifications.peek()]
    assert 2 == sum("[MESHY_API_KEY]" in text for text in notices)
    assert not any(KEY in text for text in notices)
    assert not any(KEY in f"{task.result}{task.error}" for task in store.list())
