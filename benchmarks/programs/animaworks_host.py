"""
AnimaWorks' own way with pending tasks, re-enacted: a look every 3 s, a thread per task, plain writes.

``animaworks_host.py DIRECTORY`` runs it as a program. A descriptor is read and unlinked, the tool runs in the loop's
thread pool, and its record is written when it starts and over it when it ends, with a notification.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.programs.tools import mark, nothing

INTERVAL: Final = 3.0  # seconds
TOOLS: Final[dict[str, Callable[..., object]]] = {"mark": mark, "nothing": nothing}


async def watch(anima: Path, *, stop_after: int | None = None) -> None:
    """Run what is pending; for ever, or until so many tasks have ended."""
    pending = prepare(anima)
    ended = 0
    while stop_after is None or ended < stop_after:
        tasks = []
        for path in sorted(pending.glob("*.json")):
            descriptor = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
            tasks.append(asyncio.create_task(_run(anima, descriptor)))
        ended += len(await asyncio.gather(*tasks)) if stop_after is not None else 0
        if stop_after is None or ended < stop_after:
            await asyncio.sleep(INTERVAL)


def prepare(anima: Path) -> Path:
    """Make the directories, and return the one in which tasks wait."""
    pending = anima / "state" / "background_tasks" / "pending"
    pending.mkdir(parents=True, exist_ok=True)
    (anima / "state" / "background_notifications").mkdir(exist_ok=True)
    return pending


async def _run(anima: Path, descriptor: dict[str, Any]) -> None:
    subcommand, *arguments = descriptor["raw_args"]
    record = {**descriptor, "status": "running", "result": None, "completed_at": None}
    _save(anima, record)
    result = await asyncio.get_running_loop().run_in_executor(None, TOOLS[subcommand], *arguments)
    record |= {"status": "completed", "result": result, "completed_at": time.time()}
    _save(anima, record)
    notice = f"# バックグラウンドタスク完了: {record['tool_name']}\n\n- タスクID: {record['task_id']}\n"
    (anima / "state" / "background_notifications" / f"{record['task_id']}.md").write_text(notice, encoding="utf-8")


def _save(anima: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    (anima / "state" / "background_tasks" / f"{record['task_id']}.json").write_text(text, encoding="utf-8")


async def main(directory: str) -> None:
    prepare(Path(directory))
    watcher = asyncio.create_task(watch(Path(directory)))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    watcher.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
