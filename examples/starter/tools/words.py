"""A tool: a typed function. Every host of this directory finds it, because it stands in ``tools/``."""

from pathlib import Path

from animaworks_tasks import BadArgument, Registry, ToolContext

registry = Registry()


@registry.tool("words", "count", expected_seconds=60)  # listed with ⚠: submit it, do not call it
def count(file: Path, *, longest: int = 20, context: ToolContext) -> dict[str, int]:
    """Count the words of a text file."""
    if not file.is_file():
        raise BadArgument(f"{file} is not a file", hint="name a text file")
    lines = file.read_text(encoding="utf-8").splitlines()
    words: list[str] = []
    for number, line in enumerate(lines, start=1):
        context.raise_if_cancelled()  # where it may be stopped
        context.progress(number / len(lines), f"line {number}")
        words += [word[:longest] for word in line.split()]
    return {"words": len(words), "different": len(set(words))}
