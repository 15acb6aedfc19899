"""
Every state in which a power cut may legally leave a directory, made from a record of the calls of a process.

The model knows what is durable: an fsync of a file makes its bytes durable, an fsync of a directory makes its entries
durable, and nothing else does. What is not durable is kept or lost, each entry and each file for itself, in any
combination: the POSIX minimum. A rename is an entry that comes and one that goes. The bytes of a file that was not
fsynced are all there, or none, or half, or as many zeros.

The record comes from a :class:`Recorder` in the process, or from strace; that both say the same is a test.
"""

from __future__ import annotations

import ast
import itertools
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from tests.reliability.taps import CHANGES, Call, Tap

Event = tuple[Any, ...]  # ("link", source, target) and the like; ("say", line)

_MODES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "whole": lambda data: data,
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
}
# Directories of which no entry is ever needed: theirs are lost or kept all together, which is enough of them to try.
_IN_ONE: Final = ("tmp", "logs", "progress")


class Recorder(Tap):
    """Writes down, among what is said, each call that changes the disk or makes something durable."""

    def __init__(self, root: Path, say: Callable[..., None], *, kill_at: int | None = None) -> None:
        super().__init__(root)
        self._say, self._kill_at = say, kill_at
        self.calls = 0

    def before(self, call: Call) -> None:
        if call.changes:
            self.calls += 1
            if self.calls == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def after(self, call: Call, result: Any) -> None:  # noqa: ANN401 - of any call
        key = f"{os.getpid()}/{call.args[0]}"
        match call.name:
            case "open" if call.changes or call.args[1] & os.O_APPEND:
                self._note("open", f"{os.getpid()}/{result}", call.path, bool(call.args[1] & os.O_APPEND))
            case "open":
                self._note("look", f"{os.getpid()}/{result}", call.path)
            case "write":
                self._note("write", key, bytes(call.args[1][:result]))
            case "fsync" | "close":
                self._note(call.name, key)
            case "link" if str(call.args[0]).startswith("/proc/"):
                self._note("link_open", f"{os.getpid()}/{os.path.basename(call.args[0])}", call.args[1])
            case "link" | "rename":
                self._note(call.name, call.path, call.args[1])
            case "unlink" | "mkdir" | "rmdir":
                self._note(call.name, call.path)

    def _note(self, *event: object) -> None:
        self._say("#call", repr(event))


def events_of(lines: Iterable[str]) -> list[Event]:
    """Return what a child under a :class:`Recorder` did and said."""
    found: list[Event] = []
    for line in lines:
        if line.startswith("#call "):
            found.append(ast.literal_eval(line.removeprefix("#call ")))
        elif not line.startswith("#"):
            found.append(("say", line))
    return found


@attrs.define(eq=False)
class Change:
    """
    A change that may be lost.

    Attributes:
        at: Number of the event.
        directory: Inode of the directory, for an entry.
        name: Of the entry.
        inode: What the entry names, None if it goes; or the file that was written.
        data: What was written, at *offset*; None for an entry.
        durable: Number of the event that made it durable.
    """

    at: int
    directory: int = -1
    name: str = ""
    inode: int | None = None
    data: bytes | None = None
    offset: int = 0
    durable: int | None = None


State = tuple[tuple[str, int, bytes | None], ...]  # path, file (or -1 for a directory), bytes


class Disk:
    """Replays events below *root*, and says what a power cut after each of them may leave."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._entries: dict[int, dict[str, int]] = {0: {}}  # of directories, as a process sees them
        self._sizes: dict[int, int] = {}
        self._open: dict[str, tuple[int | None, int, bool]] = {}
        self._inodes = itertools.count(1)
        self.changes: list[Change] = []
        self.said: list[tuple[int, str]] = []
        self.length = 0
        self.fsyncs = 0

    def replay(self, events: Iterable[Event]) -> None:
        """Go on with *events*."""
        for event in events:
            self.length += 1
            getattr(self, f"_on_{event[0]}")(*event[1:])

    def _on_say(self, line: str) -> None:
        self.said.append((self.length, line))

    def _find(self, path: str) -> int | None:
        inode: int | None = 0
        for part in os.path.relpath(path, self._root).split("/"):
            if part != "." and inode is not None:
                inode = self._entries.get(inode, {}).get(part)
        return inode

    def _enter(self, path: str, inode: int | None) -> None:
        parent = self._find(os.path.dirname(path))
        assert parent is not None, path
        name = os.path.basename(path)
        if inode is None:
            self._entries[parent].pop(name)
        else:
            self._entries[parent][name] = inode
        self.changes.append(Change(self.length, directory=parent, name=name, inode=inode))

    def _on_look(self, descriptor: str, path: str) -> None:
        self._open[descriptor] = (self._find(path), 0, False)

    def _on_open(self, descriptor: str, path: str, append: bool) -> None:  # noqa: FBT001 - an event
        inode = self._find(path)
        if inode is None:
            inode = next(self._inodes)
            self._sizes[inode] = 0
            self._enter(path, inode)
        self._open[descriptor] = (inode, 0, append)

    def _on_write(self, descriptor: str, data: bytes) -> None:
        inode, offset, append = self._open[descriptor]
        assert inode is not None
        offset = self._sizes[inode] if append else offset
        self._sizes[inode] = max(self._sizes[inode], offset + len(data))
        self._open[descriptor] = (inode, offset + len(data), append)
        self.changes.append(Change(self.length, inode=inode, data=data, offset=offset))

    def _on_fsync(self, descriptor: str) -> None:
        inode = self._open[descriptor][0]
        self.fsyncs += 1
        for change in self.changes:
            mine = change.directory == inode if change.data is None else change.inode == inode
            if mine and change.durable is None:
                change.durable = self.length

    def _on_close(self, descriptor: str) -> None:
        self._open.pop(descriptor, None)

    def _on_link(self, source: str, target: str) -> None:
        self._enter(target, self._find(source))

    def _on_link_open(self, descriptor: str, target: str) -> None:
        self._enter(target, self._open[descriptor][0])

    def _on_rename(self, source: str, target: str) -> None:
        inode = self._find(source)
        if inode != self._find(target):  # between two names of one file it does nothing
            self._enter(target, inode)
            self._enter(source, None)

    def _on_unlink(self, path: str) -> None:
        self._enter(path, None)

    _on_rmdir = _on_unlink

    def _on_mkdir(self, path: str) -> None:
        inode = next(self._inodes)
        self._entries[inode] = {}
        self._enter(path, inode)

    def cuts(self, after: int, *, moments: int, limit: int) -> Iterator[tuple[State, list[str]]]:
        """
        Yield distinct states that a power cut after event *after*, or a later one, may leave, and what was said.

        Args:
            after: Where to begin.
            moments: At most so many of the events, the last first, the others at random.
            limit: At most so many states at each of them: all, if there are no more; otherwise first all lost and all
                kept, then at random from those in which one is lost or kept or all from one on, and from the rest.
        """
        choose = random.Random(1)  # noqa: S311 - no secret
        together = {self._find(path) for path in self._paths() if os.path.basename(path) in _IN_ONE}
        seen: set[tuple[State, int]] = set()
        every = range(after, self.length)
        for now in [self.length, *choose.sample(every, min(moments - 1, len(every)))]:
            past = [change for change in self.changes if change.at <= now]
            sure = {id(change) for change in past if change.durable is not None and change.durable <= now}
            unsure = [change for change in past if id(change) not in sure]
            lump = [change for change in unsure if change.data is None and change.directory in together]
            units = [[change] for change in unsure if change.data is None and change.directory not in together]
            units += [lump] if lump else []
            files = sorted({c.inode for c in unsure if c.data is not None and c.inode is not None})
            said = [line for at, line in self.said if at <= now]
            for kept, modes in _choices(len(units), len(files), limit, choose):
                keep = sure | {id(change) for unit in kept for change in units[unit]}
                state = self._build(past, keep, dict(zip(files, modes, strict=True)))
                if (state, len(said)) not in seen:
                    seen.add((state, len(said)))
                    yield state, said

    def _paths(self, inode: int = 0, path: str = "") -> Iterator[str]:
        for name, child in self._entries.get(inode, {}).items():
            yield f"{self._root}{path}/{name}"
            yield from self._paths(child, f"{path}/{name}")

    def _build(self, past: Sequence[Change], keep: set[int], modes: dict[int, str]) -> State:
        entries: dict[int, dict[str, int]] = {}
        data: dict[int, bytes] = {}
        for change in past:
            if change.data is not None and change.inode is not None:
                old = data.get(change.inode, b"").ljust(change.offset, b"\0")
                data[change.inode] = old[: change.offset] + change.data + old[change.offset + len(change.data) :]
            elif id(change) in keep:
                names = entries.setdefault(change.directory, {})
                if change.inode is None:
                    names.pop(change.name, None)
                else:
                    names[change.name] = change.inode
        data = {inode: _MODES[modes.get(inode, "whole")](found) for inode, found in data.items()}
        return tuple(self._listed(0, "", entries, data, {}))

    def _listed(
        self, inode: int, path: str, entries: dict[int, dict[str, int]], data: dict[int, bytes], seen: dict[int, int]
    ) -> Iterator[tuple[str, int, bytes | None]]:
        for name, child in sorted(entries.get(inode, {}).items()):
            if child in self._entries:
                yield f"{path}/{name}", -1, None
                yield from self._listed(child, f"{path}/{name}", entries, data, seen)
            else:
                yield f"{path}/{name}", seen.setdefault(child, len(seen)), data.get(child, b"")


def _choices(
    units: int, files: int, limit: int, choose: random.Random
) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
    every = tuple(range(units))
    if 2**units * len(_MODES) ** files <= limit:
        for kept in itertools.product((False, True), repeat=units):
            for modes in itertools.product(_MODES, repeat=files):
                yield tuple(itertools.compress(every, kept)), modes
        return
    for kept_ones in ((), every):
        for mode in _MODES if files else ["whole"]:
            yield kept_ones, (mode,) * files
    corners = [*(every[:n] for n in every), *(every[n:] for n in every), *((n,) for n in every)]
    corners += [tuple(n for n in every if n != lost) for lost in every]
    for kept_ones in choose.sample(corners, min(limit // 2, len(corners))):
        yield kept_ones, (choose.choice([*_MODES]),) * files
    for _ in range(limit // 2):
        yield tuple(n for n in every if choose.random() < 0.5), tuple(choose.choice([*_MODES]) for _ in range(files))


def make(state: State, root: Path) -> None:
    """Make *root* what *state* says."""
    shutil.rmtree(root, ignore_errors=True)
    os.mkdir(root)
    first: dict[int, str] = {}
    for name, file, data in state:
        path = f"{root}{name}"
        if data is None:
            os.mkdir(path)
        elif file in first:
            os.link(first[file], path)
        else:
            with open(path, "wb") as new:
                new.write(data)
            first[file] = path


# --- the same from strace ---

TRACED: Final = (
    "openat,open,write,fsync,fdatasync,close,link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_LINE: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_TEXT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


def events_in(trace: Path, root: Path) -> list[Event]:
    """Return what a traced program did at and below *root*, and what it wrote to its stdout, a line at a time."""
    return [event for line in trace.read_text(errors="surrogateescape").splitlines() for event in _event(line, root)]


def _named(call: str, pid: str, source: str, target: str) -> Event:
    """Return the event of a link or a rename; of a link to what a descriptor has open, by that descriptor."""
    if source.startswith("/proc/"):
        return ("link_open", f"{pid}/{os.path.basename(source)}", target)
    return (call, source, target)


def _event(line: str, root: Path) -> Iterator[Event]:
    match = _LINE.match(line)
    if match is None or int(match[4]) < 0:
        return
    pid, name, rest, result = match[1], match[2], match[3], match[4]
    texts: list[bytes] = [ast.literal_eval(f'b"{text}"') for text in _TEXT.findall(rest)]
    inside = any(os.fsdecode(text).startswith(str(root)) for text in texts) or f"<{root}" in rest
    key = f"{pid}/{rest.split('<')[0].split(',')[0]}"
    name = re.sub(r"(at|at2)$", "", name) if name != "fdatasync" else "fsync"
    paths = [os.fsdecode(text) for text in texts]
    if name == "write" and rest.startswith("1<"):
        yield from (("say", words) for words in texts[0].decode().splitlines())
    elif not inside:
        return
    elif name == "open":
        kind = "open" if "O_CREAT" in rest or "O_APPEND" in rest else "look"
        yield (kind, f"{pid}/{result}", paths[0], *(["O_APPEND" in rest] if kind == "open" else []))
    elif name == "write":
        yield ("write", key, texts[0][: int(result)])
    elif name in {"fsync", "close"}:
        yield (name, key)
    elif name in {"link", "rename"}:
        yield _named(name, pid, *paths)
    elif name == "unlink" and "AT_REMOVEDIR" in rest:
        yield ("rmdir", paths[0])
    elif name in CHANGES:
        yield (name, paths[0])
