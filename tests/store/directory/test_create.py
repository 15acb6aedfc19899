"""A store comes to be only where nobody else could have put something in its place meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks.errors import StoreError
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store import enqueue


def test_what_was_put_there_after_we_had_looked_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given somebody who moves a tree of his own into place at the worst moment
    prepared, layout, look = TaskStore(tmp_path / "prepared").layout, Layout(tmp_path / "mei"), enqueue.doubts
    Path(prepared.root).chmod(0o777)

    def looked(*words: object, **options: object) -> list[object]:
        found: list[object] = list(look(*words, **options))  # type: ignore[arg-type]
        if not Path(layout.anima).exists():
            Path(prepared.anima).rename(layout.anima)
        return found

    monkeypatch.setattr(enqueue, "doubts", looked)
    # then
    with pytest.raises(StoreError, match="anybody may write to"):
        TaskStore(layout.anima)
