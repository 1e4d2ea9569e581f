"""Images of any kind to RGB arrays, and these to resized, normalised model input."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from clearclip_core.images.jpeg import REDUCTIONS, decode_jpeg, transpose

if TYPE_CHECKING:
    import torch

RGBArray = npt.NDArray[np.uint8]

#: EXIF orientation -> the transposition that turns the pixels upright.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNREADABLE_EXIF = (LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)


def to_rgb(image: Image.Image | npt.NDArray[Any]) -> RGBArray:
    """Convert an image of any mode into an upright 8-bit RGB array: (H, W, 3) uint8, C-contiguous.

    Pillow images are turned by their EXIF orientation, where it can be read. Transparent pixels
    are laid over white and 16-bit grey keeps its upper 8 bits, as browsers show both. Floats are
    taken as 0 to 1, or as 0 to 255 where a value is above 1. An array that was normalised for a
    network is refused.

    Args:
        image: a Pillow image of any mode, or an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4): uint8, uint16, bool or float.

    Raises:
        ValueError: an array of another shape or dtype, an empty image, or floats that are neither 0
            to 1 nor 0 to 255.

    >>> to_rgb(Image.new("LA", (2, 1), (0, 0))).tolist()
    [[[255, 255, 255], [255, 255, 255]]]
    """
    if isinstance(image, Image.Image):
        return _pillow_to_rgb(image)
    array = np.asarray(image)
    if np.issubdtype(array.dtype, np.floating) and array.size:
        _check_not_normalised(array)
    return _array_to_rgb(array)


#: Largest value of floats that are normalised by mean and standard deviation: white is below 3.
_MOST_NORMALISED: Final = 4.0

_OVERSHOOT: Final = 0.1  # of floats that were resized, as a share of their range


def _check_not_normalised(array: npt.NDArray[Any]) -> None:
    """Check that floats are 0 to 1 or 0 to 255, but for what resizing adds to these."""
    finite = array[np.isfinite(array)]
    if not finite.size:
        return
    low, high = float(finite.min()), float(finite.max())
    scale = 1 if high <= 1 + _OVERSHOOT else 255
    if low < -_OVERSHOOT * scale or 1 + _OVERSHOOT < high < _MOST_NORMALISED:
        raise ValueError(
            "Expected argument `image` to hold floats from 0 to 1, or from 0 to 255, but got "
            f"{low:.3g} to {high:.3g}: give the picture as it was before it was normalised, which "
            "happens here."
        )


def decode_rgb(image: Image.Image, least_side_px: int | None = None) -> RGBArray:
    """Decode an opened image file into the array that `to_rgb` returns, as fast as possible.

    The pixels of a JPEG file may differ by rounding where Pillow and OpenCV have other releases of
    the decoder.

    Args:
        image: one that Pillow has opened and not decoded yet.
        least_side_px: the long side in px that is needed, for small pictures of large ones. A JPEG
            file gets its size, a half, a quarter or an eighth, rounded up: the smallest that is no
            smaller. None: its size.
    """
    reduction = 1 if least_side_px is None else _reduction(max(image.size), least_side_px)
    decoded = decode_jpeg(image, reduction)
    if decoded is None:
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        return to_rgb(image)
    turn = upright_transposition(image)
    return decoded if turn is None else transpose(decoded, turn)


def reduced_sizes(size_hw: Sequence[int]) -> list[tuple[int, int]]:
    """Return the sizes that `decode_rgb` may give an image of a height and width in px.

    >>> reduced_sizes((1500, 2001))
    [(1500, 2001), (750, 1001), (375, 501), (188, 251)]
    """
    height, width = size_hw
    return [(-(-height // each), -(-width // each)) for each in REDUCTIONS]


def reduced_size(size_hw: Sequence[int], least_side_px: int) -> tuple[int, int]:
    """Return the size that `decode_rgb` gives a JPEG file of a height and width in px.

    >>> reduced_size((1500, 2001), 480), reduced_size((300, 400), 480)
    ((375, 501), (300, 400))
    """
    height, width = size_hw
    reduction = _reduction(max(size_hw), least_side_px)
    return -(-height // reduction), -(-width // reduction)


def _reduction(side_px: int, least_px: int) -> int:
    """Return the largest of `REDUCTIONS` that leaves a side long enough; 1 for a shorter one."""
    return max(each for each in REDUCTIONS if each == 1 or side_px >= each * least_px)


def _pillow_to_rgb(image: Image.Image) -> RGBArray:
    upright = _upright(image)
    if upright.mode.startswith("I"):  # Pillow has 16-bit grey as I;16 or, in 32 bits, as I
        return _array_to_rgb(np.clip(np.asarray(upright), 0, 65535).astype(np.uint16))
    if upright.mode == "F":
        return _array_to_rgb(np.asarray(upright))
    if upright.has_transparency_data:
        rgba = _of_mode(upright, "RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.ascontiguousarray(_of_mode(upright, "RGB"), dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    """Turn the pixels by the EXIF orientation.

    ``ImageOps.exif_transpose`` also rewrites the EXIF data, which fails on many files of cameras
    and editors, and it copies images that need no turn.
    """
    image.load()  # Pillow turns a TIFF when it loads it
    transposition = upright_transposition(image)
    return image if transposition is None else image.transpose(transposition)


def upright_transposition(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that turns the pixels of a file as its EXIF orientation says.

    A TIFF has to be loaded, which turns it. None where pixels are upright, or EXIF is unreadable.
    """
    try:
        return _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _UNREADABLE_EXIF:
        return None


def _of_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to a mode; unlike ``convert``, return it uncopied if it has the mode."""
    return image if image.mode == mode else image.convert(mode)


def _array_to_rgb(array: npt.NDArray[Any]) -> RGBArray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            "Expected argument `image` to be a path, a Pillow image or an array (H, W), (H, W, 1), "
            f"(H, W, 3) or (H, W, 4), but got an array {array.shape} of {array.dtype}."
        )
    values = _to_uint8(array)
    if values.shape[2] == 4:
        return _pillow_to_rgb(Image.fromarray(values, "RGBA"))
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.floating):
        finite = np.nan_to_num(array.astype(np.float32), posinf=0, neginf=0)
        scaled = finite if finite.max() > 1 + _OVERSHOOT else finite * 255
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        return (array >> 8).astype(np.uint8)
    raise ValueError(
        f"Expected argument `image` to hold uint8, uint16, bool or floats, but got {array.dtype}."
    )


@dataclass(frozen=True)
class Preprocessing:
    """Sizes and statistics that turn an image into model input.

    The defaults are those of Sec. 4.1 of the paper and of its released settings.

    Raises:
        ValueError: a size below 1 px, a stride longer than the window, or a std of 0.
    """

    mean: tuple[float, float, float] = (122.771, 116.746, 104.094)  # of RGB, in units of 0-255
    std: tuple[float, float, float] = (68.501, 66.632, 70.323)  # of RGB, in units of 0-255
    #: Size to which the short side is resized, aspect kept, unless the long side would exceed
    #: `long_side_px`.
    short_side_px: int = 448
    long_side_px: int = 2048
    window_px: int = 448
    stride_px: int = 224

    def __post_init__(self) -> None:
        for name in ("short_side_px", "long_side_px", "window_px", "stride_px"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Expected argument `{name}` to be 1 or more, but got {getattr(self, name)}."
                )
        if self.stride_px > self.window_px:
            raise ValueError(
                f"Expected argument `stride_px` to be at most `window_px` ({self.window_px}), "
                f"else pixels are left out, but got {self.stride_px}."
            )
        if min(self.std) <= 0:
            raise ValueError(f"Expected argument `std` to be above 0, but got {self.std}.")

    @classmethod
    def of_short_side(
        cls,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        short_side_px: int = 448,
        window_px: int = 448,
        stride_px: int = 224,
    ) -> Preprocessing:
        """Build sizes for another short side than the paper's, the long side's limit in proportion.

        >>> Preprocessing.of_short_side((0, 0, 0), (1, 1, 1), 896).long_side_px
        4096
        """
        long_side_px = max(2048, round(2048 * short_side_px / 448))
        return cls(mean, std, short_side_px, long_side_px, window_px, stride_px)

    def resized_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Compute the size to which an image of `image_hw` is resized, each side at least 1 px.

        >>> Preprocessing().resized_hw((1080, 1920))
        (448, 796)
        """
        height, width = image_hw
        long_side = max(self.long_side_px, self.short_side_px)
        scale = min(self.short_side_px / min(height, width), long_side / max(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def resize(self, rgb: RGBArray) -> RGBArray:
        """Resize (H, W, 3) uint8 to `resized_hw`: bilinear, not antialiased (``INTER_LINEAR``)."""
        height, width = self.resized_hw((rgb.shape[0], rgb.shape[1]))
        resized = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, dtype=np.uint8)

    def normalize(
        self, rgb: RGBArray, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Subtract the mean from (H, W, 3) uint8 and divide by the std, on the device.

        Only bytes are sent there. Return (3, H, W) in `dtype`, float32 by default, or float64.
        """
        import torch  # takes seconds and 300 MB, which those who only read pictures do not need

        device, precise = torch.device(device), dtype or torch.float32
        pixels = to_device(torch.from_numpy(rgb), device).permute(2, 0, 1)
        mean, std = (
            to_device(torch.tensor(values, dtype=precise), device)[:, None, None]
            for values in (self.mean, self.std)
        )
        return (pixels - mean) / std


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device; to CUDA through pinned memory, so that the host need not wait.

    The copy is in the order of the thread's current stream. torch keeps the pinned memory until
    that stream has read it.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
