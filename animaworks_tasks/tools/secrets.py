"""
Keeps credentials out of what the agent reads: a tool may print its environment, or an error may quote a key.

Only values that this process knows can be found: those of environment variables whose names look like credentials. They
are replaced in results, errors and progress before these are recorded or cut; the log keeps what the tool wrote.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

_LOOKS_LIKE_ONE: Final = re.compile(
    r"(?:^|_)(?:KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)(?:_|$)", re.IGNORECASE
)
_ESCAPED: Final = frozenset("\"'\\")
_SHORTEST: Final = 8  # characters; a shorter value stands in innocent texts too often to be replaced


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """Return *text* with the values of variables that look like credentials replaced by ``[NAME]``."""
    secrets = [
        (form, name)
        for name, value in environment.items()
        if len(value) >= _SHORTEST and _LOOKS_LIKE_ONE.search(name)
        for form in _forms(value)
        if len(form) >= _SHORTEST and form in text
    ]
    for form, name in sorted(secrets, key=lambda pair: -len(pair[0])):  # one may be the beginning of another
        text = text.replace(form, f"[{name}]")
    return text


def words_without_secrets(words: Iterable[str]) -> tuple[str, ...]:
    """Return the *words* of a call, each as :func:`without_secrets` returns it, by the environment of this process."""
    return tuple(without_secrets(word, os.environ) for word in words)


def _forms(value: str) -> set[str]:
    """Return how *value* may appear in a text: as it is, and as JSON and Python write it, which escape some of it."""
    forms = {value, value.strip()}  # a key read from a file ends with a line end, which is removed before it is sent
    if value.isascii() and value.isprintable() and not _ESCAPED.intersection(value):
        return forms
    import json  # here, because most keys are plainer

    ways: tuple[Callable[[str], str], ...] = (json.dumps, partial(json.dumps, ensure_ascii=False), repr)
    return forms | {write(form)[1:-1] for form in forms for write in ways}
