"""Say what to do with layouts that are known and not read: one sentence each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from backend.dataset.formats.layout import Layout, SetFolder
from backend.errors import DatasetError


def _refused(name: str, is_it: Callable[[SetFolder], bool], advice: str) -> Layout:
    """Return a layout that is known by its files, and refused with a sentence."""

    def find(folder: SetFolder) -> None:
        if is_it(folder):
            raise DatasetError(f"{folder.path} looks like {name}: {advice}")

    return Layout(name, find)


def _any_name(pattern: str) -> Callable[[SetFolder], bool]:
    known = re.compile(pattern)
    return lambda folder: any(map(known.fullmatch, folder.files))


def _no_image_but(suffix: str) -> Callable[[SetFolder], bool]:
    """Return whether there are files of a suffix, and no PNG and no JSON that may be masks."""

    def is_it(folder: SetFolder) -> bool:
        names = [name.lower() for name in folder.files]
        others = (".png", ".json", ".xml", ".txt")
        return any(name.endswith(suffix) for name in names) and not any(
            name.endswith(others) for name in names
        )

    return is_it


def _head(suffix: str, *marks: bytes) -> Callable[[SetFolder], bool]:
    """Return whether a file of a suffix has all marks in its beginning."""
    return lambda folder: any(
        all(mark in head for mark in marks) for head in folder.heads(suffix).values()
    )


def _is_list_of_tasks(folder: SetFolder) -> bool:
    return any(
        head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        and b'"annotations"' in head
        and (b'"from_name"' in head or b'"completed_by"' in head or b'"file_upload"' in head)
        for head in folder.heads(".json").values()
    )


def _is_labelme_xml(folder: SetFolder) -> bool:
    heads = folder.heads(".xml").values()
    return any(
        re.search(rb"<(?:polygon|segm)\b", head) and b"<annotations" not in head for head in heads
    )


_EXPORT: Final = "clearclip-backend dataset --export FILE"

FOREIGN: Final = (
    _refused(
        "Label Studio's JSON export",
        _is_list_of_tasks,
        f"{_EXPORT} makes a training set of it; to bring it into a project, import the file in "
        "Label Studio itself.",
    ),
    _refused(
        "Label Studio's JSON-MIN export",
        _head(".json", b'"annotation_id"', b'"lead_time"'),
        f"it lacks the regions' places: export the project as JSON, and give that to {_EXPORT}.",
    ),
    _refused(
        "Label Studio's brush masks",
        _any_name(r"(?:.*/)?task-\d+-annotation-.*\.(?:png|npy)"),
        "their names do not say the pictures: export the project as JSON, and give that to "
        f"{_EXPORT}, which writes label maps that name theirs.",
    ),
    _refused(
        "a release of Segments.ai",
        lambda folder: (
            _head(".json", b'"segmentation_bitmap"')(folder)
            or _head(".json", b'"task_attributes"')(folder)
        ),
        "its masks are on the web: have its own package write them, by "
        'export_dataset(dataset, export_format="coco-instance").',
    ),
    _refused(
        "Encord's JSON",
        _head(".json", b'"label_hash"', b'"data_units"'),
        "export it from there as COCO.",
    ),
    _refused(
        "Labelbox's export",
        lambda folder: (
            _head(".json", b'"data_row"')(folder) or _head(".ndjson", b'"data_row"')(folder)
        ),
        "its masks are on the web, behind your key: download each as NAME.png into a folder of "
        "its class's name, and give --format binary-masks.",
    ),
    _refused(
        "SuperAnnotate's JSON",
        _head(".json", b'"classId"', b'"instances"', b'"metadata"'),
        "convert it to COCO by its own package (superannotate, export_annotation).",
    ),
    _refused(
        "LabelMe's XML",
        _is_labelme_xml,
        "convert it to COCO with datumaro.",
    ),
    _refused(
        "ADE20K as a whole",
        _any_name(r"(?:.*/)?ADE_(?:train|val|frame)_\d+_seg\.png"),
        "its colours are numbers of a file of Python's: take the scene parsing benchmark "
        "(ADEChallengeData2016), or write label maps of one class a value.",
    ),
    _refused(
        "Open Images",
        _any_name(r"(?:.*/)?[a-z]+-annotations-object-segmentation\.csv"),
        "its masks are one file an object: put each as IMAGE.png into a folder of its class's "
        "name, joined where an image has several, and give --format binary-masks.",
    ),
    _refused(
        "a folder of MATLAB's files",
        _no_image_but(".mat"),
        "write the maps in them as grey PNGs of the pictures' names, such as by "
        "scipy.io.loadmat, and their classes into classes.json.",
    ),
    _refused(
        "a folder of NumPy's files",
        _no_image_but(".npy"),
        "write them as grey PNGs of the pictures' names, by "
        "Image.fromarray(numpy.load(file).astype('uint8')).save(...).",
    ),
    _refused(
        "a table of Hugging Face's datasets",
        _no_image_but(".parquet"),
        "write its masks as PNGs first: for row in load_dataset(...): "
        "row['mask'].save(f\"masks/{row['name']}.png\").",
    ),
)

#: To be looked for last: a folder that has them may have masks that are read.
BOXES: Final = _refused(
    "boxes of PASCAL VOC",
    _head(".xml", b"<bndbox"),
    "they are no masks; those would be in SegmentationClass.",
)
JPEG_MASKS: Final = _refused(
    "masks in JPEG files",
    _any_name(r"(?:.*/)?(?:masks?|labels?|annotations)/[^/]+\.jpe?g"),
    "JPEG changes their values: write them as PNGs, each level at 0 or 255 again, into a folder of "
    "their class's name, and give --format binary-masks.",
)
