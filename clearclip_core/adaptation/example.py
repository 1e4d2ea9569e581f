"""Training examples: pixels of corrected images, with what an annotator left there.

An example holds a bounded sample of pixels. The features of a pixel are interpolated between
patches as masks are drawn, so what is learned and judged is the label map, not its patches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.sparse import csr_array

from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.segmentation.windows import DenseFeatures

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Arrays = Mapping[str, npt.NDArray[Any]]
T = TypeVar("T")

UNLABELED = ""  # the name of the area that no label covers
#: Limit of the numbers in an example's sample, without a second encoder's: 192 kB in float16.
SAMPLE_SIZE = 98_304
LAYOUT_CELLS = 4  # cells a side of the grid by which similar images are found
_PIXELS_PER_PATCH = 4  # pixels a side of a patch among which the sample is chosen
_FORMAT = 2  # version of the bytes, stored in them

#: What no label covers, and what several do, among the indices of labels.
_NOTHING, _SEVERAL = -1, -2

_ARRAYS = ("features", "labels", "weights", "removed", "layout", "kept", "elsewhere")

#: How a tool may have moved masks, as the columns of `Example.elsewhere` say it.
MOVES = (
    "mirrored",
    "upside down",
    "turned by 180°",
    "too far left",
    "too far right",
    "too far up",
    "too far down",
)
_SHIFT = 0.1  # share of the side by which masks are shifted back


@dataclass(frozen=True, eq=False)
class Example:
    """A training example: one annotator's correction of an image, in about 200 kB.

    Attributes:
        known: names of the labels that competed on the image, sorted.
        names: names of the labels that somebody drew there, sorted.
        features: (N, D) float16, features of the sampled pixels, interpolated between patches; (N,
            D + S) with those of a second encoder.
        labels: (N,) int16, index of the label in `names` that was drawn on each pixel; -1 where
            nothing was drawn, or a prediction stands as it was, see `kept`.
        weights: (N,) float32, share of the image's area that each pixel stands for; they sum to
            less than 1 where labels overlap, as such pixels are left out.
        picture: id of the image, equal in all corrections of the image; "" where the image has no
            other correction.
        annotator: opaque id of who made the correction; "" where nobody knows.
        removed_names: names of the labels that a prediction showed somewhere and the annotator
            took away there, sorted.
        removed: (N, R) bool, the pixels where that happened to each label of `removed_names`.
        layout: (16, D) float16, mean feature of each cell of a 4 x 4 grid over the image, row by
            row, by which similar images are found.
        kept_names: names of the labels that stand somewhere as a prediction showed them, sorted.
        kept: (N,) int16, index of the label in `kept_names` that stands so on each pixel; -1 where
            none does, or nobody knows which, as in examples that version 0.2.0 has stored.
        elsewhere: (N, 7) int16, index of the label in `known` that would stand on each pixel if all
            masks were moved back, for each of `MOVES`; -1 for no label, or where nobody knows.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.
    """

    known: tuple[str, ...]
    names: tuple[str, ...]
    features: npt.NDArray[np.float16] = field(repr=False)
    labels: npt.NDArray[np.int16] = field(repr=False)
    weights: Float32Array = field(repr=False)
    picture: str
    annotator: str
    removed_names: tuple[str, ...]
    removed: BoolArray = field(repr=False)
    layout: npt.NDArray[np.float16] = field(repr=False)
    kept_names: tuple[str, ...]
    kept: npt.NDArray[np.int16] = field(repr=False)
    elsewhere: npt.NDArray[np.int16] = field(repr=False)

    def __post_init__(self) -> None:
        for names in (self.known, self.names, self.removed_names, self.kept_names):
            check_names(names)
        sampled = len(self.features)
        check_shape("labels", self.labels, (sampled,))
        check_shape("weights", self.weights, (sampled,))
        check_shape("removed", self.removed, (sampled, len(self.removed_names)))
        check_shape("layout", self.layout, (LAYOUT_CELLS**2, self.words_width))
        check_shape("kept", self.kept, (sampled,))
        check_shape("elsewhere", self.elsewhere, (sampled, len(MOVES)))

    @classmethod
    def of(
        cls,
        features: DenseFeatures,
        masks: Mapping[str, BoolMask],
        known: Collection[str],
        picture: str = "",
        *,
        annotator: str = "",
        kept: Mapping[str, BoolMask] | None = None,
        removed: Mapping[str, BoolMask] | None = None,
    ) -> Example:
        """Make an example of an image's features and the masks that its annotator left.

        Args:
            features: features of the image.
            masks: name of the label -> (H, W) bool, in the size of the image. Pixels of several
                labels are left out. Boxes are no masks: leave them out.
            known: names of all labels that the annotator could have used.
            picture: id of the image, such as ``PreparedImage.digest``.
            annotator: opaque id of who made the correction, the same in all of that person's.
            kept: name of the label -> (H, W) bool, the part of its mask that stands as a
                prediction showed it. Nobody drew it: it holds its label in place, and no more.
            removed: name of the label -> (H, W) bool, the area that a prediction showed as the
                label and that the annotator took from it.

        Raises:
            ValueError: a mask of another size or dtype, a label without a name, or features of a
                method that weighs classes by the windows' CLS features, which cannot be adapted.
            TypeError: features that are none, such as the picture itself.
        """
        if not isinstance(features, DenseFeatures):
            raise TypeError(
                "Expected argument `features` to be what Segmenter.encode returns for the picture, "
                f"but got {type(features).__name__}."
            )
        if features.remove_redundancy:
            raise ValueError(
                "Expected argument `features` to be of a method that scores patches by themselves, "
                "but it weighs classes by the windows' CLS features: such a method cannot learn "
                "from corrections."
            )
        if isinstance(known, str) or UNLABELED in {*masks, *known}:
            raise ValueError(f"Expected labels to have names, but got {[*masks]} and {known!r}.")
        kept, removed = kept or {}, removed or {}
        grid = _Grid(features)
        owners, names = grid.owners(masks, kept)
        chosen, weights = _sample(owners, max(1, SAMPLE_SIZE // features.patches.shape[-1]))

        standing, kept_names = grid.owners(kept)
        standing[(standing < 0) | (owners != _NOTHING)] = _NOTHING
        taken = {
            name: area[chosen]
            for name in sorted(removed)
            if (area := grid.shown(removed, name)).any()
        }
        all_known = tuple(sorted({*known, *masks, *kept}))
        return cls(
            known=all_known,
            names=names,
            features=grid.features_at(chosen),
            labels=owners[chosen],
            weights=weights.astype(np.float32),
            picture=picture,
            annotator=annotator,
            removed_names=tuple(taken),
            removed=np.array([*taken.values()], np.bool_).reshape(len(taken), len(chosen)).T,
            layout=mean_cells(features),
            kept_names=kept_names,
            kept=standing[chosen],
            elsewhere=grid.moved_back(masks, all_known)[chosen],
        )

    @property
    def width(self) -> int:
        """Dimension of the features, D, or D + S with those of a second encoder."""
        return int(self.features.shape[1])

    @property
    def words_width(self) -> int:
        """Dimension of the features that words are compared with, D."""
        return int(self.layout.shape[-1])

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content."""
        return facts_digest(self._metadata, self._arrays)

    @cached_property
    def is_finite(self) -> bool:
        """Whether all numbers are finite; `clearclip_core.adapt` leaves other examples out.

        A feature is nan or infinite where an activation was too large for the model's precision.
        """
        return all(np.isfinite(array).all() for array in self._arrays.values())

    @property
    def picture_key(self) -> str:
        """Key of the image: equal for examples of one image, different for other images."""
        return self.picture or self.digest

    def to_bytes(self) -> bytes:
        """Return the example as the bytes of a safetensors file."""
        return to_safetensors("example", self._metadata, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes, width: int | None = None) -> Example:
        """Read an example from the bytes of `to_bytes`.

        Args:
            data: the bytes.
            width: expected dimension of the features that words are compared with; None accepts
                any.

        Raises:
            ValueError: damaged bytes, another format, or features of another model.
        """
        made = from_safetensors(data, "example", cls._from_parts)
        check_width(made.words_width, width)
        return made

    @classmethod
    def _from_parts(cls, facts: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Example:
        # Examples of 0.2.0 have neither `kept` nor `elsewhere`.
        nowhere = np.full((len(arrays["labels"]), 1 + len(MOVES)), _NOTHING, np.int16)
        return cls(
            known=tuple(facts["known"]),
            names=tuple(facts["names"]),
            features=arrays["features"],
            labels=arrays["labels"],
            weights=arrays["weights"],
            picture=str(facts["picture"]),
            annotator=str(facts["annotator"]),
            removed_names=tuple(facts["removed"]),
            removed=arrays["removed"],
            layout=arrays["layout"],
            kept_names=tuple(facts.get("kept", ())),
            kept=arrays.get("kept", nowhere[:, 0]),
            elsewhere=arrays.get("elsewhere", nowhere[:, 1:]),
        )

    @property
    def _metadata(self) -> dict[str, Any]:
        return {
            "known": list(self.known),
            "names": list(self.names),
            "picture": self.picture,
            "annotator": self.annotator,
            "removed": list(self.removed_names),
            "kept": list(self.kept_names),
        }

    @property
    def _arrays(self) -> Arrays:
        return {name: getattr(self, name) for name in _ARRAYS}


class _Grid:
    """Pixels of an image at equal steps, several a side of each patch.

    Args:
        features: features of the image.
    """

    def __init__(self, features: DenseFeatures) -> None:
        plan = features.plan
        self._features = features.joined.detach().cpu().float().flatten(0, 2).numpy()
        order = torch.arange(len(self._features)).reshape(plan.count, 1, *plan.grid_hw)
        self._order = plan.mosaic(order)[0].numpy()  # rows of the features, side by side
        self._axes = plan.rows, plan.columns
        step_px = max(1.0, plan.patch_image_px / _PIXELS_PER_PATCH)
        self._hw = plan.image_hw
        counts = [max(1, round(side / step_px)) for side in plan.image_hw]
        self._pixels = [
            ((np.arange(count) + 0.5) * side / count).astype(np.intp)
            for side, count in zip(plan.image_hw, counts, strict=True)
        ]

    def owners(
        self, masks: Mapping[str, BoolMask], kept: Mapping[str, BoolMask] = {}
    ) -> tuple[npt.NDArray[np.int16], tuple[str, ...]]:
        """Return (P,) the drawn label of each pixel, and the names of the labels, sorted.

        -1 where nothing is drawn, -2 where several labels are. One mask is held at a time, as they
        may be drawn on demand.
        """
        rows, columns = (len(each) for each in self._pixels)
        owners = np.full(rows * columns, _NOTHING, np.int16)
        names: list[str] = []
        for name in sorted(masks):
            drawn = self.shown(masks, name)
            if name in kept:
                drawn &= ~self.shown(kept, name)
            if drawn.any():
                owners[drawn] = np.where(owners[drawn] == _NOTHING, len(names), _SEVERAL)
                names.append(name)
        return owners, tuple(names)

    def shown(self, masks: Mapping[str, BoolMask], name: str) -> BoolArray:
        """Return (P,) whether a mask covers each pixel."""
        mask = np.asarray(masks[name])
        if mask.shape != self._hw or mask.dtype != np.bool_:
            got = f"{mask.shape} {mask.dtype}"
            raise ValueError(f"Expected the mask of {name!r} to be {self._hw} bool, but got {got}.")
        shown: BoolArray = mask[np.ix_(*self._pixels)].reshape(-1)
        return shown

    def moved_back(
        self, masks: Mapping[str, BoolMask], known: Sequence[str]
    ) -> npt.NDArray[np.int16]:
        """Return (P, 7) indices in `known` of the labels if masks were moved back, see `MOVES`."""
        owners, names = self.owners(masks)
        owners[owners == _SEVERAL] = _NOTHING
        indices = np.array([*map(known.index, names), _NOTHING], np.int16)
        rows, columns = (len(each) for each in self._pixels)
        standing = indices[owners].reshape(rows, columns)
        down, along = (max(1, round(_SHIFT * side)) for side in standing.shape)
        back = [standing[:, ::-1], standing[::-1], standing[::-1, ::-1]]
        back += [_shifted(standing, 0, step) for step in (along, -along)]
        back += [_shifted(standing, step, 0) for step in (down, -down)]
        return np.stack([each.reshape(-1) for each in back], axis=1)

    def features_at(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.float16]:
        """Return the (N, D) features of pixels, by their index."""
        places = np.unravel_index(pixels, [len(each) for each in self._pixels])
        down, along = (
            _taps(axis.upsampling.at(axis.upsampling.positions(px[at])))
            for axis, px, at in zip(self._axes, self._pixels, places, strict=True)
        )
        patches = self._order[down.indices[:, :, None], along.indices[:, None]]
        weights = down.weights[:, :, None] * along.weights[:, None]
        ends = np.arange(len(pixels) + 1) * (down.indices.shape[1] * along.indices.shape[1])
        taps = csr_array(
            (weights.ravel(), patches.ravel(), ends), (len(pixels), len(self._features))
        )
        made: npt.NDArray[np.float16] = (taps @ self._features).astype(np.float16)
        return made


def _shifted(labels: npt.NDArray[np.int16], down: int, along: int) -> npt.NDArray[np.int16]:
    """Shift (H, W) labels by some pixels; what comes from outside has no label."""
    height, width = labels.shape
    margin = ((max(0, down), max(0, -down)), (max(0, along), max(0, -along)))
    wide = np.pad(labels, margin, constant_values=_NOTHING)
    top, left = max(0, -down), max(0, -along)
    shifted: npt.NDArray[np.int16] = wide[top : top + height, left : left + width]
    return shifted


class _Taps(NamedTuple):
    """The patches of an axis from which pixels are interpolated."""

    indices: npt.NDArray[np.intp]  # (N, taps)
    weights: Float32Array  # (N, taps), 0 for patches that a pixel does not need


def _taps(weights: npt.NDArray[np.float64]) -> _Taps:
    """Gather the weights (N, patches) above 0 of each pixel, as many a pixel."""
    most = int(np.count_nonzero(weights, axis=1).max(initial=1))
    indices = np.argsort(-weights, axis=1, kind="stable")[:, :most]
    return _Taps(indices, np.take_along_axis(weights, indices, axis=1).astype(np.float32))


def mean_cells(features: DenseFeatures) -> npt.NDArray[np.float16]:
    """Average features over a grid of 4 x 4 cells, row by row: (16, D) float16."""
    mosaic = features.plan.mosaic(features.patches.permute(0, 3, 1, 2)).float()
    cells = torch.nn.functional.adaptive_avg_pool2d(mosaic[None], LAYOUT_CELLS)[0]
    return cells.flatten(1).T.contiguous().cpu().numpy().astype(np.float16)


def _sample(
    owners: npt.NDArray[np.int16], limit: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Choose at most `limit` pixels: (N,) ascending indices, and the share each stands for.

    All labels, and what none covers, get the same number of places; small labels keep all pixels,
    and their free places go to larger ones. The pixels of a label are sampled at equal steps. Where
    several labels are drawn, none is chosen.
    """
    sizes = np.bincount(owners[owners >= -1] + 1)
    places = np.minimum(sizes, limit // max(1, np.count_nonzero(sizes)))
    for label in np.argsort(sizes, kind="stable"):
        left = limit - places.sum()
        places[label] += min(left // 2, sizes[label] - places[label])
    chosen, weights = [np.zeros(0, np.intp)], [np.zeros(0)]
    for label in np.flatnonzero(places):
        own = np.flatnonzero(owners == label - 1)
        at = (np.arange(places[label]) + 0.5) * len(own) / places[label]
        chosen.append(own[at.astype(np.intp)])
        weights.append(np.full(places[label], len(own) / places[label] / len(owners)))
    order = np.argsort(np.concatenate(chosen))
    return np.concatenate(chosen)[order], np.concatenate(weights)[order]


def to_safetensors(kind: str, facts: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Serialize facts and arrays as the bytes of a safetensors file.

    Args:
        kind: name of the type of the content, such as "example".
        facts: values that JSON can hold.
        arrays: by name; the name "facts" is reserved.

    >>> data = to_safetensors("example", {"names": ["sky"]}, {"areas": np.ones(2)})
    >>> from_safetensors(data, "example", lambda facts, arrays: (facts, arrays["areas"].tolist()))
    ({'names': ['sky']}, [1.0, 1.0])
    """
    header = json.dumps({"kind": kind, "format": _FORMAT, "facts": facts})
    text = np.frombuffer(header.encode(), np.uint8)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    packed: bytes = save({"facts": text, **contiguous})
    return packed


def from_safetensors(
    data: bytes, kind: str, make: Callable[[dict[str, Any], dict[str, Any]], T]
) -> T:
    """Read a value from the bytes of `to_safetensors`.

    Args:
        make: facts and arrays -> the value.

    Raises:
        ValueError: damaged bytes, another format, another kind, or other content.
    """
    try:
        arrays = dict(load(data))
        header = json.loads(arrays.pop("facts").tobytes())
        if (found := (header["kind"], header["format"])) != (kind, _FORMAT):
            raise ValueError("{} in format {}".format(*found))
        return make(header["facts"], arrays)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"Expected the bytes of an {kind} in format {_FORMAT}, but got others ({error})."
        ) from None


def facts_digest(facts: Mapping[str, Any], arrays: Arrays) -> str:
    """Return a hex digest of facts and arrays, whatever their order."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_names(names: tuple[str, ...]) -> None:
    """Check that names are sorted and all different; raises ValueError where they are not."""
    if list(names) != sorted(set(names)):
        raise ValueError(f"Expected names to be sorted and all different, but got {names}.")


def check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    """Check the shape of an array; raises ValueError, which names the argument."""
    if array.shape != shape:
        raise ValueError(
            f"Expected argument `{name}` to be of shape {shape}, but got {array.shape}."
        )


def check_width(width: int, wanted: int | None) -> None:
    """Check the dimension of features, None accepts any; raises ValueError."""
    if wanted is not None and width != wanted:
        raise ValueError(
            f"Expected features of {wanted} numbers, but got {width}: they are another model's."
        )
