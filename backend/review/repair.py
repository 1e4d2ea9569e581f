"""Repair a prediction on the review page: take labels away, add pieces and take pieces away.

A repair is a list of steps. Each says all that it needs, so that it can be done again at any time
and by any process, without the model: a piece is kept as its pixels, not as the click that it came
from. What no step touches stays as it was predicted, region by region.

The annotation says what was changed: each of its regions has the mark of `RepairSummary`, a region
that was changed has the origin ``prediction-changed``, and a new one ``manual``, as in the editor.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Final

import cv2
import numpy as np
from msgspec import Meta, Struct, structs

from backend.annotations.regions import LabelledRegion, Place, read_regions
from backend.errors import BadRequest
from backend.label_studio.brush_rle import decode_rle, encode_runs
from backend.label_studio.label_config import Control, ControlLabel, LabelConfig
from backend.label_studio.region_reader import LARGEST_PX, NO_AREA, area_mask
from backend.label_studio.region_writer import Region, draw_regions
from clearclip_core import BoolMask, RunMask

#: Steps of a repair at most: whoever needs more is faster in the editor.
MOST_STEPS: Final = 40

#: The longest mask of a piece: bytes of its run-length encoding, and letters as it is sent.
_RLE_BYTES: Final = 1 << 20
_RLE_LETTERS: Final = 1 << 18

_LEAST_PX: Final = 16  # of an island that becomes a polygon or a rectangle of its own

_CHANGED: Final = "Changed in a review"
_ADDED: Final = "Added in a review"

_Name = Annotated[str, Meta(min_length=1, max_length=1000)]
_Side = Annotated[int, Meta(ge=1, le=LARGEST_PX)]


class Piece(Struct, frozen=True, forbid_unknown_fields=True):
    """Pixels of an image that a click has found."""

    adds: bool  # whether they get the label; else they lose it
    image: _Name  # name of the image tag
    height: _Side  # of the image, in px
    width: _Side
    rle: Annotated[str, Meta(max_length=_RLE_LETTERS)]
    index: Annotated[int, Meta(ge=0, le=999_999)] | None = None  # in a list of images

    @classmethod
    def of(cls, mask: BoolMask, image: str, index: int | None, *, adds: bool) -> Piece:
        """Keep a mask (H, W) bool of an image."""
        rle = base64.b64encode(zlib.compress(bytes(encode_runs(RunMask.of(mask))))).decode()
        height, width = mask.shape
        return cls(adds, image, height, width, rle, index)

    @property
    def mask(self) -> BoolMask:
        """The mask (H, W) bool.

        Raises:
            BadRequest: it is broken, or of a picture that is too large.
        """
        if self.height * self.width > LARGEST_PX:
            raise BadRequest("Expected a piece of a smaller picture.")
        try:
            decoder = zlib.decompressobj()
            rle = decoder.decompress(base64.b64decode(self.rle, validate=True), _RLE_BYTES)
            return decode_rle([*rle], self.height, self.width) > 0
        except (binascii.Error, zlib.error, ValueError, IndexError) as error:
            raise BadRequest(f"The pixels of a piece cannot be read: {error}") from None


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One change; without a piece, all that has the label is taken away."""

    label: _Name
    piece: Piece | None = None


class RepairSummary(Struct, frozen=True, omit_defaults=True):
    """What a repair has changed, by the names of labels; each region of its annotation has it."""

    labels_removed: tuple[str, ...] = ()
    pieces_added: tuple[str, ...] = ()
    pieces_taken: tuple[str, ...] = ()

    @classmethod
    def of(cls, steps: Sequence[Step]) -> RepairSummary:
        """Sum steps up.

        >>> RepairSummary.of([Step("car"), Step("car")])
        RepairSummary(labels_removed=('car', 'car'), pieces_added=(), pieces_taken=())
        """
        added = tuple(each.label for each in steps if each.piece and each.piece.adds)
        taken = tuple(each.label for each in steps if each.piece and not each.piece.adds)
        return cls(tuple(each.label for each in steps if each.piece is None), added, taken)


def repair_regions(
    regions: Sequence[Any], steps: Sequence[Step], config: LabelConfig
) -> list[dict[str, Any]]:
    """Change the regions of a prediction by the steps of a repair, one after the other.

    A pixel that is added to a label is taken from the masks of all others, so that each has one. A
    rectangle only bounds its thing: it is taken away as a whole, and only with its own label.

    Args:
        regions: those of the prediction, as Label Studio has them.
        steps: the repair.
        config: the project's labeling config.

    Returns:
        The regions of the annotation, as Label Studio writes them.

    Raises:
        BadRequest: a region or a piece cannot be read, or no control draws a label any more.
    """
    found = read_regions(regions, config)
    before = [_Shape(place, each) for place, own in found.items() for each in own]
    shapes = before
    for step in steps:
        shapes = _after(shapes, step, config)

    entries = _kept(regions, before, shapes)
    for shape in shapes:
        entries += shape.entries(config) if shape.is_changed else ()
    order = {each.id: number for number, each in enumerate(before)}  # a later one covers others
    entries.sort(key=lambda entry: order.get(str(entry.get("id")), len(order)))

    mark = {"source": "review", "repaired": structs.asdict(RepairSummary.of(steps))}
    return [{**each, **mark} for each in entries]


def _kept(
    regions: Sequence[Any], before: Iterable[_Shape], after: Iterable[_Shape]
) -> list[dict[str, Any]]:
    """Return the regions of a prediction that a repair has left alone."""
    left_out = {each.id for each in before} - {each.id for each in after if not each.is_changed}
    its = (each for each in regions if isinstance(each, dict))
    return [{**each, "origin": "prediction"} for each in its if each.get("id") not in left_out]


@dataclass(eq=False)
class _Shape:
    """A region while it is repaired."""

    place: Place
    region: LabelledRegion | None  # of the prediction; None for a new one
    drawn_by: tuple[Control, ControlLabel] | None = None  # of a new one
    size_hw: tuple[int, int] = (0, 0)
    item_index: int | None = None
    is_changed: bool = False

    @classmethod
    def new(cls, drawn_by: tuple[Control, ControlLabel], piece: Piece) -> _Shape:
        """Make a region that the prediction has not, without a pixel yet."""
        place, size_hw = (piece.image, piece.index or 0), (piece.height, piece.width)
        return cls(place, None, drawn_by, size_hw, piece.index)

    @cached_property
    def mask(self) -> BoolMask:
        """The pixels (H, W) bool that it has now."""
        if self.region is None:
            return np.zeros(self.size_hw, np.bool_)
        return area_mask(self.region.area)

    @property
    def id(self) -> str:
        return "" if self.region is None else self.region.id

    @property
    def label(self) -> str:
        if self.region is not None:
            return self.region.label
        return "" if self.drawn_by is None else self.drawn_by[1].name

    @property
    def control(self) -> str:
        if self.region is not None:
            return self.region.area.control
        return "" if self.drawn_by is None else self.drawn_by[0].name

    @property
    def is_rectangle(self) -> bool:
        return self.region is not None and self.region.is_rectangle

    def change(self, mask: BoolMask) -> None:
        if not np.array_equal(mask, self.mask):
            self.mask = mask
            self.is_changed = True

    def is_on(self, piece: Piece) -> bool:
        """Whether it is on the image of a piece, which has to have its size."""
        if self.place != (piece.image, piece.index or 0):
            return False
        size_hw = self.size_hw if self.region is None else self.region.area.size_hw
        if size_hw != (piece.height, piece.width):
            raise BadRequest("A piece is of a picture of another size than the masks.")
        return True

    def entries(self, config: LabelConfig) -> Iterator[dict[str, Any]]:
        """Yield the regions of the annotation that it has become, as Label Studio writes them."""
        for number, region in enumerate(self._drawn(config)):
            is_first = bool(self.id) and number == 0  # which stands in the place of the old one
            for entry in replace(region, id=self.id if is_first else region.id).entries():
                origin = "prediction-changed" if is_first else "manual"
                told = _CHANGED if self.id else _ADDED
                yield entry | {"origin": origin, "meta": {"text": [told]}}

    def _drawn(self, config: LabelConfig) -> list[Region]:
        control, own = self.drawn_by or self._drawn_by(config)
        area = NO_AREA if self.region is None else self.region.area
        score = 1.0 if area.score is None else area.score
        return draw_regions(
            RunMask.of(self.mask),
            score,
            control,
            replace(own, threshold=0.0),
            self.place[0],
            item_index=self.item_index if area is NO_AREA else area.item_index,
            min_island_px=_LEAST_PX,
            owner=self.id or "review",
        )

    def _drawn_by(self, config: LabelConfig) -> tuple[Control, ControlLabel]:
        there = config.controls_for(self.place[0], self.label)
        found = next((each for each in there if each[0].name == self.control), None)
        if found is None:
            raise BadRequest(f"No control draws “{self.label}” on the picture any more.")
        return found


def _after(shapes: list[_Shape], step: Step, config: LabelConfig) -> list[_Shape]:
    """Do a step of a repair."""
    if step.piece is None:
        return [each for each in shapes if each.label != step.label]
    if step.piece.adds:
        return _add(shapes, step.label, step.piece, config)
    return _cut(shapes, step.piece, lambda each: each.label == step.label)


def _cut(shapes: Iterable[_Shape], piece: Piece, of: Callable[[_Shape], bool]) -> list[_Shape]:
    """Take a piece out of some regions; a region without a pixel left is dropped."""
    gone, left = piece.mask, []
    for shape in shapes:
        is_cut = of(shape) and shape.is_on(piece) and bool((shape.mask & gone).any())
        if is_cut and not shape.is_rectangle:
            shape.change(shape.mask & ~gone)
        if not is_cut or (not shape.is_rectangle and shape.mask.any()):
            left.append(shape)
    return left


def _add(shapes: list[_Shape], label: str, piece: Piece, config: LabelConfig) -> list[_Shape]:
    """Give a piece to a label: to its mask where it has one, else as a new region."""
    controls = config.controls_for(piece.image, label)
    if not controls:
        raise BadRequest(f"No control draws “{label}” on the picture any more.")
    shapes = _cut(shapes, piece, lambda each: each.label != label and not each.is_rectangle)

    predicted = [each for each in controls if each[0].is_predicted]
    for drawn_by in predicted or controls[:1]:
        shape = _mask_of(shapes, drawn_by, piece)
        if shape is None:
            shape = _Shape.new(drawn_by, piece)
            shapes = [*shapes, shape]
        shape.change(shape.mask | piece.mask)
    return shapes


def _mask_of(
    shapes: Iterable[_Shape], drawn_by: tuple[Control, ControlLabel], piece: Piece
) -> _Shape | None:
    """Return the mask of a label that a control has there; None where each piece is a region."""
    control, own = drawn_by
    if control.kind not in ("brushlabels", "bitmasklabels"):
        return None
    its = (each for each in shapes if (each.label, each.control) == (own.name, control.name))
    return next((each for each in its if each.is_on(piece)), None)


def piece_at(
    regions: Sequence[LabelledRegion], label: str, found: BoolMask, at_px: tuple[int, int]
) -> BoolMask:
    """Return what a click takes from a label: what was found there, of the island clicked on.

    Of an island that is mostly that, all is taken: it is the thing that should not be there.

    Args:
        regions: those of the image.
        label: the label that is to lose it.
        found: (H, W) bool, the piece that a click with the label finds.
        at_px: row and column of the click.

    Returns:
        (H, W) bool; empty where the label is not at the click.
    """
    mask = np.zeros(found.shape, np.bool_)
    for each in regions:
        if each.label == label and each.area.size_hw == found.shape:
            mask |= each.read_mask()
    if not mask[at_px]:
        return np.zeros(found.shape, np.bool_)
    islands = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1]
    island = islands == islands[at_px]
    part: BoolMask = island & found
    part[at_px] = True
    is_most = 2 * np.count_nonzero(part) > np.count_nonzero(island)
    return island if is_most else part
