"""``animaworks-tool tools`` and ``guide``: what can be called, found here or published by the host."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from animaworks_tasks import Registry, TaskStore, discover
from tests.cli.conftest import Tool, described


@pytest.fixture
def tools(anima: Path) -> Path:
    """The Anima's own tools: one that loads, and one that does not."""
    (anima / "tools").mkdir()
    (anima / "tools/words.py").write_text(
        "from animaworks_tasks import Registry\n"
        "registry = Registry()\n"
        "@registry.tool('words', 'count', expected_seconds=90)\n"
        "def count(text: str) -> int:\n"
        "    '''Count words.'''\n"
        "    return len(text.split())\n"
    )
    (anima / "tools/bad.py").write_text("def (\n")
    return anima / "tools"


@pytest.mark.usefixtures("tools")
def test_tools_lists_what_is_found_and_what_is_not_loaded(tool: Tool) -> None:
    said = tool("tools")
    assert (0, "⚠  words count TEXT  1 min 30 s  Count words.\n") == (said.status, said.out)
    assert re.search(r"^animaworks-tool: did not load: .*/bad\.py: .*SyntaxError", said.err)
    data = tool("tools", "-j").data
    assert ("files", 90) == (data["source"], data["tools"]["words"]["count"]["expected_seconds"])
    assert data["problems"][0]["where"].endswith("bad.py")


def test_tools_are_those_of_the_host_where_there_is_one(store: TaskStore, tools: Path, tool: Tool) -> None:
    registry = Registry()
    described(registry)
    store.publish_catalogue(registry.catalogue())
    data = tool("tools", "-j").data
    assert ("catalogue", ["image_gen", "words"], []) == (data["source"], list(data["tools"]), data["problems"])
    assert "- ⚠ `image_gen 3d IMAGE` (10 min)" in tool("guide", "--language=en").out
    assert "files" == tool("tools", "-j", "--tools", str(tools)).data["source"]


@pytest.mark.usefixtures("tools")
def test_the_guide_is_japanese_unless_asked_otherwise(tool: Tool) -> None:
    assert tool("guide").out.startswith("# ツールの使い方\n")
    assert tool("guide", "--language", "en").out.startswith("# How to use tools\n")
    assert "animaworks-tool submit words count TEXT" in tool("guide", "-j").data["guide"]


def test_who_types_what_the_guide_says_has_it_done(store: TaskStore, tools: Path, tool: Tool) -> None:
    """A tool that only the host has is to be submitted; one that is found here too may be called."""
    # given a host that has a quick tool in its own code, and what lies in the Anima's directory
    (tools / "words.py").write_text((tools / "words.py").read_text().replace("expected_seconds=90", ""))
    registry = Registry()
    registry.add("odd", "quick", lambda: None)
    registry.add_registry(discover(store.location))
    store.publish_catalogue(registry.catalogue())
    # when
    guide = tool("guide", "--language=en").out
    # then
    submitted, direct = guide.split("## Tools to submit")[1].split("## Tools to call directly")
    assert "- `odd quick`" in submitted
    assert "- `words count TEXT`" in direct
    assert (0, 0) == (tool("submit", "odd", "quick").status, tool("words", "count", "a").status)


def test_tools_need_no_anima(tmp_path: Path, tools: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR")
    said = tool("tools")
    assert f"or {tmp_path}/data/common_tools: put one there, install a package of them" in said.err
    assert "words count TEXT" in tool("tools", "--tools", str(tools)).out
    (tmp_path / "data").mkdir()
    tools.rename(tmp_path / "data/common_tools")
    assert "words count TEXT" in tool("tools").out


def test_a_registry_in_the_current_directory_is_found(
    tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch, tools: Path
) -> None:
    (tools / "words.py").rename(tmp_path / "my_words_for_a_test.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "words count TEXT" in tool("tools", "--registry", "my_words_for_a_test:registry").out
