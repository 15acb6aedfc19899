"""Measure a recording, and bring it to a given loudness; 16-bit WAV files, read and written a second at a time."""

from __future__ import annotations

import array
import contextlib
import math
import os
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from animaworks_tasks import BadArgument, Registry, ToolContext

registry = Registry()

_FULL_SCALE: Final = 32767  # the largest 16-bit sample
_SAMPLE_WIDTH: Final = 2  # bytes
_SILENCE: Final = -96.0  # dB; what is quieter, 16 bits cannot hold


@registry.tool("sound", "measure")
def measure(recording: Path) -> dict[str, float]:
    """
    Say how long and how loud a WAV file is.

    Args:
        recording: A WAV file with 16-bit samples.
    """
    with _opened(recording) as source:
        peak, squares, samples = 0, 0, 0
        for block, _ in _seconds(source):
            peak = max(peak, _peak(block))
            squares += sum(sample * sample for sample in block)
            samples += len(block)
        seconds = source.getnframes() / source.getframerate()
    return {
        "seconds": round(seconds, 3),
        "peak_db": _decibels(peak),
        "rms_db": _decibels(math.sqrt(squares / samples) if samples else 0),
    }


@registry.tool("sound", "normalize", expected_seconds=60, on_interrupt="retry")  # it can be run again: see below
def normalize(recording: Path, *, peak: float = -1.0, to: Path | None = None, context: ToolContext) -> Path:
    """
    Write a copy of a WAV file whose loudest sample is as loud as asked.

    Args:
        recording: A WAV file with 16-bit samples.
        peak: Of the copy, in dB below full scale: 0 is as loud as can be.
        to: The copy; by default beside the recording, with "-normalized" in its name.
        context: Takes the progress, and says when to stop.
    """
    if not _SILENCE <= peak <= 0:
        raise BadArgument(f"a peak of {peak:g} dB cannot be", hint=f"--peak takes {_SILENCE:g} to 0; -1 is usual")
    copy = to or recording.with_name(f"{recording.stem}-normalized.wav")
    draft = copy.with_name(f"{copy.name}.{context.task_id}")
    with _opened(recording) as source:
        loudest = 0
        for block, read in _seconds(source):
            context.raise_if_cancelled()
            context.progress(read / 2, "listening")
            loudest = max(loudest, _peak(block))
        if loudest == 0:
            raise BadArgument(f"{recording} is silent", hint="nothing can make silence louder: check the recording")
        factor = _FULL_SCALE * 10 ** (peak / 20) / loudest
        context.logger.info("the peak is %s dB, each sample is multiplied by %.3f", _decibels(loudest), factor)
        source.rewind()
        try:  # a draft, and its name last: stopped on the way, it leaves no half a copy, and can be run again
            with wave.open(str(draft), "wb") as target:
                target.setparams(source.getparams())
                for block, read in _seconds(source):
                    context.raise_if_cancelled()
                    context.progress(0.5 + read / 2, "writing")
                    target.writeframes(_little_endian(array.array("h", (round(factor * sample) for sample in block))))
            os.replace(draft, copy)
        finally:
            draft.unlink(missing_ok=True)
    return copy


@contextlib.contextmanager
def _opened(recording: Path) -> Iterator[wave.Wave_read]:
    try:
        source = wave.open(str(recording), "rb")  # noqa: SIM115 - closed below
    except (OSError, EOFError, wave.Error) as error:
        raise BadArgument(f"{recording} cannot be read: {error}", hint="name a WAV file that is there") from error
    with source:
        if source.getsampwidth() != _SAMPLE_WIDTH:
            bits = 8 * source.getsampwidth()
            raise BadArgument(f"{recording} has {bits}-bit samples", hint="convert it to 16 bits first")
        yield source


def _seconds(source: wave.Wave_read) -> Iterator[tuple[array.array[int], float]]:
    """Yield the samples second by second, each with the share of the recording that was read by then."""
    while frames := source.readframes(source.getframerate()):
        samples = array.array("h")
        samples.frombytes(frames[: len(frames) - len(frames) % _SAMPLE_WIDTH])
        yield _native(samples), source.tell() / source.getnframes()


def _native(samples: array.array[int]) -> array.array[int]:
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _little_endian(samples: array.array[int]) -> bytes:
    return _native(samples).tobytes()


def _peak(samples: array.array[int]) -> int:
    return max(abs(max(samples)), abs(min(samples)))


def _decibels(level: float) -> float:
    return round(20 * math.log10(level / _FULL_SCALE), 1) if level else _SILENCE
