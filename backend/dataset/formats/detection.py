"""Find out in which format a folder or a file has its masks, and read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from backend.dataset.formats.coco import find_coco_files, read_coco
from backend.dataset.formats.label_map import FILES, find_maps, read_binary_masks, read_index_png
from backend.dataset.formats.labelme import find_labelme_files, read_labelme
from backend.dataset.formats.yolo import find_label_files, read_yolo
from backend.dataset.mask_source import Limits, MaskSource, find_below, read_bytes
from backend.errors import DatasetError

MaskFormat = Literal["index-png", "binary-masks", "coco", "labelme", "yolo"]


#: Files beside label maps that say their classes.
_NAMES: Final = ("classes.json", "names.txt", "label_colors.txt")

#: End of the names of label maps, the data set that has it, and what is to be given.
_SUFFIXES: Final = (
    ("_labelIds", "Cityscapes", "_gtFine_labelIds=_leftImg8bit"),
    ("_L", "CamVid", "_L"),
)


def detect_format(path: Path) -> MaskFormat:
    """Return the format of the masks in a folder or a file.

    Folders that only one format has count first, such as ``masks``. Without one, what lies in the
    folder itself counts; PNGs last, which may be the pictures.
    """
    if path.is_file() and path.suffix.lower() != ".json":
        raise DatasetError(
            f"Expected {path} to be a folder or a COCO file (*.json): "
            + ("unpack it first." if path.suffix.lower() == ".zip" else "name its folder.")
        )
    maps, coco, texts = find_maps(path), find_coco_files(path), find_label_files(path)
    by_folder: dict[MaskFormat, bool] = {
        "index-png": bool(maps[1]) and maps[0] != path,
        "coco": any(each.parent != path for each in coco),
        "yolo": bool(texts[1]) and texts[0] != path,
    }
    found = [format_ for format_, is_there in by_folder.items() if is_there]
    if len(found) > 1:
        raise DatasetError(f"{path} has masks as {', '.join(found)}: say which by --format.")
    if found:
        return found[0]
    if advice := _look_alike(path, maps[1]):
        raise DatasetError(f"{path} looks like {advice}")
    if maps[1] and any((path / name).is_file() for name in _NAMES):
        return "index-png"
    if coco:
        return "labelme" if path.is_dir() and coco[0] in find_labelme_files(path)[1] else "coco"
    if texts[1]:
        return "yolo"
    if maps[1]:
        return "index-png"
    raise DatasetError(
        f"Expected {path} to have label maps (*.png), COCO files (*.json) or YOLO's files (*.txt), "
        "but it has none."
    )


def _look_alike(path: Path, maps: Sequence[Path]) -> str:
    """Return what a folder seems to be that needs more said, and what; empty for nothing."""
    for suffix, name, asked in _SUFFIXES:
        if maps and any(each.stem.endswith(suffix) for each in maps):
            return f"{name}: give --suffix {asked}, and name the file of its classes by --names."
    if any((place / name).is_file() for place in (path, path.parent) for name in FILES):
        return ""
    xml = find_below(path, (), lambda each: each.suffix.lower() == ".xml")[1]
    head = read_bytes(xml[0], Limits())[: 1 << 16] if xml else b""
    if b"<annotations" in head:
        return "CVAT's XML: export it from there as COCO, or convert it with datumaro."
    if b"<polygon" in head:
        return "LabelMe's XML: convert it to COCO with datumaro."
    if b"<bndbox" in head:
        return "boxes of PASCAL VOC, which are no masks: those would be in SegmentationClass."
    names = Counter(each.name for each in maps if each.parent != path)
    if len(maps) == names.total() > len(names):
        return "a folder of masks for each class: give --format binary-masks."
    return ""


def read_masks(
    path: Path,
    format_: MaskFormat | None,
    names: Path | None,
    limits: Limits,
    *,
    colours: Path | None = None,
    suffix: str = "",
) -> Iterator[MaskSource]:
    """Iterate over the masks in a folder or a file; for the options see the readers."""
    format_ = format_ or ("index-png" if colours or suffix else detect_format(path))
    if format_ == "index-png":
        return read_index_png(path, names, limits, colours=colours, suffix=suffix)
    if colours or suffix:
        raise DatasetError("Colours and suffixes are those of label maps: --format index-png.")
    if format_ in ("coco", "yolo"):
        return read_coco(path, names) if format_ == "coco" else read_yolo(path, names, limits)
    return {"labelme": read_labelme, "binary-masks": read_binary_masks}[format_](path, limits)
