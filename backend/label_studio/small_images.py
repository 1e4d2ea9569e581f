"""Small copies of large images in a folder: pages show them, and the large ones are not decoded.

Processes may share the folder. It is bounded in bytes and in days; nothing breaks where it cannot
be written, or when its files are deleted.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from clearclip_core import RGBArray
from clearclip_core.images.opening import open_image, to_jpeg
from clearclip_core.images.preprocessing import reduced_size

log = logging.getLogger(__name__)

#: Long side in px that a copy has at least: that of a picture in the review's list.
SIDE_PX: Final = 480

#: Pixels from which on an image has a copy: smaller ones are decoded as fast.
LARGE_PX: Final = 2_000_000

MOST_BYTES: Final = 256 << 20  # bytes of all copies: of some five thousand

_LEFT_SHARE: Final = 0.9  # of `MOST_BYTES`, once the oldest are deleted

_DAY_S: Final = 86_400.0

_NOT_KEPT: Final = "A small picture is not kept, so that the review decodes the large one: %s"


class SmallImages:
    """The copies in a folder, by the keys of their images.

    Args:
        folder: made with the first copy.
        days: for which a copy is kept; 0 keeps none.
        most_bytes: of all copies.
        clock: tells the seconds since the epoch, as the folder's files do.
    """

    def __init__(
        self,
        folder: Path,
        days: int,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._days = days
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes: int | None = None  # of all copies that this process knows of
        self._has_failed = False  # a folder that cannot be written is told once

    def read(self, key: str) -> RGBArray | None:
        """Read the copy of an image, (h, w, 3) uint8; None where there is none, or an old one."""
        file = self._file(key)
        try:
            if file.stat().st_mtime < self._oldest_s:
                return None
            with open_image(io.BytesIO(file.read_bytes()), formats=("JPEG",)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError):  # deleted meanwhile, or damaged
            return None

    def keep(self, key: str, rgb: RGBArray) -> None:
        """Keep a copy of an image (H, W, 3) uint8 if it is a large one, in place of the last."""
        if not self._days or rgb.shape[0] * rgb.shape[1] < LARGE_PX:
            return
        height, width = reduced_size(rgb.shape[:2], SIDE_PX)
        small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        content = to_jpeg(np.asarray(small, np.uint8))

        file = self._file(key)
        part = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(file)
        except OSError as error:
            log.log(logging.DEBUG if self._has_failed else logging.WARNING, _NOT_KEPT, error)
            self._has_failed = True
            return

        with self._lock:
            if self._bytes is not None:
                self._bytes += len(content)
            if self._bytes is None or self._bytes > self._most_bytes:
                self._delete_old()

    def delete_old(self) -> None:
        """Delete the copies that are too old, and the oldest of too many."""
        with self._lock:
            self._delete_old()

    def _delete_old(self) -> None:
        files: list[tuple[float, int, Path]] = []
        try:
            for each in self._folder.iterdir():
                told = each.stat()
                files.append((told.st_mtime, told.st_size, each))
        except OSError:  # there is none, or another process deletes as well
            self._bytes = None
            return

        total = sum(size for _, size, _ in files)
        most = self._most_bytes if total <= self._most_bytes else _LEFT_SHARE * self._most_bytes
        for at_s, size, file in sorted(files):
            if at_s >= self._oldest_s and total <= most:
                break
            file.unlink(missing_ok=True)
            total -= size
        self._bytes = total

    @property
    def _oldest_s(self) -> float:
        """When a copy that is still kept was made at the earliest."""
        return self._clock() - self._days * _DAY_S if self._days else float("inf")

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.jpg"
