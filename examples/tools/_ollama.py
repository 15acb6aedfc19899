"""
Ollama's HTTP API (https://github.com/ollama/ollama/blob/main/docs/api.md): answers that come token by token.

    POST /api/generate  {"model": ..., "prompt": ...}      -> {"response": "The", "done": false} line by line
    POST /api/chat      {"model": ..., "messages": [...]}  -> {"message": {"content": "The"}, "done": false} ...

Each line but the last has a token; the last one has ``"done": true``, and without it the answer is not whole. An error
in the middle is a line of its own, ``{"error": ...}``, because the status was sent long before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from animaworks_tasks import BadArgument, ToolContext, ToolError

from . import _http
from ._http import Api, Patience, Report, Service

DEFAULT_MODEL: Final = "llama3.2"
MODEL_VARIABLE: Final = "LOCAL_LLM_MODEL"
_PORTS: Final = {"": 11434, "http": 80, "https": 443}  # as Ollama has it: its own port only where no scheme is given


@attrs.frozen(kw_only=True)
class Answer:
    """
    What a model said.

    Attributes:
        text: All of it, without what it only thought.
        tokens: How many that are, as Ollama counts.
        seconds: How long it took.
        cut: Whether it had more to say than it was allowed.
    """

    text: str
    tokens: int
    seconds: float
    cut: bool


def default_model() -> str:
    """Return the model to take where none is named."""
    return os.environ.get(MODEL_VARIABLE, "").strip() or DEFAULT_MODEL


def host() -> str:
    """
    Return the URL of Ollama, which ``OLLAMA_HOST`` names as Ollama itself reads it.

    Raises:
        ToolError: It cannot be read.
    """
    value = os.environ.get("OLLAMA_HOST", "").strip().strip("\"'").rstrip("/")
    scheme, separator, rest = value.rpartition("://")
    if value.count(":") > 1 and not value.startswith("[") and not separator:
        rest = f"[{rest}]"  # a bare IPv6 address
    try:
        parts = urlsplit(f"//{rest or '127.0.0.1'}")
        name, port = parts.hostname or "127.0.0.1", parts.port or _PORTS[scheme]
    except (ValueError, KeyError):
        raise ToolError(
            "OLLAMA_HOST is no address", hint="ask the operator to set it, as in OLLAMA_HOST=127.0.0.1:11434"
        ) from None
    if name in {"0.0.0.0", "::"}:  # noqa: S104 - where a server listens on all; a client goes to this machine
        name = "127.0.0.1"
    return f"{scheme or 'http'}://{f'[{name}]' if ':' in name else name}:{port}"


def service() -> Service:
    """Return Ollama, as the environment has it."""
    return Service(
        name="Ollama",
        url=host(),
        url_variable="OLLAMA_HOST",
        unreachable="is Ollama running? `ollama serve` starts it; OLLAMA_HOST says where it is, if not on this machine",
        retries_refused=False,
    )


def api(context: ToolContext, report: Report | None = None) -> Api:
    """Return Ollama as the tool that has *context* speaks to it. The first token may be long in coming: it loads."""
    return _http.api(context, service(), Patience.of("LOCAL_LLM", silence=300.0), report)


async def check_model(api: Api, model: str) -> None:
    """
    Find out whether *model* is there, before any work is done for it.

    Raises:
        BadArgument: It is not.
    """
    here = await _models(api)
    if model not in here and f"{model}:latest" not in here:
        raise _not_pulled(model, here)


async def generate(api: Api, model: str, prompt: str, *, system: str, options: Mapping[str, object]) -> Answer:
    """
    Return what *model* makes of *prompt*.

    Args:
        api: Ollama.
        model: Its name, as in `ollama list`.
        prompt: In words.
        system: Who the model is to be; empty for nobody in particular.
        options: As Ollama has them: ``temperature``, ``num_predict``, ``seed``.

    Raises:
        BadArgument: The model is not there, or cannot do this.
        ToolError: As :meth:`Api.ask`; or the answer broke off.
    """
    body = {"model": model, "prompt": prompt, "options": options, **({"system": system} if system else {})}
    return await _stream(api, "/api/generate", body, model)


async def chat(api: Api, model: str, messages: list[dict[str, str]], *, options: Mapping[str, object]) -> Answer:
    """
    Return what *model* says next in a conversation.

    Args:
        api: Ollama.
        model: Its name, as in `ollama list`.
        messages: What was said, as ``{"role": "user", "content": ...}``; other roles: assistant, system.
        options: As for :func:`generate`.

    Raises:
        ToolError: As :func:`generate`.
    """
    return await _stream(api, "/api/chat", {"model": model, "messages": messages, "options": options}, model)


async def _stream(api: Api, path: str, body: Mapping[str, Any], model: str) -> Answer:
    begun, limit = time.monotonic(), body["options"].get("num_predict", 0)
    pieces: list[str] = []
    tokens = 0
    api.report(None, f"waiting for {model}")
    try:
        async with aclosing(api.lines(path, {**body, "stream": True})) as lines:
            async for line in lines:
                if not line.strip():
                    continue
                said = _parsed(line, tokens)
                pieces.append(_piece(said))
                seconds = time.monotonic() - begun
                if said.get("done"):
                    counted = said.get("eval_count")
                    return Answer(
                        text="".join(pieces),
                        tokens=counted if isinstance(counted, int) else tokens,
                        seconds=seconds,
                        cut=said.get("done_reason") == "length",
                    )
                tokens += 1
                rate = tokens / (seconds or 1.0)
                api.report(tokens / limit if limit > 0 else None, f"{tokens} tokens, {rate:.1f} per second")
    except BadArgument as error:  # it may be that the model is not there, and then we know better what to do
        if "not found" in str(error):
            raise _not_pulled(model, await _models(api)) from error
        raise
    raise ToolError(
        f"Ollama's answer broke off after {tokens} tokens", hint="submit it again; `ollama ps` shows its health"
    )


def _parsed(line: str, tokens: int) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise ToolError(
            f"Ollama answered with what is no JSON object: {line[:60]!r}", hint="look whether OLLAMA_HOST is right"
        )
    if error := said.get("error"):
        raise ToolError(
            f"Ollama failed after {tokens} tokens: {' '.join(str(error).split())[:300]}",
            hint="submit it again, perhaps with a smaller model; Ollama's own log says more",
        )
    return said


def _piece(said: Mapping[str, Any]) -> str:
    message = said.get("message")
    piece = message.get("content") if isinstance(message, dict) else said.get("response")
    return piece if isinstance(piece, str) else ""


async def _models(api: Api) -> list[str]:
    found = (await api.ask("GET", "/api/tags")).get("models")
    return [str(each.get("name")) for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _not_pulled(model: str, here: list[str]) -> BadArgument:
    instead = f", or take one that is there: --model {' or '.join(here[:5])}" if here else ""
    return BadArgument(f"Ollama has no model {model!r}", hint=f"`ollama pull {model}`{instead}")
