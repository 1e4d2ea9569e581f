"""Write COCO's format: one JSON file for each part, masks as compressed run lengths.

An annotation is an object as it was drawn: objects may overlap. Ids of objects and pictures are
made of what Label Studio calls them, so that they stay the same between exports. What COCO has no
place for, such as the origin of an object, stands under keys of its own, which its readers pass
over (https://cocodataset.org/#format-data).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from backend.dataset.labelled_image import ClassTable, LabelledObject, PictureRow, RegionMask
from backend.dataset.output_folder import OutputFolder

_FOLDER: Final = "annotations"

#: Ids stay below 2^48: readers that hold them as floating-point numbers hold them exactly.
_ID_BYTES: Final = 6


def coco_annotation(thing: LabelledObject, mask: RegionMask, category: int) -> dict[str, Any]:
    """Return the annotation of an object, with its key for an id; its mask has a pixel or more."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return {
        "id": f"{thing.label}/{thing.key}",
        "category_id": category,
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
        "area": int(coco_mask.area(rle)),
        "bbox": [int(side) for side in coco_mask.toBbox(rle)],
        "iscrowd": 0,
        **({} if thing.score is None else {"score": thing.score}),
        "provenance": msgspec.structs.asdict(thing.regions[0].provenance),
    }


def write_coco(
    output: OutputFolder,
    part: str,
    pictures: Callable[[], Iterable[PictureRow]],
    classes: ClassTable,
    info: Mapping[str, Any],
) -> None:
    """Write the pictures of one part, one after another, so that the memory stays flat.

    `pictures` iterates over them, each time that it is called.
    """
    colours = classes.colours[bool(classes.background) :]
    categories = [
        {"id": number, "name": name, "supercategory": "", "isthing": 1, "color": list(colour)}
        for number, (name, colour) in enumerate(zip(classes.names, colours, strict=True), 1)
    ]
    with output.place(f"{_FOLDER}/instances_{part}.json").open("wb") as stream:

        def write(text: str) -> None:
            output.take(len(text))
            stream.write(text.encode())

        write(f'{{"info": {_json(info)},\n"licenses": [],\n"categories": {_json(categories)}')
        for key, items in (("images", _images(pictures())), ("annotations", _all(pictures()))):
            write(f',\n"{key}": [')
            for number, item in enumerate(items):
                write(("," if number else "") + "\n" + _json(item))
            write("]")
        write("}\n")


def _images(pictures: Iterable[PictureRow]) -> Iterator[dict[str, Any]]:
    taken: set[int] = set()
    for picture in pictures:
        yield {
            "id": _number(picture.key, taken),
            "file_name": picture.file_name,
            "height": picture.size_hw[0],
            "width": picture.size_hw[1],
            "task": picture.task,
            "source": picture.source,
        }


def _all(pictures: Iterable[PictureRow]) -> Iterator[dict[str, Any]]:
    images: set[int] = set()
    taken: set[int] = set()
    for picture in pictures:
        image = _number(picture.key, images)
        for each in picture.coco:
            number = _number(f"{picture.key}/{each['id']}", taken)
            yield each | {"id": number, "image_id": image}


def _number(key: str, taken: set[int]) -> int:
    """Return the number of a text, from 1 to 2^48; the next one that is free."""
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=_ID_BYTES).digest()
    number = int.from_bytes(digest, "big") + 1
    while number in taken:
        number += 1
    taken.add(number)
    return number


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
