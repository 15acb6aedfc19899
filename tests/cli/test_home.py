"""A user's own home for tasks: where nobody names an Anima, a host makes it, and every command finds it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from animaworks_tasks import Registry, TaskStore
from tests.cli.conftest import PROGRAM, Tool
from tests.processes import until

TOOLS = """
from animaworks_tasks import Registry
registry = Registry()

@registry.tool("words", "count", expected_seconds=60)
def count(text: str) -> int:
    return len(text.split())
"""
_LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tasks of a user are kept; its account is empty, and speaks English."""
    for name in ("ANIMAWORKS_ANIMA_DIR", *_LOCALE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "state/animaworks_tasks"


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``animaworks-tool run``, and wait until it has published its tools; none outlives the test."""
    hosts: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        host = subprocess.Popen([*PROGRAM, "run", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        hosts.append(host)
        until(lambda: (home / "state/background_tasks/catalogue").exists() or host.poll() is not None)
        return host

    yield start
    for host in hosts:
        with host:
            host.kill()


def test_a_host_in_an_empty_account_serves_its_home_and_no_command_needs_a_name(
    home: Path, tmp_path: Path, tool: Tool, start: Callable[..., subprocess.Popen[str]]
) -> None:
    # given a host, and a tool that it was given
    (tmp_path / "words.py").write_text(TOOLS)
    host = start("--tools", str(tmp_path), "--backend", "thread")
    # when
    submitted = tool("submit", "words", "count", "a b c")
    # then
    assert f"animaworks-tool: no Anima is named, so the host of {home} gets this task\n" == submitted.err
    receipt = submitted.data
    assert f"A notification comes when it is done. (task_id: {receipt['task_id']})" in receipt["message"]
    assert 0 == tool("wait", receipt["task_id"]).status
    assert receipt["task_id"] in tool("list").out
    assert "submit words count TEXT" in tool("guide").out
    assert "# Background task completed: words:count" in tool("notifications", "--ack").out
    # and when the host has left, all that is there is still found, and nothing is queued for nobody
    host.terminate()
    host.communicate(timeout=30)
    assert receipt["task_id"] in tool("list").out
    left = tool("submit", "words", "count", "a")
    assert (1, "") == (left.status, left.out)
    for way_out in ("set ANIMAWORKS_ANIMA_DIR", "--anima-dir DIR", f"let `animaworks-tool run` serve {home}"):
        assert way_out in left.err
    assert [] == os.listdir(home / "state/background_tasks/pending")


def test_a_command_that_finds_no_home_makes_none(home: Path, tool: Tool) -> None:
    for words in (["list"], ["submit", "words", "count", "a"], ["tools"], ["doctor"]):
        said = tool(*words)
        assert "tools" in words or 1 == said.status
    assert not home.parent.exists()


def test_a_host_without_tools_serves_an_empty_home_but_rejects_nothing_that_waits(
    home: Path, tool: Tool, start: Callable[..., subprocess.Popen[str]]
) -> None:
    host = start("--backend", "thread")
    assert "no tool" in tool("submit", "words", "count", "a").err
    assert "# How to use tools" in tool("guide").out
    host.terminate()
    err = host.communicate(timeout=30)[1]
    assert f"there are no tools in {home}/tools or" in err
    # given something that waits
    TaskStore().submit("words", "count", "a")
    said = tool("run")
    assert (1, True) == (said.status, said.err.startswith("animaworks-tool: nothing could be run: there are no tools"))


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US", "LC_MESSAGES": "ko_KR"}, "ko"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
        ({"LANG": "C", "ANIMAWORKS_ANIMA_DIR": "somewhere"}, "ja"),
    ],
)
def test_where_no_host_says_the_language_is_the_locales_and_of_an_anima_japanese(
    home: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], language: str
) -> None:
    named = variables.pop("ANIMAWORKS_ANIMA_DIR", None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if named is not None:
        home.mkdir(parents=True)
        monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(home))
    assert language == json.loads(tool("guide", "-j").out)["language"]
    # and a host of the home says the same, from then on to everybody
    (TaskStore(home) if named else TaskStore()).publish_catalogue(Registry().catalogue())
    for name in _LOCALE:
        monkeypatch.setenv(name, "C")
    assert language == json.loads(tool("guide", "-j").out)["language"]
