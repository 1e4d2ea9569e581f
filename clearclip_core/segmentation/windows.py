"""Sliding windows of an image, and the dense features of their patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from clearclip_core.segmentation.upsampling import AxisUpsampling, Matrix


@dataclass(frozen=True)
class WindowPlan:
    """Geometry of the windows of one image, row by row.

    All windows of an image have one size: `window_px`, or the image's side where that is smaller.
    The last window of a row or column is pushed back inside. A side that is no multiple of the
    patch is padded at both ends, the smaller half first.
    """

    image_hw: tuple[int, int]  # original size in px
    resized_hw: tuple[int, int]  # size in px of the resized image, from which the windows are cut
    window_px: int
    stride_px: int
    patch_hw: tuple[int, int]  # size of a patch in px

    @property
    def key(self) -> str:
        """Key of this geometry, as version 0.2.0 has stored it with training examples."""
        return f"{repr(self)[:-1]}, tapered=False)"

    @cached_property
    def rows(self) -> Axis:
        """The vertical half of the geometry."""
        return self._axis(0)

    @cached_property
    def columns(self) -> Axis:
        """The horizontal half of the geometry."""
        return self._axis(1)

    def _axis(self, dim: int) -> Axis:
        side_px = self.resized_hw[dim]
        return Axis(
            image_px=self.image_hw[dim],
            resized_px=side_px,
            window_px=min(self.window_px, side_px),
            starts_px=window_starts(side_px, self.window_px, self.stride_px),
            patch_px=self.patch_hw[dim],
        )

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows.starts_px) * len(self.columns.starts_px)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches (h, w) of each window."""
        return self.rows.patches, self.columns.patches

    @property
    def patch_image_px(self) -> float:
        """Side of a patch in px of the original image; the mean of height and width."""
        sides = zip(self.patch_hw, self.image_hw, self.resized_hw, strict=True)
        return sum(patch * image / resized for patch, image, resized in sides) / 2

    def boxes_xyxy(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield each window's box in px of the resized image, right and bottom exclusive."""
        for top in self.rows.starts_px:
            for left in self.columns.starts_px:
                yield left, top, left + self.columns.window_px, top + self.rows.window_px

    def cut(self, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        """Cut a normalised image (3, H, W) into its windows, zero-padded to whole patches."""
        (top, bottom), (left, right) = self.rows.padding_px, self.columns.padding_px
        for x0, y0, x1, y1 in self.boxes_xyxy():
            yield F.pad(pixels[:, y0:y1, x0:x1], (left, right, top, bottom))

    def mosaic(self, patches: torch.Tensor) -> torch.Tensor:
        """Lay the windows' patch maps side by side, without overlap.

        Args:
            patches: (windows, C, h, w).

        Returns:
            (C, I*h, J*w) for I rows and J columns of windows, the order of the columns of
            `Axis.matrix`.
        """
        rows, columns = len(self.rows.starts_px), len(self.columns.starts_px)
        _, channels, height, width = patches.shape
        grid = patches.reshape(rows, columns, channels, height, width)
        return grid.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)

    def cut_mosaic(self, mosaic: torch.Tensor) -> torch.Tensor:
        """Cut windows out of what lies side by side as in `mosaic`.

        Args:
            mosaic: (I*h, J*w, C).

        Returns:
            (windows, h, w, C).
        """
        height, width = self.grid_hw
        grid = mosaic.reshape(-1, height, len(self.columns.starts_px), width, mosaic.shape[-1])
        return grid.transpose(1, 2).reshape(self.count, height, width, -1)


@dataclass(frozen=True)
class Axis:
    """One direction of a `WindowPlan`; all lengths in px."""

    image_px: int
    resized_px: int
    window_px: int  # a window's side before padding
    starts_px: tuple[int, ...]  # where the windows begin on the resized side
    patch_px: int

    @property
    def patches(self) -> int:
        """Patches of a padded window."""
        return -(-self.window_px // self.patch_px)

    @property
    def padding_px(self) -> tuple[int, int]:
        """Zeros before and after, the smaller half first."""
        missing = self.patches * self.patch_px - self.window_px
        return missing // 2, missing - missing // 2

    @property
    def patch_centres(self) -> list[float]:
        """(windows * patches,) centres of the mosaic's patches, as shares of the resized side."""
        inside_px = (np.arange(self.patches) + 0.5) * self.patch_px - self.padding_px[0]
        centres: list[float] = (
            (np.add.outer(self.starts_px, inside_px) / self.resized_px).ravel().tolist()
        )
        return centres

    @cached_property
    def matrix(self) -> Matrix:
        """(image_px, windows * patches): weights of the mosaic's patches in the original pixels."""
        return self.upsampling.at(self.upsampling.positions())

    @cached_property
    def upsampling(self) -> AxisUpsampling:
        """The upsampling from the mosaic's patches to pixels, for callers that need few rows."""
        before, _ = self.padding_px
        inside = slice(before, before + self.window_px)
        padded = AxisUpsampling(np.eye(self.patches), self.patches * self.patch_px)
        upsample = padded.at(padded.positions())[inside]
        windows = np.zeros((self.resized_px, len(self.starts_px), self.patches))
        for index, start in enumerate(self.starts_px):
            windows[start : start + self.window_px, index] += upsample
        mosaic = windows.reshape(self.resized_px, -1)
        # A row of each window sums to 1, so a row's sum is the number of windows that cover it.
        return AxisUpsampling(mosaic / mosaic.sum(axis=1, keepdims=True), self.image_px)


def window_starts(side_px: int, window_px: int, stride_px: int) -> tuple[int, ...]:
    """Compute where windows begin on a side; the last one is pushed back inside.

    >>> window_starts(600, 448, 224)
    (0, 152)
    """
    last = max(side_px - window_px, 0)
    return (*range(0, last, stride_px), last)


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """Patch features of one image, window by window, with the geometry of the windows.

    An immutable value: it may be kept, shared by threads and scored against any words.

    Raises:
        ValueError: `patches`, `cls` or `second` does not fit `plan`, or `remove_redundancy` without
            `cls`.
    """

    patches: torch.Tensor  #: (windows, h, w, D), each feature of length 1
    plan: WindowPlan  #: positions of windows; ``plan.image_hw`` is the original image's size
    #: (windows, D), the windows' CLS features of length 1, where the method weights classes by
    #: them; None otherwise.
    cls: torch.Tensor | None = None
    remove_redundancy: bool = False  #: whether `cls` weights classes, see `without_redundancy`
    #: (windows, h, w, S), features of a second encoder at the same places, which words are not
    #: compared with; None without one.
    second: torch.Tensor | None = None

    def __post_init__(self) -> None:
        wanted = (self.plan.count, *self.plan.grid_hw)
        for name, each in (("patches", self.patches), ("second", self.second)):
            if each is not None and (each.ndim != 4 or tuple(each.shape[:3]) != wanted):
                raise ValueError(
                    f"Expected argument `{name}` to be of shape {wanted} + (D,), but got "
                    f"{tuple(each.shape)}."
                )
        one_each = (self.plan.count, self.patches.shape[3])
        if self.cls is not None and tuple(self.cls.shape) != one_each:
            raise ValueError(
                f"Expected argument `cls` to be of shape {one_each}, but got "
                f"{tuple(self.cls.shape)}."
            )
        if self.remove_redundancy and self.cls is None:
            raise ValueError(
                "Expected argument `cls` to be given with `remove_redundancy`, got None."
            )

    def __repr__(self) -> str:
        windows, height, width = self.patches.shape[:3]
        height_px, width_px = self.plan.image_hw
        dtype = str(self.patches.dtype).removeprefix("torch.")
        return (
            f"<DenseFeatures of {width_px} × {height_px} px: {windows} windows of {width} × "
            f"{height} patches, {self.width} numbers each, {dtype} on {self.patches.device}>"
        )

    @property
    def width(self) -> int:
        """Dimension of the features, of both encoders together."""
        return int(self.patches.shape[-1] + (0 if self.second is None else self.second.shape[-1]))

    @property
    def joined(self) -> torch.Tensor:
        """(windows, h, w, D + S): the patches' features, then those of the second encoder."""
        return self.patches if self.second is None else torch.cat([self.patches, self.second], -1)
