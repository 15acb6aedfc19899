"""
The tool guide that goes into an agent's system prompt, written from the catalogue.

Short, because it is paid for in every prompt: three rules, each long-running tool with its time and a line to copy, the
others as direct calls, and what to do on failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from animaworks_tasks._arguments import usage


@attrs.frozen(kw_only=True)
class _Words:
    """The guide's sentences in one language."""

    rules: str
    failure: str
    submitted: str
    direct: str
    help: str
    seconds: str
    minutes: str
    hours: str
    unknown_time: str
    permission: str


_LANGUAGES: Final[Mapping[str, _Words]] = {
    "ja": _Words(
        rules="""\
# ツールの使い方

1. ⚠ の付いたツールは時間がかかります。直接実行せず、`animaworks-tool submit` で投入してください。
2. ⚠ の付いていないツールは、そのまま直接実行してください。
3. 投入したら、待機したり状況を確認し続けたりせず、次の作業に進んでください。結果は通知として自動的に届きます。""",
        failure="失敗の通知が届いたら、原因とヒントを読み、それに沿って対処してください。同じ内容のまま再投入しないでください。",
        submitted="## ⚠ 投入するツール",
        direct="## 直接実行するツール",
        help="引数が `...` のツールは、`animaworks-tool <ツール> <サブコマンド> --help` で引数を確認できます。",
        seconds="約{}秒",
        minutes="約{}分",
        hours="約{:g}時間",
        unknown_time="所要時間は不明",
        permission="要許可 `{}`",
    ),
    "en": _Words(
        rules="""\
# How to use tools

1. Tools marked ⚠ take long. Do not call them: submit them with `animaworks-tool submit`.
2. Tools without ⚠ are called directly.
3. After submitting, go on with other work. Never wait or poll: the result comes by itself, as a notification.""",
        failure="When a notification says failed, act on its cause and hint. Do not repeat the same call unchanged.",
        submitted="## ⚠ Tools to submit",
        direct="## Tools to call directly",
        help="Where the arguments are `...`, `animaworks-tool <tool> <subcommand> --help` shows them.",
        seconds="about {} s",
        minutes="about {} min",
        hours="about {:g} h",
        unknown_time="time unknown",
        permission="needs the permission `{}`",
    ),
}


def guide(tools: Mapping[str, Mapping[str, Mapping[str, Any]]], language: str = "ja") -> str:
    """
    Write the guide to *tools*, a catalogue's mapping, in Markdown.

    Raises:
        ValueError: There is no guide in *language*; the message names those that there are.
    """
    words = _LANGUAGES.get(language)
    if words is None:
        raise ValueError(f"no guide in {language!r}: choose one of {', '.join(_LANGUAGES)}")
    every = [(name, subcommand, spec) for name, specs in tools.items() for subcommand, spec in specs.items()]
    submitted = [_line(words, *each) for each in every if each[2]["long_running"]]
    direct = [_line(words, *each) for each in every if not each[2]["long_running"]]
    parts = [words.rules, words.failure]
    parts += [f"{title}\n\n" + "\n".join(lines) for title, lines in _sections(words, submitted, direct)]
    if any(spec["parameters"] is None for _, _, spec in every):
        parts.append(words.help)
    return "\n\n".join(parts) + "\n"


def _sections(words: _Words, submitted: list[str], direct: list[str]) -> Iterator[tuple[str, list[str]]]:
    if submitted:
        yield words.submitted, submitted
    if direct:
        yield words.direct, direct


def _line(words: _Words, name: str, subcommand: str, spec: Mapping[str, Any]) -> str:
    """Write one tool as a list item: what to type, how long it takes, what it needs, what it does."""
    long_running = spec["long_running"]
    notes = [_duration(words, spec["expected_seconds"])] if long_running else []
    if spec["gated"]:
        notes.append(words.permission.format(f"{name}_{subcommand}"))
    note = f" ({', '.join(notes)})" if notes else ""
    line = usage(f"{name} {subcommand}", spec["parameters"])
    summary = " ".join(spec["summary"].split())  # it must not begin a line, and so a section, of its own
    call = f"- ⚠ `animaworks-tool submit {line}`" if long_running else f"- `animaworks-tool {line}`"
    return f"{call}{note}" + (f": {summary}" if summary else "")


def _duration(words: _Words, seconds: float | None) -> str:
    """Write *seconds* as a person would say it: in the largest unit of which there are two."""
    if seconds is None:
        return words.unknown_time
    units = ((3600, words.hours, 1), (60, words.minutes, None), (0, words.seconds, None))
    size, text, digits = next(each for each in units if seconds >= 2 * each[0])
    return text.format(max(1, round(seconds / (size or 1), digits)))
