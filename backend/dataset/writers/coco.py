"""Write COCO's format: one JSON file for each part, masks as compressed run lengths.

Ids count from 1, and those of annotations stay below 2^24, so that a panoptic PNG can hold them
(https://cocodataset.org/#format-data). A region is one annotation. What COCO has no place for, such
as the origin of a region, stands under keys of its own, which its readers pass over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import (
    OVERLAP_RULES,
    ClassTable,
    LabelledImage,
    Overlap,
    PictureRow,
)
from backend.dataset.output_folder import OutputFolder
from backend.errors import DatasetError

FOLDER: Final = "annotations"

#: Where runs start, where they end, and their values: three arrays (R,).
Runs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]

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
    runs = _column_runs(owners)
    for index, region in enumerate(image.regions):
        counts = _run_lengths(runs, index, owners.size)
        if not counts.size:
            continue
        size_hw = list(image.size_hw)
        rle = coco_mask.frPyObjects({"size": size_hw, "counts": counts}, *size_hw)
        found.append(
            {
                "category_id": classes.index(region.label) + 1,
                "segmentation": {"size": size_hw, "counts": rle["counts"].decode("ascii")},
                "area": int(coco_mask.area(rle)),
                "bbox": [int(side) for side in coco_mask.toBbox(rle)],
                "iscrowd": 0,
                **({} if region.score is None else {"score": region.score}),
                "provenance": region.provenance.to_json(),
            }
        )
    return found


def write_coco(
    output: OutputFolder,
    part: str,
    pictures: Callable[[], Iterable[PictureRow]],
    classes: ClassTable,
    overlap: Overlap,
    info: Mapping[str, Any],
) -> None:
    """Write the pictures of one part, one after another, so that the memory stays flat.

    Args:
        output: folder of the data set.
        part: name of the part.
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
    with output.open(f"{FOLDER}/instances_{part}.json") as stream:

        def write(text: str) -> None:
            output.take(len(text))
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


def _column_runs(owners: npt.NDArray[np.int32]) -> Runs:
    """Return the runs of equal values along the columns, one column after the other.

    All regions are found in one pass over the pixels; a pass for each takes as long each time.
    """
    flat = cv2.transpose(owners).ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return starts, np.append(starts[1:], flat.size), flat[starts]


def _run_lengths(runs: Runs, index: int, pixels: int) -> npt.NDArray[np.int64]:
    """Return the lengths of the runs of other pixels and of a region's, in turn; none without it.

    The last one is of the region, or of other pixels that follow it.

    >>> _run_lengths(_column_runs(np.array([[1, 0], [0, 0]], np.int32)), 0, 4).tolist()
    [1, 3]
    """
    starts, ends, values = runs
    own = values == index
    if not own.any():
        return np.zeros(0, np.int64)
    bounds = np.stack([starts[own], ends[own]], axis=1).ravel()
    lengths = np.diff(bounds, prepend=0, append=pixels)
    return lengths if lengths[-1] else lengths[:-1]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
