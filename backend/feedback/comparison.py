"""What an annotator left of a prediction: per picture and label, in regions and in pixels.

Pure: two results as Label Studio has them, and the label config that they are about.

- A region of the prediction is known again by its id, which the editor keeps. It was **accepted**
  where it covers the same pixels as before, **corrected** where others, **relabelled** where it is
  of another label now, and **deleted** where it is gone. A region with an id that the prediction
  has not was **added** by hand.
- In pixels, a label is all that its regions cover together; of a brush's soft edge, what is more
  than half painted.
- Where several controls draw a label, the first of the config counts that has a region of it in the
  annotation; if none has, the first that has one in the prediction. A box around a mask is not the
  mask.
- Labels are known by value or by alias. Regions of labels that the config does not have, and of
  prompt tools, are left aside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from backend.errors import BadRequest, DataKeyError
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.region_reader import Area, area_mask, read_areas, written_labels
from backend.label_studio.requests import Task
from clearclip_core import BoolMask, boundary_band

#: Pixels of a picture whose regions are compared: more is no picture that we predict.
LARGEST_PX: Final = 1 << 28

Result = Sequence[Any]


@dataclass(frozen=True)
class LabelDiff:
    """What became of one label on one picture.

    Attributes:
        label: its name.
        accepted: regions of the prediction that were left as they are.
        corrected: that cover other pixels now.
        deleted: that are gone.
        relabelled: that have another label now: its name -> how many.
        added: regions that the annotator drew.
        received: that the prediction had given another label.
        predicted_px: pixels that the prediction covers.
        true_px: that the annotation covers.
        shared_px: that both cover.
        band_shared_px: pixels that the boundary bands of both cover, see
            `clearclip_core.boundary_band`.
        band_px: that one of the two bands covers.

    >>> change = LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)
    >>> change.added_px, change.iou
    (4, 0.5)
    """

    label: str
    accepted: int = 0
    corrected: int = 0
    deleted: int = 0
    relabelled: Mapping[str, int] = field(default_factory=dict)
    added: int = 0
    received: int = 0
    predicted_px: int = 0
    true_px: int = 0
    shared_px: int = 0
    band_shared_px: int = 0
    band_px: int = 0

    @property
    def added_px(self) -> int:
        """Pixels that the annotator had to paint."""
        return self.true_px - self.shared_px

    @property
    def iou(self) -> float | None:
        """Intersection over union; None where neither covers anything."""
        union = self.predicted_px + self.added_px
        return self.shared_px / union if union else None

    @property
    def boundary_iou(self) -> float | None:
        """Likewise of the boundary bands (Cheng et al., 2021)."""
        return self.band_shared_px / self.band_px if self.band_px else None

    def to_json(self) -> dict[str, Any]:
        """All of it as databases keep it; these names stay."""
        return {
            "label": self.label,
            "accepted": self.accepted,
            "corrected": self.corrected,
            "deleted": self.deleted,
            "relabelled": dict(self.relabelled),
            "added": self.added,
            "received": self.received,
            "predicted_px": self.predicted_px,
            "true_px": self.true_px,
            "shared_px": self.shared_px,
            "band_shared_px": self.band_shared_px,
            "band_px": self.band_px,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelDiff:
        """One that has been kept as JSON; a count that is not there is 0."""
        return cls(
            label=value["label"],
            accepted=value.get("accepted", 0),
            corrected=value.get("corrected", 0),
            deleted=value.get("deleted", 0),
            relabelled=value.get("relabelled", {}),
            added=value.get("added", 0),
            received=value.get("received", 0),
            predicted_px=value.get("predicted_px", 0),
            true_px=value.get("true_px", 0),
            shared_px=value.get("shared_px", 0),
            band_shared_px=value.get("band_shared_px", 0),
            band_px=value.get("band_px", 0),
        )


@dataclass(frozen=True, eq=False)
class ImageDiff:
    """One picture of a task, as it was predicted and as it was left.

    Attributes:
        tag: the image it belongs to.
        item_index: which picture of a list; None where the image is no list.
        size_hw: height and width in px.
        final: name of a label -> (H, W) bool, for labels that the annotation has there.
        predicted: likewise of the prediction; None where there was none to begin with.
        changes: what became of each label, in the order of the config; none without a prediction.
    """

    tag: ImageTag
    item_index: int | None
    size_hw: tuple[int, int]
    final: Mapping[str, BoolMask]
    predicted: Mapping[str, BoolMask] | None = None
    changes: tuple[LabelDiff, ...] = ()


@dataclass(frozen=True, eq=False)
class AnnotationDiff:
    """One annotation against the prediction that it started from.

    Attributes:
        annotation: its id.
        project: its project's.
        task: the task, its data included.
        config: the project's label config when it was read.
        pictures: those with a region of ours, in the order of the config. A picture of the task
            that is not among them has none, and nobody knows its size.
        updated: when the annotation was changed last, in seconds since the epoch.
    """

    annotation: int
    project: int
    task: Task
    config: LabelConfig
    pictures: tuple[ImageDiff, ...]
    updated: float

    @property
    def changes(self) -> tuple[LabelDiff, ...]:
        """Those of all pictures."""
        return tuple(change for picture in self.pictures for change in picture.changes)


class CorrectionListener(Protocol):
    """Who learns from corrections; each call may come again, and then changes nothing more."""

    def learn(self, corrected: AnnotationDiff) -> None:
        """Take an annotation in; one that was taken in before is replaced.

        Raises:
            ImageRefused: a picture is not handed out now; what was taken in before stays.
            ModelUnavailable: the model is not there; likewise.
        """

    def forget(self, annotation: int) -> None:
        """Take an annotation out again, if it was taken in: deleted, skipped or emptied."""


class AreaMasks(Mapping[str, BoolMask]):
    """Masks of labels, drawn from their areas whenever one is asked for: large ones take memory.

    Args:
        areas: name of a label -> its areas, all on one picture.
        size_hw: height and width of the picture in px.

    >>> left = Area("rectanglelabels", "box", "img", None, (1, 4),
    ...             {"x": 0, "y": 0, "width": 50, "height": 100})
    >>> AreaMasks({"car": [left]}, (1, 4))["car"]
    array([[ True,  True, False, False]])
    """

    def __init__(self, areas: Mapping[str, Sequence[Area]], size_hw: tuple[int, int]) -> None:
        self._areas = areas
        self._size_hw = size_hw

    def __getitem__(self, label: str) -> BoolMask:
        mask = np.zeros(self._size_hw, dtype=np.bool_)
        for area in self._areas[label]:
            mask |= area_mask(area)
        return mask

    def __contains__(self, label: object) -> bool:
        return label in self._areas  # the one of Mapping would draw it

    def __iter__(self) -> Iterator[str]:
        return iter(self._areas)

    def __len__(self) -> int:
        return len(self._areas)


def compare(
    predicted: Result | None, final: Result, config: LabelConfig, task: Task
) -> tuple[ImageDiff, ...]:
    """Compare what was predicted for a task with what an annotator left.

    Args:
        predicted: the result of the prediction; None where the annotator began with none.
        final: the result of the annotation.
        config: the project's.
        task: says which images are lists.

    Raises:
        BadRequest: a region cannot be read, or its picture has two sizes.
    """
    names = {control.name for control in (*config.controls, *config.boxes)}
    before = _by_picture(read_areas(predicted or (), names))
    after = _by_picture(read_areas(final, names))
    pictures = []
    for tag in config.images:
        items = sorted({item for name, item in (*before, *after) if name == tag.name})
        for item in items:
            sides = (before.get((tag.name, item), []), after.get((tag.name, item), []))
            index = item if _is_list(tag, task) else None
            pictures.append(_picture(tag, index, *sides, config, has_begun=predicted is not None))
    return tuple(picture for picture in pictures if picture is not None)


def _is_list(tag: ImageTag, task: Task) -> bool:
    try:
        return tag.is_list(task.data)
    except DataKeyError:
        return False


def _by_picture(areas: Iterable[Area]) -> dict[tuple[str, int], list[Area]]:
    found: dict[tuple[str, int], list[Area]] = {}
    for area in areas:
        found.setdefault((area.image, area.item_index or 0), []).append(area)
    return found


def _picture(
    tag: ImageTag,
    item_index: int | None,
    before: Sequence[Area],
    after: Sequence[Area],
    config: LabelConfig,
    has_begun: bool,
) -> ImageDiff | None:
    """One picture; None where all its regions are of labels that the config does not have."""
    predicted, final = _by_label(before, config, tag), _by_label(after, config, tag)
    for label in predicted.keys() | final.keys():
        _choose_control(label, predicted, final, config, tag)
    predicted = {label: areas for label, areas in predicted.items() if areas}
    final = {label: areas for label, areas in final.items() if areas}
    if not predicted and not final:
        return None
    size_hw = _size(
        area for side in (predicted, final) for areas in side.values() for area in areas
    )
    old, new = AreaMasks(predicted, size_hw), AreaMasks(final, size_hw)
    order = [label.name for label in (*config.labels, *config.box_labels)]
    labels = [label for label in order if label in old or label in new]
    try:
        changes = [_change(label, predicted, final, old, new) for label in labels]
    except ValueError as error:
        raise BadRequest(f"Expected regions that can be read, but got another: {error}") from None
    return ImageDiff(
        tag,
        item_index,
        size_hw,
        new,
        old if has_begun else None,
        tuple(changes) if has_begun else (),
    )


def _by_label(areas: Iterable[Area], config: LabelConfig, tag: ImageTag) -> dict[str, list[Area]]:
    """The areas of each label, by its name, in the order in which they stand."""
    there = [
        (control, label)
        for control in (*config.controls, *config.boxes)
        for label in control.labels
        if any(control is each for each, _ in config.controls_for(tag.name, label.name))
    ]
    names = {(control.name, label.name): label.name for control, label in there}
    names |= {(control.name, label.written): label.name for control, label in there}
    found: dict[str, list[Area]] = {}
    for area in areas:
        for written in dict.fromkeys(written_labels(area)):
            name = names.get((area.control, written))
            if name is not None:
                found.setdefault(name, []).append(area)
    return found


def _choose_control(
    label: str,
    predicted: dict[str, list[Area]],
    final: dict[str, list[Area]],
    config: LabelConfig,
    tag: ImageTag,
) -> None:
    """Keep the areas of the one control that counts for a label."""
    for side in (final, predicted):
        there = {area.control for area in side.get(label, ())}
        chosen = [
            each.name for each, _ in config.controls_for(tag.name, label) if each.name in there
        ]
        if chosen:
            break
    for side in (predicted, final):
        side[label] = [area for area in side.get(label, ()) if area.control == chosen[0]]


def _size(areas: Iterable[Area]) -> tuple[int, int]:
    sizes = {area.size_hw for area in areas}
    if len(sizes) > 1:
        raise BadRequest(f"Expected regions of one picture to agree on its size, but got {sizes}.")
    (size_hw,) = sizes
    if size_hw[0] * size_hw[1] > LARGEST_PX:
        raise BadRequest(f"Expected a picture of at most {LARGEST_PX} pixels, but got {size_hw}.")
    return size_hw


def _change(
    label: str,
    predicted: Mapping[str, Sequence[Area]],
    final: Mapping[str, Sequence[Area]],
    old: Mapping[str, BoolMask],
    new: Mapping[str, BoolMask],
) -> LabelDiff:
    was, is_ = predicted.get(label, ()), final.get(label, ())
    known, left = _labels_by_id(predicted), _labels_by_id(final)
    after = {area.id: area for area in is_ if area.id}
    counts: Counter[str] = Counter()
    relabelled: Counter[str] = Counter()
    for area in was:
        if area.id in after:
            counts["accepted" if _same_pixels(area, after[area.id]) else "corrected"] += 1
        elif area.id in left:
            relabelled[left[area.id][0]] += 1
        else:
            counts["deleted"] += 1
    before = {area.id for area in was}
    for area in is_:
        if area.id not in before or not area.id:
            counts["received" if area.id in known else "added"] += 1
    return LabelDiff(label, relabelled=dict(relabelled), **counts, **_overlap(label, old, new))


def _labels_by_id(side: Mapping[str, Sequence[Area]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, areas in side.items():
        for area in areas:
            if area.id:
                found.setdefault(area.id, []).append(label)
    return found


def _same_pixels(one: Area, other: Area) -> bool:
    if one.kind == other.kind and one.size_hw == other.size_hw:
        keys = (one.value.keys() | other.value.keys()) - {one.kind}
        if all(one.value.get(key) == other.value.get(key) for key in keys):
            return True  # most often: nothing needs to be drawn
    return np.array_equal(area_mask(one), area_mask(other))


def _overlap(
    label: str, old: Mapping[str, BoolMask], new: Mapping[str, BoolMask]
) -> dict[str, int]:
    """What two masks share, in pixels; one that is not there covers none."""
    was, is_ = old.get(label), new.get(label)
    if was is None or is_ is None:
        mask = is_ if was is None else was
        assert mask is not None
        whole, band = int(np.count_nonzero(mask)), int(np.count_nonzero(boundary_band(mask)))
        return {"true_px" if was is None else "predicted_px": whole, "band_px": band}
    was_band, is_band = boundary_band(was), boundary_band(is_)
    return {
        "predicted_px": int(np.count_nonzero(was)),
        "true_px": int(np.count_nonzero(is_)),
        "shared_px": int(np.count_nonzero(was & is_)),
        "band_shared_px": int(np.count_nonzero(was_band & is_band)),
        "band_px": int(np.count_nonzero(was_band | is_band)),
    }
