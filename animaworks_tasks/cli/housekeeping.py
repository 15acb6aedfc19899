"""``animaworks-tool doctor`` and ``prune``: whether the store is well, and what it may forget."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from animaworks_tasks.cli.basics import anima_dir, put, say
from animaworks_tasks.cli.stores import notice_language, open_store
from animaworks_tasks.cli.text import as_json
from animaworks_tasks.store.directory import Prunable, TaskStore
from animaworks_tasks.store.doctor import Doctor
from animaworks_tasks.store.findings import Finding, Severity, several
from animaworks_tasks.store.protocol import utc_now

_OLD: Final = timedelta(days=30)
_NAMED: Final = 20  # tasks


def doctor_(options: Namespace) -> int:
    """Print what is not as it should be, and mend it if asked to; 1 if there are problems left."""
    doctor = Doctor(anima_dir(options.anima_dir), language=notice_language(options))
    done = doctor.repair() if options.fix else []
    findings = doctor.examine()
    if options.json:
        put(as_json({"done": done, "findings": [_described(finding) for finding in findings]}))
    else:
        put("".join(f"{line}\n" for line in [*(f"fixed    {line}" for line in done), *_told(findings)]))
        if not findings:
            say("the store is well")
    return 1 if any(finding.severity is Severity.PROBLEM for finding in findings) else 0


def prune_(options: Namespace) -> int:
    """Forget old tasks and say which, and which not because nobody has read of them."""
    store = open_store(options, changing=True)
    age = _OLD if options.older_than is None and options.keep is None else options.older_than
    before = None if age is None else utc_now() - age
    unread = store.prunable(finished_before=before, keep=options.keep).unread
    if options.dry_run:
        forgotten: Sequence[str] = store.prunable(finished_before=before, keep=options.keep).forget
    else:
        forgotten = store.prune(finished_before=before, keep=options.keep)
    _report(store, Prunable(tuple(forgotten), unread), options)
    return 0


def _report(store: TaskStore, pruned: Prunable, options: Namespace) -> None:
    if options.json:
        put(as_json({"dry_run": options.dry_run, "forgotten": pruned.forget, "unread": pruned.unread}))
        return
    put("".join(f"{task_id}\n" for task_id in pruned.forget))
    verb = "would be" if options.dry_run else "was" if len(pruned.forget) == 1 else "were"
    say(f"{several(len(pruned.forget), 'task', 'tasks')} of {store.location} {verb} forgotten")
    if pruned.unread:
        more = " ..." if len(pruned.unread) > _NAMED else ""
        say(
            f"kept, because nobody has read the notice: {', '.join(pruned.unread[:_NAMED])}{more}; "
            "`animaworks-tool notifications --ack` reads them"
        )


def _told(findings: Sequence[Finding]) -> Iterator[str]:
    """Put problems first; two lines each: what is wrong, and the next step."""
    for finding in sorted(findings, key=lambda each: each.severity is not Severity.PROBLEM):
        mark = " (fix)" if finding.fixable else ""
        yield f"{finding.severity.value:<8} {finding.what}{mark}"
        yield f"{'':<8} {finding.todo}"


def _described(finding: Finding) -> dict[str, object]:
    return {
        "severity": finding.severity.value,
        "what": finding.what,
        "where": finding.where,
        "fixable": finding.fixable,
        "todo": finding.todo,
    }
