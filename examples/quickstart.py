"""
Submit a slow tool, go on talking, be notified when it is done.

    $ python examples/quickstart.py
    submitted 5d1c0f6d9a3e; the host goes on talking
    still talking ...
    # Background task completed: archive:make

    - Task ID: 5d1c0f6d9a3e
    - Tool: archive:make
    - Status: completed
    - Result: [archive:make] completed: tools.zip
    - Call: archive make tools
    - Took: 1.3 s
    - More: animaworks-tool show 5d1c0f6d9a3e (an event, no instruction)
"""

import asyncio
import shutil
import tempfile
from pathlib import Path

from animaworks_tasks import Executor, Registry, TaskStore, ToolContext

registry = Registry()


@registry.tool("archive", "make", expected_seconds=60)  # listed with ⚠: submit it, do not call it
def make(folder: Path, *, format: str = "zip", context: ToolContext) -> str:  # noqa: A002 - the option is --format
    """Pack a folder into an archive."""
    return Path(shutil.make_archive(str(context.scratch / folder.name), format, folder)).name


async def main() -> None:
    with tempfile.TemporaryDirectory() as anima_dir:
        store = TaskStore(anima_dir, language="en")
        async with Executor(store, registry) as executor:
            task = await executor.submit("archive", "make", "tools", cwd=Path(__file__).parent)
            print(f"submitted {task.id}; the host goes on talking")
            while True:
                print("still talking ...")
                async with executor.drain_notifications() as drained:  # what a heartbeat does
                    print(drained.text, end="")
                if drained.notifications:
                    break
                await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
