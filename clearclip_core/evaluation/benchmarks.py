"""The paper's benchmarks: data sets on disk, their classes, and how the paper measures each."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from clearclip_core.clip.methods import Method
from clearclip_core.demo.render import HELD_OUT_SEEDS, SCENE_LABELS, render_scene
from clearclip_core.evaluation.metrics import LabelIndices
from clearclip_core.images.files import is_hidden, write_whole
from clearclip_core.images.label_maps import (
    IGNORE,
    LayoutError,
    PictureFiles,
    Truth,
    read_label_values,
)
from clearclip_core.images.preprocessing import Preprocessing, RGBArray
from clearclip_core.vocabulary import TEMPERATURE, Label, read_lines

if TYPE_CHECKING:  # torch
    from clearclip_core.clip.loading import LoadedModel

BACKGROUND = "background"  # name of the class of pixels without another class


def class_names(name: str) -> tuple[str, ...]:
    """Return the lines of a file in ``class_names/``.

    >>> class_names("voc20")[3:6]
    ('ship', 'bottle', 'bus')
    """
    text = (files(__package__) / "class_names" / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def read_labels(path: Path, classes: Sequence[str]) -> tuple[Label, ...]:
    """Read a file of other names for the classes of a benchmark.

    Args:
        path: a text file in UTF-8, one line a class in the order of `classes`. The words of a
            class are separated by commas; each is a query.

    Raises:
        ValueError: not as many lines with a word as classes.
        OSError: the file cannot be read.
    """
    lines = read_lines(path)
    words = [tuple(filter(None, map(str.strip, line.split(",")))) for line in lines]
    if len(words) != len(classes) or not all(words):
        raise ValueError(
            f"Expected {path} to have {len(classes)} lines with a word, one a class from "
            f"{classes[0]!r} to {classes[-1]!r}, but got {sum(map(bool, words))}."
        )
    return tuple(map(Label, classes, words))


_DERIVED = "TrainIds"  # end of the names of label maps that are made from published ones


@dataclass(frozen=True)
class Layout:
    """Folders, suffixes, and the file that lists the images.

    The label map of ``PICTURES/x/y`` + `picture_suffix` is ``MAPS/x/y`` + `map_suffix`.
    """

    pictures: str  # folder of the images, below the data set's
    picture_suffix: str
    maps: str
    map_suffix: str
    listing: str | None = None  # file with an image's name a line; None: all files of both folders

    def find(self, root: Path) -> list[PictureFiles]:
        """Find all images of a data set, in the order of the listing, or of their names.

        Args:
            root: folder of the data set.

        Raises:
            LayoutError: a folder, the listing, an image, or a label map is missing.
        """
        self._check_parts(root)
        found = [
            PictureFiles(
                name,
                root / self.pictures / f"{name}{self.picture_suffix}",
                root / self.maps / f"{name}{self.map_suffix}",
            )
            for name in self._names(root)
        ]

        lost = [path for each in found for path in each.paths if not path.is_file()]
        if lost:
            raise LayoutError(
                f"Expected a picture and a label map of {len(found)} names, but {len(lost)} files "
                f"are not there, such as {lost[0]}."
            )
        return found

    def _check_parts(self, root: Path) -> None:
        """Check that both folders and the listing are there.

        Raises:
            LayoutError: one of them is missing.
        """
        wanted = [self.pictures, self.maps]
        if self.listing:
            wanted.append(self.listing)
        missing = [name for name in wanted if not (root / name).exists()]
        if missing:
            raise LayoutError(
                f"Expected {root} to hold {', '.join(wanted)}, but {', '.join(missing)} is not "
                "there."
            )

    def _names(self, root: Path) -> list[str]:
        """Return the names of the images.

        Raises:
            LayoutError: there is none, or a name is there twice.
        """
        names = self._listed_names(root)
        if not names or len(set(names)) != len(names):
            place = root / (self.listing or self.maps)
            raise LayoutError(f"Expected pictures in {place}, each once.")
        return names

    def _listed_names(self, root: Path) -> list[str]:
        if self.listing:
            lines = (root / self.listing).read_text(encoding="utf-8-sig").splitlines()
            return [line.strip() for line in lines if line.strip()]
        found = set()
        for folder, suffix in ((self.pictures, self.picture_suffix), (self.maps, self.map_suffix)):
            for path in (root / folder).rglob(f"*{suffix}"):
                if not is_hidden(path, root / folder):
                    found.add(path.relative_to(root / folder).as_posix().removesuffix(suffix))
        return sorted(name for name in found if not name.endswith(_DERIVED))


#: Short side of a resized image in px (Sec. 4.1 of the paper).
SHORT_SIDE_PX = 448


@dataclass(frozen=True)
class Benchmark:
    """A data set, its classes, and the protocol under which the paper measures on it.

    >>> BENCHMARKS["voc21"].classes[:2], BENCHMARKS["voc21"].threshold
    (('background', 'aeroplane'), 0.5)
    """

    name: str
    title: str
    classes: tuple[str, ...]
    layout: Layout | None  # layout of the files; None for the drawn scenes
    reduce_zero_label: bool = False  # value 0 is not counted, and value n is class n - 1
    threshold: float = 0.0  # less probable pixels become class 0, the background
    window_px: int = 448
    stride_px: int = 224
    short_side_px: int = SHORT_SIDE_PX
    temperature: float = TEMPERATURE  # factor on the cosines before the softmax; no unit
    least_share: float = 0.0  # labels with at most this share of the foreground become background
    paper_colours: bool = True  # normalise by the paper's mean and std, not the model's own

    def preprocessing(self, model: "LoadedModel") -> Preprocessing:
        """Return sizes, mean and std; see `Preprocessing.of_short_side`."""
        colours = Preprocessing if self.paper_colours else model
        return Preprocessing.of_short_side(
            colours.mean, colours.std, self.short_side_px, self.window_px, self.stride_px
        )

    @property
    def indices(self) -> tuple[int | None, ...]:
        """Class index of each value of a file's label map; None for one that is not counted.

        >>> BENCHMARKS["voc20"].indices[:3]
        (None, 0, 1)
        """
        left_out = (None,) if self.reduce_zero_label else ()
        return (*left_out, *range(len(self.classes)))

    def decision(self, label_map: LabelIndices) -> LabelIndices:
        """Return the class indices of a segmenter's label map; without a label it is background."""
        if self.classes[0] != BACKGROUND:
            return label_map
        labels = np.maximum(label_map, 0)
        if self.least_share:
            pixels = np.bincount(labels.ravel(), minlength=len(self.classes))
            pixels[0] = 0
            labels[(pixels <= self.least_share * pixels.sum())[labels]] = 0
        return labels


_VOC = Layout("JPEGImages", ".jpg", "SegmentationClass", ".png", "ImageSets/Segmentation/val.txt")
_CONTEXT = Layout(
    "JPEGImages",
    ".jpg",
    "SegmentationClassContext",
    ".png",
    "ImageSets/SegmentationContext/val.txt",
)
_COCO_MAPS = "annotations/val2017"

_TABLE = (
    Benchmark("voc20", "VOC20", class_names("voc20"), _VOC, reduce_zero_label=True),
    Benchmark("voc21", "VOC21", (BACKGROUND, *class_names("voc20")), _VOC, threshold=0.5),
    Benchmark("context59", "Context59", class_names("context59"), _CONTEXT, reduce_zero_label=True),
    Benchmark(
        "context60",
        "Context60",
        (BACKGROUND, *class_names("context59")),
        _CONTEXT,
        threshold=0.15,
    ),
    Benchmark(
        "coco_stuff",
        "Stuff",
        class_names("coco_stuff"),
        Layout("images/val2017", ".jpg", _COCO_MAPS, "_labelTrainIds.png"),
    ),
    Benchmark(
        "coco_object",
        "Object",
        (BACKGROUND, *class_names("coco_object")),
        Layout("images/val2017", ".jpg", _COCO_MAPS, "_instanceTrainIds.png"),
        threshold=0.4,
    ),
    Benchmark(
        "cityscapes",
        "Cityscapes",
        class_names("cityscapes"),
        Layout("leftImg8bit/val", "_leftImg8bit.png", "gtFine/val", "_gtFine_labelTrainIds.png"),
        window_px=224,
    ),
    Benchmark(
        "ade20k",
        "ADE20k",
        class_names("ade20k"),
        Layout("images/validation", ".jpg", "annotations/validation", ".png"),
        reduce_zero_label=True,
    ),
    Benchmark("demo", "drawn scenes", SCENE_LABELS, None, paper_colours=False),
)

#: Name -> benchmark: the paper's eight, and the drawn scenes of the demo model.
#:
#: Images of Cityscapes are resized from 2048 x 1024 px to 896 x 448 px (Sec. 4.1). Its windows of
#: 224 px without overlap are the paper's released setting; those of the others overlap by half.
BENCHMARKS: Final = {row.name: row for row in _TABLE}


SCENES = 500  # number of drawn scenes of the benchmark `demo`


@dataclass(frozen=True)
class LabelledPicture:
    """A picture of a data set with its ground truth, read on demand."""

    files: PictureFiles
    indices: tuple[int | None, ...]  # of each value of the label map, see `Benchmark.indices`

    @property
    def name(self) -> str:
        """Name of the picture, unique in the data set."""
        return self.files.name

    @property
    def digest(self) -> str:
        """Hex digest of the name, the size of the image file and the content of the label map.

        Raises:
            LayoutError: the files cannot be read.
        """
        try:
            size = self.files.picture.stat().st_size
            label_map = hashlib.sha256(self.files.label_map.read_bytes()).hexdigest()
        except OSError as error:
            raise LayoutError(f"{self.name} cannot be read: {error}") from error
        return json_digest([self.name, size, label_map])

    def read(self) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB, and (H, W) uint8 class indices; see `PictureFiles.read`."""
        return self.files.read(self.indices)


@dataclass(frozen=True)
class SceneSample:
    """A drawn scene that is not used for training; see `LabelledPicture`."""

    seed: int

    @property
    def name(self) -> str:
        return f"scene {self.seed}"

    digest = name

    def read(self) -> tuple[RGBArray, Truth]:
        scene = render_scene(self.seed)
        return scene.image, scene.label_map.astype(np.uint8)


Sample = LabelledPicture | SceneSample


def find_samples(benchmark: Benchmark, root: Path | None) -> Sequence[Sample]:
    """Find all samples of a benchmark.

    All files are checked to exist, and the first sample is read.

    Args:
        root: folder of the data set; None for the drawn scenes.

    Raises:
        LayoutError: the folder does not fit the benchmark, or is not given.
    """
    if benchmark.layout is None:
        return [SceneSample(seed) for seed in HELD_OUT_SEEDS[:SCENES]]
    if root is None:
        raise LayoutError(f"Benchmark {benchmark.name} needs the folder of its data (--data).")
    indices = benchmark.indices
    samples = [LabelledPicture(files, indices) for files in benchmark.layout.find(root)]
    samples[0].read()
    return samples


#: Values without a class among COCO's 80 things and 91 kinds of stuff. A value is COCO's category
#: id minus one.
_COCO_GAPS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_COCO_THINGS = 80
_COCO_VALUES = [value for value in range(182) if value not in _COCO_GAPS]

#: Cityscapes' label ids of the 19 evaluated classes, in the order of their train ids.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


_STUFF = {value: index for index, value in enumerate(_COCO_VALUES)} | {IGNORE: IGNORE}
#: Things from 1 on, and 0 for stuff and pixels without a label.
_OBJECT = {value: index + 1 if index < _COCO_THINGS else 0 for value, index in _STUFF.items()}
_CITYSCAPES = dict.fromkeys([*range(34), IGNORE], IGNORE) | {
    value: index for index, value in enumerate(_CITYSCAPES_IDS)
}

#: Benchmark -> suffix of the published label maps that its own are made from, and the class of each
#: of their values.
RECODINGS: Final = {
    "coco_stuff": (".png", _STUFF),
    "coco_object": (".png", _OBJECT),
    "cityscapes": ("_gtFine_labelIds.png", _CITYSCAPES),
}


def prepare(name: str, root: Path) -> Iterator[Path]:
    """Make the missing label maps of a benchmark, and yield the path of each that is written.

    Args:
        name: one of `RECODINGS`.

    Raises:
        LayoutError: the folder does not fit, or a published label map is missing or unknown.
        OSError: a label map cannot be written.
    """
    layout, (suffix, classes) = BENCHMARKS[name].layout, RECODINGS[name]
    assert layout is not None
    table = np.zeros(256, np.uint8)
    table[list(classes)] = list(classes.values())
    for each in replace(layout, map_suffix=suffix).find(root):
        target = root / layout.maps / f"{each.name}{layout.map_suffix}"
        if target.is_file():
            continue
        label_map = read_label_values(each.label_map)
        if unknown := set(np.unique(label_map).tolist()) - set(classes):
            raise LayoutError(
                f"{each.label_map}: Expected values of published maps, but got {min(unknown)}."
            )
        png = io.BytesIO()
        Image.fromarray(table[label_map]).save(png, "PNG", optimize=True)
        write_whole(target, png.getvalue())
        yield target


_Protocol = dict[str, dict[str, Any]]

#: One window holds a whole resized picture, whose long side is limited to 2048 px.
_WHOLE = {"window_px": 2048, "stride_px": 2048}
_TENTH: _Protocol = {name: {"threshold": 0.1} for name in ("voc21", "context60", "coco_object")}
_MIDDLE: _Protocol = {
    "voc21": {"threshold": 0.15, "temperature": 50.0, "least_share": 0.1},
    "context60": {"threshold": 0.15},
    "coco_object": {"threshold": 0.35, "temperature": 55.0},
}

#: Preset -> benchmark -> how its authors measured on it, beside the method's own sizes. All other
#: methods are measured as the paper does.
PROTOCOLS: Final[dict[str, _Protocol]] = {
    "naclip": _TENTH,
    "pearl": {**_TENTH, "voc20": _WHOLE, "voc21": {**_WHOLE, "threshold": 0.1}},
    "scclip": _MIDDLE,
    "sfp": {**_MIDDLE, "ade20k": {"short_side_px": 384}},
    "rfclip": {**_TENTH, "voc21": {**_WHOLE, "threshold": 0.1}},
}

#: Benchmark -> key weight of the attention of ``pearl``.
_PEARL_KEY_WEIGHTS = {"ade20k": 0.3, "cityscapes": 0.3}


def benchmark_for(name: str, method: Method) -> Benchmark:
    """Return a benchmark under the protocol of a method's authors; drawn scenes keep their own.

    A method that is no preset is measured as the paper does.
    """
    benchmark, protocol = BENCHMARKS[name], PROTOCOLS.get(str(method))
    if protocol is None or name == "demo":
        return benchmark
    short_side_px, window_px, stride_px = method.sizes_px
    changes: dict[str, Any] = {
        "threshold": 0.0,
        "temperature": 40.0,  # of all of them
        "short_side_px": 560 if name == "cityscapes" else short_side_px,
        "window_px": window_px,
        "stride_px": stride_px,
    }
    return replace(benchmark, **changes | protocol.get(name, {}))


def method_for(name: str, method: Method) -> Method:
    """Return a method with the numbers that its authors chose for a benchmark."""
    if str(method) != "pearl" or name not in _PEARL_KEY_WEIGHTS:
        return method
    return replace(method, key_weight=_PEARL_KEY_WEIGHTS[name])


def json_digest(value: object) -> str:
    """Return a hex digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
