"""A report in a real browser: it opens without a complaint, and the numbers there are those of ``list -j``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from animaworks_tasks import Cause, TaskStore
from animaworks_tasks.cli import main
from animaworks_tasks.cli.text import duration
from animaworks_tasks.task.states import Event
from tests.cli.test_report import Document
from tests.conftest import begin, own

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium is installed (Debian: apt-get install chromium)"),
]


def opened(page: Path, profile: Path) -> tuple[Document, str]:
    """Open *page*; return the document as the browser has it, and all that it said on its console."""
    assert BROWSER is not None
    quiet = ("gpu", "quic", "background-networking", "component-update", "sync")
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{each}" for each in quiet),
            f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "CONSOLE" in line]
    # What a browser writes down has no slash in elements that have no content.
    markup = re.sub(rb"<(line|rect)( [^>]*)></\1>", rb"<\1\2/>", done.stdout)
    return Document(markup), "\n".join(said)


def test_a_report_opens_in_a_browser_and_says_what_list_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a store with tasks of every kind, and a hostile one
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    store = TaskStore(tmp_path / "mei", durability="process", language="en")
    for cause in (Cause.TOOL, Cause.TIMEOUT, Cause.TOOL):
        store.finish(begin(store), Event.FAIL, cause=cause, error="<script>document.title = 'taken'</script>")
    for _ in range(3):
        store.finish(begin(store), Event.COMPLETE, result="<img src=x onerror=alert(1)>")
    store.request_cancel(store.submit("web", "fetch").id)
    own(store, store.submit("image_gen", "3d", expected_seconds=0).id)
    store.submit("web", "fetch")
    assert 0 == main(["report", "--html", str(tmp_path / "report.html")])
    capsys.readouterr()
    assert 0 == main(["list", "--all", "-j"])
    listed = json.loads(capsys.readouterr().out)

    # when
    page, said = opened(tmp_path / "report.html", tmp_path / "profile")

    # then
    assert "" == said
    assert "Tasks of mei" == page.all("title")[0].text
    assert [] == page.all("script") == page.all("img")

    def shown(name: str) -> int:
        return int(page.by_id(f"count-{name}").text)

    for key, names in (("state", ("running", "pending")), ("outcome", ("completed", "failed", "cancelled"))):
        for name in names:
            assert sum(each[key] == name for each in listed) == shown(name) > 0
    assert (sum(each["overdue"] for each in listed), len(listed)) == (shown("overdue"), shown("all"))
    rows = {row.attributes["id"]: row.text for row in page.all("tr") if "id" in row.attributes}
    assert [f"task-{each['task_id']}" for each in listed] == list(rows)
    for each in listed:
        row = rows[f"task-{each['task_id']}"]
        assert f"{each['tool']}:{each['subcommand']}" in row
        assert each["outcome"] is None or each["outcome"] in row
        assert each["state"] != "done" or each["started_at"] is None or duration(each["seconds"]) in row
        assert each["cause"] is None or f"{each['cause']}: <script>" in row


def test_a_browser_would_have_complained(tmp_path: Path) -> None:
    """What the test above sees nothing of, it would have seen."""
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><html><head>{policy}<style>p {{}}</style></head></html>")
    _, said = opened(tmp_path / "bad.html", tmp_path / "profile")
    assert "Content Security Policy" in said
