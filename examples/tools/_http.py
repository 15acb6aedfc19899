"""
Talking to a web service from a long-running tool: patience with limits, failures kept apart, downloads with bounds.

Not a tool but what the tools beside it share; the leading underscore tells discovery so. Everything is async, because
an async tool is cancelled where it waits: at once, whatever the backend.

* A request that failed is made again only where that is safe and may help: the service said "later" (429, 5xx), or
  nobody answered. A request that costs money is not made again once it may have been heard.
* A key goes to the service it belongs to and nowhere else: not to download addresses, not into logs and errors.
* A download has a largest size and a longest time, and is checked before anybody gets it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import math
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

import attrs
import httpx

from animaworks_tasks import BadArgument, MissingCredential, ToolContext, ToolError

Report = Callable[[float | None, str], None]  # ToolContext.progress, or a part of it
T = TypeVar("T")

TRIES: Final = 4  # of one request, the first one included
LONGEST_PAUSE: Final = 120.0  # seconds that a service may ask us to wait; more is for the agent to decide
LARGEST_ANSWER: Final = 64 << 20  # bytes of what is no download
LARGEST_FILE: Final = 256 << 20  # bytes of a download
LONGEST_DOWNLOAD: Final = 900.0  # seconds
REDIRECTS: Final = 3
_SAID: Final = 300  # characters of a service's own words that are passed on

_NOT_DONE: Final = {429, 500, 503}  # the service has done nothing, so asking again costs nothing
_LATER: Final = _NOT_DONE | {408, 502, 504}


class TimedOut(ToolError, TimeoutError):  # noqa: N818 - as MissingCredential: it reads as the sentence that is meant
    """What was waited for did not come in time. Recorded with the cause ``timeout``, because it is a TimeoutError."""


def with_hint(error: ToolError, more: str) -> ToolError:
    """Return *error* with something better that the agent can do than to submit it again."""
    also = "" if error.hint is None or error.hint.startswith("submit it again") else f"; {error.hint}"
    return type(error)(str(error), hint=more + also)


# --- what the environment says ---


@attrs.frozen(kw_only=True)
class Patience:
    """
    How long is waited, in seconds.

    Attributes:
        prefix: Of the environment variables that say so.
        silence: Without a single byte, until a connection is given up.
        pause: Before the second try of a request; twice as long before each further one.
        poll: Between two looks at how far a service is.
    """

    prefix: str
    silence: float
    pause: float
    poll: float

    @classmethod
    def of(cls, prefix: str, *, silence: float) -> Self:
        """Read ``<prefix>_SILENCE_SECONDS``, ``<prefix>_RETRY_SECONDS`` and ``<prefix>_POLL_SECONDS``."""
        return cls(
            prefix=prefix,
            silence=_seconds(f"{prefix}_SILENCE_SECONDS", silence),
            pause=_seconds(f"{prefix}_RETRY_SECONDS", 1.0),
            poll=_seconds(f"{prefix}_POLL_SECONDS", 5.0),
        )


def _seconds(variable: str, default: float) -> float:
    try:
        seconds = float(os.environ.get(variable) or default)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ToolError(
            f"{variable} is {os.environ[variable]!r}, which is no number of seconds",
            hint=f"ask the operator to correct or unset {variable}",
        )
    return seconds


@attrs.frozen(kw_only=True)
class Service:
    """
    Where a service is, and how one speaks of it.

    Attributes:
        name: For people.
        url: Its base, without a slash at the end.
        url_variable: The environment variable that says so.
        key_variable: The one that holds its key; empty where it needs none.
        headers: With the key, for the service alone.
        page: Where keys and credits are had.
        unreachable: What to do where nobody answers.
        retries_refused: Whether a refused connection is worth another try; a program on this machine is there or not.
    """

    name: str
    url: str
    url_variable: str
    key_variable: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    page: str = ""
    unreachable: str = ""
    retries_refused: bool = True


def base_url(variable: str, default: str) -> str:
    """
    Return the URL that *variable* holds, or *default*, without a slash at the end.

    Raises:
        ToolError: It is no URL. Its value is not shown: it might hold a password.
    """
    value = (os.environ.get(variable) or default).strip().rstrip("/")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ToolError(f"{variable} holds no http or https URL", hint=f"ask the operator to set it, as in {default}")
    return value


def key(variable: str, service: str, page: str) -> str:
    """
    Return the key in *variable*.

    Raises:
        MissingCredential: It is not set, or holds what can be no key. Its value is not shown.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise MissingCredential(
            f"{variable} is not set, and {service} needs a key",
            hint=f"ask the operator to set {variable} in the host's environment; keys are had at {page}",
        )
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise MissingCredential(
            f"{variable} holds what can be no key: there are spaces or control characters in it",
            hint=f"ask the operator to set {variable} again; keys are had at {page}",
        )
    return value


# --- asking ---


class Api:
    """
    One service, for as long as one call of a tool takes.

    Args:
        service: Whom to ask.
        patience: How long to wait.
        report: Called with what is being waited for.
        logger: Takes a line for every try that failed.
    """

    def __init__(self, service: Service, patience: Patience, report: Report, logger: logging.Logger) -> None:
        self.service, self.patience, self.report, self.logger = service, patience, report, logger
        timeout = httpx.Timeout(patience.silence, connect=min(patience.silence, 10.0))
        self._client = httpx.AsyncClient(timeout=timeout, verify=_trusted())

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def ask(self, method: str, path: str, body: object = None, *, costs: bool = False) -> dict[str, Any]:
        """
        Make a request and return the JSON object that answers it.

        Args:
            method: GET or POST.
            path: Below the service's base, or a URL of the same service.
            body: Sent as JSON.
            costs: It costs money: it is made again only where it was not heard, or was refused.

        Raises:
            BadArgument: The service refuses what it was asked (400, 404, 413, 422).
            MissingCredential: It does not accept the key (401, 403).
            TimedOut: It was silent for too long.
            ToolError: There are no credits left (402), it asks for more time than we have (429), it is broken (5xx),
                nobody answers, or what it says is no JSON.
        """
        data = await self.fetch(method, path, body, costs=costs)
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            beginning = data[:60].decode("utf-8", "replace")
            raise self._nonsense(f"what is no JSON object: {beginning!r}")
        return answer

    def field(self, answer: object, *names: str) -> str:
        """Return the text at the end of the path *names* in *answer*; without it, the answer is a ToolError."""
        found = answer
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, str) or not found:
            raise self._nonsense(f"JSON without {'.'.join(names)!r}")
        return found

    async def fetch(self, method: str, path: str, body: object = None, *, costs: bool = False) -> bytes:
        """Make a request and return what answers it, as :meth:`ask` does, whatever it is."""

        async def once() -> bytes:
            async with self._answer(method, self._address(path), body) as response:
                return await self._read(response, LARGEST_ANSWER)

        return await self._patiently(once, costs=costs)

    async def lines(self, path: str, body: object) -> AsyncGenerator[str, None]:
        """
        Make a request whose answer comes line by line, and yield each line as it comes.

        It is made again, as in :meth:`ask`, until the first line has come; after that, what breaks off has broken off.
        """
        begun = False
        for attempt in itertools.count(1):
            try:
                async with self._answer("POST", self._address(path), body) as response:
                    async for line in response.aiter_lines():
                        begun = True
                        yield line
                    return
            except (httpx.HTTPError, _Refused) as error:
                if begun:
                    raise self._problem(error) from None
                await self._pause_or_raise(error, attempt, costs=False)

    # --- one try ---

    @asynccontextmanager
    async def _answer(
        self, method: str, url: str, body: object = None, *, with_key: bool = True
    ) -> AsyncIterator[httpx.Response]:
        headers = self.service.headers if with_key else {}
        async with self._client.stream(method, url, headers=headers, json=body) as response:
            if not response.is_success:
                text = b""
                if not response.is_redirect:
                    text = await self._read(response, LARGEST_ANSWER)
                raise _Refused(response, _words_of(text))
            yield response

    def _address(self, path: str) -> str:
        """Return the URL of *path*, to which the key may go."""
        if path.startswith("/"):
            return self.service.url + path
        ours, theirs = _split(self.service.url), _split(path)
        family = "." + (ours.hostname or "").partition(".")[2]  # api.eu.bfl.ai belongs to api.bfl.ai
        related = family.count(".") > 1 and not _is_address(ours.hostname) and f".{theirs.hostname}".endswith(family)
        if theirs.scheme != ours.scheme or not (theirs.netloc == ours.netloc or related):
            raise ToolError(
                f"{self.service.name} points to {_short(path)}, which is not its own: the key is not sent there",
                hint=f"look whether {self.service.url_variable} is right",
            )
        return path

    async def _read(self, response: httpx.Response, limit: int, report: Report | None = None) -> bytes:
        data = bytearray()
        promised = int(response.headers.get("content-length") or 0)
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > limit:
                raise ToolError(
                    f"{self.service.name} sends more than {limit >> 20} MiB, and it was stopped there",
                    hint="ask for something smaller",
                )
            if report is not None:
                report(len(data) / promised if promised else None, f"{len(data) / 1e6:.1f} MB")
        return bytes(data)

    # --- several tries ---

    async def _patiently(self, once: Callable[[], Awaitable[T]], *, costs: bool) -> T:
        for attempt in itertools.count(1):
            try:
                async with asyncio.timeout(10 * self.patience.silence):  # for one that drips
                    return await once()
            except TimedOut:
                raise
            except (httpx.HTTPError, httpx.InvalidURL, _Refused, TimeoutError) as error:
                await self._pause_or_raise(error, attempt, costs=costs)
        raise AssertionError  # it counts for ever

    async def _pause_or_raise(self, error: Exception, attempt: int, *, costs: bool) -> None:
        """Wait before the next try; where there is to be none, raise what the agent is to read instead."""
        problem = self._problem(error)
        pause = self.patience.pause * 2 ** (attempt - 1)
        if isinstance(error, _Refused):
            unheard = error.status in _NOT_DONE
            again = unheard or (error.status in _LATER and not costs)
            uncertain = error.status in _LATER and not unheard
            asked = error.pause
            if again and asked is not None and asked > LONGEST_PAUSE:
                raise with_hint(problem, f"it asks to wait {asked:.0f} s: `animaworks-tool submit --delay {asked:.0f}`")
            pause = pause if asked is None else asked
        elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            again, uncertain = self.service.retries_refused, False
        else:
            again = not costs and isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
            uncertain = True
        if costs and uncertain:
            problem = with_hint(problem, f"look at {self.service.page} first: it may have been done, and paid for")
        if not again or attempt >= TRIES:
            raise problem from None
        self.logger.warning("try %d of %d: %s; again in %.1f s", attempt, TRIES, problem, pause)
        self.report(None, f"{problem}; trying again in {pause:.0f} s")
        await asyncio.sleep(pause)

    # --- what went wrong ---

    def _problem(self, error: Exception) -> ToolError:
        """Return what the agent reads of *error*; httpx's own words may quote headers, and so a key."""
        name = self.service.name
        if isinstance(error, _Refused):
            return self._refusal(error)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ToolError(
                f"nobody answers at {_short(self.service.url)}, where {name} should be", hint=self._where()
            )
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return TimedOut(
                f"timed out: {name} said nothing for {self.patience.silence:g} s"
                if isinstance(error, httpx.TimeoutException)
                else f"timed out: {name} has not come to an end within {10 * self.patience.silence:g} s",
                hint=f"submit it again later; if it happens often, ask the operator to raise {self.patience.prefix}"
                "_SILENCE_SECONDS",
            )
        if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
            return ToolError(f"{name} hung up in the middle of its answer", hint="submit it again")
        return ToolError(f"{name} cannot be spoken to: {type(error).__name__}", hint=self._where())

    def _where(self) -> str:
        service = self.service
        return service.unreachable or f"look whether this machine is online, and {service.url_variable} is right"

    def _refusal(self, refused: _Refused) -> ToolError:
        name, variable, page = self.service.name, self.service.key_variable, self.service.page
        status = f"{refused.status}: {refused.said}" if refused.said else str(refused.status)
        kind: type[ToolError] = ToolError
        match refused.status:
            case 401 | 403 if not variable:
                kind, what, hint = MissingCredential, "wants a login", f"ask the operator to log in to {name}"
            case 401 | 403:
                kind, what = MissingCredential, f"does not accept the key in {variable}"
                hint = f"ask the operator to set {variable} to a valid key, from {page}"
            case 402:
                what = "has no credits left for this"
                hint = f"ask the operator to add credits at {page}, and submit it again then"
            case 429:
                what, hint = (
                    "is asked too often",
                    "submit it again in a while: `animaworks-tool submit --delay 600 ...`",
                )
            case 400 | 404 | 405 | 409 | 413 | 415 | 422:
                kind, what, hint = BadArgument, "refuses this", "correct what it names, and submit it again"
            case number if number >= 500:  # noqa: PLR2004 - as RFC 9110 has it
                what = "is out of order"
                hint = "submit it again later, it was tried several times: `animaworks-tool submit --delay 600 ...`"
            case _:
                what, hint = "answers what we do not understand", self._where()
        return kind(f"{name} {what} ({status})", hint=hint)

    def _nonsense(self, what: str) -> ToolError:
        return ToolError(f"{self.service.name} answered with {what}", hint=self._where())

    # --- files ---

    async def download(self, url: str, report: Report, check: Callable[[bytes], str | None]) -> bytes:
        """
        Return what lies at *url*, an address that the service gave; the key is not sent there.

        Args:
            url: Followed only over https, unless the service itself is spoken to over http.
            report: Told how much has come.
            check: Returns what is wrong with the bytes; None if they are whole and of the right kind.

        Raises:
            ToolError: It is too large, not what it should be, or broke off every time.
            TimedOut: It took too long.
        """

        async def once() -> bytes:
            address = url
            for _ in range(REDIRECTS + 1):
                self._check_address(address)
                try:
                    async with self._answer("GET", address, with_key=False) as response:
                        return await self._read(response, LARGEST_FILE, report)
                except _Refused as refused:
                    if refused.location is None:
                        raise
                    address = urljoin(address, refused.location)
            raise ToolError(f"{self.service.name} sends the download in circles", hint="submit it again")

        try:
            async with asyncio.timeout(LONGEST_DOWNLOAD):
                data = await self._patiently(once, costs=False)
        except (MissingCredential, BadArgument) as error:  # of ours nothing is wrong: the address has expired, say
            raise ToolError(f"{self.service.name} refuses its own download", hint="submit it again") from error
        except TimedOut:
            raise
        except TimeoutError:
            raise TimedOut(
                f"timed out: the download took more than {LONGEST_DOWNLOAD:g} s", hint="submit it again"
            ) from None
        if problem := check(data):
            raise ToolError(f"{self.service.name} sent {problem}; nothing was published", hint="submit it again")
        return data

    def _check_address(self, url: str) -> None:
        parts, ours = _split(url), _split(self.service.url)
        inside = _is_private(parts.hostname) and not _is_private(ours.hostname)
        if parts.scheme not in {"https", ours.scheme} or not parts.hostname or parts.username or inside:
            raise ToolError(
                f"{self.service.name} gives {_short(url)} as the place of a download, which is not followed",
                hint=f"look whether {self.service.url_variable} is right",
            )


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Return whom we trust; read once per process, because it is many files."""
    return httpx.create_ssl_context()


class _Refused(Exception):  # noqa: N818 - what the service did, not an error of ours
    """The service answered, and not with success."""

    def __init__(self, response: httpx.Response, said: str) -> None:
        super().__init__(response.status_code)
        self.status, self.said = response.status_code, said
        self.pause = _retry_after(response.headers.get("retry-after", ""))
        self.location = response.headers.get("location") if response.is_redirect else None


def _retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After asks for, which may be a number or a date; None if it asks nothing."""
    if value.strip().isdecimal():
        return float(value)
    with suppress(ValueError):
        at = parsedate_to_datetime(value)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None


def _words_of(body: bytes) -> str:
    """Return what an error's body says, in one short line; empty for a page that was made for people."""
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except ValueError:
        said = "" if text.lstrip().startswith("<") else text
    while isinstance(said, dict):
        said = next((said[name] for name in ("message", "error", "detail", "msg") if said.get(name)), "")
    if isinstance(said, list):  # FastAPI's: [{"loc": ["body", "prompt"], "msg": "Field required"}]
        said = "; ".join(
            f"{'.'.join(map(str, each.get('loc', [])))} {each.get('msg', '')}" if isinstance(each, dict) else str(each)
            for each in said
        )
    return " ".join(str(said).split())[:_SAID]


def _short(url: str) -> str:
    """Return *url* without what may be secret in it: a password, or a signature in the query."""
    parts = _split(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"[:200]


def _split(url: str) -> SplitResult:
    """Return the parts of *url*; no parts where it is no URL."""
    with suppress(ValueError):
        parts = urlsplit(url)
        _ = parts.port  # looked at only now, and may be no number
        return parts
    return urlsplit("")


def _is_address(host: str | None) -> bool:
    with suppress(ValueError):
        ip_address(host or "")
        return True
    return False


def _is_private(host: str | None) -> bool:
    """Say whether *host* is, by its name alone, this machine or its neighbourhood."""
    return host == "localhost" or (_is_address(host) and not ip_address(host or "").is_global)


def api(context: ToolContext, service: Service, patience: Patience, report: Report | None = None) -> Api:
    """Return the service as the tool that has *context* speaks to it."""
    return Api(service, patience, report or context.progress, context.logger)
