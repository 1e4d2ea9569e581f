"""Compares a prediction with an annotation, by image and label, in regions and in pixels.

Pure functions of two results of Label Studio and the labeling config.

- The editor keeps the ids of regions, so a region of the prediction is found again by its id. It
  was **accepted** where it covers the same pixels as before, **corrected** where it covers others,
  **relabelled** where it has another label now, and **deleted** where it is gone. A region with an
  id that the prediction does not have was **added** by hand.
- The mask of a label is the union of its regions. A pixel of a brush's soft edge belongs to it
  where it is more than half painted.
- Where regions of the prediction are gone and others cover the same pixels, these pixels were
  **redrawn**: both masks share them, but they had to be painted.
- Where several controls draw a label, one of them counts: the first in the config that has a region
  of it in the annotation; if none has, the first that has one in the prediction. A box around a
  mask is not compared with the mask, except where the annotation has a region only of controls with
  ``prelabel="no"``: the prediction's first control is compared with these.
- Labels that only controls with ``prelabel="no"`` have are not missed by the prediction.
- Regions of prompt tools, and of labels that the config does not have, are left out. What only
  people draw with, such as ellipses, counts beside the control that does.

What the annotation says beyond that, to those who learn from it: `backend.feedback.evidence`.
"""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from msgspec import Struct, structs

from backend.annotations.regions import LabelledRegion, by_label, draw_areas, read_regions
from backend.feedback.evidence import ImageEvidence, find_evidence, has_same_pixels
from backend.label_studio.label_config import Control, ImageTag, LabelConfig
from backend.label_studio.region_reader import Area, image_size
from backend.label_studio.requests import Task

Regions = Sequence[Any]


class LabelDiff(Struct, frozen=True, omit_defaults=True):
    """The difference of one label on one image between prediction and annotation.

    >>> change = LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)
    >>> change.iou
    0.5
    """

    label: str
    accepted: int = 0
    corrected: int = 0  # regions of the prediction that cover other pixels now
    deleted: int = 0
    relabelled: dict[str, int] = {}  # other label -> predicted regions that have it now
    added: int = 0  # regions that the annotator drew
    received: int = 0  # regions to which the prediction had given another label
    predicted_px: int = 0
    true_px: int = 0  # pixels that the annotation covers
    shared_px: int = 0
    image: int = 0  # index of the image among those of its annotation that are compared
    redrawn_px: int = 0  # shared pixels that no predicted region covers which is left

    @property
    def iou(self) -> float | None:
        """Intersection over union; None where neither covers anything."""
        union = self.predicted_px + self.true_px - self.shared_px
        return self.shared_px / union if union else None


@dataclass(frozen=True, eq=False)
class ImageDiff:
    """The difference on one image of a task between prediction and annotation."""

    tag: ImageTag
    item_index: int  # index in a list of images; 0 where the task shows no list
    size_hw: tuple[int, int]
    has_regions: bool  # whether the annotation has a region of a label on it
    evidence: ImageEvidence  # what the annotation says of the labels, and where it says nothing
    changes: tuple[LabelDiff, ...] = ()  # of each label, in the config's order


@dataclass(frozen=True, eq=False)
class AnnotationDiff:
    """The difference between an annotation and the prediction that it began with."""

    annotation: int
    project: int
    task: Task
    config: LabelConfig  # the project's labeling config when the annotation was read
    images: tuple[ImageDiff, ...]  # with a region of a label; the size of others is not known
    updated: float  # when the annotation was changed last, in seconds since the epoch
    annotator: str = ""  # opaque key of the annotator; empty where nobody knows

    @property
    def changes(self) -> tuple[LabelDiff, ...]:
        return tuple(
            structs.replace(change, image=index)
            for index, image in enumerate(self.images)
            for change in image.changes
        )


class CorrectionListener(Protocol):
    """Learns from corrections; a call that is repeated changes nothing more."""

    def learn(self, diff: AnnotationDiff) -> None:
        """Learn from an annotation, in place of what it taught before."""

    def forget(self, annotation: int) -> None:
        """Forget an annotation that is deleted, skipped or emptied, if it was learned from."""


def compare_annotation(
    predicted: Regions | None, final: Regions, config: LabelConfig
) -> tuple[ImageDiff, ...]:
    """Compare the prediction of a task with an annotation, on images with a region of a label.

    Raises:
        BadRequest: a region cannot be read, or the regions of an image disagree on its size.
    """
    before, after = read_regions(predicted or (), config), read_regions(final, config)
    found = []
    for tag in config.images:
        for index in sorted({item for name, item in (*before, *after) if name == tag.name}):
            was, is_ = before.get((tag.name, index), []), after.get((tag.name, index), [])
            old, new = _choose_regions(was, is_, config, tag)
            if old or new:
                began = predicted is not None
                found.append(_compare_image(tag, index, config, old, new, has_begun=began))
    return tuple(found)


def _compare_image(
    tag: ImageTag,
    item_index: int,
    config: LabelConfig,
    predicted: Sequence[LabelledRegion],
    final: Sequence[LabelledRegion],
    *,
    has_begun: bool,
) -> ImageDiff:
    size_hw = image_size(each.area for each in (*predicted, *final))
    was, is_ = by_label(predicted), by_label(final)
    known, left = _labels_by_id(was), _labels_by_id(is_)
    order = [label.name for label in (*config.labels, *config.box_labels)]
    drawn = {label for label in is_ if _is_predicted(label, config, tag)}
    labels = [label for label in order if label in was or label in drawn]

    # Also where the annotator began without a prediction: what is drawn here can be drawn later.
    changes = []
    for label in labels:
        before, after = was.get(label, ()), is_.get(label, ())
        counted = _compare_areas(label, before, after, known, left)
        changes.append(structs.replace(counted, **_count_pixels(before, after, size_hw)))

    _check_others(final, labels)
    evidence = find_evidence(predicted, final, size_hw)
    told = tuple(changes) if has_begun else ()
    return ImageDiff(tag, item_index, size_hw, bool(final), evidence, told)


def _check_others(final: Sequence[LabelledRegion], counted: Collection[str]) -> None:
    """Read the masks of labels that are not counted: a broken one raises here, not in learning."""
    for region in final:
        if region.label not in counted:
            region.read_mask()


def _choose_regions(
    predicted: Sequence[LabelledRegion],
    final: Sequence[LabelledRegion],
    config: LabelConfig,
    tag: ImageTag,
) -> tuple[list[LabelledRegion], list[LabelledRegion]]:
    """Keep the regions of the one control that counts for each label, see above."""
    was, is_ = by_label(predicted), by_label(final)
    left_out: set[tuple[str, str]] = set()  # labels and names of their controls
    gone: set[tuple[str, str]] = set()

    for label in dict.fromkeys((*was, *is_)):
        controls = [each for each, _ in config.controls_for(tag.name, label)]
        old, new = was.get(label, ()), is_.get(label, ())
        chosen = _first_there(controls, new) or _first_there(controls, old)
        if chosen is None:
            continue
        asked = [chosen] if chosen.is_predicted else [chosen, *controls]
        left_out |= _other_names(label, controls, chosen)
        gone |= _other_names(label, controls, _first_there(asked, old))

    known = {label.name for label in (*config.labels, *config.box_labels)}
    still_there = [each for each in final if each.label in known]
    return _without(predicted, gone), _without(still_there, left_out)


def _other_names(
    label: str, controls: Iterable[Control], chosen: Control | None
) -> set[tuple[str, str]]:
    """Return a label with the name of each control but the chosen one."""
    return {(label, each.name) for each in controls if each is not chosen}


def _without(
    regions: Iterable[LabelledRegion], left_out: Container[tuple[str, str]]
) -> list[LabelledRegion]:
    """Return the regions but those of some labels and names of their controls."""
    return [each for each in regions if (each.label, each.area.control) not in left_out]


def _first_there(controls: Iterable[Control], areas: Iterable[Area]) -> Control | None:
    """Return the first of some controls that has drawn one of some areas."""
    names = {area.control for area in areas}
    return next((control for control in controls if control.name in names), None)


def _is_predicted(label: str, config: LabelConfig, tag: ImageTag) -> bool:
    return any(control.is_predicted for control, _ in config.controls_for(tag.name, label))


def _compare_areas(
    label: str,
    was: Sequence[Area],
    is_: Sequence[Area],
    known: Mapping[str, Sequence[str]],
    left: Mapping[str, Sequence[str]],
) -> LabelDiff:
    counts, relabelled = _count_predicted(was, is_, left)

    before = {area.id for area in was if area.id}
    new = [area for area in is_ if area.id not in before]
    counts["received"] += sum(area.id in known for area in new)
    counts["added"] += sum(area.id not in known for area in new)
    return LabelDiff(label, relabelled=dict(relabelled), **counts)


def _count_predicted(
    was: Sequence[Area], is_: Sequence[Area], left: Mapping[str, Sequence[str]]
) -> tuple[Counter[str], Counter[str]]:
    """Count what has become of a label's predicted areas, and the labels that some have now."""
    after = {area.id: area for area in is_ if area.id}
    counts: Counter[str] = Counter()
    relabelled: Counter[str] = Counter()
    for area in was:
        if area.id in after:
            is_same = has_same_pixels(area, after[area.id])
            counts["accepted" if is_same else "corrected"] += 1
        elif area.id in left:
            relabelled[left[area.id][0]] += 1
        else:
            counts["deleted"] += 1
    return counts, relabelled


def _labels_by_id(side: Mapping[str, Sequence[Area]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, areas in side.items():
        for area in areas:
            if area.id:
                found.setdefault(area.id, []).append(label)
    return found


def _count_pixels(
    was: Sequence[Area], is_: Sequence[Area], size_hw: tuple[int, int]
) -> dict[str, int]:
    """Count the pixels of a label's regions in the prediction and in the annotation."""
    predicted, true = draw_areas(was, size_hw), draw_areas(is_, size_hw)
    shared = predicted & true
    counts = {"predicted_px": predicted, "true_px": true, "shared_px": shared}

    ids = {area.id for area in is_ if area.id}
    kept = [area for area in was if area.id in ids]
    if len(kept) < len(was):  # a mask of the largest picture takes its time
        counts["redrawn_px"] = shared & ~draw_areas(kept, size_hw)
    return {name: int(np.count_nonzero(mask)) for name, mask in counts.items()}
