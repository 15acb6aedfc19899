"""``animaworks-tool doctor`` and ``prune``: whether the store is well, and what it may forget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Final

from animaworks_tasks.cli.basics import anima_dir, put, say
from animaworks_tasks.cli.stores import notification_language, open_store
from animaworks_tasks.cli.text import as_json
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.render import MarkdownRenderer, several
from animaworks_tasks.store.check import check, fix
from animaworks_tasks.store.finding import Finding
from animaworks_tasks.store.place import Place
from animaworks_tasks.store.rules import utc_now

_OLD: Final = timedelta(days=30)
_NAMED: Final = 20  # tasks


def doctor_(options: SimpleNamespace) -> int:
    """Print what is wrong with the store, with ``--fix`` after mending it; return 1 if problems are left."""
    # No TaskStore, which would make what is missing, and refuses what it cannot use.
    render = MarkdownRenderer(notification_language(options))
    place = Place.at(Layout(anima_dir(options.anima_dir)), durable=True, render=render, clock=utc_now)
    done = fix(place) if options.fix else []
    findings = check(place)
    if options.json:
        put(as_json({"done": done, "findings": [_described(finding) for finding in findings]}))
    else:
        put("".join(f"{line}\n" for line in [*(f"fixed    {line}" for line in done), *_lines(findings)]))
        if not findings:
            say("the store is well")
    return 1 if any(finding.severity == "problem" for finding in findings) else 0


def prune_(options: SimpleNamespace) -> int:
    """Prune old tasks; print which, and which are kept because their notification is unread."""
    store = open_store(options, changing=True)
    age = _OLD if options.older_than is None and options.keep is None else options.older_than
    before = None if age is None else utc_now() - age
    prunable = store.prunable(finished_before=before, keep=options.keep)
    forgotten = prunable.forget if options.dry_run else store.prune(finished_before=before, keep=options.keep)
    unread = prunable.unread
    if options.json:
        put(as_json({"dry_run": options.dry_run, "forgotten": list(forgotten), "unread": unread}))
        return 0
    put("".join(f"{task_id}\n" for task_id in forgotten))
    verb = "would be" if options.dry_run else "was" if len(forgotten) == 1 else "were"
    say(f"{several(len(forgotten), 'task', 'tasks')} of {store.location} {verb} forgotten")
    if unread:
        named = ", ".join(unread[:_NAMED]) + (" ..." if len(unread) > _NAMED else "")
        say(f"kept, because nobody has read the notification: {named}; see `animaworks-tool notifications --ack`")
    return 0


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield two lines for each finding, problems first: what is wrong, and the next step."""
    for finding in sorted(findings, key=lambda each: each.severity != "problem"):
        mark = "" if finding.mend is None else " (fix)"
        yield f"{finding.severity:<8} {finding.what}{mark}"
        yield f"{'':<8} {finding.todo}"


def _described(finding: Finding) -> dict[str, object]:
    facts = {name: getattr(finding, name) for name in ("severity", "what", "where", "todo")}
    return {**facts, "fixable": finding.mend is not None}
