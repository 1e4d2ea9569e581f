"""What was written of a data set and what was left out, its score, and the set before it."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from backend.dataset.dataset_options import ChoiceNames
from backend.dataset.formats.format_writer import ImageRow
from backend.dataset.output_folder import IMAGES_FILE, REPORT_FILE
from clearclip_core import RGBArray
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.quantities import grouped, inflected, quantity

if TYPE_CHECKING:  # torch
    from backend.learning.predicted_masks import MaskPredictor
    from backend.learning.versions import VersionStore
    from clearclip_core.evaluation.metrics import MaskOverlap

_SHOWN: Final = 10  # reasons on a terminal; the file has all


class Skipped(msgspec.Struct, frozen=True):
    """A task that lacks a picture in the data set, and why."""

    task: int
    reason: str


class ClassCount(msgspec.Struct, frozen=True):
    """Pictures of a part that have a class, their share of all that have it, and its objects."""

    pictures: int = 0
    objects: int = 0
    percent: int = 0

    def describe(self, *, with_share: bool) -> str:
        """Return the counts in words, also the share where there are several parts.

        >>> ClassCount(3, 4, 50).describe(with_share=True)
        '3 pictures (50 %), 4 objects'
        """
        share = f" ({self.percent} %)" if with_share else ""
        pictures, objects = quantity(self.pictures, "picture"), quantity(self.objects, "object")
        return f"{pictures}{share}, {objects}"


class Change(msgspec.Struct, frozen=True):
    """Pictures that are new, gone, or have another file or other regions than before."""

    new: int = 0
    corrected: int = 0
    gone: int = 0

    def __str__(self) -> str:
        return f"{self.new} new, {self.corrected} corrected, {self.gone} gone"


class Changes(msgspec.Struct, frozen=True):
    """What has changed since the set made at a time in seconds; by class that is or was there."""

    since: float
    pictures: Change
    classes: dict[str, Change] = {}

    def of(self, name: str) -> Change:
        """Return what has changed among the pictures of a class."""
        return self.classes.get(name, Change())

    def __str__(self) -> str:
        day = datetime.fromtimestamp(self.since, timezone.utc)
        return f"Since the set of {day.day} {day:%B %Y}: {self.pictures}."


class AlikeImage(msgspec.Struct, frozen=True):
    """A picture that is nearly the same as one of another part."""

    image: str  # name of its file
    task: int
    part: str


class AlikePair(msgspec.Struct, frozen=True):
    """Two pictures of different parts that are nearly the same."""

    correlation: float  # of their thumbnails, to 1
    images: tuple[AlikeImage, AlikeImage]


class SetScore(msgspec.Struct, frozen=True):
    """How well a version of the model predicts the label maps of a data set."""

    mean_iou: float | None = None  # mean over the classes that it predicts or that are there
    ious: dict[str, float] = {}  # class -> intersection over union, of all pictures together
    version: int | None = None  # its number; None: the words alone
    annotations: int = 0  # number of those that it has learned from

    def __str__(self) -> str:
        learned = f"learned from {quantity(self.annotations, 'annotation')}"
        who = "The words alone" if self.version is None else f"Version {self.version}, {learned},"
        if self.mean_iou is None:
            return f"{who} cannot be scored: no class that is predicted is in these label maps."
        told = ", ".join(f"{name} {100 * iou:.1f} %" for name, iou in self.ious.items())
        flatters = " What it has learned from these pictures flatters it." if self.version else ""
        return (
            f"{who} predicted these label maps with a mean IoU of {100 * self.mean_iou:.1f} % "
            f"({told}); pixels of 255 do not count.{flatters}"
        )


class SetScorer:
    """Predicts pictures with a project's live version, and sums up how label maps are met."""

    def __init__(self, predictor: MaskPredictor, versions: VersionStore) -> None:
        self._predictor = predictor
        self._active = versions.active(predictor.project, predictor.config.adapt)
        self._sums: dict[str, MaskOverlap] = {}

    def add(self, rgb: RGBArray, tag: str, label_map: Truth, names: Sequence[str]) -> None:
        """Predict an image (H, W, 3) uint8 of a tag, whose label map (H, W) has values of names."""
        from clearclip_core.evaluation.metrics import mask_overlaps  # torch

        labels, thresholds = self._predictor.config.labels_of(tag), self._predictor.thresholds(tag)
        pairs = zip(labels, thresholds, strict=True)
        # What is never predicted is not missed.
        index = {label.name: at for at, (label, least) in enumerate(pairs) if least < 1}
        if not index:
            return
        table = np.full(IGNORE + 1, NOTHING, np.uint8)
        table[IGNORE] = IGNORE
        table[: len(names)] = [index.get(name, NOTHING) for name in names]
        adaptation = self._active.adaptation if self._active else None
        masks = self._predictor.predict(tag, rgb, adaptation=adaptation)
        overlaps = mask_overlaps(masks, table.take(label_map), max(index.values()) + 1)
        for name, at in index.items():
            before = self._sums.get(name)
            self._sums[name] = overlaps[at] if before is None else before + overlaps[at]

    def score(self) -> SetScore:
        ious = {name: each.iou for name, each in self._sums.items()}
        known = {name: round(iou, 4) for name, iou in ious.items() if iou is not None}
        mean, live = round(fmean(known.values()), 4) if known else None, self._active
        return SetScore(mean, known, *((live.number, live.annotations) if live else ()))


def _class_lines(classes: Mapping[str, Mapping[str, ClassCount]]) -> Iterator[str]:
    """Yield a line for each class that a picture has."""
    for name, counts in classes.items():
        if any(count.objects for count in counts.values()):
            yield f"  {name}: {_counts_by_part(counts)}"


def _counts_by_part(counts: Mapping[str, ClassCount]) -> str:
    """Say how much a class has in each part; of one part, without its share."""
    parts = [
        f"{part} {quantity(count.objects, 'object')} in {quantity(count.pictures, 'picture')}"
        for part, count in counts.items()
    ]
    if len(parts) > 1:
        shares = [count.percent for count in counts.values()]
        parts = [f"{part} ({share} %)" for part, share in zip(parts, shares, strict=True)]
    return ", ".join(parts)


class DatasetReport(msgspec.Struct):
    """The result of a run."""

    pictures: int = 0
    parts: dict[str, int] = {}  # part -> number of its pictures; `asked` has percentages
    asked: dict[str, int] = {}
    splitting: str = ""  # text of all that decides the parts, but the pictures
    #: Digest of a picture's file that an earlier set had -> the part that it comes back into.
    absent: dict[str, str] = {}
    regions: int = 0
    classes: dict[str, dict[str, ClassCount]] = {}  # class -> part -> counts
    tasks: int = 0  # number of tasks that were read; of `unlabelled` ones nothing counts
    unlabelled: int = 0
    made: float = 0.0  # when, in seconds since the epoch
    changes: Changes | None = None
    score: SetScore | None = None
    alike: list[AlikePair] = []  # the most alike pictures of different parts
    notes: list[str] = []  # sentences about what is otherwise than one might think
    skipped: list[Skipped] = []

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {part}" for part, count in self.parts.items())
        lines = [
            f"{quantity(self.pictures, 'picture')} ({parts}) with "
            f"{quantity(self.regions, 'region')}; {quantity(self.tasks, 'task')} read, "
            f"{self.unlabelled} without an annotation that counts, {len(self.skipped)} skipped."
        ]

        if len(self.parts) > 1:
            asked = "/".join(map(str, self.asked.values()))
            met = "/".join(str(round(100 * n / max(1, self.pictures))) for n in self.parts.values())
            lines.append(f"Percent of the pictures: {asked} asked, {met} met.")

        lines += _class_lines(self.classes)
        lines += [str(each) for each in (self.changes, self.score) if each]
        lines += self.notes
        lines += [f"Task {each.task}: {each.reason}" for each in self.skipped[:_SHOWN]]
        if len(self.skipped) > _SHOWN:
            lines.append(f"… and {len(self.skipped) - _SHOWN} more.")
        return "\n".join(lines)


@dataclass
class SetCounts:
    """Counts of what the notes of a report are about."""

    covered: int = 0  # label maps
    covered_px: int = 0
    framed: int = 0  # label maps
    mostly_unpainted: int = 0  # label maps
    converted: int = 0  # pictures
    missing: int = 0  # pictures without a file
    unknown: Counter[str] = field(default_factory=Counter)  # regions of labels
    lost: Counter[str] = field(default_factory=Counter)  # regions of controls

    def notes(self, pictures: int, names: ChoiceNames, *, has_background: bool) -> Iterator[str]:
        """Say what is otherwise than one might think, and the choices that change it."""
        if self.covered:
            yield (
                f"In {quantity(self.covered, 'label map')} regions cover others: "
                f"{grouped(self.covered_px)} {inflected(self.covered_px, 'pixel')} of theirs have "
                f"another class ({names.overlap} says whose)."
            )

        if self.framed:
            yield (
                f"In {quantity(self.framed, 'label map')} rectangles cover pixels that nothing "
                "else does. Trainers ignore these (255), since a rectangle does not say which of "
                f"its pixels are its thing: paint it, or choose {names.fill_rectangles}."
            )

        if 2 * self.mostly_unpainted > pictures and not has_background:
            yield (
                f"More than half of the pixels are unpainted in {self.mostly_unpainted} of "
                f"{quantity(pictures, 'picture')}, and trainers ignore them (255). If they are "
                f"the ground that your classes stand on, make them a class: {names.background}."
            )

        if self.converted:
            yield (
                f"{quantity(self.converted, 'picture')} written as PNG, since trainers read the "
                "original otherwise or not at all."
            )

        for label, count in self.unknown.most_common():
            yield (
                f'{quantity(count, "region")} of the label "{label[:100]}", which the labeling '
                f"config lacks: their pictures are skipped. Say what it is now {names.renamed}, "
                f'as "{label[:100]}=LABEL", or "{label[:100]}=" to leave them out; or write it as '
                "the alias of a label."
            )

        for control, count in self.lost.most_common():
            yield (
                f'{quantity(count, "region")} made with the control "{control[:100]}", which the '
                "labeling config lacks: they are left out."
            )


class _Known(msgspec.Struct, frozen=True):
    """What `IMAGES_FILE` says of a picture; sets of 0.2.0 say its part alone."""

    digest: str
    part: str
    key: str = ""
    annotated: str = ""
    objects: dict[str, int] = {}


def _read_set(place: Path | zipfile.Path) -> tuple[DatasetReport, list[_Known]] | None:
    """Read the report and the pictures of a data set; None where they cannot be read."""
    try:
        report = msgspec.json.decode((place / REPORT_FILE).read_bytes(), type=DatasetReport)
        with (place / IMAGES_FILE).open("rb") as lines:
            return report, [msgspec.json.decode(line, type=_Known) for line in lines]
    except (OSError, zipfile.BadZipFile, msgspec.MsgspecError):
        return None


def _parts(report: DatasetReport, rows: Iterable[_Known]) -> dict[str, str]:
    """Return digest -> part of the pictures that a data set divides, absent ones included."""
    return report.absent | {row.digest: row.part for row in rows if row.part in report.parts}


@dataclass(frozen=True)
class EarlierSet:
    """What is known of earlier data sets of a project."""

    #: Digest of a picture's file -> its part, of the last set that was divided alike.
    parts: Mapping[str, str] = field(default_factory=dict)
    made: float = 0.0  # when the last set was made, in seconds since the epoch; 0 for none
    _images: Mapping[str, _Known] = field(default_factory=dict)
    #: Digest of a picture's file -> its part, of the last set that was divided at all.
    _last_parts: Mapping[str, str] = field(default_factory=dict)
    splitting: str = ""  # text of all that has decided these

    @classmethod
    def read(cls, places: Iterable[Path | zipfile.Path], splitting: str) -> EarlierSet:
        """Read data sets, folders or ZIP files, the newest first; others are passed over.

        Parts are those of the newest that was divided by the same text, `DatasetOptions.splitting`.
        """
        alike: Mapping[str, str] = {}
        last = cls()

        for place in places:
            found = _read_set(place)
            if found is None:
                continue
            report, rows = found
            parts = _parts(report, rows)

            if not last.made and report.made:
                last = replace(last, made=report.made, _images={row.key: row for row in rows})
            if not last.splitting and len(report.parts) > 1:
                last = replace(last, _last_parts=parts, splitting=report.splitting)
            if report.splitting == splitting:
                alike = parts
                break

        return replace(last, parts=alike)

    def moved(self, digests: Iterable[str], parts: Iterable[str]) -> Counter[str]:
        """Count the pictures that are in another part than in the last divided set, by that."""
        pairs = zip(digests, parts, strict=True)
        befores = ((self._last_parts.get(digest, part), part) for digest, part in pairs)
        return Counter(before for before, part in befores if before != part)

    def changes(self, rows: Iterable[ImageRow]) -> Changes | None:
        """Compare with the pictures of a new data set; None without an earlier one."""
        if not self.made:
            return None
        gone = dict(self._images)
        kinds: dict[str, Counter[str]] = {"new": Counter(), "corrected": Counter()}
        for row in rows:
            before = gone.pop(row.key, None)
            if before is None:
                kinds["new"].update({"": 1, **dict.fromkeys(row.objects, 1)})
            elif (before.digest, before.annotated) != (row.digest, row.annotated):
                classes = dict.fromkeys((*row.objects, *before.objects), 1)
                kinds["corrected"].update({"": 1, **classes})
        kinds["gone"] = Counter(name for row in gone.values() for name in ("", *row.objects))
        counts = {
            name: Change(**{kind: count[name] for kind, count in kinds.items()})
            for name in sorted(frozenset(("",)).union(*kinds.values()))
        }
        return Changes(self.made, counts.pop(""), counts)
