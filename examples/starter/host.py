"""A host: submits, goes on, and reads in a heartbeat what came of it. What a shell submits meanwhile runs too."""

import asyncio
from pathlib import Path

from tools.words import count, registry

from animaworks_tasks import Executor, TaskStore

HERE = Path(__file__).resolve().parent


async def main() -> None:
    async with Executor(TaskStore(HERE, language="en"), registry) as executor:
        task = await executor.submit(count, Path(__file__))  # typed; returns at once
        counts = await executor.result(task)  # a dict[str, int]; a task that failed raises here
        print(f"{counts['different']} different words")
        async with executor.drain_notifications(budget=4000) as drained:  # in every heartbeat
            print(drained.text)  # acknowledged when this block ends normally


if __name__ == "__main__":
    asyncio.run(main())
