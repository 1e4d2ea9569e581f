"""Sliding windows: where they lie, and how their patch scores go back to the picture.

Bilinear upsampling, cutting off the padding, averaging overlaps and the resize to the original
size are all linear and separable. So the whole way from patch scores to original pixels is one
matrix for the rows and one for the columns: ``pixels = R · patches · Cᵀ``, exact in any band of
rows, and nothing at full resolution has to exist before it is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core.segmentation.upsampling import AxisUpsampling, Matrix


@dataclass(frozen=True)
class WindowPlan:
    """Geometry of the windows of one picture, row by row.

    Windows of one picture are all of one size: the wanted one, or the picture's side where that
    is smaller. The last window of a row or column is pushed back inside. A side that is no
    multiple of the patch is padded on both ends, the smaller half first.

    Attributes:
        image_hw: original size in px.
        resized_hw: size in px that the windows cut up.
        window_px: wanted side of a window.
        stride_px: step between windows.
        patch_hw: size of a patch in px.
    """

    image_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    window_px: int
    stride_px: int
    patch_hw: tuple[int, int]

    @property
    def key(self) -> str:
        """Text that caches of features know this geometry by; equal for equal plans only.

        Part of keys on disk: the words in it stay, whatever the attributes are called.
        """
        return (
            f"WindowPlan(image_hw={self.image_hw!r}, resized_hw={self.resized_hw!r}, "
            f"window_px={self.window_px!r}, stride_px={self.stride_px!r}, "
            f"patch_hw={self.patch_hw!r})"
        )

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
        """Side of a patch in px of the original picture; the mean where height and width differ."""
        sides = zip(self.patch_hw, self.image_hw, self.resized_hw, strict=True)
        return sum(patch * image / resized for patch, image, resized in sides) / 2

    def boxes_xyxy(self) -> Iterator[tuple[int, int, int, int]]:
        """Each window's box in px of the resized picture, right and bottom exclusive."""
        for top in self.rows.starts_px:
            for left in self.columns.starts_px:
                yield left, top, left + self.columns.window_px, top + self.rows.window_px

    def cut(self, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        """Cut a normalised picture (3, H, W) into its windows, zero-padded to whole patches."""
        (top, bottom), (left, right) = self.rows.padding_px, self.columns.padding_px
        for x0, y0, x1, y1 in self.boxes_xyxy():
            yield F.pad(pixels[:, y0:y1, x0:x1], (left, right, top, bottom))

    def coverage(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """How much of each window's patches a mask covers: averages over areas, exact.

        Padding is no area. Where windows overlap, each patch sees what lies under it.

        Args:
            mask: (H, W) bool, of the original picture's size.

        Raises:
            ValueError: `mask` is of another size.

        Returns:
            (windows, h, w) float32 in [0, 1].
        """
        if mask.shape != self.image_hw:
            raise ValueError(
                f"Expected argument `mask` to be of size {self.image_hw}, but got {mask.shape}."
            )
        down, along = (axis.averages.astype(np.float32) for axis in (self.rows, self.columns))
        height, width = self.grid_hw
        covered = down @ mask.astype(np.float32) @ along.T  # (I*h, J*w)
        grid = covered.reshape(-1, height, len(self.columns.starts_px), width).swapaxes(1, 2)
        return np.clip(grid.reshape(self.count, height, width), 0, 1)

    def mosaic(self, patches: torch.Tensor) -> torch.Tensor:
        """Lay the windows' patch maps side by side, without overlap.

        Args:
            patches: (windows, C, h, w).

        Returns:
            (C, I*h, J*w) for I rows and J columns of windows: what `Axis.matrix` multiplies.
        """
        rows, columns = len(self.rows.starts_px), len(self.columns.starts_px)
        _, channels, height, width = patches.shape
        grid = patches.reshape(rows, columns, channels, height, width)
        return grid.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)


@dataclass(frozen=True)
class Axis:
    """One direction of a `WindowPlan`; all lengths in px.

    Attributes:
        image_px: original side.
        resized_px: resized side.
        window_px: a window's side before padding.
        starts_px: where the windows begin on the resized side.
        patch_px: a patch's side.
    """

    image_px: int
    resized_px: int
    window_px: int
    starts_px: tuple[int, ...]
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

    @cached_property
    def matrix(self) -> Matrix:
        """(image_px, windows * patches): original pixels from the mosaic's patches."""
        return self.course.at(self.course.positions())

    @cached_property
    def averages(self) -> Matrix:
        """(windows * patches, image_px): the mosaic's patches from the original pixels under them.

        Each row sums to 1; a pixel under two patches counts for each with its share.
        """
        before, _ = self.padding_px
        edges_px = np.clip(np.arange(self.patches + 1) * self.patch_px - before, 0, self.window_px)
        ends_px = np.add.outer(self.starts_px, edges_px) * (self.image_px / self.resized_px)
        first, last = ends_px[:, :-1].reshape(-1, 1), ends_px[:, 1:].reshape(-1, 1)
        pixels = np.arange(self.image_px)
        shared: Matrix = np.minimum(last, pixels + 1) - np.maximum(first, pixels)
        return shared.clip(0) / (last - first)

    @cached_property
    def course(self) -> AxisUpsampling:
        """The way from the mosaic's patches to pixels, for all that needs less than `matrix`."""
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
    """Where windows begin on a side; the last one is pushed back inside.

    >>> window_starts(600, 448, 224)
    (0, 152)
    """
    last = max(side_px - window_px, 0)
    return (*range(0, last, stride_px), last)
