"""Which tools to submit, and how long they take: defaults, profiles and configuration in one table."""

from collections.abc import Iterator, Mapping
from typing import Final

from animaworks_tasks.tools.profile import UNKNOWN_TIME

# "tool:subcommand" as a shell submits it, or else the name of the schema as a model calls it
_SLOW: Final[Mapping[int, tuple[str, ...]]] = {
    1800: ("generate_character_assets", "image_gen:pipeline"),
    600: ("generate_3d_model", "generate_rigged_model", "generate_animations", "machine:run",
          "image_gen:3d", "image_gen:rigging", "image_gen:animations"),
    300: ("local_llm", "local_llm:generate", "local_llm:chat"),
    120: ("generate_fullbody", "generate_bustup", "generate_icon", "generate_chibi", "transcribe:audio",
          "image_gen:fullbody", "image_gen:bustup", "image_gen:icon", "image_gen:chibi"),
    60: ("run_command", "chatwork:sync", "chatwork:download"),
}  # fmt: skip

DEFAULT_ELIGIBLE_TOOLS: Final[Mapping[str, int]] = {name: seconds for seconds, names in _SLOW.items() for name in names}
"""The tools to submit unless a profile or the configuration says otherwise, with their seconds."""


def eligible_tools(profiles: Mapping[str, object], config: Mapping[str, int]) -> dict[str, int]:
    """Return seconds by name: the defaults, overridden by *profiles*, then by *config*."""
    eligible = dict(DEFAULT_ELIGIBLE_TOOLS)
    for key, facts in _facts(profiles):
        seconds = facts.get("expected_seconds")
        eligible.pop(key, None)
        if facts.get("background_eligible"):
            eligible[key] = int(seconds) if isinstance(seconds, int | float) else UNKNOWN_TIME
    return {**eligible, **config}


def _facts(profiles: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for tool, subcommands in profiles.items():
        for subcommand, facts in subcommands.items() if isinstance(subcommands, Mapping) else ():
            if isinstance(facts, Mapping):
                yield f"{tool}:{subcommand}", facts
