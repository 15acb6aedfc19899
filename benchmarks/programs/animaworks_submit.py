"""
AnimaWorks' own submit, re-enacted: ``animaworks_submit.py TOOL ARGS...``; the Anima is in ANIMAWORKS_ANIMA_DIR.

What its command line imports before it looks at the command, three directories searched for tools, and one plain write.
Left out, so that it is rather faster here: its package's own imports, and that of the tool's module for a warning.
"""

import argparse  # noqa: F401 - its dispatch has it
import json
import logging
import os
import sys
import time
import uuid
from pathlib import Path

logger = logging.getLogger("animaworks.tools")


def main(tool: str, *arguments: str) -> None:
    anima = Path(os.environ["ANIMAWORKS_ANIMA_DIR"])
    for directory in (Path(__file__).parent, Path.home() / ".animaworks" / "common_tools", anima / "tools"):
        sorted(directory.glob("*.py"))
    task_id = uuid.uuid4().hex[:12]
    subcommand = next((word for word in arguments if not word.startswith("-")), "")
    pending = anima / "state" / "background_tasks" / "pending"
    pending.mkdir(parents=True, exist_ok=True)
    record = {
        "task_id": task_id,
        "tool_name": tool,
        "subcommand": subcommand,
        "raw_args": arguments,
        "anima_name": anima.name,
        "anima_dir": str(anima),
        "submitted_at": time.time(),
        "status": "pending",
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    (pending / f"{task_id}.json").write_text(text, encoding="utf-8")
    receipt = {"task_id": task_id, "status": "submitted", "tool": tool, "subcommand": subcommand}
    print(json.dumps(receipt, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
