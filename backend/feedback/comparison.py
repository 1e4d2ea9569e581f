"""Compares a prediction with an annotation, by image and label, in regions and in pixels.

Pure functions of two results of Label Studio and the label config.

- The editor keeps the ids of regions, so a region of the prediction is found again by its id. It
  was **accepted** where it covers the same pixels as before, **corrected** where it covers others,
  **relabelled** where it has another label now, and **deleted** where it is gone. A region with an
  id that the prediction does not have was **added** by hand.
- The mask of a label is the union of its regions. A pixel of a brush's soft edge belongs to it
  where it is more than half painted.
- Where several controls draw a label, one of them counts: the first in the config that has a region
  of it in the annotation; if none has, the first that has one in the prediction. A box around a
  mask is not compared with the mask, except where the annotation has a region only of controls with
  ``prelabel="no"``: the prediction's first control is compared with these.
- Labels that only controls with ``prelabel="no"`` have are not missed by the prediction.
- Labels are matched by value or by alias. Regions of prompt tools, and of labels that the config
  does not have, are left out.

What the annotation says beyond that, to those who learn from it: `backend.feedback.evidence`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct, structs

from backend.errors import BadRequest, DataKeyError
from backend.feedback.evidence import (
    ImageEvidence,
    LazyMasks,
    find_evidence,
    has_same_pixels,
    without_rectangles,
)
from backend.label_studio.label_config import Control, ImageTag, LabelConfig
from backend.label_studio.region_reader import (
    Area,
    check_areas,
    disagreement,
    read_areas,
    written_labels,
)
from backend.label_studio.requests import Task
from clearclip_core import BoolMask
from clearclip_core.evaluation.metrics import MaskOverlap

Regions = Sequence[Any]


class LabelDiff(Struct, frozen=True, omit_defaults=True):
    """The difference of one label on one image between prediction and annotation.

    Databases keep it as JSON without what is 0.

    Attributes:
        corrected: regions of the prediction that cover other pixels now.
        relabelled: name of another label -> regions of the prediction that have that label now.
        added: regions that the annotator drew.
        received: regions to which the prediction had given another label.
        true_px: pixels that the annotation covers.
        band_shared_px: pixels that the boundary bands of both cover, see
            `clearclip_core.boundary_band`.
        image: index of the image among those of its annotation that are compared.
        score: the lowest score of the predicted regions, in [0, 1]; None where none was predicted,
            or one has no score.

    >>> change = LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)
    >>> change.iou
    0.5
    """

    label: str
    accepted: int = 0
    corrected: int = 0
    deleted: int = 0
    relabelled: dict[str, int] = {}
    added: int = 0
    received: int = 0
    predicted_px: int = 0
    true_px: int = 0
    shared_px: int = 0
    band_shared_px: int = 0
    band_px: int = 0
    image: int = 0
    score: float | None = None

    @property
    def needed_change(self) -> bool:
        """Whether a region is not as it was predicted, or was not predicted with this label."""
        return bool(
            self.corrected or self.deleted or self.relabelled or self.added or self.received
        )

    @property
    def iou(self) -> float | None:
        """Intersection over union; None where neither covers anything."""
        return self._overlap.iou

    @property
    def boundary_iou(self) -> float | None:
        """Boundary IoU (Cheng et al., 2021); None where neither has a boundary band."""
        return self._overlap.boundary_iou

    @property
    def _overlap(self) -> MaskOverlap:
        return MaskOverlap(
            self.predicted_px, self.true_px, self.shared_px, self.band_shared_px, self.band_px
        )


@dataclass(frozen=True, eq=False)
class ImageDiff:
    """The difference on one image of a task between prediction and annotation.

    Attributes:
        final: name of a label -> (H, W) bool, for the labels of the annotation; a rectangle is
            filled.
        evidence: what the annotation says of the labels, and where it says nothing.
        predicted: name of a label -> (H, W) bool, for the labels of the prediction; None where the
            annotator began without one.
        changes: of each label, in the order of the config; empty without a prediction.
    """

    tag: ImageTag
    item_index: int | None
    size_hw: tuple[int, int]
    final: Mapping[str, BoolMask]
    evidence: ImageEvidence
    predicted: Mapping[str, BoolMask] | None = None
    changes: tuple[LabelDiff, ...] = ()


@dataclass(frozen=True, eq=False)
class ImageMasks:
    """What an annotation has painted on one image of a task.

    Attributes:
        masks: name of a label -> (H, W) bool, drawn on each access; a rectangle is filled. To draw
            a broken region is a ValueError.
    """

    tag: ImageTag
    item_index: int | None
    size_hw: tuple[int, int]
    masks: Mapping[str, BoolMask]


@dataclass(frozen=True, eq=False)
class AnnotationDiff:
    """The difference between an annotation and the prediction that it began with.

    Attributes:
        config: the project's label config when the annotation was read.
        pictures: images with a region of a label of the config, in the order of the config. Other
            images of the task are left out: without a region, their size is not known.
        updated: when the annotation was changed last, in seconds since the epoch.
        annotator: opaque key of the annotator; empty where nobody knows.
    """

    annotation: int
    project: int
    task: Task
    config: LabelConfig
    pictures: tuple[ImageDiff, ...]
    updated: float
    annotator: str = ""

    @property
    def changes(self) -> tuple[LabelDiff, ...]:
        """The changes of all images."""
        return tuple(
            structs.replace(change, image=index)
            for index, picture in enumerate(self.pictures)
            for change in picture.changes
        )


class CorrectionListener(Protocol):
    """Learns from corrections; a call that is repeated changes nothing more."""

    def learn(self, diff: AnnotationDiff) -> None:
        """Learn from an annotation, in place of what it taught before."""

    def forget(self, annotation: int) -> None:
        """Forget an annotation that is deleted, skipped or emptied, if it was learned from."""


def compare_annotation(
    predicted: Regions | None, final: Regions, config: LabelConfig, task: Task
) -> tuple[ImageDiff, ...]:
    """Compare the prediction of a task with an annotation.

    Returns:
        The images with a region of a label of the config.

    Raises:
        BadRequest: a region cannot be read, or the regions of an image disagree on its size.
    """
    found = _find_areas(predicted or (), final, config, task, _choose_controls)
    try:
        return tuple(_compare_image(each, config, predicted is not None) for each in found)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def painted_masks(result: Regions, config: LabelConfig, task: Task) -> tuple[ImageMasks, ...]:
    """Read what an annotation has painted, with all controls; nothing is drawn.

    The mask of a label is the union of its regions of all controls; its rectangles count only where
    it has no other region. All else is as in a comparison.

    Returns:
        The images with a region of a label of the config.
    """
    found = _find_areas((), result, config, task, _choose_painted)
    return tuple(
        ImageMasks(
            each.tag, each.item_index, each.size_hw, LazyMasks.of_areas(each.final, each.size_hw)
        )
        for each in found
    )


#: Keeps what counts of the areas of a prediction and of an annotation, by label, on an image.
_Choose = Callable[[dict[str, list[Area]], dict[str, list[Area]], LabelConfig, ImageTag], None]


@dataclass(frozen=True)
class _ImageAreas:
    """The areas of one image that are compared, by label."""

    tag: ImageTag
    item_index: int | None
    size_hw: tuple[int, int]
    predicted: Mapping[str, list[Area]]
    final: Mapping[str, list[Area]]


def _find_areas(
    predicted: Regions,
    final: Regions,
    config: LabelConfig,
    task: Task,
    choose: _Choose,
) -> list[_ImageAreas]:
    """Find the areas of each image that are compared."""
    names = {control.name for control in (*config.controls, *config.boxes)}
    before = _by_image(read_areas(predicted, names))
    after = _by_image(read_areas(final, names))
    found = []
    for tag in config.images:
        its_labels = _names_of_labels(config, tag)
        is_list = _is_list(tag, task)
        for item in sorted({item for name, item in (*before, *after) if name == tag.name}):
            old, new = (
                _by_label(side.get((tag.name, item), []), its_labels) for side in (before, after)
            )
            areas = _choose_areas(tag, item if is_list else None, old, new, config, choose)
            if areas is not None:
                found.append(areas)
    return found


def _is_list(tag: ImageTag, task: Task) -> bool:
    try:
        return tag.is_list(task.data)
    except DataKeyError:
        return False


def _by_image(areas: Iterable[Area]) -> dict[tuple[str, int], list[Area]]:
    found: dict[tuple[str, int], list[Area]] = {}
    for area in areas:
        found.setdefault((area.image, area.item_index or 0), []).append(area)
    return found


def _names_of_labels(config: LabelConfig, tag: ImageTag) -> dict[tuple[str, str], str]:
    """Return name of a control and a label as it writes it -> name of the label, on one image."""
    names = [label.name for label in (*config.labels, *config.box_labels)]
    there = [own for name in names for own in config.controls_for(tag.name, name)]
    by_name = {(control.name, label.name): label.name for control, label in there}
    return by_name | {(control.name, label.written): label.name for control, label in there}


def _by_label(areas: Iterable[Area], names: Mapping[tuple[str, str], str]) -> dict[str, list[Area]]:
    """Return name of a label -> its areas, in their order."""
    found: dict[str, list[Area]] = {}
    for area in areas:
        for written in dict.fromkeys(written_labels(area)):
            name = names.get((area.control, written))
            if name is not None:
                found.setdefault(name, []).append(area)
    return found


def _choose_areas(
    tag: ImageTag,
    item_index: int | None,
    predicted: dict[str, list[Area]],
    final: dict[str, list[Area]],
    config: LabelConfig,
    choose: _Choose,
) -> _ImageAreas | None:
    """Choose what is compared on one image; None where it has none of its labels."""
    choose(predicted, final, config, tag)
    predicted = {label: areas for label, areas in predicted.items() if areas}
    final = {label: areas for label, areas in final.items() if areas}
    if not predicted and not final:
        return None
    size_hw = _size(
        [area for side in (predicted, final) for areas in side.values() for area in areas]
    )
    return _ImageAreas(tag, item_index, size_hw, predicted, final)


def _compare_image(areas: _ImageAreas, config: LabelConfig, has_begun: bool) -> ImageDiff:
    predicted, final, size_hw, tag = areas.predicted, areas.final, areas.size_hw, areas.tag
    old, new = LazyMasks.of_areas(predicted, size_hw), LazyMasks.of_areas(final, size_hw)
    order = [label.name for label in (*config.labels, *config.box_labels)]
    labels = [
        label
        for label in order
        if label in old or (label in new and _is_predicted(label, config, tag))
    ]
    known, left = _labels_by_id(predicted), _labels_by_id(final)
    # Also where the annotator began without a prediction: what is drawn here can be drawn later.
    changes = [
        _compare_label(
            _overlap(label, old, new), predicted.get(label, ()), final.get(label, ()), known, left
        )
        for label in labels
    ]
    for label in new.keys() - set(labels):
        new[label]
    return ImageDiff(
        tag,
        areas.item_index,
        size_hw,
        new,
        find_evidence(predicted if has_begun else None, final, size_hw),
        old if has_begun else None,
        tuple(changes) if has_begun else (),
    )


def _choose_controls(
    predicted: dict[str, list[Area]],
    final: dict[str, list[Area]],
    config: LabelConfig,
    tag: ImageTag,
) -> None:
    """Keep the areas of one control for each label, see above."""
    for label in predicted.keys() | final.keys():
        _choose_control(label, predicted, final, config, tag)


def _choose_painted(
    _predicted: dict[str, list[Area]],
    final: dict[str, list[Area]],
    _config: LabelConfig,
    _tag: ImageTag,
) -> None:
    """Keep the areas of all controls, but no rectangle of a label that has another one."""
    final |= without_rectangles(final)


def _choose_control(
    label: str,
    predicted: dict[str, list[Area]],
    final: dict[str, list[Area]],
    config: LabelConfig,
    tag: ImageTag,
) -> None:
    """Keep the areas of the one control that counts for a label, see above."""
    controls = [each for each, _ in config.controls_for(tag.name, label)]
    old, new = predicted.get(label, []), final.get(label, [])
    chosen = (_there(controls, new) or _there(controls, old))[0]
    before = _there([chosen] if chosen.is_predicted else [chosen, *controls], old)
    predicted[label] = [area for area in old if before and area.control == before[0].name]
    final[label] = [area for area in new if area.control == chosen.name]


def _there(controls: Iterable[Control], areas: Iterable[Area]) -> list[Control]:
    names = {area.control for area in areas}
    return [control for control in controls if control.name in names]


def _is_predicted(label: str, config: LabelConfig, tag: ImageTag) -> bool:
    return any(control.is_predicted for control, _ in config.controls_for(tag.name, label))


def _size(areas: Sequence[Area]) -> tuple[int, int]:
    sizes = {area.size_hw for area in areas}
    if len(sizes) > 1:
        raise BadRequest(disagreement(sizes))
    (size_hw,) = sizes
    check_areas(size_hw, len(areas))
    return size_hw


def _compare_label(
    overlap: LabelDiff,
    was: Sequence[Area],
    is_: Sequence[Area],
    known: Mapping[str, Sequence[str]],
    left: Mapping[str, Sequence[str]],
) -> LabelDiff:
    """Count the regions of a label."""
    after = {area.id: area for area in is_ if area.id}
    counts: Counter[str] = Counter()
    relabelled: Counter[str] = Counter()
    for area in was:
        if area.id in after:
            counts["accepted" if has_same_pixels(area, after[area.id]) else "corrected"] += 1
        elif area.id in left:
            relabelled[left[area.id][0]] += 1
        else:
            counts["deleted"] += 1
    before = {area.id for area in was}
    for area in is_:
        if area.id not in before or not area.id:
            counts["received" if area.id in known else "added"] += 1
    return structs.replace(
        overlap,
        accepted=counts["accepted"],
        corrected=counts["corrected"],
        deleted=counts["deleted"],
        relabelled=dict(relabelled),
        added=counts["added"],
        received=counts["received"],
        score=_lowest_score(was),
    )


def _lowest_score(areas: Iterable[Area]) -> float | None:
    """Return the lowest score of some areas; None where there is none, or one has no score."""
    scores = [area.score for area in areas]
    known = [score for score in scores if score is not None]
    return min(known) if known and len(known) == len(scores) else None


def _labels_by_id(side: Mapping[str, Sequence[Area]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, areas in side.items():
        for area in areas:
            if area.id:
                found.setdefault(area.id, []).append(label)
    return found


def _overlap(label: str, old: Mapping[str, BoolMask], new: Mapping[str, BoolMask]) -> LabelDiff:
    """Count pixels of two masks and of their boundary bands; a missing mask covers none."""
    overlap = MaskOverlap.of(old.get(label), new.get(label))
    return LabelDiff(
        label,
        predicted_px=overlap.predicted_px,
        true_px=overlap.true_px,
        shared_px=overlap.shared_px,
        band_shared_px=overlap.band_shared_px,
        band_px=overlap.band_px,
    )
