"""
What the agent reads, notice by notice or as a digest, and shown until it is acknowledged.

Draining has two phases: read, then acknowledge what was really shown. A process that dies in between shows it again.
When many wait, what is shown is a digest: how many there are, the failures in full, and the others in a line each.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import attrs

from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.journal import Journal
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.render import LANGUAGES, Language, inert, one_line
from animaworks_tasks.task.model import Task, is_task_id

_FOREIGN_LIMIT: Final = 1 << 20  # bytes, of a notice of another program
_MANY: Final = 10  # notices; more at once are told in a digest
_DIGEST_WHOLE: Final = 8_000  # characters of failures that a digest tells in full, unless there is a budget
_HEADLINE: Final = 199  # characters of a notice that is told in a line; with its end, 200
_ALONE, _IN_DIGEST = 160, 80  # characters of what such a line says
_SMALL: Final = 600  # characters; a budget that leaves less beside the head of a digest is better spent on notices


@attrs.frozen
class Notification:
    """
    One notice that nobody has acknowledged yet.

    Attributes:
        name: Its file's name, unique among those that wait.
        text: Markdown.
        task_id: The task it is about; None for a notice of another program.
        failed: Whether it tells of a failure; such are shown first.
        language: Of the words it was written in, ``"ja"`` or ``"en"``; None where they are not ours.
    """

    name: str
    text: str
    task_id: str | None
    failed: bool
    language: str | None = None

    @classmethod
    def of(cls, name: str, text: str) -> Notification:
        """Return the notice that stands in the file *name*."""
        stem = name.removesuffix(".md")
        failed = any(text.startswith(f"# {words.failed}") for words in LANGUAGES.values())
        language = next((language for language, words in LANGUAGES.items() if _is_written_in(words, text)), None)
        return cls(name, text, stem if is_task_id(stem) else None, failed, language)

    @property
    def is_ours(self) -> bool:
        """Whether it is as :class:`MarkdownRenderer` writes it, so that it ends what it begins."""
        return self.task_id is not None and self.language is not None

    def headline(self, room: int = _ALONE) -> str:
        """Say it in one line, with the id where there is one, and *room* for what it says; at most 199 characters."""
        lines = self.text.splitlines()
        if self.is_ours:  # as it is written, the result stands in the sixth line
            told = lines[_RESULT_LINE].removeprefix(f"- {LANGUAGES[self.language or ''].labels[-1]}: ")
        else:
            told = next((line for line in lines if line.strip()), "").lstrip("#- ")
        return one_line(f"- {self.task_id or _file_name(self.name)}: {inert(told, room)}", _HEADLINE)

    def brief(self) -> str:
        """Return it without what the tool said; the whole of it where it is not ours."""
        if not self.is_ours:
            return self.text
        return self.text.partition(f"\n## {LANGUAGES[self.language or ''].preview}\n")[0]


_RESULT_LINE: Final = 5


def _is_written_in(words: Language, text: str) -> bool:
    """Say whether *text* is built as our notices are: a heading, the four labels and more, and what the tool said."""
    heading, _, rest = text.partition("\n\n")
    facts, _, rest = rest.partition("\n\n")
    lines = facts.removesuffix("\n").split("\n")
    return (
        heading.startswith((f"# {words.completed}: ", f"# {words.failed}: "))
        and "\n" not in heading
        and len(lines) > len(words.labels)
        and all(line.startswith(f"- {label}: ") for line, label in zip(lines, words.labels, strict=False))
        and all(line.startswith("- ") for line in lines)
        and (not rest or rest.startswith(f"## {words.preview}\n\n```"))
    )


def _file_name(name: str) -> str:
    """Return a file's *name* so that it begins no heading, list or fence where it begins a line."""
    plain = inert(name, 100)
    return plain if plain[:1].isalpha() else f"./{plain}"


@attrs.frozen
class Drained:
    """
    What a drain hands out to be shown.

    Attributes:
        notifications: Those that *text* tells of; they are acknowledged when the ``with`` block ends normally.
        text: Markdown for the agent's prompt; empty where nothing waits.
        left: How many did not fit; the next drain has them.
    """

    notifications: tuple[Notification, ...]
    text: str
    left: int


class Notifications(Protocol):
    """The notices of one Anima."""

    def peek(self) -> list[Notification]:
        """Return what waits, the oldest first; nothing changes."""

    def acknowledge(self, notifications: Iterable[Notification]) -> None:
        """
        Put these away for good; those that are no longer there are passed over.

        Within a drain, or while another one is on, it does so at once: the end of that drain passes over them.
        """

    def drain(self, budget: int | None = None) -> contextlib.AbstractContextManager[Drained]:
        """
        Hand out what waits, and acknowledge it when the ``with`` block ends normally.

        A block that raises acknowledges nothing: the next drain shows it again. Of two drains at once the second one
        gets nothing. Notices of other programs are passed through. What changed since it was handed out is not
        acknowledged. The block may :meth:`acknowledge` some of them itself.

        Failures come first. More than ten make a digest: how many there are, failures in full while they fit, and the
        others in a line each.

        Args:
            budget: At most so many characters. Each notice is told in a line before one is told in full; what has no
                room even so is left for the next drain. At least 200 tell of one. None: all are told, up to ten in
                full, and of a digest's failures as many as fit 8,000 characters.
        """


def within(waiting: list[Notification], budget: int | None) -> Drained:
    """
    Choose what is shown, failures first: a line of each before one is told in full, and no more than *budget*.

    Of two budgets, the larger one shows all that the smaller one does.
    """
    order = sorted(waiting, key=lambda notification: not notification.failed)
    many = len(order) > _MANY
    head = _digest_head(order, left=len(order)) if many else ""
    room = budget
    if many and budget is not None:
        room = budget - len(head) if budget >= _SMALL + len(head) else min(budget, _SMALL)
        head = head if budget >= _SMALL + len(head) else ""
    told = _lines(order, room, many=many)
    shown = order[: len(told)]
    if len(shown) == len(order):
        whole = [n for n in shown if n.failed] if many else shown
        _tell_more(told, whole, _DIGEST_WHOLE + _size(told.values()) if many and room is None else room)
    if head:
        head = _digest_head(order, left=len(order) - len(shown))
    return Drained(tuple(shown), head + _joined(shown, told), len(order) - len(shown))


def _lines(order: list[Notification], room: int | None, *, many: bool) -> dict[str, str]:
    """Return the headlines, by name, of the first that fit *room* characters."""
    told: dict[str, str] = {}
    used = 0
    for notification in order:
        line = notification.headline(_IN_DIGEST if many and not notification.failed else _ALONE) + "\n"
        used += len(line)
        if room is not None and used > room:
            break
        told[notification.name] = line
    return told


def _tell_more(told: dict[str, str], notifications: list[Notification], room: int | None) -> None:
    """Let as many of *told* as fit *room* be told in full, or if that is too long, without what their tools said."""
    used = _size(told.values())
    for notification in notifications:
        for text in (notification.text, notification.brief()):
            whole = text.strip("\n") + "\n\n"
            longer = used + len(whole) - len(told[notification.name])
            if text.strip() and (room is None or longer <= room):
                told[notification.name], used = whole, longer
                break


def _joined(shown: list[Notification], told: dict[str, str]) -> str:
    """
    Put together what is *told*: in full, in lines, and last what other programs have left.

    Those end as they like, perhaps in a fence that is open: nothing of ours may come after that.
    """
    full = [notification for notification in shown if told[notification.name].endswith("\n\n")]
    ours = [told[notification.name] for notification in full if notification.is_ours]
    theirs = [told[notification.name] for notification in full if not notification.is_ours]
    lines = [told[notification.name] for notification in shown if notification not in full]
    gap = ["\n"] if lines and theirs else []
    return "".join([*ours, *lines, *gap, *theirs]).removesuffix("\n")


def _size(texts: Iterable[str]) -> int:
    return sum(map(len, texts))


def _digest_head(order: list[Notification], *, left: int) -> str:
    """Say how many there are, in the language of most of them; English where none of them is ours."""
    languages = [notification.language for notification in order if notification.language is not None]
    words = LANGUAGES[max(languages, key=languages.count, default="en")]
    failed = sum(notification.failed for notification in order)
    rest = words.digest_left.format(left) if left else ""
    return f"# {words.digest.format(len(order), failed)}\n\n{words.digest_rest}{rest}\n\n"


class DirectoryNotifications:
    """Notices as files: ``<anima>/state/background_notifications/<task_id>.md``, acknowledged into ``.read/``."""

    def __init__(self, layout: Layout, *, sync: bool, journal: Journal) -> None:
        self._layout, self._sync, self._journal = layout, sync, journal

    def publish(self, task: Task, text: str) -> bool:
        """Leave the notice of *task* unless it was left before; say whether it was left now."""
        name = task.id + ".md"
        # First the new, then the read: acknowledging moves it in that order, so one of the two looks finds it.
        for directory in (self._layout.notifications, self._layout.read):
            if os.path.lexists(f"{directory}/{name}"):
                if self._sync:  # whoever left it there may not have come to that
                    files.sync_directory(directory)
                return False
        data = text.encode("utf-8")
        return files.publish(self._layout.notifications, name, data, tmp=self._layout.tmp, sync=self._sync)

    def waits(self, task_id: str) -> bool:
        """Say whether the notice of *task_id* waits to be acknowledged."""
        return os.path.lexists(os.path.join(self._layout.notifications, task_id + ".md"))

    def peek(self) -> list[Notification]:
        found = []
        for name in files.names(self._layout.notifications):
            if name.endswith(".md") and not name.startswith(".") and not self._acknowledged(name):
                with contextlib.suppress(OSError):  # drained by another, or none of ours: a link, a FIFO
                    notification = self._read(name)
                    path = os.path.join(self._layout.notifications, name)
                    found.append((os.stat(path).st_mtime_ns, notification))
        return [notification for _, notification in sorted(found, key=lambda pair: (pair[0], pair[1].name))]

    def acknowledge(self, notifications: Iterable[Notification]) -> None:
        with self._acknowledging():
            self._put_away(notifications)

    @contextlib.contextmanager
    def drain(self, budget: int | None = None) -> Iterator[Drained]:
        lock = locks.hold(self._layout.drain_lock)
        if lock is None:
            yield Drained((), "", 0)
            return
        try:
            drained = within(self.peek(), budget)
            yield drained
            with self._acknowledging():
                self._put_away(each for each in drained.notifications if self._is_still(each))
        finally:
            lock.release()

    @contextlib.contextmanager
    def _acknowledging(self) -> Iterator[None]:
        """Hold a lock of its own: a drain may take as long as the agent reads, and may itself acknowledge."""
        lock = locks.hold(self._layout.acknowledge_lock)
        while lock is None:  # another one, which takes milliseconds
            _pause()
            lock = locks.hold(self._layout.acknowledge_lock)
        try:
            yield
        finally:
            locks.drop(lock)  # its file as well: one that a killed process left goes with the next

    def _is_still(self, notification: Notification) -> bool:
        """Say whether it waits as it was shown: it may be that of a later task with the same key by now."""
        try:
            return self._read(notification.name) == notification
        except (FileNotFoundError, files.UnreadableFileError):  # put away, or replaced by what was never shown
            return False

    def _read(self, name: str) -> Notification:
        data = files.read(os.path.join(self._layout.notifications, name), limit=_FOREIGN_LIMIT)
        return Notification.of(name, data.decode("utf-8", "replace"))

    def _acknowledged(self, name: str) -> bool:
        """Say whether a notice of ours was put away by a process that died before it had unlinked it."""
        return is_task_id(name.removesuffix(".md")) and os.path.lexists(os.path.join(self._layout.read, name))

    def _put_away(self, notifications: Iterable[Notification]) -> None:
        """
        Link into .read/, make that durable, unlink: in this order it is never in neither place.

        The directory is synced also where the link was there already: a process that died need not have come to that.
        """
        paths = []
        half_way = [name for name in files.names(self._layout.notifications) if self._acknowledged(name)]
        for name in {**{notification.name: None for notification in notifications}, **dict.fromkeys(half_way)}:
            path = os.path.join(self._layout.notifications, name)
            with contextlib.suppress(FileNotFoundError):  # another program's drain unlinked it
                files.link(path, os.path.join(self._layout.read, name))
                paths.append(path)
        if paths and self._sync:
            files.sync_directory(self._layout.read)
        for path in paths:
            if files.discard(path):
                self._journal.note("acknowledged", os.path.basename(path).removesuffix(".md"), by=_program())


def _program() -> str:
    """Return what this process is called, for who reads the journal: the name of its script."""
    return one_line(os.path.basename(sys.argv[0] if sys.argv else ""), 100)


def _pause() -> None:
    threading.Event().wait(0.01)


class MemoryNotifications:
    """Notices in memory, for tests."""

    def __init__(self) -> None:
        self._waiting: dict[str, Notification] = {}
        self._read: dict[str, Notification] = {}
        self._draining = threading.Lock()
        self._moving = threading.Lock()

    def publish(self, task: Task, text: str) -> bool:
        """Leave the notice of *task* unless it was left before; say whether it was left now."""
        name = task.id + ".md"
        if name in self._waiting or name in self._read:
            return False
        self._waiting[name] = Notification.of(name, text)
        return True

    def waits(self, task_id: str) -> bool:
        """Say whether the notice of *task_id* waits to be acknowledged."""
        return task_id + ".md" in self._waiting

    def forget(self, task_id: str) -> None:
        """Forget an acknowledged notice."""
        self._read.pop(task_id + ".md", None)

    def peek(self) -> list[Notification]:
        return list(self._waiting.values())

    def acknowledge(self, notifications: Iterable[Notification]) -> None:
        with self._moving:
            for notification in notifications:
                if notification.name in self._waiting:
                    self._read[notification.name] = self._waiting.pop(notification.name)

    @contextlib.contextmanager
    def drain(self, budget: int | None = None) -> Iterator[Drained]:
        if not self._draining.acquire(blocking=False):
            yield Drained((), "", 0)
            return
        try:
            drained = within(self.peek(), budget)
            yield drained
            self.acknowledge(each for each in drained.notifications if self._waiting.get(each.name) == each)
        finally:
            self._draining.release()
