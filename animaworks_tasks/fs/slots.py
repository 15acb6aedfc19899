"""
The slots of this machine's resources: how many there are, and who has one.

    <user_config_dir>/limits.toml           how many tasks may use a resource at once, over all hosts of the user
    <home>/slots/<resource>.0, .1 ...       a locked file is a slot that is taken

A slot is free when the last copy of its descriptor is closed: when the tool is gone, and not before.
"""

import contextlib
import os
import tomllib

from animaworks_tasks.errors import LimitsError
from animaworks_tasks.fs import files, layout, locks, trust


def machine_limits() -> dict[str, int]:
    """
    Return how many tasks of this user may use each resource at once on this machine; empty where nobody has said it.

    Raises:
        LimitsError: The file cannot be used, or the directory cannot hold slots.
    """
    path = layout.limits_file()
    try:
        content = tomllib.loads(files.read(path, limit=1 << 16).decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LimitsError(path, f"it cannot be read: {error}") from error
    limits = content.get("limits")
    if not isinstance(limits, dict) or set(content) != {"limits"}:
        raise LimitsError(path, "it has to have one table, [limits], and nothing else")
    for resource, limit in limits.items():
        if type(limit) is not int or limit < 1:
            raise LimitsError(path, f"the limit of {resource} must be a number of at least 1, not {limit!r}")
    directory = layout.slots()
    if doubt := next((doubt for doubt in trust.doubts(directory) if doubt.refuses), None):
        raise LimitsError(directory, f"{doubt.what}; {doubt.todo}")
    return limits


def take(resource: str, limit: int) -> locks.Lock | None:
    """Lock one of the *limit* slots of *resource*, without waiting until one is free; None where all are taken."""
    with locks.directory(layout.slots()):  # or two that probe see each other, and both leave with nothing
        free = _free(resource, limit)
        if free is None:
            return None
        files.touch(free)
        return locks.hold(free, writing=True)


def is_taken(resource: str, limit: int) -> bool:
    """Return whether all slots of *resource* are taken now, without making a file; False where nobody can know."""
    with contextlib.suppress(OSError), locks.directory(layout.slots()):
        return _free(resource, limit) is None
    return False


def _free(resource: str, limit: int) -> str | None:
    for number in range(limit):
        path = os.path.join(layout.slots(), f"{resource}.{number}")
        try:
            probe = locks.hold(path)  # for reading: the close of another one would wake up all who wait
        except FileNotFoundError:  # nobody has taken it yet
            return path
        if probe is not None:
            probe.release()
            return path
    return None
