"""
Pages that are not files of docs/: the documents at the root, and the command line's help.

Each document has one source, written so that its links work where the repository is shown; here they are led to the
page, or to a copy of the file, that the site has of it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

import diagrams
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from animaworks_tasks.cli.commands import COMMANDS
from animaworks_tasks.cli.parser import help_of, overview

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_ELSEWHERE: Final = {  # documents outside of docs/, and their pages
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
_SOURCES: Final = {page: document for document, page in _ELSEWHERE.items()}
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_TEXT: Final = (".md", ".py", ".toml")  # what a browser would not show, but for its name
_CELL: Final = re.compile(r"<td\b.*?</td>", re.DOTALL)
_MERMAID: Final = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of other files, and what they name."""
    for document, page in _ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(_ROOT / document)))
    files.append(File.generated(config, "cli.md", content=_command_line()))
    for file in list(files.documentation_pages()):
        for _, path, _ in _LINK.findall(file.content_string):
            target = _target(file.src_uri, path)
            if target and _page(target) is None and (_ROOT / target).is_file():
                copy = File.generated(config, _copy(target), abs_src_path=str(_ROOT / target))
                if copy.src_uri not in files.src_uris:
                    files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links to where the site has what they name, and draw diagrams. mkdocs finds the links that lead nowhere."""
    here = page.file.src_uri

    def link(found: re.Match[str]) -> str:
        text, path, anchor = found.groups(default="")
        target = _target(here, path)
        if target is None or not (_ROOT / target).exists():  # or no link: an index and a call, in a program
            return found[0]
        if (_ROOT / target).is_dir():  # which the site cannot show
            return text
        place = _page(target) or _copy(target)
        return f"[{text}]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{anchor})"

    return _MERMAID.sub(lambda found: diagrams.draw(found[1]), _LINK.sub(link, markdown))


def on_page_content(content: str, **_: object) -> str:
    """Show a bar in code in a table as GitHub does: what keeps it from ending the cell is no part of it."""
    return _CELL.sub(lambda found: found[0].replace(r"\|", "|"), content)


def _target(page: str, path: str) -> str | None:
    """Return the file that a link on *page* names, relative to the root; None where the link is fine as it is."""
    document = _SOURCES.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(document), path))
    return None if document.startswith("docs/") and target.startswith("docs/") else target


def _page(document: str) -> str | None:
    inside = document.removeprefix("docs/")
    return _ELSEWHERE.get(document, inside if inside != document else None)


def _copy(document: str) -> str:
    return f"source/{document}" + (".txt" if document.endswith(_TEXT) else "")


# The command line.


def _command_line() -> str:
    return "\n\n".join(["# Command line", _verbatim(overview()), *map(_section, COMMANDS)])


def _section(name: str) -> str:
    return f"## {name}\n\n{_verbatim(help_of(name))}"


def _verbatim(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
