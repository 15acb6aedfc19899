"""
Keeps credentials out of what the agent reads: a tool may print its environment, or an error may quote a key.

Only values that this process knows can be found: those of environment variables whose names look like credentials. They
are replaced in results and errors before these are recorded; the log and a result's own file keep what the tool wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_LOOKS_LIKE_ONE: Final = re.compile(
    r"(?:^|_)(?:KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)(?:_|$)", re.IGNORECASE
)
_SHORTEST: Final = 8  # characters; a shorter value stands in innocent texts too often to be replaced


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """Return *text* with the values of variables that look like credentials replaced by ``[NAME]``."""
    secrets = [
        (value, name)
        for name, value in environment.items()
        if len(value) >= _SHORTEST and _LOOKS_LIKE_ONE.search(name) and value in text
    ]
    for value, name in sorted(secrets, key=lambda pair: -len(pair[0])):  # one may be the beginning of another
        text = text.replace(value, f"[{name}]")
    return text
