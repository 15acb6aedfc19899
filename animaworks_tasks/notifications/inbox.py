"""
Notifications: what the agent reads, one by one or as a digest, and again until it is acknowledged.

Draining has two phases: read, then acknowledge what was really shown. If the process dies in between, the next drain
shows it again. When many wait, a drain shows a digest: how many there are, failures in full, the others in a line each.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import attrs

from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.fs.journal import Journal
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.render import LANGUAGES, Language, ends, inert, one_line
from animaworks_tasks.task.model import Task, is_task_id

_FOREIGN_LIMIT: Final = 1 << 20  # bytes, of a notification of another program
_MANY: Final = 10  # notifications; more at once are shown as a digest
_DIGEST_WHOLE: Final = 8_000  # characters of failures that a digest shows in full, unless there is a budget
_HEADLINE: Final = 199  # characters of a notification shown in one line; with its line end, 200
_ALONE, _IN_DIGEST = 160, 80  # characters of call and result in such a line
_SMALL: Final = 600  # characters; where the head of a digest would leave less of the budget, there is no head
_TOOL_LINE, _RESULT_LINE, _CALL_LINE = 3, 5, 6  # indices of lines in our notifications; the last one only where it is


@attrs.frozen
class Notification:
    """
    One notification that is not acknowledged yet.

    Attributes:
        name: Its file's name, unique among those that wait.
        text: Markdown.
        task_id: The task it is about; None for a notification of another program.
        failed: Whether it reports a failure; failures are shown first.
        language: The language it was written in, ``"ja"``, ``"en"`` or ``"ko"``; None where the text is not ours.
    """

    name: str
    text: str
    task_id: str | None
    failed: bool
    language: str | None = None

    @classmethod
    def of(cls, name: str, text: str) -> Notification:
        """Return the notification in the file *name*, whose content is *text*."""
        stem = name.removesuffix(".md")
        failed = any(text.startswith(f"# {words.failed}") for words in LANGUAGES.values())
        language = next((language for language, shape in _SHAPES.items() if shape.fullmatch(text)), None)
        return cls(name, text, stem if is_task_id(stem) else None, failed, language)

    @property
    def is_ours(self) -> bool:
        """Whether it is as :class:`MarkdownRenderer` writes it, and so closes every fence that it opens."""
        return self.task_id is not None and self.language is not None

    def headline(self, room: int = _ALONE) -> str:
        """
        Return it as one line of at most 199 characters: its id or file name, and the beginning of what it says.

        Of ours this is the call, or else the tool's name, in brackets, and the result: at most *room* characters, of
        which the call takes at most half.
        """
        lines = self.text.splitlines()
        if self.is_ours:
            result = self._called(lines, room)
        else:
            result = inert(next((line for line in lines if line.strip()), "").lstrip("#- "), room)
        return one_line(f"- {self.task_id or _file_name(self.name)}: {result}", _HEADLINE)

    def _called(self, lines: Sequence[str], room: int) -> str:
        words = LANGUAGES[self.language or ""]
        _, tool, _, result = words.labels
        name, call = lines[_TOOL_LINE].removeprefix(f"- {tool}: "), f"- {words.call}: "
        ending = lines[_RESULT_LINE].removeprefix(f"- {result}: [{name}]")
        shown = lines[_CALL_LINE].removeprefix(call) if lines[_CALL_LINE].startswith(call) else name
        called = f"[{ends(shown, room // 2)}] "
        return called + inert(ending, room - len(called))

    def brief(self) -> str:
        """Return its text without the tool's output; the whole text where it is not ours."""
        if not self.is_ours:
            return self.text
        return self.text.partition(f"\n## {LANGUAGES[self.language or ''].preview}\n")[0]


def _shape(words: Language) -> re.Pattern[str]:
    """Return the shape of our notifications: a heading, the four labels and more lines, perhaps the tool's output."""
    heading = rf"# (?:{words.completed}|{words.failed}): .*\n\n"
    labels = "".join(rf"- {label}: .*\n" for label in words.labels)
    return re.compile(rf"{heading}{labels}(?:- .*\n)+(?:\n## {re.escape(words.preview)}\n\n```(?s:.*))?")


_SHAPES: Final = {language: _shape(words) for language, words in LANGUAGES.items()}


def _file_name(name: str) -> str:
    """Return a file's *name*, changed so that it begins no heading, list or fence at the start of a line."""
    plain = inert(name, 100)
    return plain if plain[:1].isalpha() else f"./{plain}"


@attrs.frozen
class Drained:
    """
    What a drain returns to be shown.

    Attributes:
        notifications: Those that *text* shows; they are acknowledged when the ``with`` block ends normally.
        text: Markdown for the agent's prompt; empty where nothing waits.
        left: How many did not fit; the next drain has them.
    """

    notifications: tuple[Notification, ...]
    text: str
    left: int


class Notifications(Protocol):
    """The notifications of one Anima."""

    def peek(self) -> list[Notification]:
        """Return those that wait, the oldest first; nothing changes."""

    def acknowledge(self, notifications: Iterable[Notification]) -> None:
        """
        Mark *notifications* as read for good; skip those that no longer wait.

        It does so at once, also during a drain: the end of that drain skips them.
        """

    def drain(self, budget: int | None = None) -> contextlib.AbstractContextManager[Drained]:
        """
        Return those that wait, and acknowledge them when the ``with`` block ends normally.

        A block that raises acknowledges nothing: the next drain shows them again. Of two drains at once the second one
        gets nothing. Notifications of other programs are passed through. One that changed since it was read is not
        acknowledged. The block may :meth:`acknowledge` some of them itself.

        Failures come first. More than ten make a digest: how many there are, failures in full while they fit, and the
        others in a line each.

        Args:
            budget: The most characters to return. Each notification is shown in one line before any is shown in full;
                those that do not fit even so are left for the next drain. 200 suffice for one. None shows all, up to
                ten in full, and of a digest's failures as many as fit 8,000 characters.
        """


def within(waiting: list[Notification], budget: int | None) -> Drained:
    """
    Choose what is shown, failures first: a line of each before any is shown in full, at most *budget* characters.

    A larger budget shows all that a smaller one does.
    """
    order = sorted(waiting, key=lambda notification: not notification.failed)
    many = len(order) > _MANY
    head = _digest_head(order, left=len(order)) if many else ""
    room = budget
    if many and budget is not None:
        head = head if budget >= _SMALL + len(head) else ""
        room = budget - len(head) if head else min(budget, _SMALL)
    texts = _lines(order, room, many=many)
    shown = order[: len(texts)]
    if len(shown) == len(order):
        whole = [n for n in shown if n.failed] if many else shown
        _expand(texts, whole, _DIGEST_WHOLE + sum(map(len, texts.values())) if many and room is None else room)
    if head:
        head = _digest_head(order, left=len(order) - len(shown))
    return Drained(tuple(shown), head + _joined(shown, texts), len(order) - len(shown))


def _lines(order: list[Notification], room: int | None, *, many: bool) -> dict[str, str]:
    """Return the headlines, by name, of the first that fit *room* characters."""
    texts: dict[str, str] = {}
    used = 0
    for notification in order:
        line = notification.headline(_IN_DIGEST if many and not notification.failed else _ALONE) + "\n"
        used += len(line)
        if room is not None and used > room:
            break
        texts[notification.name] = line
    return texts


def _expand(texts: dict[str, str], notifications: list[Notification], room: int | None) -> None:
    """Replace headlines in *texts* by the full text, or else the text without the tool's output, where that fits."""
    used = sum(map(len, texts.values()))
    for notification in notifications:
        for text in (notification.text, notification.brief()):
            whole = text.strip("\n") + "\n\n"
            longer = used + len(whole) - len(texts[notification.name])
            if text.strip() and (room is None or longer <= room):
                texts[notification.name], used = whole, longer
                break


def _joined(shown: list[Notification], texts: dict[str, str]) -> str:
    """
    Return *texts* as one: those in full, those in a line, and last those of other programs in full.

    Those may end anyhow, perhaps in a fence that is open: nothing of ours may come after them.
    """
    full = [notification for notification in shown if texts[notification.name].endswith("\n\n")]
    ours = [texts[notification.name] for notification in full if notification.is_ours]
    theirs = [texts[notification.name] for notification in full if not notification.is_ours]
    lines = [texts[notification.name] for notification in shown if notification not in full]
    gap = ["\n"] if lines and theirs else []
    return "".join([*ours, *lines, *gap, *theirs]).removesuffix("\n")


def _digest_head(order: list[Notification], *, left: int) -> str:
    """Return the heading with the counts, in the language of most; in English where none of them is ours."""
    languages = [notification.language for notification in order if notification.language is not None]
    words = LANGUAGES[max(languages, key=languages.count, default="en")]
    failed = sum(notification.failed for notification in order)
    rest = words.digest_left.format(left) if left else ""
    return f"# {words.digest.format(len(order), failed)}\n\n{words.digest_rest}{rest}\n\n"


@contextlib.contextmanager
def _drain(inbox: DirectoryNotifications | MemoryNotifications, budget: int | None = None) -> Iterator[Drained]:
    """Do as :meth:`Notifications.drain`."""
    lock = inbox.hold()
    if lock is None:
        yield Drained((), "", 0)
        return
    try:
        drained = within(inbox.peek(), budget)
        yield drained
        inbox.acknowledge(each for each in drained.notifications if inbox.is_still(each))
    finally:
        lock.release()


class DirectoryNotifications:
    """Notifications as files: ``<anima>/state/background_notifications/<task_id>.md``, acknowledged into ``.read/``."""

    def __init__(self, layout: Layout, disk: Disk, journal: Journal) -> None:
        self._layout, self._disk, self._journal = layout, disk, journal

    def publish(self, task: Task, text: str) -> bool:
        """Publish the notification of *task* unless that was done before; return whether it was published now."""
        name = f"{task.id}.md"
        # First the new, then the read: acknowledging moves it in that order, so one of the two looks finds it.
        for directory in (self._layout.notifications, self._layout.read):
            if os.path.lexists(f"{directory}/{name}"):
                self._disk.sync("notify.sync-there", directory)  # its publisher may have died before it did this
                return False
        return self._disk.publish("notify", self._layout.notifications, name, text.encode("utf-8"))

    def waits(self, task_id: str) -> bool:
        """Return whether the notification of *task_id* waits to be acknowledged."""
        return os.path.lexists(self._layout.notification(task_id))

    def peek(self) -> list[Notification]:
        found = []
        for name in files.names(self._layout.notifications):
            if name.endswith(".md") and not name.startswith(".") and not self._acknowledged(name):
                with contextlib.suppress(OSError):  # drained by another process, or a link, a FIFO
                    notification = self._read(name)
                    path = os.path.join(self._layout.notifications, name)
                    found.append((os.stat(path).st_mtime_ns, notification))
        return [notification for _, notification in sorted(found, key=lambda pair: (pair[0], pair[1].name))]

    def acknowledge(self, notifications: Iterable[Notification]) -> None:
        with locks.directory(self._layout.read):
            self._move_to_read(notifications)

    drain = _drain

    def hold(self) -> locks.Lock | None:
        """Take the lock of a drain without waiting; None where another one holds it."""
        # Not the lock that acknowledging takes: this one is held while the agent reads, and it may acknowledge.
        return locks.hold_directory(self._layout.notifications)

    def is_still(self, notification: Notification) -> bool:
        """Return whether it still waits as it was shown: another program may have replaced it."""
        try:
            return self._read(notification.name) == notification
        except (FileNotFoundError, files.UnreadableFileError):  # acknowledged, or replaced by what was never shown
            return False

    def _read(self, name: str) -> Notification:
        data = files.read(os.path.join(self._layout.notifications, name), limit=_FOREIGN_LIMIT)
        return Notification.of(name, data.decode("utf-8", "replace"))

    def _acknowledged(self, name: str) -> bool:
        """Return whether a process acknowledged our notification *name*, and died before it unlinked it."""
        return is_task_id(name.removesuffix(".md")) and os.path.lexists(os.path.join(self._layout.read, name))

    def _move_to_read(self, notifications: Iterable[Notification]) -> None:
        """
        Link into .read/, sync that directory, unlink: in this order it is always in one of both.

        The directory is synced also where the link was there already: the process that made it may have died before.
        """
        paths = []
        interrupted = [name for name in files.names(self._layout.notifications) if self._acknowledged(name)]
        for name in dict.fromkeys([*(notification.name for notification in notifications), *interrupted]):
            path = os.path.join(self._layout.notifications, name)
            with contextlib.suppress(FileNotFoundError):  # another program's drain unlinked it
                self._disk.link("acknowledge.link", path, os.path.join(self._layout.read, name))
                paths.append(path)
        if paths:
            self._disk.sync("acknowledge.sync", self._layout.read)
        for path in paths:
            if self._disk.unlink("acknowledge.unlink", path):
                program = one_line(os.path.basename(sys.argv[0] if sys.argv else ""), 100)
                self._journal.note("acknowledged", os.path.basename(path).removesuffix(".md"), by=program)


class MemoryNotifications:
    """Notifications in memory, for tests."""

    def __init__(self) -> None:
        self._waiting: dict[str, Notification] = {}
        self._draining = threading.Lock()

    def publish(self, task: Task, text: str) -> None:
        """Publish the notification of *task*, which has just ended."""
        self._waiting[f"{task.id}.md"] = Notification.of(f"{task.id}.md", text)

    def waits(self, task_id: str) -> bool:
        """Return whether the notification of *task_id* waits to be acknowledged."""
        return f"{task_id}.md" in self._waiting

    def peek(self) -> list[Notification]:
        return list(self._waiting.values())

    def acknowledge(self, notifications: Iterable[Notification]) -> None:
        for notification in notifications:
            self._waiting.pop(notification.name, None)

    drain = _drain

    def hold(self) -> threading.Lock | None:
        """Take the lock of a drain without waiting; None where another one holds it."""
        return self._draining if self._draining.acquire(blocking=False) else None

    def is_still(self, notification: Notification) -> bool:
        """Return whether it still waits as it was shown."""
        return self._waiting.get(notification.name) == notification
