"""As a tool's author tests it: the fixtures come with animaworks_tasks; no thread, no sleep, no mock."""

from __future__ import annotations

import json
import math
import struct
import wave
from pathlib import Path

import animaworks_tools_sound
import pytest

from animaworks_tasks import Executor, Registry, Store, TaskCancelled
from animaworks_tasks.testing import (
    RecordingContext,
    assert_completed,
    assert_failed,
    assert_notified,
    run_to_end,
)


@pytest.fixture
def registry() -> Registry:
    """The tools that the fixture *executor* runs."""
    return animaworks_tools_sound.registry


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Four seconds of a tone, at a quarter of full scale."""
    samples = [round(8192 * math.sin(i / 5)) for i in range(4 * 8000)]
    return write(tmp_path / "talk.wav", struct.pack(f"<{len(samples)}h", *samples))


def write(path: Path, frames: bytes, *, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, width, 8000, 0, "NONE", ""))
        file.writeframes(frames)
    return path


def test_a_copy_is_as_loud_as_asked_for(executor: Executor, task_store: Store, recording: Path) -> None:
    # when
    done = run_to_end(executor, "sound", "normalize", "talk.wav", "--peak", "-3", cwd=str(recording.parent))
    # then
    copy = recording.with_name("talk-normalized.wav")
    assert_completed(task_store, done, contains=str(copy))
    assert_notified(task_store, done, contains="talk-normalized.wav")
    measured = json.loads(run_to_end(executor, "sound", "measure", str(copy)).result or "")
    assert {"seconds": 4.0, "peak_db": -3.0, "rms_db": -6.0} == measured


def test_progress_goes_through_both_passes(recording: Path) -> None:
    context = RecordingContext()
    animaworks_tools_sound.normalize(recording, context=context)
    half_way = [(0.125 * n, "listening") for n in range(1, 5)]
    assert half_way + [(0.125 * n, "writing") for n in range(5, 9)] == context.reports
    assert "the peak is -12.0 dB" in context.log


@pytest.mark.parametrize("reports", [1, 6])
def test_cancelled_it_stops_and_leaves_nothing(recording: Path, reports: int) -> None:
    with pytest.raises(TaskCancelled):
        animaworks_tools_sound.normalize(recording, context=RecordingContext(cancel_after=reports))
    assert [recording] == list(recording.parent.iterdir())


def test_what_is_no_recording_is_the_callers_to_mend(executor: Executor, task_store: Store, tmp_path: Path) -> None:
    """Each is a wrong argument, and says what to do about it."""
    (tmp_path / "letter.txt").write_text("Dear Mei")
    write(tmp_path / "silent.wav", bytes(8000))
    write(tmp_path / "bytes.wav", bytes(8000), width=1)
    for name, error, hint in (
        ("nowhere.wav", "cannot be read", "name a WAV file that is there"),
        ("letter.txt", "cannot be read", "name a WAV file that is there"),
        ("bytes.wav", "has 8-bit samples", "convert it to 16 bits first"),
        ("silent.wav", "is silent", "check the recording"),
    ):
        done = run_to_end(executor, "sound", "normalize", name, cwd=str(tmp_path))
        assert_failed(task_store, done, cause="arguments", contains=error)
        assert_notified(task_store, done, contains=hint)


def test_a_peak_above_full_scale_is_refused(executor: Executor, task_store: Store, recording: Path) -> None:
    done = run_to_end(executor, "sound", "normalize", str(recording), "--peak", "3")
    assert_failed(task_store, done, cause="arguments", contains="-1 is usual")


def test_silence_is_measured_too(executor: Executor, task_store: Store, tmp_path: Path) -> None:
    done = run_to_end(executor, "sound", "measure", str(write(tmp_path / "silent.wav", b"")))
    assert_completed(task_store, done, contains='"rms_db": -96.0')
