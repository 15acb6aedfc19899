r"""
JSON as our records are written: UTF-8, indent 2, non-ASCII kept, one newline at the end.

The same bytes as ``json.dumps(value, indent=2, ensure_ascii=False) + "\n"`` for every value we write (a property test
compares them), without importing :mod:`json`, which brings :mod:`re` along and takes longer than a durable submit. The
C parts of the standard library's JSON are used directly.
"""

from _json import encode_basestring, make_scanner


class _Scanning:
    """What the C scanner wants to know of its decoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")


_scan = make_scanner(_Scanning())  # type: ignore[arg-type]  # it has all that is asked of it


def dump(value: object) -> bytes:
    """
    Return *value* as one record.

    Raises:
        ValueError: A number is not finite, or a text has a lone surrogate (such bytes came from outside UTF-8).
        TypeError: A value is none of dict, list, tuple, str, int, float, bool and None.
    """
    return (_text(value, "\n") + "\n").encode("utf-8")


def dump_line(facts: dict[str, object]) -> bytes:
    """Return *facts* as one line; errors as for :func:`dump`."""
    pairs = [f"{encode_basestring(key)}: {_text(value, '')}" for key, value in facts.items()]
    return f"{{{', '.join(pairs)}}}\n".encode()


def load(data: bytes) -> object:
    """
    Return the value that *data* holds, for files that we wrote ourselves; others go through ``task/codec.py``.

    Raises:
        ValueError: It is not JSON.
    """
    text = data.decode("utf-8").strip()
    try:
        value, end = _scan(text, 0)
    except (StopIteration, SystemError, RecursionError):  # the second where json.decoder, with its error, is not loaded
        raise ValueError("it is not JSON, or nested too deep") from None
    if end != len(text):
        raise ValueError(f"more after the JSON value, at {end}")
    return value


def _text(value: object, newline: str) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if value - value != 0:  # inf and nan, without importing math
            raise ValueError(f"{value} is not JSON")
        return repr(value)
    inner = newline + "  "
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"keys are text, not {', '.join({type(key).__name__ for key in value} - {'str'})}")
        begin, items, end = "{", [f"{encode_basestring(key)}: {_text(item, inner)}" for key, item in value.items()], "}"
    elif isinstance(value, list | tuple):
        begin, items, end = "[", [_text(item, inner) for item in value], "]"
    else:
        raise TypeError(f"a record cannot hold {type(value).__name__}")
    return f"{begin}{inner}{f',{inner}'.join(items)}{newline}{end}" if items else begin + end
