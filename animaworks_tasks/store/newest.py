"""
Which records of a directory are the newest, by the times of their files: asked of the kernel, or remembered.

A record in done/ never changes, so the time of its file need be asked for only once. What was asked is remembered in
one file, ``ages``: of 100,000 done tasks the newest 20 are found in a tenth of the time. It may be gone or torn at
any moment. Names come from the directory alone, so what is remembered of others does no harm; a record that is taken
away must be forgotten here before another could come under its name.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from animaworks_tasks.fs import files
from animaworks_tasks.task.model import is_task_id

_WORTH_IT: Final = 1000  # records, from which on their times are remembered
_LIMIT: Final = 1 << 28  # bytes, of what is remembered: ten million records
_TICK: Final = 20_000_000  # nanoseconds; the time of a file is no finer than the kernel's tick
_SETTLED: Final = 1_000_000_000  # nanoseconds after which a change of a directory cannot have the time of the last one


@attrs.frozen
class _Known:
    """
    What is remembered.

    Attributes:
        changed: The time of the directory when it was looked at; 0 where it may have changed again since.
        names: Of the records in it, the oldest first.
        times: Theirs, in nanoseconds.
    """

    changed: int = 0
    names: list[str] = attrs.field(factory=list)
    times: "array[int]" = attrs.field(factory=lambda: array("q"))  # noqa: UP037 - no such thing at run time

    def last(self, limit: int, among: set[str] | None) -> list[tuple[int, str]]:
        """Return the newest *limit*, and what is as old as the oldest of these; of those *among* others, or of all."""
        found: list[tuple[int, str]] = []
        for name, at in zip(reversed(self.names), reversed(self.times), strict=True):
            if len(found) >= limit and at < found[limit - 1][0] - _TICK:
                break
            if among is None or name in among:
                found.append((at, name))
        return found


def aged(directory: str) -> list[tuple[int, str]]:
    """Return the time of each record's file in *directory*, in nanoseconds, and its id."""
    names = [name for name in os.listdir(directory) if _is_record(name)]
    return [(at, name.removesuffix(".json")) for at, name in _ask(directory, names)]


def newest(directory: str, limit: int, *, memory: str | None = None, tmp: str = "") -> Sequence[str]:
    """
    Return at least the *limit* ids whose files changed last; the time of a file is close enough to choose by.

    Args:
        directory: Where the records lie.
        limit: How many are wanted.
        memory: The file in which times are remembered: only for records that never change. None remembers nothing.
        tmp: A directory for files being written.
    """
    if limit <= 0:
        return []
    known = _Known() if memory is None else _recall(memory)
    changed = os.stat(directory).st_mtime_ns
    if known.changed == changed:
        found = known.last(limit, None)
    else:
        names = set(os.listdir(directory))
        fresh = _ask(directory, [name for name in names.difference(known.names) if _is_record(name)])
        found = sorted([*known.last(limit, names), *fresh], reverse=True)
        if memory is not None and len(names) >= _WORTH_IT:
            _remember(memory, _renewed(known, names, fresh, changed), tmp=tmp)
    least = found[limit - 1][0] - _TICK if limit <= len(found) else 0
    return [name.removesuffix(".json") for at, name in found if at >= least]


def forget(memory: str) -> None:
    """Forget all times: records are taken away, and others may come under their names."""
    with contextlib.suppress(OSError):
        files.discard(memory)


def _is_record(name: str) -> bool:
    return name.endswith(".json") and is_task_id(name.removesuffix(".json"))


def _ask(directory: str, names: Iterable[str]) -> list[tuple[int, str]]:
    found = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found.append((os.lstat(f"{directory}/{name}").st_mtime_ns, name))
    return found


def _renewed(known: _Known, names: set[str], fresh: list[tuple[int, str]], changed: int) -> _Known:
    kept = [(at, name) for name, at in zip(known.names, known.times, strict=True) if name in names]
    every = sorted([*kept, *fresh])
    settled = changed if time.time_ns() - changed > _SETTLED else 0
    return _Known(settled, [name for _, name in every], array("q", [at for at, _ in every]))


def _recall(memory: str) -> _Known:
    with contextlib.suppress(OSError, ValueError):
        data = files.read(memory, limit=_LIMIT)
        text, _, numbers = data[4:].partition(b"\n\n")
        times = array("q")
        times.frombytes(numbers)
        names = text.decode("ascii").split("\n")
        if zlib.crc32(data[4:]) == int.from_bytes(data[:4], "big") and len(names) + 1 == len(times):
            return _Known(times[0], names, times[1:])
    return _Known()


def _remember(memory: str, known: _Known, *, tmp: str) -> None:
    data = "\n".join(known.names).encode("ascii") + b"\n\n" + array("q", [known.changed]).tobytes()
    data += known.times.tobytes()
    with contextlib.suppress(OSError):  # a full disk, or a directory that is not ours to write: it is asked for again
        files.replace(memory, zlib.crc32(data).to_bytes(4, "big") + data, tmp=tmp)
