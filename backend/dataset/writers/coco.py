"""Write COCO's format: one JSON file for each part, masks as compressed run lengths.

Ids count from 1, and those of annotations stay below 2^24, so that a panoptic PNG can hold them
(https://cocodataset.org/#format-data). A region is one annotation. What COCO has no place for, such
as the origin of a region, stands under keys of its own, which its readers pass over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import OVERLAP_RULES, ClassTable, LabelledImage, Overlap
from backend.dataset.manifest import PictureRow
from backend.errors import DatasetError
from clearclip_core.evaluation.atomic_write import replaced

FOLDER: Final = "annotations"

#: Numbers that the three bytes of a pixel of a panoptic PNG hold.
_MAX_IDS: Final = 1 << 24


def check_installed() -> None:
    """Raise a `DatasetError` where pycocotools is not installed, which encodes the masks."""
    if find_spec("pycocotools") is None:
        raise DatasetError(
            "The format coco needs pycocotools, which is not installed here: "
            "pip install 'clearclip-label-studio[dataset]'."
        )


def coco_annotations(
    image: LabelledImage, owners: npt.NDArray[np.int32], classes: ClassTable
) -> list[dict[str, Any]]:
    """Return the annotations of a picture, without ids; regions that others hide are left out.

    Args:
        image: the picture.
        owners: (H, W), see `LabelledImage.owners`.
        classes: the classes.
    """
    from pycocotools import mask as coco_mask

    found: list[dict[str, Any]] = []
    for index, region in enumerate(image.regions):
        visible = owners == index
        box = _box_xywh(visible)
        if box is None:
            continue
        rle = coco_mask.encode(np.asfortranarray(visible, np.uint8))
        found.append(
            {
                "category_id": classes.index(region.label) + 1,
                "segmentation": {
                    "size": [int(side) for side in rle["size"]],
                    "counts": rle["counts"].decode("ascii"),
                },
                "area": int(np.count_nonzero(visible)),
                "bbox": box,
                "iscrowd": 0,
                **({} if region.score is None else {"score": region.score}),
                "provenance": region.provenance.to_json(),
            }
        )
    return found


def write_coco(
    path: Path,
    pictures: Callable[[], Iterable[PictureRow]],
    classes: ClassTable,
    overlap: Overlap,
    info: Mapping[str, Any],
) -> None:
    """Write the pictures of one part, one after another, so that the memory stays flat.

    Args:
        path: of the JSON file; the old one stays until the new one is complete.
        pictures: iterates over them, each time that it is called, in one order.
        classes: the classes.
        overlap: the rule by which overlaps were resolved.
        info: what is said of the data set.

    Raises:
        DatasetError: there are more annotations than ids.
    """
    categories = [
        {
            "id": value + 1,
            "name": name,
            "supercategory": "",
            "isthing": 1,
            "color": list(classes.colours[value]),
        }
        for value, name in enumerate(classes.names)
    ]
    told = {**info, "overlap": overlap, "overlap_rule": OVERLAP_RULES[overlap]}
    with replaced(path) as stream:

        def write(text: str) -> None:
            stream.write(text.encode())

        write(f'{{"info": {_json(told)},\n"licenses": [],\n"categories": {_json(categories)}')
        for key, items in (("images", _images(pictures())), ("annotations", _all(pictures()))):
            write(f',\n"{key}": [')
            for number, item in enumerate(items):
                write(("," if number else "") + "\n" + _json(item))
            write("]")
        write("}\n")


def _images(pictures: Iterable[PictureRow]) -> Iterator[dict[str, Any]]:
    for number, picture in enumerate(pictures, 1):
        yield {
            "id": number,
            "file_name": picture.file_name,
            "height": picture.size_hw[0],
            "width": picture.size_hw[1],
            "task": picture.task,
            "source": picture.source,
        }


def _all(pictures: Iterable[PictureRow]) -> Iterator[dict[str, Any]]:
    id_ = 0
    for number, picture in enumerate(pictures, 1):
        for annotation in picture.coco:
            id_ += 1
            if id_ >= _MAX_IDS:
                raise DatasetError(
                    f"A COCO file holds fewer than {_MAX_IDS} regions whose ids a panoptic PNG "
                    "can hold: split the data set."
                )
            yield {"id": id_, "image_id": number, **annotation}


def _box_xywh(mask: npt.NDArray[np.bool_]) -> list[int] | None:
    """Return the box around a mask: left, top, width and height in px; None of an empty one."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
