"""The data set before this one: in which parts its pictures are, and what has changed since."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backend.dataset.dataset_report import Change, Changes, DatasetReport
from backend.dataset.labelled_image import PictureRow
from backend.dataset.output_folder import PICTURES_FILE, REPORT_FILE


class _Known(msgspec.Struct, frozen=True):
    """What `PICTURES_FILE` says of a picture; sets of 0.2.0 say its part alone."""

    digest: str
    part: str
    key: str = ""
    annotated: str = ""
    objects: dict[str, int] = {}


@dataclass(frozen=True)
class EarlierSet:
    """What is known of earlier data sets of a project.

    Attributes:
        parts: digest of a picture's file -> its part, of the last set that was divided alike.
        made: when the last set was made, in seconds since the epoch; 0 for none.
    """

    parts: Mapping[str, str] = field(default_factory=dict)
    made: float = 0.0
    _pictures: Mapping[str, _Known] = field(default_factory=dict)

    @classmethod
    def read(cls, places: Iterable[Path | zipfile.Path], splitting: str) -> EarlierSet:
        """Read data sets, the newest first, as far as one says what is asked.

        Args:
            places: folders or ZIP files; what is no data set is passed over.
            splitting: see `DatasetOptions.splitting`.
        """
        last = cls()
        for place in places:
            try:
                report = msgspec.json.decode((place / REPORT_FILE).read_bytes(), type=DatasetReport)
                with (place / PICTURES_FILE).open("rb") as lines:
                    rows = [msgspec.json.decode(line, type=_Known) for line in lines]
            except (OSError, zipfile.BadZipFile, msgspec.MsgspecError):
                continue
            if not last.made and report.made:
                last = cls({}, report.made, {row.key: row for row in rows})
            if report.splitting == splitting:
                parts = {row.digest: row.part for row in rows if row.part in report.parts}
                return cls(parts, last.made, last._pictures)
        return last

    def changes(self, rows: Iterable[PictureRow]) -> Changes | None:
        """Compare with the pictures of a new data set; None where no earlier one is known."""
        if not self.made:
            return None
        gone = dict(self._pictures)
        kinds: dict[str, Counter[str]] = {"new": Counter(), "corrected": Counter()}
        for row in rows:
            before = gone.pop(row.key, None)
            if before is None:
                kinds["new"].update({"": 1, **dict.fromkeys(row.objects, 1)})
            elif (before.digest, before.annotated) != (row.digest, row.annotated):
                classes = dict.fromkeys((*row.objects, *before.objects), 1)
                kinds["corrected"].update({"": 1, **classes})
        kinds["gone"] = Counter(name for row in gone.values() for name in ("", *row.objects))
        names = sorted(frozenset[str]().union(*kinds.values()) - {""})
        counts = {
            name: Change(**{kind: count[name] for kind, count in kinds.items()})
            for name in ("", *names)
        }
        return Changes(self.made, counts.pop(""), counts)
