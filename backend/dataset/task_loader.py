"""Read tasks and their pictures ahead in threads, in order, with a bounded number at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from backend.dataset.task_images import TaskImage, TaskImageReader
from backend.dataset.task_record import TaskReference
from backend.errors import BadRequest, DatasetError, TaskError
from backend.label_studio.requests import Task

#: Threads that wait for Label Studio, and tasks that are read ahead: they bound the memory.
_THREADS: Final = 4
_AHEAD: Final = 8

#: Address of a picture and its task -> the bytes of its file.
ReadFile = Callable[[str, Task], bytes]


@dataclass(frozen=True)
class LoadedImage:
    """A picture of a task with its file.

    Attributes:
        image: the picture.
        content: bytes of its file; None where they are not needed.
        problem: why there is no file; empty otherwise.
    """

    image: TaskImage
    content: bytes | None = field(default=None, repr=False)
    problem: str = ""


@dataclass(frozen=True)
class LoadedTask:
    """A task with the pictures that count.

    Attributes:
        reference: the task.
        is_unchanged: whether it was not read, as its files are there already.
        images: its pictures.
        problem: why it was not read; empty otherwise.
    """

    reference: TaskReference
    is_unchanged: bool = False
    images: tuple[LoadedImage, ...] = ()
    problem: str = ""


class TaskLoader:
    """Reads tasks ahead.

    Args:
        reader: makes pictures of tasks.
        read_file: reads the file of a picture.
        needs_pictures: whether all files are read; else only those of pictures without a region,
            whose size nobody knows otherwise.
    """

    def __init__(self, reader: TaskImageReader, read_file: ReadFile, needs_pictures: bool) -> None:
        self._reader = reader
        self._read_file = read_file
        self._needs_pictures = needs_pictures

    def load(
        self, references: Iterable[TaskReference], is_unchanged: Callable[[int, str], bool]
    ) -> Generator[LoadedTask, None, None]:
        """Iterate over tasks in their order.

        Args:
            references: the tasks.
            is_unchanged: id and stamp of a task -> whether it need not be read.

        Raises:
            StudioRefused: the token may not read one of them.
            StudioUnreachable: Label Studio does not answer.
        """
        waiting: deque[LoadedTask | Future[LoadedTask]] = deque()
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for reference in references:
                    if is_unchanged(reference.id, reference.stamp):
                        waiting.append(LoadedTask(reference, is_unchanged=True))
                    else:
                        waiting.append(pool.submit(self._load, reference))
                    if len(waiting) > _AHEAD:
                        yield _result(waiting.popleft())
                while waiting:
                    yield _result(waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, reference: TaskReference) -> LoadedTask:
        try:
            record = reference.read()
            if record is None:
                return LoadedTask(reference)
            images = self._reader.images(record)
        except (BadRequest, DatasetError, TaskError) as error:
            return LoadedTask(reference, problem=str(error))
        return LoadedTask(reference, images=tuple(map(self._load_image, images)))

    def _load_image(self, image: TaskImage) -> LoadedImage:
        try:
            if not self._needs_pictures and image.drawn_size_hw is not None:
                return LoadedImage(image)
            return LoadedImage(image, self._read_file(image.source, image.task))
        except (DatasetError, TaskError) as error:
            return LoadedImage(image, problem=str(error))


def _result(waiting: LoadedTask | Future[LoadedTask]) -> LoadedTask:
    return waiting if isinstance(waiting, LoadedTask) else waiting.result()
