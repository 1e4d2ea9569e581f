"""Collect images into batches of windows, and encode them within the memory of the device."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from backend.inference.feature_cache import FeatureCache
from backend.inference.queue import ImageQueue, ImageRequest, Priority
from backend.inference.words import WordsQueue
from clearclip_core import DenseFeatures, PreparedImage, Segmenter, WindowFeatures

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, of whatever release and on whatever device, ran out of memory.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"))
    True
    """
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in message for sign in _OUT_OF_MEMORY)


def free_memory() -> None:
    """Return the unused memory of torch's allocators to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class BatchCollector:
    """Takes the images of the next batch out of the queue."""

    def __init__(self, images: ImageQueue, words: WordsQueue, cache: FeatureCache) -> None:
        self._images = images
        self._words = words
        self._cache = cache

    def collect(self, segmenter: Segmenter, windows_at_once: int) -> list[ImageRequest]:
        """Take images in the order of service, about as many as fill a batch of windows.

        Others that wait for the features of one of them come along. An image that has to wait for
        its words is not overtaken by less urgent ones before these had their turn.
        """
        batch: list[ImageRequest] = []
        room, least_urgent = windows_at_once, max(Priority)
        while (request := self._pop(room, least_urgent, at_any_cost=not batch)) is not None:
            if self._words.admit(segmenter, request):
                batch.append(request)
                room -= self._cost(request)
            else:
                least_urgent = request.priority
        keys = {request.key for request in batch}
        same = self._images.take(lambda other: other.key in keys)
        return batch + [each for each in same if self._words.admit(segmenter, each)]

    def _pop(self, room: int, least_urgent: Priority, at_any_cost: bool) -> ImageRequest | None:
        """Take the next image, if it fits into `room` windows and is urgent enough."""

        def fits(request: ImageRequest) -> bool:
            return request.priority <= least_urgent and (at_any_cost or self._cost(request) <= room)

        return self._images.pop_if(fits)

    def _cost(self, request: ImageRequest) -> int:
        """Return the cost in windows; cached features cost 1, so that a batch of them ends."""
        return 1 if request.key in self._cache else request.image.plan.count


class BatchEncoder:
    """Encodes images together, in smaller batches once memory was too small for larger ones."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.windows_at_once = 0  # most windows of a batch; 0 before the model is loaded
        self.batches = self.windows = 0

    def encode(
        self, segmenter: Segmenter, images: Sequence[PreparedImage]
    ) -> list[WindowFeatures | Exception]:
        """Return the features of each image, or its error; the fault of one costs no other.

        Features are in float16, as the cache keeps them: whether it has them changes no answer.
        """
        try:
            return list(self._encode_in_memory(segmenter, images))
        except Exception as error:  # noqa: BLE001 -- one image of a batch
            if len(images) == 1:
                return [error]
            log.warning("%d pictures are encoded one by one: %s", len(images), error)
        return [outcome for one in images for outcome in self.encode(segmenter, [one])]

    def _encode_in_memory(
        self, segmenter: Segmenter, images: Sequence[PreparedImage]
    ) -> list[WindowFeatures]:
        """Encode as one batch; where memory is too small for it, in batches half as large."""
        windows = sum(image.plan.count for image in images)
        while True:
            at_once = min(windows, self.windows_at_once)
            self._count(windows)
            try:
                encoded = segmenter.encode_batch(images, self.windows_at_once)
                return [_half_precision(features) for features in encoded]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or at_once == 1:
                    raise
            # Outside the handler: until it is left, the error's traceback keeps tensors alive.
            self._halve(at_once, segmenter.encoder.device)

    def _count(self, windows: int) -> None:
        with self._changed:
            self.batches += 1
            self.windows += windows

    def with_room(self, compute: Callable[[], _T], segmenter: Segmenter) -> _T:
        """Compute what needs the memory of the model's device, beside its batches.

        Where that runs out, batches are smaller from then on, and it is computed once more.
        """
        at_once = self.windows_at_once
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, as above.
        if self.windows_at_once == at_once:  # else another thread has halved it meanwhile
            self._halve(at_once, segmenter.encoder.device)
        return compute()

    def _halve(self, at_once: int, device: torch.device) -> None:
        self.windows_at_once = max(1, at_once // 2)
        free_memory()
        log.warning(
            "The memory of %s has run out: from now on at most %d windows are encoded at once",
            device,
            self.windows_at_once,
        )


def _half_precision(features: DenseFeatures) -> WindowFeatures:
    """Return features in float16, on the device where they are."""
    windows = WindowFeatures(features.patches, features.cls, features.second)
    return windows.to(features.patches.device, torch.float16)
