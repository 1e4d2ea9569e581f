"""Forget the small pictures that a backend keeps on disk, once they are older than the bound."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from backend.label_studio.small_images import SmallImages

log = logging.getLogger(__name__)

_EVERY_S: Final = 3600.0  # time between two looks at what is kept, in seconds

_DAY_S: Final = 86_400.0


class Reports(Protocol):
    """Keeps reports with pictures."""

    def forget_pictures(self, before: float) -> int:
        """Take out the pictures from before a time; return of how many reports."""


class KeptPictures:
    """The pictures in a folder and in reports; old ones are forgotten once an hour."""

    def __init__(
        self,
        copies: SmallImages,
        reports: Sequence[Reports],
        days: int,
        clock: Callable[[], float],
    ) -> None:
        """Put its parts together.

        Args:
            copies: small copies of large images.
            reports: the tables of what has pictures.
            days: for which a picture is kept.
            clock: tells the seconds since the epoch.
        """
        self._copies = copies
        self._reports = reports
        self._days = days
        self._clock = clock
        self._next_s = 0.0

    def forget_old(self) -> None:
        """Forget the pictures that are too old, unless that was done within the hour."""
        now = self._clock()
        if now < self._next_s:
            return
        self._next_s = now + _EVERY_S

        self._copies.delete_old()
        before = now - self._days * _DAY_S
        forgotten = sum(each.forget_pictures(before) for each in self._reports)
        if forgotten:
            log.info("The pictures of %d reports are older than PICTURE_DAYS: deleted", forgotten)
