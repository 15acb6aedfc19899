r"""
A tiny Anima: it beats its heart while its tools run elsewhere, and reads in the next beat what became of them.

With an audio file, it submits a transcription of that to itself, as an agent would, and stops when it was notified of
the end; without one, it beats until Ctrl-C, and takes what is submitted from a second terminal.

    $ python examples/anima.py examples/hello.wav
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import sysconfig
import time
from pathlib import Path

from animaworks_tasks import Executor, Registry, TaskStore, load_directory

HERE = Path(__file__).resolve().parent
DEFAULT_DIR = Path.home() / ".animaworks" / "animas" / "example"


async def main(arguments: argparse.Namespace) -> int:
    store = TaskStore(arguments.anima_dir, language=arguments.language)
    registry = Registry()
    load_directory(registry, HERE / "tools")
    async with Executor(store, registry) as executor:
        print(f"this Anima lives in {store.location}")
        heart = Heart(executor, arguments.beat)
        beating = asyncio.create_task(heart.beat())
        if arguments.audio is None:
            print("give it work from a second terminal:")
            print(f"    export ANIMAWORKS_ANIMA_DIR={store.location}")
            print(f"    animaworks-tool submit transcribe audio {HERE / 'hello.wav'}", flush=True)
            await beating  # until Ctrl-C
        receipt = await submit(store.location, "transcribe", "audio", str(arguments.audio))
        if receipt != 0:
            return receipt
        await heart.notified.wait()
        beating.cancel()
        print(f"{heart.count} beats, the latest of them {1000 * heart.latest:.1f} ms late")
        return 0


class Heart:
    """Beats at a steady pace, prints each beat and how late it was, and drains what waits into the agent's prompt."""

    def __init__(self, executor: Executor, interval: float) -> None:
        self.count, self.latest = 0, 0.0
        self.notified = asyncio.Event()
        self._executor, self._interval = executor, interval

    async def beat(self) -> None:
        due = time.monotonic()
        while True:
            late = time.monotonic() - due
            self.count, self.latest = self.count + 1, max(self.latest, late)
            print(f"beat {self.count:3}  ({1000 * late:4.1f} ms late)", flush=True)
            async with self._executor.drain_notifications(budget=8000) as drained:
                for line in drained.text.splitlines():
                    print("    " + line, flush=True)
            if drained.notifications:
                self.notified.set()
            due += self._interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def submit(anima_dir: str, *argv: str) -> int:
    """Do what the agent does: type a command, read the receipt, go on."""
    command = Path(sysconfig.get_path("scripts"), "animaworks-tool")
    environment = {**os.environ, "ANIMAWORKS_ANIMA_DIR": anima_dir}
    print("$ animaworks-tool submit", *argv, flush=True)
    shell = await asyncio.create_subprocess_exec(command, "submit", *argv, env=environment)
    return await shell.wait()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("audio", nargs="?", type=Path, help="a WAV file to transcribe; without one, beat until Ctrl-C")
    parser.add_argument("--anima-dir", default=os.environ.get("ANIMAWORKS_ANIMA_DIR") or DEFAULT_DIR)
    parser.add_argument("--beat", type=float, default=0.5, help="seconds from beat to beat (%(default)s)")
    parser.add_argument("--language", choices=["ja", "en"], default="en", help="of what it reads (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse())))
    except KeyboardInterrupt:
        print("bye; what still runs goes on, and its notifications wait for this Anima")
