"""The table of benchmarks: data set, classes and protocol of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.clip.loading import LoadedModel
from clearclip_core.demo.scenes.scene import SCENE_LABELS
from clearclip_core.evaluation.datasets.class_names import BACKGROUND, class_names
from clearclip_core.evaluation.datasets.layouts import Layout
from clearclip_core.images.label_maps import IGNORE
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmentation.scores import TEMPERATURE, TextSide

#: Short side of a resized image in px (Sec. 4.1 of the paper).
SHORT_SIDE_PX = 448


@dataclass(frozen=True)
class Benchmark:
    """A data set, its classes, and the protocol under which the paper measures on it.

    Attributes:
        name: name in commands.
        title: name in the paper's tables.
        classes: names in the order of the data set's indices.
        layout: layout of the files; None for the drawn scenes.
        reduce_zero_label: value 0 in a label map is not counted, and value n is class n - 1.
        threshold: pixels whose class has a lower probability become class 0, the background.
        window_px: side of a sliding window.
        stride_px: step between sliding windows.
        short_side_px: short side of a resized image.
        temperature: factor on the cosines before the softmax; no unit.
        least_share: a label with at most this share of the pixels that are no background becomes
            background.
        text_side: how words follow pictures, for a method with a text side; None for others.
        paper_colours: normalise colours with the paper's mean and std for every model, not with
            the model's own.

    Raises:
        ValueError: a threshold or a least share, but no background class to fall back to.

    >>> BENCHMARKS["voc21"].classes[:2], BENCHMARKS["voc21"].threshold
    (('background', 'aeroplane'), 0.5)
    """

    name: str
    title: str
    classes: tuple[str, ...]
    layout: Layout | None
    reduce_zero_label: bool = False
    threshold: float = 0.0
    window_px: int = 448
    stride_px: int = 224
    short_side_px: int = SHORT_SIDE_PX
    temperature: float = TEMPERATURE
    least_share: float = 0.0
    text_side: TextSide | None = None
    paper_colours: bool = True

    def __post_init__(self) -> None:
        if self.threshold and not self.has_background:
            raise ValueError(
                "Expected argument `threshold` to be 0 without a background class, but got "
                f"{self.threshold}."
            )
        if self.least_share and not self.has_background:
            raise ValueError(
                "Expected argument `least_share` to be 0 without a background class, but got "
                f"{self.least_share}."
            )

    @property
    def has_background(self) -> bool:
        """Whether class 0 is the background, which pixels below the threshold get."""
        return self.classes[0] == BACKGROUND

    def preprocessing(
        self, model: LoadedModel, short_side_px: int = SHORT_SIDE_PX
    ) -> Preprocessing:
        """Return sizes, mean and std.

        The limit of the long side is 2048 px at a short side of 448 px, and in proportion.
        """
        mean, std = model.mean, model.std
        if self.paper_colours:
            mean, std = Preprocessing.mean, Preprocessing.std
        sizes = Preprocessing.of_short_side(mean, std, short_side_px)
        return replace(sizes, window_px=self.window_px, stride_px=self.stride_px)

    def truth(self, label_map: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the class indices of a file's label map; 255 is not counted.

        Raises:
            ValueError: the map holds a value that is no class.

        >>> BENCHMARKS["voc20"].truth(np.array([[0, 1, 20, 255]], np.uint8)).tolist()
        [[255, 0, 19, 255]]
        """
        truth = label_map
        if self.reduce_zero_label:
            truth = np.where(np.isin(label_map, (0, IGNORE)), IGNORE, label_map - 1)
        wrong = np.unique(truth[(truth >= len(self.classes)) & (truth != IGNORE)])
        if wrong.size:
            first = int(self.reduce_zero_label)
            raise ValueError(
                f"Expected a label map of {self.name} to hold 0 to "
                f"{len(self.classes) - 1 + first} and {IGNORE}, but got {wrong[0] + first}."
            )
        return np.asarray(truth, np.uint8)

    def decision(self, label_map: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        """Return the class indices of a segmenter's label map; without a label it is background."""
        if not self.has_background:
            return np.asarray(label_map, np.int16)
        labels = np.where(label_map < 0, 0, label_map).astype(np.int16)
        if self.least_share:
            pixels = np.bincount(labels.ravel(), minlength=len(self.classes))
            pixels[0] = 0
            labels[(pixels <= self.least_share * pixels.sum())[labels]] = 0
        return labels


def _with_background(names: tuple[str, ...]) -> tuple[str, ...]:
    return (BACKGROUND, *names)


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
    Benchmark("voc21", "VOC21", _with_background(class_names("voc20")), _VOC, threshold=0.5),
    Benchmark("context59", "Context59", class_names("context59"), _CONTEXT, reduce_zero_label=True),
    Benchmark(
        "context60",
        "Context60",
        _with_background(class_names("context59")),
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
        _with_background(class_names("coco_object")),
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
BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType({row.name: row for row in _TABLE})
