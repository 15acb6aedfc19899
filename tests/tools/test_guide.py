"""The guide tells an agent which tools to submit, which to call, and never to wait."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final, Literal

import attrs
import pytest

from animaworks_tasks import Registry
from animaworks_tasks.notifications.render import MarkdownRenderer
from animaworks_tasks.tools.discovery import load_directory
from tests.notifications.test_inbox import BAD


def audio(file: Path, *, language: str = "ja") -> str:
    """Write down what is said in a recording."""
    return f"{file} {language}"


def registry() -> Registry:
    filled = Registry()
    filled.add("transcribe", "audio", audio, expected_seconds=120)
    filled.add_command("machine", "run", ["machine"], expected_seconds=600, gated=True, summary="Run\n# an agent.")
    filled.add_command("chatwork", "sync", ["sync"], long_running=True)
    filled.add_command("chatwork", "delete", ["delete"], gated=True)
    found = Registry()
    found.add("web_search", "query", lambda words: words)
    filled.add_registry(found, direct=True)
    return filled


def test_the_guide_is_in_japanese_by_default() -> None:
    assert (
        registry().guide()
        == """\
# ツールの使い方

1. ⚠ は時間のかかるツールです。直接実行せず、投入してください。例: `animaworks-tool submit transcribe audio FILE`
2. ⚠ のないツールは、見出しのとおりに、直接実行するか投入してください。
3. 受付の表示 (`task_id`) が出れば投入は完了です。待機も状況確認もせず、次の作業に\
進んでください。結果は通知として自動的に届きます。中止は `animaworks-tool cancel <task_id>` です。
4. 投入がエラーになったら、何も投入されていません。エラーに従って直してください。失敗の通知が届いたら、\
「原因」と「対処」の行に従って直してから、「次のコマンド」を実行してください。直さずに再投入しないでください。

大文字は値に置き換え、空白を含む値は引用符で囲みます。\
`...` とオプションは `animaworks-tool <ツール> <サブコマンド> --help` で確認できます。

## 投入するツール: `animaworks-tool submit` に続けて

- ⚠ `transcribe audio FILE` (約2分): Write down what is said in a recording
- ⚠ `machine run ...` (約10分, 要許可 `machine_run`): Run # an agent
- ⚠ `chatwork sync ...` (所要時間は不明)
- `chatwork delete ...` (要許可 `chatwork_delete`)

## 直接実行するツール: `animaworks-tool` に続けて

- `web_search query WORDS`
"""
    )


def test_the_guide_can_be_in_english() -> None:
    assert (
        registry().guide("en")
        == """\
# How to use tools

1. ⚠ takes long: do not call it; submit it: `animaworks-tool submit transcribe audio FILE`
2. Without ⚠: call or submit it, as its section says.
3. The receipt is enough: go on with other work. Never wait or poll: the result comes by itself, as a notification; \
`animaworks-tool cancel ID` stops it.
4. If submit fails, nothing was queued: correct what it says. If a notification says failed, act on its lines Cause \
and What to do, and only then type its line Next.

Replace CAPITALS, quote values with spaces. `...` and options: `animaworks-tool TOOL SUBCOMMAND --help`.

## Tools to submit, after `animaworks-tool submit`

- ⚠ `transcribe audio FILE` (2 min): Write down what is said in a recording
- ⚠ `machine run ...` (10 min, needs the permission `machine_run`): Run # an agent
- ⚠ `chatwork sync ...` (time unknown)
- `chatwork delete ...` (needs the permission `chatwork_delete`)

## Tools to call directly, after `animaworks-tool`

- `web_search query WORDS`
"""
    )


def test_a_guide_in_no_known_language_is_refused() -> None:
    with pytest.raises(ValueError, match="no guide in 'fr': choose one of ja, en"):
        registry().guide("fr")


def test_the_guide_says_no_more_than_there_is() -> None:
    """Sections without tools are left out, and an example is of a tool that there is."""
    # given
    empty, quick, direct, slow = Registry(), Registry(), Registry(), Registry()
    quick.add("a", "b", audio)
    direct.add_registry(quick, direct=True)
    slow.add("a", "b", audio, expected_seconds=1)
    # when, then
    assert "##" not in empty.guide("en")
    headings = [[line for line in each.guide("en").splitlines() if line.startswith("##")] for each in (direct, slow)]
    wanted = [
        "## Tools to call directly, after `animaworks-tool`",
        "## Tools to submit, after `animaworks-tool submit`",
    ]
    assert [[each] for each in wanted] == headings
    assert "`animaworks-tool submit TOOL SUBCOMMAND ARGUMENTS`" in direct.guide("en")
    assert "`animaworks-tool submit a b FILE`" in slow.guide("en")


def test_a_tool_that_only_the_host_has_is_to_be_submitted_however_quick_it_is() -> None:
    """No shell can call it; what `animaworks-tool` finds without the host, it can."""
    # given the same function in the host's own registry, and where a shell finds it
    own, found = Registry(), Registry()
    own.add("odd", "quick", audio)
    found.add("even", "quick", audio)
    own.add_registry(found, direct=True)
    # when
    guide = own.guide("en")
    # then
    submitted, direct = guide.split("## Tools to submit")[1].split("## Tools to call directly")
    assert "- `odd quick FILE`" in submitted
    assert "- `even quick FILE`" in direct
    assert {"odd": False, "even": True} == {
        name: specs["quick"]["direct"] for name, specs in own.catalogue()["tools"].items()
    }


def test_what_must_be_given_is_in_the_guide_and_what_may_be_is_left_to_help() -> None:
    def draw(what: str, *more: str, style: Literal["ink", "oil"], size: int = 3, loud: bool = False) -> None: ...

    filled = Registry()
    filled.add("cat", "draw", draw, summary="A sentence of many words, which is cut between two of them at the end")
    assert (
        "- `cat draw WHAT [MORE ...] --style {ink,oil}`: A sentence of many words, which is cut between two of…\n"
        in (filled.guide("en"))
    )
    filled.add("cat", "sing", audio, summary="x" * 100)
    assert f"`: {'x' * 56}…\n" in filled.guide()


def test_a_japanese_summary_is_cut_where_a_part_of_it_ends() -> None:
    """It has few spaces, and a word before one near its beginning is not all that the tool is about."""
    filled, said = Registry(), "3D モデルを一枚の全身画像から生成し、"
    filled.add("cat", "draw", audio, summary=f"{said}{'さらに' * 4}、{'骨' * 60}")
    filled.add("cat", "sing", audio, summary=f"3D {'骨' * 60}")
    assert f"`: {said}{'さらに' * 4}、…\n" in filled.guide()
    assert f"`: 3D {'骨' * 53}…\n" in filled.guide()


def test_what_is_said_of_a_commands_arguments_is_in_the_guide() -> None:
    """The first line of it: more is left to the help, and what takes nothing has nothing after it."""
    filled = Registry()
    filled.add_command("files", "pack", ["tar", "-czf"], usage="ARCHIVE FILE...\n\nAs tar has it.", summary="Pack.")
    filled.add_command("files", "free", ["df"], usage="")
    filled.add_command("files", "list", ["ls"])
    assert ["- `files pack ARCHIVE FILE...`: Pack", "- `files free`", "- `files list ...`"] == [
        line for line in filled.guide("en").splitlines() if line.startswith("- ")
    ]


# What it is for: the seven families of long-running tools.

# Typed from the guide alone: the line as it stands, with values for its capitals.
TYPED: Final = [
    "image_gen fullbody 'a knight in red armour'",
    "image_gen bustup 'a knight in red armour'",
    "image_gen chibi 'a knight in red armour'",
    "image_gen 3d fullbody.png",
    "image_gen rigging 'my model.glb'",
    "image_gen animations 018a210d-8ba4-705c-b111-1f1776f7f578",
    "image_gen pipeline 'a knight in red armour'",
    "local_llm generate 'Why is the sky blue?'",
    "local_llm chat 'Good morning'",
    "transcribe audio talk.wav",
]


def test_the_guide_for_a_korean_anima_is_the_english_one(examples: Registry) -> None:
    assert examples.guide("en") == examples.guide("ko")


languages: Final = pytest.mark.parametrize("language", ["ja", "en"])


@pytest.fixture(scope="module")
def examples() -> Registry:
    """The tools in examples/, which do real work."""
    found = Registry()
    load_directory(found, Path(__file__).parents[2] / "examples" / "tools")
    assert [] == found.problems
    return found


@languages
def test_the_guide_to_the_long_running_tools_is_short(examples: Registry, language: str) -> None:
    assert 10 == sum(tool.long_running for tool in examples.tools())
    assert len(examples.guide(language)) < 1550


def _lines(guide: str) -> list[str]:
    """Return what the guide says can be submitted, as it stands there."""
    assert "animaworks-tool submit" in guide
    return re.findall(r"^- ⚠ `(.+?)`", guide, re.MULTILINE)


@languages
def test_who_has_only_the_guide_can_submit_each_of_them(examples: Registry, language: str) -> None:
    # given a reader who replaces the capitals in each line by what a person would mean
    lines = [shlex.split(line) for line in _lines(examples.guide(language))]
    typed = [shlex.split(line) for line in TYPED]
    assert len(lines) == len(typed) == len(examples.tools())
    for line, words in zip(lines, typed, strict=True):
        assert [word for word in line if not word.isupper()] == words[:2]
        assert len(line) == len(words)
        # when, then
        assert " ".join(words[:2]) == examples.resolve(words[0], words[1:]).command
    # and the example in the rules is one of the lines
    assert f"`animaworks-tool submit {' '.join(lines[0])}`" in examples.guide(language)


@pytest.mark.parametrize(
    ("language", "rules"),
    [
        (
            "ja",
            [
                "直接実行せず、投入",
                "待機も状況確認もせず",
                "自動的に届きます",
                "「原因」と「対処」",
                "何も投入されていません",
            ],
        ),
        (
            "en",
            [
                "do not call it; submit it",
                "Never wait or poll",
                "comes by itself",
                "Cause and What to do",
                "nothing was q",
            ],
        ),
    ],
)
def test_who_has_only_the_guide_never_waits_and_knows_what_to_do_on_failure(
    examples: Registry, language: str, rules: list[str]
) -> None:
    guide = examples.guide(language)
    assert all(rule in guide for rule in rules)
    # the lines that it speaks of are called so in a notification
    failed = MarkdownRenderer(language)(attrs.evolve(BAD, hint="buy some"))
    labels = re.findall(r"「(.+?)」", guide) if language == "ja" else ["Cause", "What to do", "Next"]
    assert 3 == len(labels)
    assert all(f"\n- {label}: " in failed for label in labels)


ANIMAWORKS: Final = {
    "image_gen": {
        **dict.fromkeys(["pipeline"], 1800),
        **dict.fromkeys(["3d", "rigging", "animations"], 600),
        **dict.fromkeys(["fullbody", "bustup", "icon", "chibi"], 120),
    },
    "local_llm": {"generate": 300, "chat": 300, "list": 5},
    "transcribe": {"audio": 120},
    "machine": {"run": 600},
    "chatwork": {"sync": 300, "download": 120, "rooms": 5, "send": 5},
    "web_search": {"search": 10},
}


@languages
def test_the_guide_to_animaworks_own_tools_is_short_and_leads_to_their_help(tmp_path: Path, language: str) -> None:
    # given modules with profiles, whose arguments only they know
    for name, times in ANIMAWORKS.items():
        profile = {
            each: {"expected_seconds": seconds, "background_eligible": seconds > 60, "gated": name == "machine"}
            for each, seconds in times.items()
        }
        (tmp_path / f"{name}.py").write_text(f"EXECUTION_PROFILE = {profile!r}\ndef cli_main(argv=None): ...\n")
    found = Registry()
    load_directory(found, tmp_path)
    # when
    guide = found.guide(language)
    # then
    assert len(guide) < 1500
    lines = _lines(guide)
    assert 14 == len(lines)
    for line in lines:
        tool, subcommand, dots = line.split()
        assert "..." == dots
        assert found.resolve(tool, [subcommand, "whatever", "its", "--help", "says"]).long_running
    assert re.search("`...`.*`animaworks-tool .* --help`", guide)
    assert "`web_search search ...`" in guide


@pytest.mark.parametrize(
    ("seconds", "japanese", "english"),
    [
        (0.2, "約1秒", "1 s"),
        (45, "約45秒", "45 s"),
        (90, "約90秒", "90 s"),
        (300, "約5分", "5 min"),
        (5400, "約90分", "90 min"),
        (7200, "約2時間", "2 h"),
        (9000, "約2.5時間", "2.5 h"),
    ],
)
def test_times_are_in_units_that_people_use(seconds: float, japanese: str, english: str) -> None:
    slow = Registry()
    slow.add("a", "b", audio, expected_seconds=seconds)
    assert f"({japanese})" in slow.guide()
    assert f"({english})" in slow.guide("en")
