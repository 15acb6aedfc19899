"""The local_llm example against a server with Ollama's protocol: what it says, and what it tells of each failure."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("httpx", reason="what the examples need is optional")

from animaworks_tasks import Cause, Executor, MemoryTaskStore, Outcome, Registry, State, ThreadBackend, run_task
from animaworks_tasks.tools.discovery import load_directory
from tests.example_runs import QUICK, TOOLS, Anima, Recorder, assert_each_fails, call_here, examples, run_here
from tests.http_servers import Answer, Loopback, Ollama, Script, done, endless, silent, token
from tests.processes import PATIENCE, until

SCRIPT: Final[Script] = {
    "POST busy": [Answer({"error": "server busy, please try again"}, 503, {"Retry-After": "0"})],
    "POST broken": [Answer({"error": "llama runner process has terminated"}, 500)] * 4,
    "POST stuck": [Answer(iter([token("The"), b'{"error":"CUDA out of memory"}\n']))],
    "POST cut": [Answer(iter([token("The"), token(" sky")]))],
    "POST torn": [Answer(iter([token("The"), b'{"response": " sk']))],
    "POST other": [Answer(b"<html>a printer</html>\n")],
    "POST embeds": [Answer({"error": '"embeds" does not support generate'}, 400)],
    "POST short": [Answer(iter([token("The sky"), done(1, reason="length")]))],
    "POST thinks": [Answer(iter([token("", thinking="hm"), token("Blue."), done(2)]))],
    "POST silent": [silent],
    "POST asleep": [silent],
    "POST endless": [endless],
}


@pytest.fixture
def ollama() -> Iterator[Loopback]:
    """Ollama, with a script for each scenario of this file."""
    with Loopback(Ollama(SCRIPT)) as server:
        yield server


@pytest.fixture
def here(ollama: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """Ollama, found by tools that run in this process, in a directory of their own."""
    for name, value in {**QUICK, "OLLAMA_HOST": ollama.url, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_LLM_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    return ollama


def nobody() -> str:
    """Return the address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


# --- submitted in a shell ---


def test_an_agent_asks_and_talks_and_reads_the_answers(ollama: Loopback, tmp_path: Path) -> None:
    # given
    anima = Anima(tmp_path / "mei", {"OLLAMA_HOST": ollama.url.removeprefix("http://")})

    # when
    asked = anima.submit("local_llm", "generate", "Why is the sky blue?", "--temperature", "0", "--max-tokens", "9")
    busy = anima.submit("local_llm", "generate", "Why?", "--model", "busy", "--system", "You are a physicist.")
    first = anima.submit("local_llm", "chat", "I am Mei.", "--history", "talk.json", "--system", "Be brief.")
    second = anima.submit("local_llm", "chat", "Who am I?", "--history", "talk.json")
    anima.run()

    # then
    for each in (asked, busy, first, second):
        assert "] completed: The sky is blue.\n" in anima.notification(each)
        assert "3 tokens in " in anima.log(each)
    sent = [request.json for request in ollama.requests]
    options = {"temperature": 0.0, "num_predict": 9}
    assert {"model": "llama3.2", "prompt": "Why is the sky blue?", "options": options, "stream": True} == sent[0]
    assert "You are a physicist." == sent[1]["system"]
    history = json.loads((anima.work / "talk.json").read_text())
    assert ["system", "user", "assistant", "user", "assistant"] == [message["role"] for message in history]
    assert history[:4] == sent[-1]["messages"]
    assert "The sky is blue." == history[-1]["content"]


TOOL, TIMEOUT, ARGUMENTS = Cause.TOOL, Cause.TIMEOUT, Cause.ARGUMENTS
FAILURES: Final = (
    # what is submitted, its cause, what the notification says of it, and what to do
    (
        "generate hi --model no-such-model", ARGUMENTS,
        "no model 'no-such-model'", "`ollama pull no-such-model`, or take one",
    ),
    ("chat hi --model broken", TOOL, "Ollama is out of order (500: llama runner", "submit it again later"),
    ("generate hi --model stuck", TOOL, "failed after 1 tokens: CUDA out of memory", "a smaller model"),
    ("generate hi --model cut", TOOL, "answer broke off after 2 tokens", "submit it again"),
    ("generate hi --model torn", TOOL, 'what is no JSON object: \'{"response', "OLLAMA_HOST is right"),
    ("chat hi --model other", TOOL, "what is no JSON object: '<html>a printer", "OLLAMA_HOST is right"),
    ("generate hi --model embeds", ARGUMENTS, '(400: "embeds" does not support generate)', "correct what it names"),
    ("generate hi --model silent", TIMEOUT, "timed out: Ollama said nothing for 1 s", "submit it again later"),
    ("generate ' '", ARGUMENTS, "the prompt is empty", "in quotes"),
    ("generate hi --temperature 9", ARGUMENTS, "a temperature of 9.0", "from 0 to 2"),
    ("chat hi --history notes.txt", ARGUMENTS, "notes.txt' is no conversation", "a new name"),
    ("chat hi --history odd.json", ARGUMENTS, "odd.json' is no conversation", "a JSON list of"),
    ("generate hi --max-tokens many", ARGUMENTS, "must be a whole number, not 'many'", "usage: local_llm"),
    ("generate hi --model asleep", TIMEOUT, "it ran longer than 0.3 s", "give it less to do, or more time"),
)  # fmt: skip


@pytest.mark.slow
def test_each_failure_is_told_with_its_cause_and_the_next_step(ollama: Loopback, tmp_path: Path) -> None:
    # given
    anima = Anima(tmp_path / "mei", {"OLLAMA_HOST": ollama.url})
    (anima.work / "notes.txt").write_text("buy milk")
    (anima.work / "odd.json").write_text('[{"role": "user"}]')

    # then
    assert_each_fails(anima, "local_llm", FAILURES)
    assert "buy milk" == (anima.work / "notes.txt").read_text()


def test_where_ollama_is_not_running_the_agent_is_told_to_start_it(tmp_path: Path) -> None:
    anima = Anima(tmp_path / "mei", {"OLLAMA_HOST": nobody()})
    task_id = anima.submit("local_llm", "generate", "hi")
    anima.run()
    notification = anima.notification(task_id)
    assert "- Cause: tool: " in notification
    assert "] failed: nobody answers at http://127.0.0.1:" in notification
    assert "- What to do: is Ollama running? `ollama serve` starts it; OLLAMA_HOST says where" in notification


def test_cancelling_stops_the_stream_at_once(ollama: Loopback, tmp_path: Path) -> None:
    # given a model that talks and talks
    anima = Anima(tmp_path / "mei", {"OLLAMA_HOST": ollama.url})
    task_id = anima.submit("local_llm", "generate", "hi", "--model", "endless")
    with anima.host() as host:
        until(lambda: " tokens, " in str(anima.store.read_progress(task_id)))

        # when
        anima.cancel(task_id)

        # then
        assert ollama.hung_up.wait(PATIENCE)
        host.wait(PATIENCE)
    assert Outcome.CANCELLED == anima.store.get(task_id).outcome
    assert "- Cause: It was cancelled." in anima.notification(task_id)


# --- in this process ---


def test_cancelling_stops_the_stream_in_a_thread_too(here: Loopback) -> None:
    """Where nothing can be killed: the tool is async, and is cancelled where it waits."""
    # given
    store = MemoryTaskStore(language="en")
    executor = Executor(store, examples(), backend=ThreadBackend()).start()
    task = executor.submit_sync("local_llm", "chat", "hi", "--model", "endless")
    until(lambda: here.requests)

    # when
    store.request_cancel(task.id)

    # then
    executor.run_until_idle_sync()
    executor.stop()
    assert here.hung_up.wait(PATIENCE)
    assert (State.DONE, Outcome.CANCELLED) == (store.get(task.id).state, store.get(task.id).outcome)


def test_progress_counts_tokens_against_the_limit(here: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("animaworks_tasks.tools.context._PROGRESS_INTERVAL", 0.0)
    recorder = Recorder()
    report, _ = call_here(recorder, "local_llm", "generate", "hi", "--max-tokens", "6")
    assert "The sky is blue." == report.result
    assert [None, 1 / 6, 2 / 6, 3 / 6, 1.0] == [fraction for fraction, _ in recorder.reports]
    assert recorder.reports[3][1].startswith("3 tokens, ")
    assert here.requests


def test_what_a_model_only_thinks_is_not_its_answer(here: Loopback) -> None:
    assert "Blue." == run_here("local_llm", "generate", "hi", "--model", "thinks")[0].result
    assert here.requests


def test_an_answer_that_was_cut_short_is_given_and_the_log_says_so(here: Loopback) -> None:
    recorder = Recorder()
    report, _ = call_here(recorder, "local_llm", "generate", "hi", "--model", "short")
    assert "The sky" == report.result
    assert "it had more to say: raise --max-tokens" in recorder.lines
    assert here.requests


def test_a_failed_answer_leaves_the_conversation_as_it_was(here: Loopback, tmp_path: Path) -> None:
    run_here("local_llm", "chat", "hi", "--history", str(tmp_path / "talk.json"))
    before = (tmp_path / "talk.json").read_bytes()
    done, _ = run_here("local_llm", "chat", "more", "--history", str(tmp_path / "talk.json"), "--model", "cut")
    assert Outcome.FAILED == done.outcome
    assert before == (tmp_path / "talk.json").read_bytes()
    assert ["talk.json"] == [path.name for path in tmp_path.iterdir()]
    assert here.requests


def test_the_model_may_be_named_by_the_environment(here: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LLM_MODEL", "qwen3:8b")
    run_here("local_llm", "generate", "hi")
    assert "qwen3:8b" == here.requests[0].json["model"]


def _module(name: str) -> Any:  # noqa: ANN401 - a module that no type checker can see
    tool = next(tool for tool in examples().tools() if tool.key == "local_llm:chat")
    return import_module(f".{name}", tool.load().__globals__["__package__"])


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("gpu", "http://gpu:11434"),
        ("gpu:8080", "http://gpu:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - where a server listens, which a client cannot go to
        (" 'http://gpu/' ", "http://gpu:80"),
        ("https://gpu", "https://gpu:443"),
        ("https://gpu:8443", "https://gpu:8443"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("::1", "http://[::1]:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(monkeypatch: pytest.MonkeyPatch, value: str, url: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", value)
    assert url == _module("_ollama").host()


@pytest.mark.parametrize("value", ["gpu:port", "ftp://gpu", "[::1"])
def test_an_ollama_host_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", value)
    done, notification = run_here("local_llm", "generate", "hi")
    assert "OLLAMA_HOST is no address" == done.error
    assert "as in OLLAMA_HOST=127.0.0.1:11434" in notification


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("120", 120.0), ("Fri, 01 Jan 2010 00:00:00 GMT", 0.0), ("", None), ("soon", None), ("-5", None)],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    assert seconds == _module("_http")._retry_after(value)


def test_a_directory_with_the_tool_alone_says_what_is_missing(tmp_path: Path) -> None:
    # given somebody who copied one file
    (tmp_path / "local_llm.py").write_bytes((TOOLS / "local_llm.py").read_bytes())
    registry, store = Registry(), MemoryTaskStore(language="en")
    load_directory(registry, tmp_path)

    # then
    done = run_task(store, registry, store.submit("local_llm", "generate", "hi").id)
    assert done is not None
    assert f"_ollama is missing, which {tmp_path / 'local_llm.py'} needs" == done.error
    assert "copy _ollama.py there too, from examples/tools" == done.hint
