"""Sliding windows: their positions, and the upsampling of their patches to the original image.

Bilinear upsampling, cutting off the padding, averaging overlaps and the resize to the original
size are all linear and separable. So the upsampling from patch scores to original pixels is one
matrix for the rows and one for the columns: ``pixels = R · patches · Cᵀ``. It is exact in any band
of rows, and no map at full resolution has to exist before it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core.segmentation.tapering import straighten, window_weights
from clearclip_core.segmentation.upsampling import AxisUpsampling, Matrix


@dataclass(frozen=True)
class WindowPlan:
    """Geometry of the windows of one image, row by row.

    All windows of an image have one size: `window_px`, or the image's side where that is smaller.
    The last window of a row or column is pushed back inside. A side that is no multiple of the
    patch is padded at both ends, the smaller half first.

    Attributes:
        image_hw: original size in px.
        resized_hw: size in px of the resized image, from which the windows are cut.
        window_px: side of a window.
        stride_px: step between windows.
        patch_hw: size of a patch in px.
        tapered: overlapping windows are averaged with weights that fall to zero at their borders,
            see `clearclip_core.segmentation.tapering`; with equal weights otherwise (the paper).
    """

    image_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    window_px: int
    stride_px: int
    patch_hw: tuple[int, int]
    tapered: bool = False

    @property
    def key(self) -> str:
        """Key of this geometry in feature caches; equal for plans with equal windows only.

        It is part of keys on disk, so its text does not follow renamed attributes. Features do not
        depend on `tapered`.
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
            tapered=self.tapered,
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

    def coverage(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Compute the share of each patch's area that a mask covers, exactly.

        Padding does not count as area. Patches of overlapping windows are computed each by itself.

        Args:
            mask: (H, W) bool, of the original image's size.

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
            (C, I*h, J*w) for I rows and J columns of windows, the order of the columns of
            `Axis.matrix`.
        """
        rows, columns = len(self.rows.starts_px), len(self.columns.starts_px)
        _, channels, height, width = patches.shape
        grid = patches.reshape(rows, columns, channels, height, width)
        return grid.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)

    def unmosaic(self, mosaic: torch.Tensor) -> torch.Tensor:
        """Cut maps that `mosaic` has laid side by side: (C, I*h, J*w) -> (windows, C, h, w)."""
        rows, columns = len(self.rows.starts_px), len(self.columns.starts_px)
        height, width = self.grid_hw
        grid = mosaic.reshape(-1, rows, height, columns, width)
        return grid.permute(1, 3, 0, 2, 4).reshape(self.count, -1, height, width)


@dataclass(frozen=True)
class Axis:
    """One direction of a `WindowPlan`; all lengths in px.

    Attributes:
        image_px: original side.
        resized_px: resized side.
        window_px: a window's side before padding.
        starts_px: where the windows begin on the resized side.
        patch_px: a patch's side.
        tapered: see `WindowPlan`.
    """

    image_px: int
    resized_px: int
    window_px: int
    starts_px: tuple[int, ...]
    patch_px: int
    tapered: bool = False

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
        """(image_px, windows * patches): weights of the mosaic's patches in the original pixels."""
        return self.upsampling.at(self.upsampling.positions())

    @cached_property
    def averages(self) -> Matrix:
        """(windows * patches, image_px): weights of the original pixels in the mosaic's patches.

        Each row sums to 1. A pixel that lies under two patches is split between them.
        """
        before, _ = self.padding_px
        edges_px = np.clip(np.arange(self.patches + 1) * self.patch_px - before, 0, self.window_px)
        ends_px = np.add.outer(self.starts_px, edges_px) * (self.image_px / self.resized_px)
        first, last = ends_px[:, :-1].reshape(-1, 1), ends_px[:, 1:].reshape(-1, 1)
        pixels = np.arange(self.image_px)
        shared: Matrix = np.minimum(last, pixels + 1) - np.maximum(first, pixels)
        return shared.clip(0) / (last - first)

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
        if self.tapered:
            weights = window_weights(self.resized_px, self.window_px, self.starts_px)
            mosaic = (windows * weights.T[..., None]).reshape(self.resized_px, -1)
            centres_px = (np.arange(self.patches) + 0.5) * self.patch_px - 0.5 - before
            straight = straighten(mosaic, self.window_px, self.starts_px, centres_px)
            return AxisUpsampling(straight, self.image_px)
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
