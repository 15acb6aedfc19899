"""
Servers on this machine that speak the protocols of the services which the examples use, well and badly.

A :class:`Loopback` plays one of them: :class:`Meshy`, :class:`Flux`, :class:`NovelAI` or :class:`Ollama`. They have the
services' own manners; a *scenario*, which travels in the prompt, the picture or the name of the model, may put other
answers in front of the usual ones.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import sys
import threading
import zipfile
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

import attrs

from tests.processes import PATIENCE

PNG: Final = b"\x89PNG\r\n\x1a\n"
PNG_END: Final = b"IEND\xaeB`\x82"


def png(scenario: str = "") -> bytes:
    """Return what begins and ends as a PNG does, and names a scenario."""
    return PNG + f"<{scenario}>".encode() + PNG_END


def glb(name: str = "", *, promised: int = 0) -> bytes:
    """Return what begins as a GLB does; *promised* bytes more than there are."""
    rest = f"<{name}>".encode()
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(rest) + promised).to_bytes(4, "little") + rest


def zipped(data: bytes, name: str = "image_0.png") -> bytes:
    """Return a zip of one file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return packed.getvalue()


@attrs.frozen
class Request:
    """What came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever JSON can say
        return json.loads(self.body)


@attrs.frozen
class Answer:
    """
    What goes back.

    Attributes:
        body: Bytes as they are, anything else as JSON, an iterator piece by piece.
        cut: Hang up after so many bytes, of which more were promised.
    """

    body: object = b""
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    cut: int | None = None


class Loopback:
    """
    A server on a free port.

    Attributes:
        service: Whom it plays.
        url: Where it is.
        requests: What came, in order.
        hung_up: Set once a client has hung up while it was still being answered.
        closing: Set when the server is to end; an answer that waits looks at it.
        faults: What went wrong in here, which a client may have taken for a bad server; the test fails by it.
    """

    def __init__(self, service: Scripted) -> None:
        self.service = service
        self.requests: list[Request] = []
        self.faults: list[BaseException] = []
        self.hung_up, self.closing = threading.Event(), threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.faults = self.faults
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()
        assert [] == self.faults

    def paths(self, method: str) -> list[str]:
        """Return the paths that were asked for by *method*."""
        return [request.path for request in self.requests if request.method == method]

    def silence(self) -> Answer:
        """Say nothing until the client has had enough, or the test has ended."""
        self.closing.wait(PATIENCE)
        return Answer(status=503)

    def _handler(loopback) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's self is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                loopback.requests.append(request)
                with _noticing(loopback.hung_up):
                    self._send(loopback.service(loopback, request))
                self.close_connection = True

            do_POST = do_GET  # noqa: N815 - as above

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                if isinstance(answer.body, Iterator):
                    self.end_headers()
                    for piece in answer.body:
                        self.wfile.write(piece)
                        self.wfile.flush()
                    return
                data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: answer.cut])

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    faults: list[BaseException]

    def handle_error(self, *_: object) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):  # which the tests break, and their clients
            self.faults.append(error)


@contextlib.contextmanager
def _noticing(hung_up: threading.Event) -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        hung_up.set()


Script = Mapping[str, Sequence[Answer | Callable[[Loopback, Request], Answer]]]


class Scripted(ABC):
    """
    A service with a script: for a scenario, answers that go before the usual ones, one per request.

    Attributes:
        key: What it accepts as a key.
        script: By method and scenario, the answers that are still to come before the usual ones.
    """

    def __init__(self, script: Script | None = None, *, key: str = "right-key-0123456789") -> None:
        self.key = key
        self.script = {name: list(answers) for name, answers in (script or {}).items()}
        self._turn = threading.Lock()

    def __call__(self, server: Loopback, request: Request) -> Answer:
        refusal = self.refusal(request)
        if refusal is not None:
            return refusal
        scenario = self.scenario(request)
        with self._turn:
            waiting = self.script.get(f"{request.method} {scenario}") or []
            scripted = waiting.pop(0) if waiting else None
        if scripted is None:
            return self.usual(server, request, scenario)
        return scripted if isinstance(scripted, Answer) else scripted(server, request)

    @abstractmethod
    def refusal(self, request: Request) -> Answer | None:
        """Return what a service says to a caller without a key for it, say."""

    @abstractmethod
    def scenario(self, request: Request) -> str:
        """Return which of the scripts the request belongs to."""

    @abstractmethod
    def usual(self, server: Loopback, request: Request, scenario: str) -> Answer:
        """Answer where nothing is scripted."""


class Meshy(Scripted):
    """https://docs.meshy.ai: PENDING, IN_PROGRESS, SUCCEEDED. A task's id ends with a number; its scenario is kept."""

    def __init__(self, script: Script | None = None, **options: str) -> None:
        super().__init__(script, **options)
        self.scenarios: dict[str, str] = {}
        self.looks: dict[str, int] = defaultdict(int)

    def refusal(self, request: Request) -> Answer | None:
        if request.path.startswith("/openapi/") and request.headers.get("authorization") != f"Bearer {self.key}":
            return Answer({"message": "Invalid API key"}, 401)
        return None

    def scenario(self, request: Request) -> str:
        if request.method == "GET":
            return self.scenarios.get(_last(request.path).removesuffix(".glb"), "")
        body = request.json
        given = str(body.get("image_url") or body.get("model_url") or "")
        found = re.search(rb"<([^>]*)>", base64.b64decode(given.partition(",")[2]))
        # A task that is made from another one is part of the same story.
        return (
            found[1].decode() if found else self.scenarios.get(body.get("input_task_id") or body.get("rig_task_id"), "")
        )

    def usual(self, server: Loopback, request: Request, scenario: str) -> Answer:
        name = _last(request.path)
        if request.method == "POST":
            new = f"018a210d-8ba4-705c-b111-{len(self.scenarios) + 1:012d}"
            self.scenarios[new] = scenario
            return Answer({"result": new}, 202)
        if request.path.startswith("/files/"):
            return Answer(glb(scenario))
        if name not in self.scenarios:
            return Answer({"message": "Task not found"}, 404)
        self.looks[name] += 1
        if self.looks[name] == 1:
            return Answer(task(name, "PENDING", 0, preceding_tasks=2))
        if self.looks[name] == 2:
            return Answer(task(name, "IN_PROGRESS", 40))
        return ready(server, request)


def _last(path: str) -> str:
    return path.partition("?")[0].rpartition("/")[2]


def task(name: str, status: str, progress: int, **more: object) -> dict[str, object]:
    """Return what Meshy says of a task."""
    return {"id": name, "status": status, "progress": progress, "task_error": {"message": ""}, **more}


def ready(server: Loopback, request: Request) -> Answer:
    """Say of the task that *request* looks at that it has a file."""
    name = _last(request.path)
    url = f"{server.url}/files/{name}.glb?Signature=secret"
    if "image-to-3d" in request.path:
        return Answer(task(name, "SUCCEEDED", 100, model_urls={"glb": url}))
    field = "rigged_character_glb_url" if "rigging" in request.path else "animation_glb_url"
    return Answer(task(name, "SUCCEEDED", 100, result={field: url}))


class NovelAI(Scripted):
    """https://image.novelai.net/docs: a zip with the picture, whose scenario is the first word of the prompt."""

    def refusal(self, request: Request) -> Answer | None:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return Answer({"statusCode": 401, "message": "Invalid accessToken"}, 401)
        return None

    def scenario(self, request: Request) -> str:
        return str(request.json["input"]).partition(",")[0]

    def usual(self, _server: Loopback, _request: Request, scenario: str) -> Answer:
        return Answer(zipped(png(scenario)), headers={"Content-Type": "application/x-zip-compressed"})


class Flux(Scripted):
    """https://docs.bfl.ai: Pending, then Ready. The scenario is the first word of the prompt."""

    def __init__(self, script: Script | None = None, **options: str) -> None:
        super().__init__(script, **options)
        self.looks: dict[str, int] = defaultdict(int)
        self.scenarios: list[str] = []

    def refusal(self, request: Request) -> Answer | None:
        if request.path.startswith("/v1/") and request.headers.get("x-key") != self.key:
            return Answer({"detail": "Not authenticated - Invalid Authentication"}, 403)
        return None

    def scenario(self, request: Request) -> str:
        if request.method == "GET":
            return self.scenarios[int(re.split(r"[=/.]", request.path)[-1])]
        return str(request.json["prompt"]).partition(",")[0]

    def usual(self, server: Loopback, request: Request, scenario: str) -> Answer:
        if request.method == "POST":
            self.scenarios.append(scenario)
            number = len(self.scenarios) - 1
            return Answer({"id": str(number), "polling_url": f"{server.url}/v1/get_result?id={number}"})
        if request.path.startswith("/sample/"):
            return Answer(png(scenario))
        self.looks[request.path] += 1
        if self.looks[request.path] == 1:
            return Answer({"status": "Pending", "progress": 0.5, "result": None})
        number = request.path.partition("=")[2]
        return Answer({"status": "Ready", "result": {"sample": f"{server.url}/sample/{number}"}})


class Ollama(Scripted):
    """https://github.com/ollama/ollama/blob/main/docs/api.md: a line per token. The scenario is the model's name."""

    def __init__(self, script: Script | None = None, *, says: Iterable[str] = ("The sky", " is", " blue.")) -> None:
        super().__init__(script)
        self.models = ["llama3.2:latest", "qwen3:8b"]
        self._says = list(says)

    def refusal(self, _request: Request) -> Answer | None:
        return None

    def scenario(self, request: Request) -> str:
        return "" if request.method == "GET" else str(request.json["model"])

    def usual(self, _server: Loopback, request: Request, scenario: str) -> Answer:
        if request.path == "/api/tags":
            return Answer({"models": [{"name": name} for name in self.models]})
        if scenario == "no-such-model":
            return Answer({"error": f"model '{scenario}' not found"}, 404)
        chats = request.path == "/api/chat"
        return Answer(iter([*(token(word, chats=chats) for word in self._says), done(len(self._says), chats=chats)]))


def token(text: str, *, chats: bool = False, **more: object) -> bytes:
    """Return the line that brings *text*."""
    said = {"message": {"role": "assistant", "content": text}} if chats else {"response": text}
    return (
        json.dumps({"model": "m", "created_at": "2026-01-01T00:00:00Z", **said, "done": False, **more}).encode() + b"\n"
    )


def done(count: int, *, chats: bool = False, reason: str = "stop") -> bytes:
    """Return the line that ends an answer."""
    return token("", chats=chats, done=True, done_reason=reason, eval_count=count)


def endless(server: Loopback, _request: Request) -> Answer:
    """Answer with one token after the other until the client hangs up."""

    def tokens() -> Iterator[bytes]:
        while not server.closing.wait(0.005):  # a model's own pace; nobody waits for a number of them
            yield token("blah ")

    return Answer(tokens())


def silent(server: Loopback, _request: Request) -> Answer:
    """Say nothing."""
    return server.silence()
