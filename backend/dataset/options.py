"""Hold what a person chooses of a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal, get_args

from backend.dataset.labelled_image import Overlap
from backend.dataset.splits import Split
from backend.dataset.task_images import ProjectLabels
from backend.label_studio.annotation_choice import AnnotationChoice

#: A format of trainers: palette PNGs, COCO's JSON, YOLO's polygons, Hugging Face's tables.
Format = Literal["index-png", "coco", "yolo", "parquet"]

#: What becomes of the pictures themselves: copied, linked to files of this machine, or only named.
Pictures = Literal["copy", "link", "none"]


@dataclass(frozen=True)
class DatasetOptions:
    """Choices of a data set.

    Attributes:
        formats: those to write, in any number.
        pictures: what becomes of the pictures.
        choice: the annotations that count.
        overlap: the rule by which overlaps are resolved.
        split: shares of the parts.
        least_cosine: cosine of features from which on two pictures are near-duplicates, which are
            kept in one part; None: only equal files are.
        with_predictions: whether untouched predictions count where a task has no annotation.
    """

    formats: tuple[Format, ...] = ("index-png",)
    pictures: Pictures = "copy"
    choice: AnnotationChoice = field(default_factory=AnnotationChoice)
    overlap: Overlap = "label-order"
    split: Split = field(default_factory=Split)
    least_cosine: float | None = None
    with_predictions: bool = False

    @property
    def needs_pictures(self) -> bool:
        """Whether the files of all pictures are read."""
        return (
            self.pictures != "none"
            or "parquet" in self.formats
            or len(self.split.shares) > 1
            or self.least_cosine is not None
        )

    @property
    def image_folder(self) -> str:
        """Folder of the pictures; hidden where only tables are made of them, empty without any."""
        if self.pictures != "none":
            return "images"
        return ".parts/images" if "parquet" in self.formats else ""

    @property
    def mask_folder(self) -> str:
        """Folder of the label maps; hidden where only tables are made of them, empty without."""
        if "index-png" in self.formats:
            return "masks"
        return ".parts/masks" if "parquet" in self.formats else ""

    def recipe(self, labels: ProjectLabels, model: str = "") -> str:
        """Return a text of all that decides what the own files of a picture hold.

        Args:
            labels: the controls and classes of the project.
            model: name of the model that near-duplicates are found with; empty without one.
        """
        controls = labels.controls.values()
        return json.dumps(
            {
                "formats": sorted(self.formats),
                "pictures": self.pictures,
                "annotations": str(self.choice),
                "overlap": self.overlap,
                "needs_pictures": self.needs_pictures,
                "model": model,
                "with_predictions": self.with_predictions,
                "classes": labels.classes.names,
                "images": [[image.name, image.value] for image in labels.images],
                "controls": sorted([each.name, *sorted(each.labels.items())] for each in controls),
            }
        )


def formats() -> tuple[Format, ...]:
    """Return all formats."""
    return get_args(Format)
