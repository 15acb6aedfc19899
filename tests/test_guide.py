"""The guide tells an agent which tools to submit, which to call, and never to wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from animaworks_tasks._registry import Registry


def audio(file: Path, *, language: str = "ja") -> str:
    """Write down what is said in a recording."""
    return f"{file} {language}"


def registry() -> Registry:
    filled = Registry()
    filled.add("transcribe", "audio", audio, expected_seconds=120)
    filled.add_command("machine", "run", ["machine"], expected_seconds=600, gated=True, summary="Run\n# an agent.")
    filled.add_command("chatwork", "sync", ["sync"], long_running=True)
    filled.add("web_search", "query", lambda words: words)
    filled.add_command("chatwork", "delete", ["delete"], gated=True)
    return filled


def test_the_guide_is_in_japanese_by_default() -> None:
    assert (
        registry().guide()
        == """\
# ツールの使い方

1. ⚠ の付いたツールは時間がかかります。直接実行せず、`animaworks-tool submit` で投入してください。
2. ⚠ の付いていないツールは、そのまま直接実行してください。
3. 投入したら、待機したり状況を確認し続けたりせず、次の作業に進んでください。結果は通知として自動的に届きます。

失敗の通知が届いたら、原因とヒントを読み、それに沿って対処してください。同じ内容のまま再投入しないでください。

## ⚠ 投入するツール

- ⚠ `animaworks-tool submit transcribe audio FILE [--language TEXT]` (約2分): Write down what is said in a recording.
- ⚠ `animaworks-tool submit machine run ...` (約10分, 要許可 `machine_run`): Run # an agent.
- ⚠ `animaworks-tool submit chatwork sync ...` (所要時間は不明)

## 直接実行するツール

- `animaworks-tool chatwork delete ...` (要許可 `chatwork_delete`)
- `animaworks-tool web_search query WORDS`

引数が `...` のツールは、`animaworks-tool <ツール> <サブコマンド> --help` で引数を確認できます。
"""
    )


def test_the_guide_can_be_in_english() -> None:
    guide = registry().guide("en")
    assert "Never wait or poll: the result comes by itself, as a notification." in guide
    assert "- ⚠ `animaworks-tool submit machine run ...` (about 10 min, needs the permission `machine_run`)" in guide
    assert "- `animaworks-tool web_search query WORDS`\n" in guide


def test_a_guide_in_no_known_language_is_refused() -> None:
    with pytest.raises(ValueError, match="no guide in 'fr': choose one of ja, en"):
        registry().guide("fr")


def test_the_guide_says_no_more_than_there_is() -> None:
    """Sections without tools, and the way to see arguments where all are shown, are left out."""
    # given
    empty, direct, slow = Registry(), Registry(), Registry()
    direct.add("a", "b", audio)
    slow.add("a", "b", audio, expected_seconds=1)
    # when, then
    assert "##" not in empty.guide("en")
    assert ["## Tools to call directly"] == [line for line in direct.guide("en").splitlines() if line.startswith("##")]
    assert ["## ⚠ Tools to submit"] == [line for line in slow.guide("en").splitlines() if line.startswith("##")]
    assert "--help" not in empty.guide("en") + direct.guide("en") + slow.guide("en")


@pytest.mark.parametrize(
    ("seconds", "japanese", "english"),
    [
        (0.2, "約1秒", "about 1 s"),
        (45, "約45秒", "about 45 s"),
        (90, "約90秒", "about 90 s"),
        (300, "約5分", "about 5 min"),
        (5400, "約90分", "about 90 min"),
        (7200, "約2時間", "about 2 h"),
        (9000, "約2.5時間", "about 2.5 h"),
    ],
)
def test_times_are_in_units_that_people_use(seconds: float, japanese: str, english: str) -> None:
    slow = Registry()
    slow.add("a", "b", audio, expected_seconds=seconds)
    assert f"({japanese})" in slow.guide()
    assert f"({english})" in slow.guide("en")
