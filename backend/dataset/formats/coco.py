"""Read and write COCO's format: one JSON file, with masks as polygons or run lengths.

Lists of results and the masks of Segment Anything are read, too. Each part of a data set is a file
of its own, with run lengths as lists of numbers, as COCO has its crowds: all of its readers take
these, while scripts that are made for polygons stumble over compressed ones. Objects may overlap,
as they were drawn. Ids are made of what Label Studio calls objects and pictures, so that they stay
between exports. What COCO has no place for, such as the origin of an object, stands under keys of
its own, which its readers pass over (https://cocodataset.org/#format-data).
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.format_writer import FormatWriter, ImageRow, LabelledObject, ReadRows
from backend.dataset.mask_source import Limits, MaskSource, read_bytes, read_score
from backend.errors import DatasetError
from backend.label_studio.region_reader import fill_outline, read_text
from clearclip_core import BoolMask
from clearclip_core.quantities import grouped, quantity

_FOLDER: Final = "annotations"  # the folder of the files in a data set

#: Ids stay below 2^48: readers that hold them as floating-point numbers hold them exactly.
_ID_BYTES: Final = 6

_FILE_LIMITS: Final = Limits(max_file_mb=1 << 10)
_MAX_SHAPE: Final = 32 << 20  # letters of one mask; each may stand for a number of 32 bytes
#: Files of a data set's folder that are no COCO files.
_OTHERS: Final = ("classes.json", "report.json")
_ROBOFLOW: Final = "_annotations.coco.json"  # file of each part of a data set of Roboflow
#: Numbers that are no JSON, but which Python and others write: of areas, which nobody reads.
_NO_NUMBERS: Final = re.compile(rb"(?<=[\[:,\s])(?:NaN|-?Infinity)(?=\s*[],}])")
_UNNAMED: Final = "object"  # class of masks that have none, as those of Segment Anything
_LEAST_NUMBERS: Final = 6  # of a polygon with an area: three points

Runs = npt.NDArray[np.int64]

_MOST_GROUPS: Final = 7  # groups of five bits of one run; a mask of 2^30 pixels needs seven

_Id = int | str
_Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
_Run = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class _Image(msgspec.Struct):
    """A picture; LVIS has no name of its file, but its address."""

    file_name: str = ""
    coco_url: str = ""
    id: _Id = ""
    height: int | None = None
    width: int | None = None
    extra: Any = None

    def __post_init__(self) -> None:
        self.file_name = self.file_name.strip() or self.coco_url.rpartition("/")[2]
        if not self.file_name:
            raise ValueError("an image lacks the field `file_name`")


class _Category(msgspec.Struct):
    id: int
    name: _Text


class _Annotation(msgspec.Struct):
    """An annotation, whose mask waits as it came."""

    id: Any = None
    image_id: _Id = ""
    category_id: int | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    score: Any = None
    predicted_iou: Any = None


class _File(msgspec.Struct):
    """A COCO file; that of Segment Anything has one `image`."""

    images: list[_Image] = []
    categories: list[_Category] = []
    annotations: list[_Annotation] = []
    image: _Image | None = None


class _Packed(msgspec.Struct):
    size: tuple[int, int]
    counts: str | list[_Run]


_SHAPES: Final = msgspec.json.Decoder(_Packed | list[list[float]] | None)


# ---- reading -------------------------------------------------------------------------------------


def read_runs(text: str) -> Runs:
    """Read the compressed runs of a mask as (N,) int64; a `ValueError` says why they are none."""
    groups = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - ord("0")
    if ((groups < 0) | (groups > 63)).any() or (groups.size and groups[-1] & 0x20):
        raise ValueError("its compressed runs are damaged or cut off")
    if not groups.size:
        return groups
    ends = np.flatnonzero(groups & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MOST_GROUPS:
        raise ValueError("a run of it is longer than any mask")
    places = np.arange(groups.size) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((groups & 0x1F) << 5 * places, starts)
    numbers -= np.where(groups[ends] & 0x10, 1 << 5 * sizes, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    if (numbers < 0).any():
        raise ValueError("a run of it is negative")
    return numbers


def draw_runs(runs: Runs, size_hw: tuple[int, int]) -> BoolMask:
    """Draw a mask (H, W) bool of runs; raise a `ValueError` where they have other pixels."""
    height, width = size_hw
    total = int(runs.sum())  # 2^35 a run at most: no overflow
    if total != height * width:
        raise ValueError(f"its runs have {grouped(total)} pixels, but it is {width}×{height} px")
    values = np.arange(runs.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def runs_of(mask: BoolMask) -> Runs:
    """Return the runs of a mask (H, W) bool, column by column, as (N,) int64.

    The first run is of pixels outside the mask, and may be empty.
    """
    by_column = cv2.transpose(mask.view(np.uint8)).ravel()  # three times as fast as NumPy
    changes = np.flatnonzero(by_column[1:] != by_column[:-1]) + 1
    starts_inside = [0] if by_column[0] else []
    return np.diff(np.concatenate([[0], starts_inside, changes, [by_column.size]])).astype(np.int64)


def find_coco_files(path: Path) -> list[Path]:
    """Return a COCO file; of a folder those in ``annotations``, in itself, or by Roboflow below.

    Where COCO's own names are in ``annotations``, those of objects: ``instances_*.json``.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    here = (each for each in path.glob("*.json") if each.name not in _OTHERS)
    below = _with_masks((path / _FOLDER).glob("*.json"))
    places = (below, here, path.glob(f"*/{_ROBOFLOW}"))
    return next(filter(None, map(sorted, places)), [])


def _with_masks(files: Iterable[Path]) -> list[Path]:
    """Return the files of objects, where they have COCO's own names, beside captions and more."""
    found = [each for each in files if not each.name.startswith("panoptic_")]
    named = [each for each in found if each.name.startswith("instances_")]
    return named or found


def read_coco(path: Path, names: Path | None) -> Iterator[MaskSource]:
    """Iterate over the images of COCO files, and over those of lists of results that have some.

    `names` is the COCO file that lists these. Masks of Segment Anything have the class "object".
    """
    files = [each for each in find_coco_files(path) if names is None or not names.samefile(each)]
    if not files:
        raise DatasetError(f"Expected a COCO file at {path}, but there is none.")
    listed = _read(names, _File()) if names is not None else _File()

    has_images = False
    for file in files:
        content = _read(file, listed)
        has_images |= bool(content.images)
        yield from _sources(content)
    if not has_images:
        raise DatasetError(f"Expected a COCO file at {path} to list images, but it has 0 images.")


def _sources(content: _File) -> Iterator[MaskSource]:
    """Yield the images of a file, each with its objects."""
    classes = {each.id: each.name for each in content.categories}
    objects: dict[_Id, list[_Annotation]] = defaultdict(list)
    for each in content.annotations:
        objects[each.image_id].append(each)
    for image in content.images:
        yield _source(image, objects[image.id], classes)


def _source(
    image: _Image, objects: Sequence[_Annotation], classes: Mapping[int, str]
) -> MaskSource:
    name = image.file_name

    def read_regions(image_hw: tuple[int, int]) -> Iterator[LabelledRegion]:
        for each in objects:
            yield LabelledRegion(
                classes[each.category_id or 0],
                partial(_draw, each, name, image_hw),
                read_score(each.predicted_iou if each.score is None else each.score),
                id=f"the annotation {each.id}",
            )

    other_name = read_text(image.extra, "name") if isinstance(image.extra, dict) else ""
    size_hw = (image.height, image.width) if image.height and image.width else None
    return MaskSource(name, name, read_regions, other_name, has_objects=True, size_hw=size_hw)


def _read(path: Path, listed: _File) -> _File:
    content = _decode(path)
    if not isinstance(content, _File):
        content = _as_file(path, content, listed)
    elif content.image is not None:
        content.image.id = ""
        content.images.append(content.image)

    if content.annotations and all(each.category_id is None for each in content.annotations):
        content.categories.append(_Category(0, _UNNAMED))
    _check(path, content)
    return content


def _decode(path: Path) -> _File | list[_Annotation]:
    text = read_bytes(path, _FILE_LIMITS)
    if text.count(b"{") > 1_000_000 + len(text) // 64:  # each takes more memory than its letters
        raise DatasetError(f"{path} has too many objects for its size.")
    is_list = text[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    try:
        text = _NO_NUMBERS.sub(b"null", text)
        if is_list:
            return msgspec.json.decode(text, type=list[_Annotation])
        return msgspec.json.decode(text, type=_File)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path} is no COCO file: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DatasetError(f"{path} is no JSON file, or is damaged or cut off.") from None


def _as_file(path: Path, results: list[_Annotation], listed: _File) -> _File:
    """Return a list of results with the images that it is of, those that `listed` has."""
    if results and all(each.image_id == "" for each in results):  # of Segment Anything
        return _File([_Image(path.stem)], annotations=results)
    if not listed.images:
        told = f"{path} is a list of results, which does not say the names of pictures"
        raise DatasetError(f"{told}: name the COCO file that does by --names.")

    wanted = {each.image_id for each in results}
    images = [each for each in listed.images if each.id in wanted]
    return _File(images, listed.categories, results)


def _check(path: Path, content: _File) -> None:
    images = {each.id for each in content.images}
    categories = {each.id for each in content.categories}
    if not categories or (content.annotations and not images):
        raise DatasetError(
            f'Expected {path} to be a COCO file with "images", "categories" and "annotations", but '
            f"it has {quantity(len(images), 'image')} and "
            f"{quantity(len(categories), 'category', 'categories')}."
        )
    if len(images) < len(content.images):
        raise DatasetError(f"{path} has two images of one id.")
    _check_references(path, content.annotations, categories, images)


def _check_references(
    path: Path, annotations: Sequence[_Annotation], categories: Set[_Id], images: Set[_Id]
) -> None:
    for each in annotations:
        of = f"the annotation {each.id}"
        if (each.category_id or 0) not in categories:
            raise DatasetError(f"{path} has no category {each.category_id}, which {of} is of.")
        if each.image_id not in images:
            raise DatasetError(f"{path} does not list the image {str(each.image_id)[:50]} of {of}.")


def _draw(found: _Annotation, name: str, size_hw: tuple[int, int]) -> BoolMask:
    try:
        if len(found.segmentation) > _MAX_SHAPE:
            raise ValueError(f"its mask has more than {_MAX_SHAPE >> 20} MB")
        shape = _SHAPES.decode(found.segmentation)
        if isinstance(shape, _Packed):
            return _unpack(shape, size_hw)
        return _fill(shape or (), size_hw)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise DatasetError(f"{name}: the annotation {found.id} is broken, {error}.") from None


def _unpack(packed: _Packed, size_hw: tuple[int, int]) -> BoolMask:
    if packed.size != size_hw:
        raise ValueError(f"its mask is {packed.size[1]}×{packed.size[0]} px")
    counts = packed.counts
    runs = read_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    return draw_runs(runs, size_hw)


def _fill(parts: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> BoolMask:
    mask = np.zeros(size_hw, np.bool_)
    for part in parts:
        if len(part) % 2:
            raise ValueError("its polygons are no pairs of numbers")
        if len(part) >= _LEAST_NUMBERS:
            fill_outline(np.array(part).reshape(-1, 2), mask)
    return mask


# ---- writing -------------------------------------------------------------------------------------


class CocoWriter(FormatWriter):
    """Writes one JSON file a part, one picture after another, so that the memory stays flat."""

    name = "coco"
    title = "COCO (Detectron2, MMDetection, torchvision)"
    files = frozenset({_FOLDER})
    has_objects = True
    keeps_entries = True

    def entry(self, thing: LabelledObject, mask: BoolMask) -> dict[str, Any]:
        runs = runs_of(mask)
        entry = {
            "id": f"{thing.label}/{thing.key}",
            "category_id": self.frame.classes.names.index(thing.label) + 1,
            "segmentation": {"size": list(mask.shape), "counts": runs.tolist()},
            "area": int(runs[1::2].sum()),
            "bbox": list(cv2.boundingRect(mask.view(np.uint8))),
            "iscrowd": 0,
        }
        if thing.score is not None:
            entry["score"] = thing.score
        return entry | {"provenance": msgspec.structs.asdict(thing.regions[0].provenance)}

    def write_part(self, part: str, rows: ReadRows) -> None:
        classes, output = self.frame.classes, self.frame.output
        colours = classes.colours[bool(classes.background) :]
        categories = [
            {"id": number, "name": name, "supercategory": "", "isthing": 1, "color": list(colour)}
            for number, (name, colour) in enumerate(zip(classes.names, colours, strict=True), 1)
        ]
        info = {"description": self.frame.source, "annotations": str(self.frame.options.choice)}
        with output.place(f"{_FOLDER}/instances_{part}.json").open("wb") as stream:

            def write(text: str) -> None:
                output.take(len(text))
                stream.write(text.encode())

            write(f'{{"info": {_json(info)},\n"licenses": [],\n"categories": {_json(categories)}')
            for key, items in (("images", _images(rows())), ("annotations", _all(rows()))):
                write(f',\n"{key}": [')
                for number, item in enumerate(items):
                    write(("," if number else "") + "\n" + _json(item))
                write("]")
            write("}\n")


def _images(rows: Iterable[ImageRow]) -> Iterator[dict[str, Any]]:
    taken: set[int] = set()
    for row in rows:
        size = {"height": row.height, "width": row.width}
        about = {"task": row.task, "source": row.source}
        yield {"id": _number(row.key, taken), "file_name": row.image} | size | about


def _all(rows: Iterable[ImageRow]) -> Iterator[dict[str, Any]]:
    images: set[int] = set()
    taken: set[int] = set()
    for row in rows:
        image = _number(row.key, images)
        for each in row.entries[CocoWriter.name]:
            number = _number(f"{row.key}/{each['id']}", taken)
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
