"""``animaworks-tool completion``: the script with which a shell completes; ``complete.py`` answers what it asks."""

from __future__ import annotations

from argparse import Namespace
from importlib import resources

from animaworks_tasks.cli.basics import put
from animaworks_tasks.cli.text import as_json


def completion_(options: Namespace) -> int:
    """Print the script."""
    script = resources.files(__package__).joinpath(f"completion.{options.shell}").read_text(encoding="utf-8")
    put(as_json({"shell": options.shell, "script": script}) if options.json else script)
    return 0
