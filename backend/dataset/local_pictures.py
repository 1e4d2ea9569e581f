"""Find the pictures of tasks among files of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from backend.errors import ImageNotFound, ImageTooLarge
from backend.label_studio.image_loader import read_data_url
from backend.label_studio.requests import Task

_MOST_PARTS = 64  # of the path in an address


class LocalPictures:
    """Finds pictures in a folder by the end of their addresses, the longest that fits.

    ``/data/local-files/?d=cars/a.png`` is ``cars/a.png`` in the folder, else ``a.png``.

    Args:
        folder: folder of pictures; None: there is none.
        max_file_mb: largest file, in MiB.
        download: reads pictures that are not there; None: nothing is downloaded.
    """

    def __init__(
        self,
        folder: Path | None,
        max_file_mb: int,
        download: Callable[[str, Task], bytes] | None = None,
    ) -> None:
        self._folder = folder.resolve() if folder is not None else None
        self._max_file_mb = max_file_mb
        self._download = download

    def read(self, source: str, task: Task) -> bytes:
        """Return the bytes of a picture's file.

        Raises:
            TaskError: there is none, or it is over the limit.
        """
        if source[:5].lower() == "data:":
            return read_data_url(source, self._max_file_mb)
        file = self.find(source)
        if file is not None:
            try:
                if file.stat().st_size > self._max_file_mb << 20:
                    raise ImageTooLarge(f"{file.name} is over the limit of {self._max_file_mb} MB.")
                return file.read_bytes()
            except OSError as error:
                raise ImageNotFound(f"{file.name} cannot be read: {error.strerror}.") from None
        if self._download is not None:
            return self._download(source, task)
        raise ImageNotFound(
            f'There is no file for "{source[:200]}": name its folder with --picture-folder.'
        )

    def find(self, source: str) -> Path | None:
        """Return the file of a picture; None where there is none in the folder.

        A file is never outside of the folder, whatever the address says.
        """
        if self._folder is None or "\0" in source:
            return None
        try:
            url = urlsplit(source[:4096])
        except ValueError:
            return None
        local = parse_qs(url.query).get("d") if url.path.endswith("/local-files/") else None
        path = PurePosixPath(local[0] if local else unquote(url.path))
        parts = [part for part in path.parts if part not in ("/", "..")][-_MOST_PARTS:]
        for start in range(len(parts)):
            file = self._folder.joinpath(*parts[start:])
            try:
                if file.is_file() and file.resolve().is_relative_to(self._folder):
                    return file.resolve()
            except (OSError, ValueError):
                continue
        return None
