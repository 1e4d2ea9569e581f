"""Find a thing by its name: one of the project's own, or one that another package adds.

Another package adds one without a change here: it names it by an entry point of a group, in its
``pyproject.toml``, and is installed beside this one::

    [project.entry-points."clearclip.methods"]
    mine = "my_package:MINE"
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

_Kind = TypeVar("_Kind")


class PluginError(ValueError):
    """What another package adds cannot be used; the message names the package and says why."""


class Registry(Generic[_Kind]):
    """Things of one kind by name. No other package can replace one of the project's own.

    A thing of another package is imported when it is first asked for, and once.

    Args:
        group: of entry points, such as ``clearclip.methods``.
        noun: what one of them is called in sentences, such as ``method``.
        own: name -> thing, of the project's own.
        expect: takes the name and the object of an entry point and returns the object; raises
            ``TypeError`` with the end of a sentence, such as ``is no Method``, for another one.

    >>> numbers = Registry("clearclip.numbers", "number", {"one": 1}, lambda name, found: 0)
    >>> numbers.names(), numbers.find("one"), numbers.find("two")
    (['one'], 1, None)
    """

    def __init__(
        self,
        group: str,
        noun: str,
        own: Mapping[str, _Kind],
        expect: Callable[[str, object], _Kind],
    ) -> None:
        self._group = group
        self._noun = noun
        self._own = own
        self._expect = expect
        self._loaded: dict[str, _Kind] = {}

    def names(self) -> list[str]:
        """Return all names, the project's own first; no other package is imported for that."""
        return [*self._own, *self._points()]

    def find(self, name: str) -> _Kind | None:
        """Return the thing of a name; None where nobody has one.

        Raises:
            PluginError: it is of another package, and cannot be used.
        """
        if name in self._own:
            return self._own[name]
        if name in self._loaded:  # asked for in each block of a model
            return self._loaded[name]
        point = self._points().get(name)
        return None if point is None else self._load(point)

    def all(self) -> Iterator[_Kind]:
        """Yield all of them, the project's own first; broken ones are logged and left out."""
        yield from self._own.values()
        for point in self._points().values():
            try:
                yield self._load(point)
            except PluginError as error:
                log.warning("%s", error)

    def _points(self) -> dict[str, EntryPoint]:
        """Return the entry points of other packages by name, each name once."""
        points: dict[str, EntryPoint] = {}
        for point in entry_points(group=self._group):
            if point.name not in self._own:
                points.setdefault(point.name, point)
        return points

    def _load(self, point: EntryPoint) -> _Kind:
        if point.name in self._loaded:
            return self._loaded[point.name]

        package = point.dist.name if point.dist is not None else point.value
        begin = f"The {self._noun} {point.name} of {package}"
        try:
            found = point.load()
        except Exception as error:  # noqa: BLE001 -- the import of another package may raise anything
            reason = f"{type(error).__name__}: {error!s:.200}"
            raise PluginError(f"{begin} is broken: {reason}.") from None

        try:
            self._loaded[point.name] = self._expect(point.name, found)
        except TypeError as error:
            raise PluginError(f"{begin} {error}.") from None
        return self._loaded[point.name]
