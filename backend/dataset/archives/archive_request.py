"""What somebody asks for who exports a data set on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.dataset.exporter import DatasetOptions, Format, formats
from backend.dataset.labelled_image import Overlap, overlaps
from backend.dataset.splits import Split
from backend.errors import BadRequest, DatasetError
from backend.label_studio.annotations import AnnotationChoice
from backend.label_studio.requests import read_count, read_number

_FIELDS = (
    *("project", "view", "formats", "pictures", "annotations"),
    *("overlap", "split", "near_duplicates", "with_predictions"),
)


@dataclass(frozen=True)
class ArchiveRequest:
    """Ask for a data set; the choices are those of ``clearclip-backend dataset``.

    Attributes:
        project: number of the project.
        view: number of a view of the data manager, whose tasks are taken; None for all.
        formats: those to write.
        has_pictures: whether the pictures are in the archive.
        choice: the annotations that count.
        overlap: the rule by which overlaps are resolved.
        split: shares of the parts.
        least_cosine: cosine of features from which on pictures are kept in one part; None: only
            equal files are.
        with_predictions: whether untouched predictions count where a task has no annotation.
    """

    project: int
    view: int | None = None
    formats: tuple[Format, ...] = ("index-png",)
    has_pictures: bool = True
    choice: AnnotationChoice = field(default_factory=AnnotationChoice)
    overlap: Overlap = "label-order"
    split: Split = field(default_factory=Split)
    least_cosine: float | None = None
    with_predictions: bool = False

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> ArchiveRequest:
        """Read the fields of a JSON object; an empty one counts as missing.

        Raises:
            BadRequest: there is no project, an unknown field, or a value that is not allowed.

        >>> ArchiveRequest.parse({"project": 7, "formats": ["coco"]}).formats
        ('coco',)
        """
        unknown = sorted(fields.keys() - set(_FIELDS))
        if unknown:
            raise BadRequest(f"Expected {', '.join(_FIELDS)}, but got {str(unknown[0])[:50]!r}.")
        project = read_count(fields, "project")
        if project is None:
            raise BadRequest('Expected "project" to be the number of a project, but it is missing.')
        overlap = fields.get("overlap") or overlaps()[0]
        if overlap not in overlaps():
            raise BadRequest(f'Expected "overlap" to be one of {", ".join(overlaps())}.')
        shares = _text(fields, "split")
        try:
            split = Split.parse(shares) if shares else Split()
        except DatasetError as error:
            raise BadRequest(str(error)) from None
        least_cosine = _cosine(fields)
        if least_cosine is not None and not shares:
            raise BadRequest('Expected "near_duplicates" only together with "split".')
        return cls(
            project=project,
            view=read_count(fields, "view"),
            formats=_formats(fields),
            has_pictures=_flag(fields, "pictures", default=True),
            choice=AnnotationChoice.parse(_text(fields, "annotations") or str(AnnotationChoice())),
            overlap=overlap,
            split=split,
            least_cosine=least_cosine,
            with_predictions=_flag(fields, "with_predictions", default=False),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `parse` reads."""
        return {
            "project": self.project,
            "view": self.view,
            "formats": list(self.formats),
            "pictures": self.has_pictures,
            "annotations": str(self.choice),
            "overlap": self.overlap,
            "split": str(self.split),
            "near_duplicates": self.least_cosine,
            "with_predictions": self.with_predictions,
        }

    @property
    def options(self) -> DatasetOptions:
        """The choices for an exporter."""
        in_tables_alone = set(self.formats) == {"parquet"}
        return DatasetOptions(
            formats=self.formats,
            pictures="copy" if self.has_pictures and not in_tables_alone else "none",
            choice=self.choice,
            overlap=self.overlap,
            split=self.split,
            least_cosine=self.least_cosine,
            with_predictions=self.with_predictions,
        )


def _formats(fields: Mapping[str, Any]) -> tuple[Format, ...]:
    given = fields.get("formats") or ["index-png"]
    if not isinstance(given, list) or not all(each in formats() for each in given):
        raise BadRequest(f'Expected "formats" to be a list of {", ".join(formats())}.')
    return tuple(dict.fromkeys(given))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name) or ""
    if not isinstance(value, str):
        raise BadRequest(f'Expected "{name}" to be a text.')
    return value.strip()


def _cosine(fields: Mapping[str, Any]) -> float | None:
    value = fields.get("near_duplicates")
    if value is None or value == "":
        return None
    try:
        cosine = float(value) if isinstance(value, str) else read_number(value)
    except ValueError:
        cosine = None
    if cosine is None or not 0 < cosine <= 1:
        raise BadRequest('Expected "near_duplicates" to be a cosine above 0 and up to 1.')
    return cosine


def _flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name)
    if value is None or value == "":
        return default
    if value in (True, False):
        return bool(value)
    if value in ("true", "on", "false", "off"):
        return value in ("true", "on")
    raise BadRequest(f'Expected "{name}" to be true or false.')
