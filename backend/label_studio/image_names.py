"""The images of a project's tasks, and the file names that their addresses hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from backend.errors import DataKeyError
from backend.label_studio.label_config import ImageTag
from backend.label_studio.requests import Task

#: What Label Studio puts before the name of an uploaded file: the beginning of a UUID.
_UPLOAD_PREFIX: Final = re.compile(r"[0-9a-f]{8}-(?=.)")
_UPLOADS: Final = "/data/upload/"


@dataclass(frozen=True)
class ImagePlace:
    """One image of a task.

    Attributes:
        task: the task.
        tag: name of the image tag.
        source: address of the image.
        item_index: its index in a list; None where the task has no list there.
    """

    task: Task
    tag: str
    source: str
    item_index: int | None = None

    @property
    def key(self) -> tuple[int, str, int]:
        """What tells it from the other images of a project."""
        return int(self.task.id or 0), self.tag, self.item_index or 0


@dataclass(frozen=True)
class ImageName:
    """The path of an image in its address, decoded, in composed letters (Unicode NFC).

    Attributes:
        folders: names of its folders, the outermost first.
        file: name of the file.
        uploaded_file: the name that it had before it was uploaded; None for one that was not. Label
            Studio has made underscores of spaces in it, and dropped other signs.
    """

    folders: tuple[str, ...]
    file: str
    uploaded_file: str | None = None

    @classmethod
    def of(cls, source: str) -> ImageName | None:
        """Read the name in an address; None where it has none, such as a ``data:`` URL.

        >>> ImageName.of("/data/upload/7/1a2b3c4d-a%20b.jpg")
        ImageName(folders=('data', 'upload', '7'), file='1a2b3c4d-a b.jpg', uploaded_file='a b.jpg')
        >>> ImageName.of("/data/local-files/?d=street%2Fa.jpg").file
        'a.jpg'
        >>> ImageName.of("s3://bucket/street/a.jpg?versionId=3").folders
        ('bucket', 'street')
        """
        source = source.strip()
        if source[:5].lower() == "data:":
            return None
        try:
            parts = urlsplit(source)
        except ValueError:
            return None
        path = unquote(parts.path)
        if path.rstrip("/").endswith("/data/local-files"):
            path = "".join(parse_qs(parts.query).get("d", [""])[:1])
        elif parts.scheme not in ("", "http", "https"):
            path = f"{parts.netloc}/{path}"  # a bucket is a folder
        pieces = [each for each in unicodedata.normalize("NFC", path).split("/") if each]
        if not pieces:
            return None
        uploaded = None
        if _UPLOADS in path:
            match = _UPLOAD_PREFIX.match(pieces[-1])
            uploaded = pieces[-1][match.end() :] if match else None
        return cls(tuple(pieces[:-1]), pieces[-1], uploaded)


def image_places(tasks: Iterable[Task], tags: Iterable[ImageTag]) -> Iterator[ImagePlace]:
    """Iterate over all images of tasks, as a label config finds them.

    A task whose data has no address for a tag has no image there.
    """
    tags = tuple(tags)
    for task in tasks:
        for tag in tags:
            try:
                sources, is_list = tag.sources(task.data), tag.is_list(task.data)
            except DataKeyError:
                continue
            for index, source in enumerate(sources):
                yield ImagePlace(task, tag.name, source, index if is_list else None)


def as_uploaded(file: str) -> str:
    r"""Return a file name as Label Studio stores an uploaded one, without its prefix.

    It is that of Django's ``get_valid_filename``: spaces become underscores, and what is neither
    letter, digit, ``-``, ``_`` nor ``.`` is dropped.

    >>> as_uploaded("my photo (1).jpg")
    'my_photo_1.jpg'
    """
    return re.sub(r"[^-\w.]", "", file.strip().replace(" ", "_"))
