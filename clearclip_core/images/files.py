"""Image files on disk: found, named, and written whole."""

import glob
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

#: Ends of the names of files that `clearclip segment` writes.
RESULT_SUFFIXES = (".labels.png", ".overlay.png")

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def find_images(patterns: Iterable[str]) -> list[Path]:
    """Find the image files that files, folders and globs name, each once.

    Those of one folder or glob are sorted. Of a folder, files that `clearclip segment` has written
    and hidden files are left out.

    Args:
        patterns: paths of files and folders, and globs, in which ``**`` stands for folders; ``~``
            is the home folder.

    Raises:
        click.BadParameter: a pattern that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            paths = sorted(p for p in path.rglob("*") if is_image(p) and not is_hidden(p, path))
        elif path.is_file():
            paths = [path]
        else:
            matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern
            paths = sorted(p for p in matches if p.is_file())
        if not paths:
            raise click.BadParameter(f"no pictures at {pattern!r}.")
        found.update(dict.fromkeys(paths))
    return list(found)


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file in a folder is hidden: its name, or a folder's on the way, begins with a dot.

    Args:
        path: path of the file.
        folder: the folder that is looked through, whose own name does not count.

    macOS keeps ``._photo.jpg`` beside a photo on other systems' drives: its metadata, no image.

    >>> is_hidden(Path("a/._x.jpg"), Path("a")), is_hidden(Path(".a/x.jpg"), Path(".a"))
    (True, False)
    """
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def output_names(paths: Sequence[Path]) -> list[Path]:
    """Choose a different name for each image's results, below the output folder, without a suffix.

    Args:
        paths: the images, each once.

    Returns:
        The name of each, in their order: the file's own, or where two have the same one its path
        below the folder that all share.

    >>> [name.as_posix() for name in output_names([Path("a/x.jpg"), Path("a/y.png")])]
    ['x', 'y']
    >>> [name.as_posix() for name in output_names([Path("a/x.jpg"), Path("b/x.jpg")])]
    ['a/x.jpg', 'b/x.jpg']
    """
    if len({path.stem.casefold() for path in paths}) == len(paths):
        return [Path(path.stem) for path in paths]
    full = [os.path.abspath(path) for path in paths]  # noqa: PTH100 -- links are not followed
    common = os.path.commonpath([os.path.dirname(path) for path in full])  # noqa: PTH120
    return [Path(path).relative_to(common) for path in full]


def is_image(path: Path) -> bool:
    """Whether a path is an image file, by its suffix, and no result of `clearclip segment`."""
    is_result = path.name.endswith(RESULT_SUFFIXES)
    return path.suffix.lower() in _SUFFIXES and not is_result and path.is_file()


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of another when it is complete.

    Missing folders are made. An error or an interrupt leaves the old file as it is, and nothing
    of the new one.

    Args:
        path: path of the file. A link is replaced, and not what it leads to.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:  # an interrupt must not leave a partial file, either
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file as a whole, or leave the old one as it is; see `replaced`.

    Args:
        path: path of the file; missing folders are made.
        data: all of its content.

    Raises:
        OSError: the file cannot be written.
    """
    with replaced(path) as stream:
        stream.write(data)
