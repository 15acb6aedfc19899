"""
Meshy's REST API (https://docs.meshy.ai): a task is created, looked at until it has ended, and its GLB downloaded.

    POST /openapi/v1/image-to-3d    {"image_url": "data:image/png;base64,..."}      -> {"result": "<task>"}
    POST /openapi/v1/rigging        {"input_task_id": ...} or {"model_url": ...}    -> {"result": "<task>"}
    POST /openapi/v1/animations     {"rig_task_id": ..., "action_id": 0}            -> {"result": "<task>"}
    GET  <the same>/<task>          {"status": "IN_PROGRESS", "progress": 40, "task_error": {"message": ""}, ...}

Creating costs credits, looking does not. So the task's id is remembered as soon as it is known, and the next call goes
on waiting for the same task instead of paying for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs

from animaworks_tasks import BadArgument, ToolError

from ._http import Api, Report, Service, TimedOut, base_url, key, with_hint

PAGE: Final = "https://www.meshy.ai/settings/api"
GLB_HEADER: Final = 12  # bytes: magic, version, length of the whole file


@attrs.frozen
class Kind:
    """
    One kind of task.

    Attributes:
        path: Where it is created, and below which it is looked at.
        glb: The way to its file in what a task that SUCCEEDED says.
    """

    path: str
    glb: tuple[str, ...]


KINDS: Final[Mapping[str, Kind]] = {
    "3d": Kind("/openapi/v1/image-to-3d", ("model_urls", "glb")),
    "rigging": Kind("/openapi/v1/rigging", ("result", "rigged_character_glb_url")),
    "animations": Kind("/openapi/v1/animations", ("result", "animation_glb_url")),
}


@attrs.frozen(kw_only=True)
class Memory:
    """
    Where the id of a task that was created is kept, in case we do not see its end.

    Attributes:
        known: The id, if there is one already: that task is waited for, and none created.
        keep: Takes the id of the one that was created; None where it is no longer worth waiting for.
        how: What the agent can do to go on waiting, with ``{}`` for the id.
    """

    known: str | None
    keep: Callable[[str | None], None]
    how: str


def service() -> Service:
    """
    Return Meshy, as the environment has it.

    Raises:
        MissingCredential: MESHY_API_KEY is not set.
    """
    return Service(
        name="Meshy",
        url=base_url("MESHY_BASE_URL", "https://api.meshy.ai"),
        url_variable="MESHY_BASE_URL",
        key_variable="MESHY_API_KEY",
        headers={"Authorization": f"Bearer {key('MESHY_API_KEY', 'Meshy', PAGE)}"},
        page=PAGE,
    )


async def glb(api: Api, name: str, body: object, memory: Memory, wait: float) -> tuple[str, bytes]:
    """
    Return the id of a task of the kind *name*, created from *body* unless it is remembered, and its GLB.

    Args:
        api: Meshy.
        name: One of KINDS.
        body: What the task is made from.
        memory: Where its id is kept.
        wait: Seconds from now until its end.

    Raises:
        BadArgument: Meshy refuses what it was given, or does not know the task.
        TimedOut: It has not ended in time.
        ToolError: It failed, or as :meth:`Api.ask`.
    """
    kind = KINDS[name]
    task = memory.known
    if task is None:
        api.report(0.0, "handing it to Meshy")
        task = api.field(await api.ask("POST", kind.path, body, costs=True), "result")
        memory.keep(task)
        api.logger.info("Meshy's task is %s", task)
    else:
        api.logger.info("going on with Meshy's task %s", task)
    try:
        url = await _end(api, kind, task, wait)
        data = await api.download(url, lambda done, text: api.report(_share(done, 0.9, 1.0), text), not_glb)
    except _Failed as failed:
        memory.keep(None)
        raise ToolError(failed.message, hint=failed.hint) from None
    except BadArgument as error:
        memory.keep(None)
        raise BadArgument(
            str(error), hint="Meshy does not know its task, or not any more: begin anew, without --resume"
        ) from error
    except ToolError as error:
        raise with_hint(error, memory.how.format(task)) from error
    return task, data


class _Failed(Exception):  # noqa: N818 - what became of the task, not an error of ours
    """The task has ended without a result; waiting for it again helps nobody."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


async def _end(api: Api, kind: Kind, task: str, wait: float) -> str:
    """Return the URL of the task's file once it has SUCCEEDED."""
    standing = "it was not looked at"
    try:
        async with asyncio.timeout(wait):
            while True:
                answer = await api.ask("GET", f"{kind.path}/{quote(task, safe='')}")
                standing = _standing(answer)
                match answer.get("status"):
                    case "SUCCEEDED":
                        return api.field(answer, *kind.glb)
                    case "FAILED" | "CANCELED" | "EXPIRED" as status:
                        raise _Failed(f"Meshy's task {task} ended {status}: {_error(answer)}", _advice(status))
                    case _:  # PENDING, IN_PROGRESS, and what Meshy may invent
                        progress = answer.get("progress")
                        done = progress / 100 if isinstance(progress, int | float) else None
                        api.report(_share(done, 0.0, 0.9), f"Meshy: {standing}")
                await asyncio.sleep(api.patience.poll)
    except TimedOut:
        raise
    except TimeoutError:
        raise TimedOut(f"timed out: Meshy's task {task} has not ended within {wait:g} s ({standing})") from None


def _standing(answer: Mapping[str, Any]) -> str:
    status, progress, before = answer.get("status"), answer.get("progress"), answer.get("preceding_tasks")
    if status == "PENDING" and isinstance(before, int):
        return f"PENDING, {before} before it"
    return f"{status}, {progress} %" if isinstance(progress, int | float) else str(status)


def _error(answer: Mapping[str, Any]) -> str:
    error = answer.get("task_error")
    said = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(said or "it does not say why").split())[:300]


def _advice(status: str) -> str:
    if status == "FAILED":
        return "Meshy gives the credits back; submit it again, with another picture or model if it says that is why"
    return "submit it again"


def _share(done: float | None, low: float, high: float) -> float | None:
    return None if done is None else low + (high - low) * done


def not_glb(data: bytes) -> str | None:
    """Say what is wrong with *data*, which should be a whole GLB; None if nothing is."""
    if len(data) < GLB_HEADER or data[:4] != b"glTF":
        return "what is no GLB"
    promised = int.from_bytes(data[8:12], "little")
    return None if promised == len(data) else f"{len(data)} of the {promised} bytes of a GLB"


def is_task(text: str) -> bool:
    """Say whether *text* can be the id of a task of Meshy's, which is a UUID."""
    return [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12] and text.replace("-", "").isalnum()


def check_task(text: str, what: str) -> str:
    """Return *text*, which is to be the id of a task; anything else is a BadArgument, and never part of a URL."""
    if not is_task(text):
        raise BadArgument(
            f"{text[:80]!r} is no id of a task of Meshy's",
            hint=f"give {what}, as in 018a210d-8ba4-705c-b111-1f1776f7f578",
        )
    return text


def share_of(report: Report, low: float, high: float, label: str) -> Report:
    """Return a report for the part of the work between *low* and *high*, which never goes back."""
    reached = low

    def told(done: float | None, text: str) -> None:
        nonlocal reached
        reached = max(reached, _share(done, low, high) or reached)
        report(reached, f"{label}: {text}")

    return told
