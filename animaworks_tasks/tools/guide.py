"""
The tool guide that goes into an agent's system prompt, written from the catalogue.

Short, because it is paid for in every prompt: the rules, and one line for each tool, with what must be given and how
long it takes. Optional arguments are left to ``--help``: each line is a complete call, once its capitals are filled in.
A tool that only the host has is to be submitted, however quick it is: no shell could call it.
"""

from collections.abc import Mapping
from typing import Any, Final

from animaworks_tasks.tools.arguments import commands, usage, usage_of

_SUMMARY: Final = 56  # characters of a tool's summary


_Words = Mapping[str, str]

# The guide's sentences; ``{}`` in *rules* is a call that can be submitted.
_LANGUAGES: Final[Mapping[str, _Words]] = {
    "ja": {
        "rules": """\
# ツールの使い方

1. ⚠ は時間のかかるツールです。直接実行せず、投入してください。例: `animaworks-tool submit {}`
2. ⚠ のないツールは、見出しのとおりに、直接実行するか投入してください。
3. 受付の表示 (`task_id`) が出れば投入は完了です。待機も状況確認もせず、次の作業に\
進んでください。結果は通知として自動的に届きます。中止は `animaworks-tool cancel <task_id>` です。
4. 投入がエラーになったら、何も投入されていません。エラーに従って直してください。失敗の通知が届いたら、\
「原因」と「対処」の行に従って直してから、「次のコマンド」を実行してください。直さずに再投入しないでください。""",
        "arguments": "大文字は値に置き換え、空白を含む値は引用符で囲みます。`...` とオプションは "
        "`animaworks-tool <ツール> <サブコマンド> --help` で確認できます。",
        "submitted": "## 投入するツール: `animaworks-tool submit` に続けて",
        "direct": "## 直接実行するツール: `animaworks-tool` に続けて",
        "seconds": "約{}秒",
        "minutes": "約{}分",
        "hours": "約{:g}時間",
        "unknown_time": "所要時間は不明",
        "permission": "要許可 `{}`",
    },
    "en": {
        "rules": """\
# How to use tools

1. ⚠ takes long: do not call it; submit it: `animaworks-tool submit {}`
2. Without ⚠: call or submit it, as its section says.
3. The receipt is enough: go on with other work. Never wait or poll: the result comes by itself, as a notification; \
`animaworks-tool cancel ID` stops it.
4. If submit fails, nothing was queued: correct what it says. If a notification says failed, act on its lines Cause \
and What to do, and only then type its line Next.""",
        "arguments": "Replace CAPITALS, quote values with spaces. `...` and options: "
        "`animaworks-tool TOOL SUBCOMMAND --help`.",
        "submitted": "## Tools to submit, after `animaworks-tool submit`",
        "direct": "## Tools to call directly, after `animaworks-tool`",
        "seconds": "{} s",
        "minutes": "{} min",
        "hours": "{:g} h",
        "unknown_time": "time unknown",
        "permission": "needs the permission `{}`",
    },
}


def guide(tools: Mapping[str, Mapping[str, Mapping[str, Any]]], language: str = "ja") -> str:
    """
    Return the guide to *tools*, a catalogue's mapping, in Markdown.

    Raises:
        ValueError: There is no guide in *language*; the message names those that there are.
    """
    words = _LANGUAGES.get("en" if language == "ko" else language)  # nobody has translated it
    if words is None:
        raise ValueError(f"no guide in {language!r}: choose one of ja, en, ko")
    every = [(command, spec) for command, _, spec in commands(tools)]
    direct = [each for each in every if each[1].get("direct") and not each[1]["long_running"]]
    submitted = [each for each in every if each not in direct]  # those that take long, and those that only the host has
    submitted.sort(key=lambda each: not each[1]["long_running"])
    example = next((_call(*each) for each in submitted), "TOOL SUBCOMMAND ARGUMENTS")
    sections = [words["rules"].replace("{}", example), words["arguments"]]
    for title, listed in (("submitted", submitted), ("direct", direct)):
        if listed:
            sections.append(f"{words[title]}\n\n" + "\n".join(_line(words, *each) for each in listed))
    return "\n\n".join(sections) + "\n"


def _line(words: _Words, command: str, spec: Mapping[str, Any]) -> str:
    """Return the list item of one tool: what to type, how long it takes, what it needs, what it does."""
    long_running = spec["long_running"]
    notes = [_duration(words, spec["expected_seconds"])] if long_running else []
    if spec.get("permission"):
        notes.append(words["permission"].format(spec["permission"]))
    note = f" ({', '.join(notes)})" if notes else ""
    summary = _shortened(spec["summary"])
    return f"- {'⚠ ' if long_running else ''}`{_call(command, spec)}`{note}" + (f": {summary}" if summary else "")


def _call(command: str, spec: Mapping[str, Any]) -> str:
    """Return what must be typed; ``...`` where only the tool knows, or where a list of words is what it is about."""
    parameters = spec["parameters"]
    if parameters is None:
        return usage_of(command, spec)
    return usage(command, [each for each in parameters if "default" not in each or each["kind"] == "positional"])


def _shortened(summary: str) -> str:
    """Return *summary* as one line, so that it cannot begin a section of its own, and cut between two words."""
    text = " ".join(summary.split()).removesuffix(".")
    if len(text) <= _SUMMARY:
        return text
    cut = text[:_SUMMARY]
    end = max(cut.rfind(" "), cut.rfind("、") + 1, cut.rfind("。") + 1)
    return f"{cut[:end] if 2 * end > _SUMMARY else cut}…"  # a space near the beginning is all that Japanese may have


def _duration(words: _Words, seconds: float | None) -> str:
    """Return *seconds* in the largest unit of which there are two."""
    if seconds is None:
        return words["unknown_time"]
    units = ((3600, words["hours"], 1), (60, words["minutes"], None), (0, words["seconds"], None))
    size, text, digits = next(each for each in units if seconds >= 2 * each[0])
    return text.format(max(1, round(seconds / (size or 1), digits)))
