"""The transcribing example hears what was said, says how far it is, and tells an agent what to do about a bad file."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import re
import shlex
import shutil
import subprocess
import sys
import wave
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from animaworks_tasks import BadArgument, Cause, Outcome, Registry, TaskCancelled, ToolContext, ToolError, run_task
from animaworks_tasks.store.memory import MemoryTaskStore
from animaworks_tasks.tools.discovery import load_directory
from tests.example_runs import QUICK, Anima, Recorder, call_here, examples
from tests.http_servers import Answer, Loopback, Ollama

pytest.importorskip("pocketsphinx", reason="what the examples need is optional")

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
HELLO: Final = EXAMPLES / "hello.wav"
HAS_WHISPER: Final = importlib.util.find_spec("faster_whisper") is not None
RATE: Final = 16_000
KEY_WORDS: Final = {"hello", "message", "from", "machine", "waiting", "for", "you"}


def _load_example() -> Any:  # noqa: ANN401 - a module that no type checker can see
    spec = importlib.util.spec_from_file_location("transcribe_example", EXAMPLES / "tools" / "transcribe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = _load_example()


def transcribe(file: Path, workspace: Recorder | None = None, /, **options: str) -> str:
    """Call the tool as a runner does, with a context of a claimed task."""
    store = MemoryTaskStore()
    claim = store.claim(store.submit("transcribe", "audio", str(file)).id)
    assert claim is not None
    text: str = asyncio.run(example.audio(file, context=ToolContext(claim.task, workspace or Recorder()), **options))
    return text


def read(file: Path) -> array[int]:
    with wave.open(str(file), "rb") as wav:
        return array("h", wav.readframes(wav.getnframes()))


def write(file: Path, samples: Sequence[int], *, rate: int = RATE, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(channels)
        wav.setsampwidth(width)
        wav.setframerate(rate)
        wav.writeframes(array({1: "B", 2: "h", 4: "i"}[width], samples).tobytes())
    return file


def at_rate(samples: Sequence[int], rate: int) -> list[int]:
    """Return *samples*, which are at 16 kHz, at *rate*: between two, on the straight line that joins them."""
    found = []
    for n in range((len(samples) - 1) * rate // RATE):
        whole, part = divmod(n * RATE, rate)
        found.append(samples[whole] + (samples[whole + 1] - samples[whole]) * part // rate)
    return found


def assert_key_words(text: str) -> None:
    assert KEY_WORDS <= set(text.split())


# --- what it hears ---


@pytest.fixture(scope="module")
def hello() -> tuple[str, Recorder]:
    """The transcript of hello.wav, and what was reported meanwhile."""
    recorder = Recorder()
    return transcribe(HELLO, recorder), recorder


@pytest.mark.slow
def test_it_hears_what_the_recording_says_one_line_per_utterance(hello: tuple[str, Recorder]) -> None:
    text, _ = hello
    assert_key_words(text)
    assert text in inspect.cleandoc(example.__doc__).replace("    ", ""), "the docstring shows what is really heard"


@pytest.mark.slow
def test_its_progress_only_grows_and_ends_at_one(hello: tuple[str, Recorder]) -> None:
    _, recorder = hello
    fractions = [fraction for fraction, _ in recorder.reports]
    assert sorted(fractions) == fractions
    assert 1.0 == fractions[-1]
    assert any(0.0 < fraction < 1.0 for fraction in fractions)


@pytest.mark.slow
def test_its_progress_says_how_many_seconds_are_done(hello: tuple[str, Recorder]) -> None:
    _, recorder = hello
    with wave.open(str(HELLO), "rb") as wav:
        seconds = wav.getnframes() / wav.getframerate()
    assert (0.0, f"0.0 of {seconds:.1f} s") == recorder.reports[0]


@pytest.mark.slow
def test_its_log_names_the_engine_the_length_and_each_utterance(hello: tuple[str, Recorder]) -> None:
    text, recorder = hello
    assert "engine pocketsphinx" in recorder.lines
    assert "s of audio at 16000 Hz" in recorder.lines
    assert all(line in recorder.lines for line in text.splitlines())


@pytest.mark.slow
def test_a_pause_begins_a_new_line(tmp_path: Path, hello: tuple[str, Recorder]) -> None:
    # given a recording that says the same again after two seconds of silence
    text, _ = hello
    twice = write(tmp_path / "twice.wav", [*read(HELLO), *[0] * 2 * RATE, *read(HELLO)])

    # then
    assert 2 * len(text.splitlines()) == len(transcribe(twice).splitlines())


@pytest.mark.slow
def test_speech_that_lasts_to_the_very_end_is_heard(tmp_path: Path) -> None:
    """Whether the last frame is a whole one or not: the endpointer must know that it is the last."""
    speech = read(HELLO)
    loud = [n for n, sample in enumerate(speech) if abs(sample) > 1000]
    frame = round(0.03 * RATE)
    for end in (loud[-1] // frame * frame, loud[-1] // frame * frame + 7):
        text = transcribe(write(tmp_path / f"{end}.wav", speech[:end]))
        assert {"hello", "message"} <= set(text.split())


@pytest.mark.slow
def test_a_recording_at_11_khz_is_heard(tmp_path: Path) -> None:
    assert_key_words(transcribe(write(tmp_path / "11k.wav", at_rate(read(HELLO), 11_025), rate=11_025)))


@pytest.mark.slow
def test_a_telephone_recording_is_read_and_the_log_warns_of_mistakes(tmp_path: Path) -> None:
    """At 8 kHz half of what the model listens to is missing, however well it is resampled: not every word is right."""
    recorder = Recorder()
    text = transcribe(write(tmp_path / "8k.wav", at_rate(read(HELLO), 8_000), rate=8_000), recorder)
    assert "waiting" in text.split()
    assert "WARNING the model was trained on sound up to 6.8 kHz" in recorder.lines


@pytest.mark.slow
def test_compact_disc_stereo_is_heard(tmp_path: Path) -> None:
    both = [sample for sample in at_rate(read(HELLO), 44_100) for _channel in "LR"]
    assert_key_words(transcribe(write(tmp_path / "44k.wav", both, rate=44_100, channels=2)))


@pytest.mark.slow
def test_silence_is_no_failure(tmp_path: Path) -> None:
    assert example.NO_SPEECH == transcribe(write(tmp_path / "silence.wav", [0] * 2 * RATE))


@pytest.mark.slow
def test_what_is_there_of_a_broken_off_recording_is_heard_and_the_log_tells(tmp_path: Path) -> None:
    # given a file whose header promises more than follows, and whose last sample is cut in half
    whole = HELLO.read_bytes()
    broken = tmp_path / "broken.wav"
    broken.write_bytes(whole[: len(whole) * 2 // 3 + 1 - len(whole) * 2 // 3 % 2])

    # then
    recorder = Recorder()
    assert "hello" in transcribe(broken, recorder).split()
    assert "WARNING the file breaks off" in recorder.lines


# --- resampling ---


def test_sound_at_16_khz_is_left_as_it_is() -> None:
    samples = read(HELLO)[:RATE]
    assert samples == example._resample(samples, RATE, 0)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_a_tone_keeps_its_pitch_and_loudness_across_rates_and_pieces(rate: int) -> None:
    """Two seconds of a tone, resampled second by second, are the tone at 16 kHz, with no click where they meet."""

    def tone(seconds: float) -> float:
        return 10_000 * math.sin(2 * math.pi * 440 * seconds)

    # given
    source = array("h", (round(tone(n / rate)) for n in range(2 * rate)))

    # when
    first = example._resample(source[:rate], rate, round(tone(-1 / rate)))
    second = example._resample(source[rate:], rate, source[rate - 1])

    # then: the mean of a window lies in its middle, a fraction of a sample beside where the new sample stands
    beside = (1 / rate - 1 / RATE) / (2 if rate > RATE else 1)
    expected = [tone(n / RATE - beside) for n in range(2 * RATE)]
    assert 200 > max(abs(a - b) for a, b in zip(first + second, expected, strict=True))


# --- stopping ---


@pytest.mark.slow
def test_it_stops_in_the_middle_when_asked() -> None:
    # given someone who asks for a stop once a third is done
    recorder = Recorder(lambda seen: any((fraction or 0.0) > 0.3 for fraction, _ in seen.reports))

    # then
    with pytest.raises(TaskCancelled):
        transcribe(HELLO, recorder)
    assert 0.3 < (recorder.reports[-1][0] or 0.0) < 0.9


# --- what it refuses ---


def refusal(file: Path, /, **options: str) -> tuple[str, str]:
    """Return what the agent reads: the message and the hint."""
    with pytest.raises(BadArgument) as caught:
        transcribe(file, **options)
    assert caught.value.hint is not None
    return str(caught.value), caught.value.hint


def test_a_missing_file_is_named() -> None:
    message, hint = refusal(Path("/nowhere/talk.wav"))
    assert "no file '/nowhere/talk.wav'" == message
    assert "absolute path" in hint


def test_a_missing_relative_file_tells_where_it_was_looked_for() -> None:
    message, _ = refusal(Path("nowhere/talk.wav"))
    assert f"no file 'nowhere/talk.wav' in {Path.cwd()}" == message


def test_a_directory_is_refused(tmp_path: Path) -> None:
    message, hint = refusal(tmp_path)
    assert "is a directory" in message
    assert "each recording" in hint


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("talk of today.mp3", b"ID3\x03" + bytes(1000)),
        ("notes.txt", b"not a recording\n" * 100),
        ("nothing.wav", b""),
        ("half a header.wav", b"RIFF\x24\x00\x00\x00WAVEfmt "),
    ],
)
def test_what_is_no_wav_is_refused_with_the_command_that_converts_it(tmp_path: Path, name: str, data: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    message, hint = refusal(file, engine="pocketsphinx")
    assert f"cannot read {str(file)!r} as 16-bit PCM WAV: " in message
    assert f"`ffmpeg -i {shlex.quote(str(file))} " in hint


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ffmpeg", "sox"])
def test_the_commands_in_the_hint_make_a_file_that_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")

    # given hello.wav with samples of 32 bits
    deep = write(tmp_path / "deep talk.wav", [sample << 16 for sample in read(HELLO)], width=4)
    _, hint = refusal(deep, engine="pocketsphinx")

    # when the agent types what it has read
    monkeypatch.chdir(tmp_path)
    [command] = [part for part in hint.split("`") if part.startswith(program)]
    subprocess.run(command, shell=True, check=True, capture_output=True)  # noqa: S602 - quoted for a shell is the point

    # then
    assert_key_words(transcribe(tmp_path / "deep talk-16k.wav"))


@pytest.mark.parametrize("width", [1, 4])
def test_a_sample_width_that_it_does_not_read_is_refused(tmp_path: Path, width: int) -> None:
    message, hint = refusal(write(tmp_path / "odd.wav", [1] * RATE, width=width), engine="pocketsphinx")
    assert f"its samples have {8 * width} bits, and only 16 are read" in message
    assert "ffmpeg" in hint


def test_an_empty_recording_is_refused(tmp_path: Path) -> None:
    message, hint = refusal(write(tmp_path / "empty.wav", []))
    assert "its length is 0 s" in message
    assert "recording" in hint


# --- choosing an engine ---


def test_pocketsphinx_refuses_japanese() -> None:
    message, hint = refusal(HELLO, language="ja", engine="pocketsphinx")
    assert "pocketsphinx knows only English" in message
    assert "--engine whisper" in hint


@pytest.mark.skipif(HAS_WHISPER, reason="faster-whisper is installed")
@pytest.mark.parametrize("options", [{"engine": "whisper"}, {"language": "ja"}], ids=str)
def test_asking_for_what_only_whisper_can_do_tells_what_to_install(options: dict[str, str]) -> None:
    with pytest.raises(ToolError, match="faster-whisper is not installed") as caught:
        transcribe(HELLO, **options)
    assert not isinstance(caught.value, BadArgument)
    assert "pip install faster-whisper" in str(caught.value.hint)
    assert example.WHISPER_MODEL_VARIABLE in str(caught.value.hint)


@pytest.mark.skipif(not HAS_WHISPER, reason="faster-whisper is not installed")
def test_a_whisper_model_that_is_named_and_not_there_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(example.WHISPER_MODEL_VARIABLE, str(tmp_path))
    with pytest.raises(ToolError, match=re.escape(str(tmp_path))) as caught:
        transcribe(HELLO)
    assert "--engine pocketsphinx" in str(caught.value.hint)


# --- refining ---


POLISHED: Final = "Hello, this is a message from the machine.\nThe message is waiting for you."


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Ollama, which knows how to polish hello.wav; "fails" is there, and fails."""
    pytest.importorskip("httpx", reason="what the examples need is optional")
    service = Ollama(
        {"POST fails": [Answer(iter([b'{"error":"CUDA out of memory"}\n']))]}, says=[POLISHED[:9], POLISHED[9:]]
    )
    service.models.append("fails:latest")
    for name, value in {**QUICK, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with Loopback(service) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        yield server


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> str:
    """What an engine has heard, without the time that it takes."""
    tool = examples().resolve("transcribe", ["audio", str(HELLO)]).load()
    monkeypatch.setitem(tool.__globals__, "_utterances", lambda *_: ["hello this is", "a message"])
    return "hello this is\na message"


def test_a_refined_transcript_is_what_the_model_makes_of_what_was_heard(ollama: Loopback, heard: str) -> None:
    recorder = Recorder()
    report, _ = call_here(recorder, "transcribe", "audio", str(HELLO), "--refine")
    assert POLISHED == report.result
    assert f"as it was heard:\n{heard}\n" in recorder.lines
    [asked] = [request.json for request in ollama.requests if request.method == "POST"]
    assert ["llama3.2", 0, heard] == [asked["model"], asked["options"]["temperature"], asked["messages"][-1]["content"]]


@pytest.mark.slow
def test_submitted_with_refine_the_notification_has_the_polished_transcript_and_the_log_the_other(
    ollama: Loopback, tmp_path: Path
) -> None:
    # given
    anima = Anima(tmp_path / "mei", {"OLLAMA_HOST": ollama.url})
    beginning = write(tmp_path / "beginning.wav", read(HELLO)[: 3 * RATE // 2])

    # when
    polished = anima.submit("transcribe", "audio", str(beginning), "--refine")
    unknown = anima.submit("transcribe", "audio", str(HELLO), "--refine", "--refine-model", "no-such-model")
    anima.run()

    # then
    assert f"```text\n{POLISHED}\n```" in anima.notification(polished)
    assert "hello" in anima.log(polished)
    asked = [request.json for request in ollama.requests if request.method == "POST"]
    assert ["system", "user"] == [message["role"] for message in asked[0]["messages"]]
    assert "hello" in asked[0]["messages"][1]["content"]

    # and nothing is heard in vain
    assert "- Cause: arguments: " in anima.notification(unknown)
    assert "- What to do: `ollama pull no-such-model`, or take one that is there: " in anima.notification(unknown)
    assert "engine" not in anima.log(unknown)


def test_what_was_heard_is_not_lost_where_refining_fails(ollama: Loopback, heard: str) -> None:
    # when
    recorder = Recorder()
    report, task = call_here(recorder, "transcribe", "audio", str(HELLO), "--refine", "--refine-model", "fails")

    # then
    assert "Ollama failed after 0 tokens: CUDA out of memory" == report.error
    assert f"as it was heard is in the log: `animaworks-tool logs {task.id}`" in str(report.hint)
    assert f"{heard}\n" in recorder.lines
    assert ollama.requests


def test_refining_says_before_the_long_work_that_ollama_is_not_running(
    ollama: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.replace("127.0.0.1", "127.0.0.2"))  # where nobody listens
    recorder = Recorder()
    report, _ = call_here(recorder, "transcribe", "audio", str(HELLO), "--refine")
    assert Cause.TOOL == report.cause
    assert "nobody answers at http://127.0.0.2:" in str(report.error)
    assert "`ollama serve`" in str(report.hint)
    assert "engine" not in recorder.lines


def test_a_long_transcript_is_refined_in_parts_that_a_model_can_hold() -> None:
    utterances = [f"utterance {number} " + "word " * 20 for number in range(100)]
    parts = list(example._parts(utterances))
    assert utterances == "\n".join(parts).split("\n")
    assert all(len(part) < example.REFINED_AT_ONCE + 200 for part in parts)
    assert 2 < len(parts) < 5


# --- as a tool ---


def test_it_is_listed_as_long_running_without_loading_an_engine() -> None:
    """Listing tools must be quick: the engines are imported by the call, not by the file."""
    lines = [
        "import sys",
        "from animaworks_tasks import Registry",
        "from animaworks_tasks.tools.discovery import load_directory",
        "registry = Registry()",
        f"load_directory(registry, {str(EXAMPLES / 'tools')!r})",
        "heavy = {'pocketsphinx', 'faster_whisper', 'httpx'}",
        "print(registry.is_long_running('transcribe:audio'), heavy & {*sys.modules})",
    ]
    listed = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True)
    assert "True set()\n" == listed.stdout


@pytest.mark.slow
def test_submitted_as_a_task_its_transcript_and_its_refusals_reach_the_record() -> None:
    # given the directory of examples, and two submitted tasks
    registry, store = Registry(), MemoryTaskStore()
    load_directory(registry, EXAMPLES / "tools")
    good = store.submit("transcribe", "audio", str(HELLO))
    bad = store.submit("transcribe", "audio", str(HELLO), "--language", "ja", "--engine", "pocketsphinx")

    # when
    heard, refused = run_task(store, registry, good.id), run_task(store, registry, bad.id)

    # then
    assert heard is not None
    assert Outcome.COMPLETED == heard.outcome
    assert_key_words(heard.result or "")
    assert refused is not None
    assert Cause.ARGUMENTS == refused.cause
    assert "--engine whisper" in str(refused.hint)
