"""
Pictures from two HTTP APIs: NovelAI's and Flux's.

NovelAI (https://image.novelai.net/docs) answers a POST with a zip that holds the picture::

    POST /ai/generate-image  {"input": ..., "model": ..., "action": "generate" or "img2img", "parameters": {...}}

Flux, of Black Forest Labs (https://docs.bfl.ai), answers with where to look, and later with where the picture lies::

    POST /v1/flux-2-pro      {"prompt": ..., "input_image": "<base64>", ...}    -> {"id": ..., "polling_url": ...}
    GET  <polling_url>       {"status": "Pending"}, and at last {"status": "Ready", "result": {"sample": <url>}}
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import attrs

from animaworks_tasks import BadArgument, MissingCredential, ToolContext, ToolError

from . import _http
from ._http import Api, Patience, Report, Service, TimedOut, base_url, key

NOVELAI_PAGE: Final = "https://novelai.net (Account, Get Persistent API Token)"
NOVELAI_MODEL: Final = "nai-diffusion-4-5-full"
NOVELAI_AVOIDS: Final = "lowres, bad anatomy, bad hands, text, watermark, multiple views"
FLUX_PAGE: Final = "https://dashboard.bfl.ai"
FLUX_MODEL: Final = "flux-2-pro"
LARGEST_PICTURE: Final = 64 << 20  # bytes; what a zip unpacks to is not known before
LONGEST_DRAWING: Final = 600.0  # seconds that Flux may be Pending
PNG: Final = b"\x89PNG\r\n\x1a\n"
PNG_END: Final = b"IEND\xaeB`\x82"


@attrs.frozen(kw_only=True)
class Wish:
    """
    What is to be drawn.

    Attributes:
        prompt: In words.
        width: In pixels, a multiple of 64.
        height: As *width*.
        reference: A picture of the same character; None to begin from nothing.
        seed: The same number draws the same picture; None draws another each time.
    """

    prompt: str
    width: int
    height: int
    reference: bytes | None = attrs.field(default=None, repr=False)
    seed: int | None = None


def choose(engine: str, *, reference: bool) -> str:
    """
    Return the engine to draw with: *engine*, or for "auto" one that has a key.

    Flux keeps a character alike better, so it goes first where there is a reference; NovelAI where there is none.

    Raises:
        MissingCredential: None has a key, or the one that was asked for has none.
    """
    if engine == "auto":
        order = ("flux", "novelai") if reference else ("novelai", "flux")
        variables = {"flux": "BFL_API_KEY", "novelai": "NOVELAI_TOKEN"}
        found = [each for each in order if os.environ.get(variables[each], "").strip()]
        if not found:
            raise MissingCredential(
                "neither NOVELAI_TOKEN nor BFL_API_KEY is set, and a picture needs NovelAI or Flux",
                hint=f"ask the operator to set one of them; they are had at {NOVELAI_PAGE} and {FLUX_PAGE}",
            )
        engine = found[0]
    _SERVICES[engine]()  # raises where its key is not set
    return engine


async def draw(engine: str, wish: Wish, context: ToolContext, patience: Patience, report: Report) -> bytes:
    """
    Return a PNG of *wish*.

    Raises:
        BadArgument: The prompt or the reference is refused.
        MissingCredential: The key is not set, or not accepted.
        ToolError: As :meth:`Api.ask`, or what came is no PNG.
    """
    async with _http.api(context, _SERVICES[engine](), patience, report) as api:
        return await (_novelai if engine == "novelai" else _flux)(api, wish)


# --- NovelAI ---


def novelai() -> Service:
    """Return NovelAI, as the environment has it."""
    return Service(
        name="NovelAI",
        url=base_url("NOVELAI_BASE_URL", "https://image.novelai.net"),
        url_variable="NOVELAI_BASE_URL",
        key_variable="NOVELAI_TOKEN",
        headers={"Authorization": f"Bearer {key('NOVELAI_TOKEN', 'NovelAI', NOVELAI_PAGE)}"},
        page=NOVELAI_PAGE,
    )


async def _novelai(api: Api, wish: Wish) -> bytes:
    api.report(None, "NovelAI draws")
    packed = await api.fetch("POST", "/ai/generate-image", _novelai_body(wish), costs=True)
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            entry = next((each for each in archive.infolist() if each.filename.endswith(".png")), None)
            if entry is None or entry.file_size > LARGEST_PICTURE:
                raise ToolError("NovelAI's zip holds no picture", hint="submit it again")
            with archive.open(entry) as file:
                data = file.read(LARGEST_PICTURE)  # what the entry says of its size need not be true
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        RuntimeError,
    ) as error:  # of which one: packed in a way not known here
        raise ToolError(
            "NovelAI answered with what is no whole zip; nothing was published", hint="submit it again"
        ) from error
    if problem := not_png(data):
        raise ToolError(f"NovelAI sent {problem}; nothing was published", hint="submit it again")
    return data


def _novelai_body(wish: Wish) -> Mapping[str, Any]:
    parameters: dict[str, Any] = {
        "params_version": 3,
        "width": wish.width,
        "height": wish.height,
        "scale": 5,
        "steps": 28,
        "sampler": "k_euler_ancestral",
        "noise_schedule": "karras",
        "n_samples": 1,
        "ucPreset": 0,
        "qualityToggle": True,
        "negative_prompt": NOVELAI_AVOIDS,
        "v4_prompt": {
            "caption": {"base_caption": wish.prompt, "char_captions": []},
            "use_coords": False,
            "use_order": True,
        },
        "v4_negative_prompt": {"caption": {"base_caption": NOVELAI_AVOIDS, "char_captions": []}, "legacy_uc": False},
    }
    if wish.seed is not None:
        parameters["seed"] = wish.seed
    if wish.reference is not None:
        parameters |= {"image": base64.b64encode(wish.reference).decode(), "strength": 0.7, "noise": 0}
    action = "generate" if wish.reference is None else "img2img"
    return {"input": wish.prompt, "model": NOVELAI_MODEL, "action": action, "parameters": parameters}


# --- Flux ---


def flux() -> Service:
    """Return Flux, as the environment has it."""
    return Service(
        name="Flux",
        url=base_url("BFL_BASE_URL", "https://api.bfl.ai"),
        url_variable="BFL_BASE_URL",
        key_variable="BFL_API_KEY",
        headers={"x-key": key("BFL_API_KEY", "Flux", FLUX_PAGE)},
        page=FLUX_PAGE,
    )


async def _flux(api: Api, wish: Wish) -> bytes:
    api.report(None, "handing it to Flux")
    body: dict[str, Any] = {
        "prompt": wish.prompt,
        "width": wish.width,
        "height": wish.height,
        "output_format": "png",
    }
    if wish.seed is not None:
        body["seed"] = wish.seed
    if wish.reference is not None:
        body["input_image"] = base64.b64encode(wish.reference).decode()
    begun = await api.ask("POST", f"/v1/{FLUX_MODEL}", body, costs=True)
    where = api.field(begun, "polling_url")
    api.logger.info("Flux's task is %s", begun.get("id"))
    try:
        async with asyncio.timeout(LONGEST_DRAWING):
            url = await _flux_sample(api, where)
    except TimedOut:
        raise
    except TimeoutError:
        raise TimedOut(
            f"timed out: Flux has not drawn it within {LONGEST_DRAWING:g} s", hint="submit it again"
        ) from None
    return await api.download(url, api.report, not_png)


async def _flux_sample(api: Api, where: str) -> str:
    while True:
        answer = await api.ask("GET", where)
        match answer.get("status"):
            case "Ready":
                return api.field(answer, "result", "sample")
            case "Request Moderated" | "Content Moderated" as status:
                raise BadArgument(f"Flux does not draw this: {status}", hint="describe it in other words")
            case "Error" | "Failed" | "Task not found" as status:
                raise ToolError(f"Flux could not draw it: {status}", hint="submit it again")
            case status:
                done = answer.get("progress")
                api.report(done if isinstance(done, float) else None, f"Flux: {status}")
        await asyncio.sleep(api.patience.poll)


_SERVICES: Final = {"novelai": novelai, "flux": flux}


def not_png(data: bytes) -> str | None:
    """Say what is wrong with *data*, which should be a whole PNG; None if nothing is."""
    if not data.startswith(PNG):
        return "what is no PNG"
    return None if data.endswith(PNG_END) else "a PNG that breaks off"
