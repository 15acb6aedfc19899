"""
Where things lie: the Anima's directory, the runtime's data directory, and the places inside a store.

The layout of a store is written down here once; no other module spells the name of one of its directories.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

ANIMA_DIR_VARIABLE = "ANIMAWORKS_ANIMA_DIR"
DATA_DIR_VARIABLE = "ANIMAWORKS_DATA_DIR"
PROGRESS_FILE_VARIABLE = "ANIMAWORKS_TASK_PROGRESS_FILE"
TASK_ID_VARIABLE = "ANIMAWORKS_TASK_ID"

FORMAT: Final = b"animaworks_tasks 2\n"  # what the file format says

# All directories of a store, in the order in which they are made.
DIRECTORIES: Final = (
    "pending", "running", "done", "keys", "logs", "progress", "results", "quarantine", "tmp",
)  # fmt: skip


class Layout:
    """
    The paths of one Anima's store, as text; nothing here touches the disk.

    Attributes:
        anima: The Anima's directory, absolute.
        root: ``<anima>/state/background_tasks``.
        notifications: ``<anima>/state/background_notifications``; ``read`` is ``.read`` in it.
    """

    def __init__(self, anima_dir: str | os.PathLike[str]) -> None:
        self.anima = os.path.abspath(os.fspath(anima_dir))
        state = os.path.join(self.anima, "state")
        self.root = os.path.join(state, "background_tasks")
        self.pending, self.running, self.done, self.keys, self.logs, *others = self.directories()
        self.progress, self.results, self.quarantine, self.tmp = others
        self.notifications = os.path.join(state, "background_notifications")
        self.read = os.path.join(self.notifications, ".read")
        self.format = os.path.join(self.root, "format")
        self.catalogue = os.path.join(self.root, "catalogue")
        self.events = os.path.join(self.root, "events.jsonl")
        self.boot = os.path.join(self.root, "boot")

    def directories(self) -> list[str]:
        """Return the directories inside the root."""
        return [os.path.join(self.root, name) for name in DIRECTORIES]

    def pending_record(self, task_id: str) -> str:
        """Return the path of the record of *task_id* while it waits."""
        return f"{self.pending}/{task_id}.json"

    def running_record(self, task_id: str) -> str:
        """Return the path of the record of *task_id* while it runs: another name of the same file."""
        return f"{self.running}/{task_id}.task"

    def done_record(self, task_id: str) -> str:
        """Return the path of the record of *task_id* once it has ended."""
        return f"{self.done}/{task_id}.task"

    def cancel(self, task_id: str) -> str:
        """Return the path of the request that *task_id* be cancelled."""
        return f"{self.running}/{task_id}.cancel"

    def log(self, task_id: str) -> str:
        """Return the path of what the tool of *task_id* has written."""
        return f"{self.logs}/{task_id}.log"

    def view(self, task_id: str) -> str:
        """Return the path under which AnimaWorks' own readers look for *task_id*."""
        return f"{self.root}/{task_id}.json"

    def notification(self, task_id: str) -> str:
        """Return the path of the notification of *task_id* while nobody has acknowledged it."""
        return f"{self.notifications}/{task_id}.md"

    def read_notification(self, task_id: str) -> str:
        """Return the path of the notification of *task_id* once it was acknowledged."""
        return f"{self.read}/{task_id}.md"


def home() -> str:
    """Return the directory in which a user's tasks are kept where no Anima is named, made or not."""
    from platformdirs import user_state_dir  # here: who names a directory does without

    return user_state_dir("animaworks_tasks", appauthor=False)


def slots() -> str:
    """Return the directory of the slots that all hosts of a user on this machine share, made or not."""
    return os.path.join(home(), "slots")


def limits_file() -> str:
    """Return the path of the file in which a user says how many tasks may use a resource of this machine at once."""
    from platformdirs import user_config_dir

    return os.path.join(user_config_dir("animaworks_tasks", appauthor=False), "limits.toml")


def data_dir(environment: Mapping[str, str]) -> str:
    """Return AnimaWorks' data directory: ``ANIMAWORKS_DATA_DIR``, or else ``~/.animaworks``."""
    return environment.get(DATA_DIR_VARIABLE) or os.path.join(os.path.expanduser("~"), ".animaworks")
