"""
Six steps from a description to an animated character, each of which is done once, whatever dies in between.

The state lies beside the results, in the directory that the user named, as ``pipeline.json``::

    {
      "version": 1,
      "asked": {"prompt": "a knight in red armour", "engine": "auto", "seed": 7, "action": 0},
      "steps": {
        "fullbody": {"file": "fullbody.png", "bytes": 1482733},
        "3d": {"task": "018a210d-8ba4-705c-b111-1f1776f7f578"}
      }
    }

A step is done if it has an entry with a file, and the file is there: first the file is published, then the entry. An
entry with a task alone is a task of Meshy's that was paid for and whose end was not seen: it is waited for. So a file
that is deleted is made again, with all that was made from it, and one that was touched up by hand is used as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from animaworks_tasks import BadArgument

from ._results import make_directory, publish

VERSION: Final = 1
STATE: Final = "pipeline.json"
FILES: Final[Mapping[str, str]] = {
    "fullbody": "fullbody.png",
    "bustup": "bustup.png",
    "chibi": "chibi.png",
    "3d": "model.glb",
    "rigging": "rigged.glb",
    "animations": "animated.glb",
}
MADE_FROM: Final[Mapping[str, str]] = {
    "bustup": "fullbody",
    "chibi": "fullbody",
    "3d": "chibi",
    "rigging": "3d",
    "animations": "rigging",
}


class Pipeline:
    """What one directory's pipeline has done. One process at a time works on it; see :meth:`open`."""

    def __init__(self, directory: Path, asked: Mapping[str, object], steps: dict[str, dict[str, Any]]) -> None:
        self.directory, self._asked, self._steps = directory, asked, steps

    @classmethod
    def open(cls, directory: Path, asked: Mapping[str, object]) -> Self:
        """
        Return the pipeline of *directory*, which is made if it is not there; its lock is the caller's to hold.

        Raises:
            BadArgument: There is one for something else, its state is unreadable, or files lie where ours would.
        """
        make_directory(directory)
        elsewhere = "give another directory with --output"
        state = directory / STATE
        if not state.exists():
            if taken := [name for name in FILES.values() if (directory / name).exists()]:
                raise BadArgument(f"{str(directory / taken[0])!r} is there already, and not from here", hint=elsewhere)
            return cls(directory, asked, {})
        try:
            found = json.loads(state.read_bytes())
            version, before, steps = found["version"], dict(found["asked"]), found["steps"]
            known = {step: dict(entry) for step, entry in steps.items() if step in FILES}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadArgument(f"{str(state)!r} is no state of a pipeline", hint=f"{elsewhere}, or delete it") from error
        if version != VERSION:
            raise BadArgument(f"{str(state)!r} was written by another version ({version!r})", hint=elsewhere)
        if other := [name for name in asked if before.get(name) != asked[name]]:
            told = ", ".join(f"{name} {before.get(name)!r}" for name in other)
            raise BadArgument(
                f"{str(directory)!r} holds the pipeline of another character: {told}",
                hint=f"submit it with the same words to go on with that one, or {elsewhere}",
            )
        return cls(directory, asked, known)

    @property
    def done(self) -> list[str]:
        """The steps that are done, in their order."""
        return [step for step in FILES if self.is_done(step)]

    def is_done(self, step: str) -> bool:
        """Say whether *step* has been done, and so has what it is made from."""
        source = MADE_FROM.get(step)
        entry = self._steps.get(step, {})
        return "file" in entry and self.file(step).is_file() and (source is None or self.is_done(source))

    def file(self, step: str) -> Path:
        """Return where the result of *step* lies."""
        return self.directory / FILES[step]

    def task(self, step: str) -> str | None:
        """Return the id of Meshy's task for *step*, if one was begun, from the source that is there now."""
        found = self._steps.get(step, {}).get("task")
        return found if isinstance(found, str) else None

    def remember(self, step: str, task: str | None) -> None:
        """Keep the id of a task that was begun; None forgets it."""
        self._steps[step] = {} if task is None else {"task": task}
        self._save()

    def finish(self, step: str, data: bytes, task: str | None = None) -> None:
        """Publish what *step* has made, then say that it is done, and that what was made from an older one is not."""
        publish(self.file(step), data)
        self._steps[step] = {"file": FILES[step], "bytes": len(data)} | ({"task": task} if task else {})
        outdated = {step}
        for later, source in MADE_FROM.items():  # in order: what is made from what is outdated comes after it
            if source in outdated:
                outdated.add(later)
                self._steps.pop(later, None)
        self._save()

    def begin(self, step: str) -> str | None:
        """Return the task to wait for, where *step* was begun and its result not yet seen."""
        entry = self._steps.get(step, {})
        return None if "file" in entry else self.task(step)

    def _save(self) -> None:
        state = {"version": VERSION, "asked": self._asked, "steps": self._steps}
        publish(self.directory / STATE, (json.dumps(state, indent=2, ensure_ascii=False) + "\n").encode())
