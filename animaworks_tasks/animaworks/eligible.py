"""Which tools are to be submitted, and how long they take: defaults, profiles and configuration in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from animaworks_tasks.tools.profile import UNKNOWN_TIME

DEFAULT_ELIGIBLE_TOOLS: Final[Mapping[str, int]] = {
    # by the names of their schemas, as a model calls them
    "generate_character_assets": 1800,
    "generate_fullbody": 120,
    "generate_bustup": 120,
    "generate_icon": 120,
    "generate_chibi": 120,
    "generate_3d_model": 600,
    "generate_rigged_model": 600,
    "generate_animations": 600,
    "local_llm": 300,
    "run_command": 60,
    # by tool and subcommand, as a shell submits them
    "image_gen:pipeline": 1800,
    "image_gen:fullbody": 120,
    "image_gen:bustup": 120,
    "image_gen:icon": 120,
    "image_gen:chibi": 120,
    "image_gen:3d": 600,
    "image_gen:rigging": 600,
    "image_gen:animations": 600,
    "local_llm:generate": 300,
    "local_llm:chat": 300,
    "transcribe:audio": 120,
    "machine:run": 600,
    "chatwork:sync": 60,
    "chatwork:download": 60,
}
"""What is submitted where neither a profile nor the configuration says otherwise, and how many seconds it takes."""


def eligible_tools(profiles: Mapping[str, object], config: Mapping[str, int]) -> dict[str, int]:
    """Return seconds by name: the defaults, overridden by *profiles*, and those by *config*."""
    eligible = dict(DEFAULT_ELIGIBLE_TOOLS)
    for key, facts in _facts(profiles):
        seconds = facts.get("expected_seconds")
        eligible.pop(key, None)
        if facts.get("background_eligible"):
            eligible[key] = int(seconds) if isinstance(seconds, int | float) else UNKNOWN_TIME
    eligible.update(config)
    return eligible


def _facts(profiles: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for tool, subcommands in profiles.items():
        for subcommand, facts in subcommands.items() if isinstance(subcommands, Mapping) else ():
            if isinstance(facts, Mapping):
                yield f"{tool}:{subcommand}", facts
