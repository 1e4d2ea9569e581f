"""Keep the features of many pictures in a file, of which a part is in memory at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import overload


class FeatureFile(Sequence["bytes | None"]):
    """A sequence of features that is on disk; use it as a context manager.

    Args:
        features: of each picture, all of one length; None where there is none.

    >>> with FeatureFile([b"ab", None, b"cd"]) as file:
    ...     file[2], file[1], len(file)
    (b'cd', None, 3)
    """

    def __init__(self, features: Iterable[bytes | None]) -> None:
        self._file = tempfile.TemporaryFile(prefix="clearclip-features-")  # noqa: SIM115 -- `__exit__`
        self._bytes = 0
        self._places: list[int] = []
        for feature in features:
            self._places.append(-1 if feature is None else self._file.tell())
            if feature is not None:
                self._bytes = len(feature)
                self._file.write(feature)

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = self._places[index]
        if place < 0:
            return None
        self._file.seek(place)
        return self._file.read(self._bytes)
