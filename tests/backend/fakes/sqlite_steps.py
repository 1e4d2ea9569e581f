"""Count what SQLite does for a call, which is the same on a busy machine and on an idle one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event

from backend.database.database import Database, _Engines

#: Steps between two counts.
_EVERY = 10


class CountedDatabase(Database):
    """An SQLite database whose steps are counted.

    Args:
        folder: where its file is made.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"sqlite:///{folder}/counted.db", lambda: 1000.0)
        self._counts = 0

    def steps(self, call: Callable[[], Any]) -> int:
        """Return about how many instructions of its virtual machine SQLite runs for a call."""
        before = self._counts
        call()
        assert self._counts > before, "nothing was counted"
        return _EVERY * (self._counts - before)

    def _open_engines(self) -> _Engines:
        engines = super()._open_engines()
        for engine in {engines.writers, engines.readers}:
            if not event.contains(engine, "checkout", self._count):
                event.listen(engine, "checkout", self._count)
        return engines

    def _count(self, connection: Any, *_: object) -> None:
        connection.set_progress_handler(self._add_one, _EVERY)

    def _add_one(self) -> int:
        self._counts += 1
        return 0
