"""
Draw the pictures in the README: the live view and the report, of tasks that really run.

    python docs/hooks/pictures.py

Needs rich, and chromium for the report.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from animaworks_tasks import Executor, Registry, State, TaskStore, ThreadBackend, ToolContext, ToolError
from animaworks_tasks.cli import main
from animaworks_tasks.cli.live import picture
from animaworks_tasks.cli.text import views_of

IMAGES = Path(__file__).resolve().parents[1] / "images"
_WIDTH, _HEIGHT = 132, 16  # columns and lines of the terminal
_PAGE = "1200,900"  # pixels
_WORKERS = 3
_gate = threading.Event()
registry = Registry()


@registry.tool("image_gen", "3d", expected_seconds=4)
def make_model(image: str, *, context: ToolContext) -> str:
    """Make a model of an image."""
    return _work(context, image, ("meshing", "texturing", "rigging"), 1.5)


@registry.tool("image_gen", "fullbody", expected_seconds=2)
def draw(prompt: str, *, context: ToolContext) -> str:
    """Draw an image."""
    if "dragon" in prompt:
        raise ToolError("the service has no credits left", hint="ask the operator to buy some")
    return _work(context, prompt, ("sketching", "inking"), 0.6)


@registry.tool("transcribe", "audio", expected_seconds=20)
def transcribe(recording: str, *, context: ToolContext) -> str:
    """Transcribe a recording."""
    return _work(context, recording, ("listening", "listening", "writing it down"), 1.0)


def _work(context: ToolContext, what: str, steps: tuple[str, ...], seconds: float) -> str:
    for number, step in enumerate(steps, start=1):
        context.progress(number / (len(steps) + 1), step)
        if number == len(steps) - 1 and "later" in what:
            _gate.wait()
        time.sleep(seconds)
    return f"{what}: done"


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)


def draw_pictures(anima: Path) -> None:
    """Draw both, of the tasks of an Anima in this directory."""
    store = TaskStore(anima, language="en")
    calls = (
        ("image_gen", "fullbody", "a girl with a red umbrella"),
        ("image_gen", "fullbody", "a dragon made of paper"),
        ("image_gen", "3d", "umbrella.png"),
        ("transcribe", "audio", "monday-standup.wav"),
        ("image_gen", "3d", "teapot-later.png"),
        ("transcribe", "audio", "interview-later.wav"),
        ("image_gen", "fullbody", "a cat asleep on a piano, later that day"),
        ("image_gen", "fullbody", "a lighthouse in fog"),
    )
    executor = Executor(store, registry, backend=ThreadBackend(), max_workers=_WORKERS).start()
    for call in calls:
        executor.submit_sync(*call)
    _until(lambda: len(store.list(State.DONE)) == len(calls) - _WORKERS - 1)  # and one waits
    time.sleep(2)
    console = Console(record=True, width=_WIDTH, height=_HEIGHT, file=sys.stderr, force_terminal=True)
    tasks = [task for state in (State.RUNNING, State.PENDING, State.DONE) for task in store.list(state)]
    console.print(picture(views_of(store, tasks), [], _WIDTH, _HEIGHT))
    console.save_svg(str(IMAGES / "live.svg"), title="animaworks-tool list --watch")
    _gate.set()
    _until(lambda: len(store.list(State.DONE)) == len(calls))
    executor.stop()
    page = anima / "report.html"
    main(["--anima-dir", str(anima), "report", "--html", str(page)])
    browser = shutil.which("chromium") or "chromium"
    subprocess.run(  # noqa: S603 - our own page
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={_PAGE}", "--hide-scrollbars",
            f"--screenshot={IMAGES / 'report.png'}", f"--user-data-dir={anima / 'browser'}", page.as_uri(),
        ],
        check=True, timeout=120,
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        draw_pictures(Path(directory) / "sakura")
