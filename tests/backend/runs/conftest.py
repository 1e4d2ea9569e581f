"""A backend with the demo model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.runs.run_store import Progress, Run, RunKind
from backend.services import Services
from backend.settings import Settings


@dataclass(frozen=True)
class Maker:
    kind: RunKind[Any, Any]
    services: Services
    client: LabelStudioClient

    def __call__(self, progress: Progress = lambda _done, _total: None, **asked: Any) -> Any:
        """The report of what is asked for, as it is once it was stored and read again."""
        run = Run(id=1, kind=self.kind.name, project=7, asked=asked)
        parts = self.services.run_parts(self.client)
        report = self.kind.make(parts, run, self.kind.read_asked(run), progress)
        self.services.runs.add_done(self.kind, 7, self.kind.read_asked(run), report, 1.0)
        made = self.services.runs.last(self.kind, 7)
        assert made is not None
        assert made[1] == report
        return report


@pytest.fixture(scope="package")
def services() -> Iterator[Services]:
    made = Services(Settings(model="demo", device="cpu", precision="fp32", short_side_px=224))
    with made.engine:
        yield made
