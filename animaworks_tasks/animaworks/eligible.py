"""Which tools to submit, and how long they take: defaults, profiles and configuration in one table."""

from collections.abc import Mapping
from typing import Final

from animaworks_tasks.tools.profile import UNKNOWN_TIME

# Names and seconds as in AnimaWorks 0.11: what a model calls by its schema, and no profile knows.
DEFAULT_ELIGIBLE_TOOLS: Final[Mapping[str, int]] = {
    "generate_character_assets": 30,
    "generate_fullbody": 30,
    "generate_bustup": 30,
    "generate_icon": 30,
    "generate_chibi": 30,
    "generate_3d_model": 30,
    "generate_rigged_model": 30,
    "generate_animations": 30,
    "local_llm": 60,
    "run_command": 60,
    "machine_run": 600,
}
"""The tools to submit whatever the profiles say, with their seconds; those of profiles are ``tool:subcommand``."""


def eligible_tools(profiles: Mapping[str, object], config: Mapping[str, int]) -> dict[str, int]:
    """Return seconds by name: the defaults, what *profiles* mark, and *config*, which overrides both."""
    eligible = dict(DEFAULT_ELIGIBLE_TOOLS)
    for tool, subcommands in profiles.items():
        for subcommand, facts in subcommands.items() if isinstance(subcommands, Mapping) else ():
            if isinstance(facts, Mapping) and facts.get("background_eligible"):
                seconds = facts.get("expected_seconds")
                eligible[f"{tool}:{subcommand}"] = int(seconds) if isinstance(seconds, int | float) else UNKNOWN_TIME
    return {**eligible, **config}
