"""Images that wait for the click model: a queue of their own, beside that for the features.

Whoever clicks has the features and scores of the image already, or waits for them in the other
queue. The thread of the models serves both in turn, so that neither keeps the other waiting.
"""

import threading
import zlib
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

from backend.errors import Busy, ModelUnavailable
from backend.inference.feature_cache import FeatureCache
from backend.inference.queue import CAPACITY, FairQueue
from clearclip_core import ClickFeatures, ClickModel, RGBArray


def click_key(rgb: RGBArray, digest: str) -> str:
    """Return the key of what a click model sees in an image.

    Args:
        rgb: (H, W, 3) uint8. The model sees more of it than CLIP.
        digest: of the image as it is prepared for CLIP.
    """
    return f"clicks {digest} {zlib.crc32(np.ascontiguousarray(rgb).data)}"


@dataclass(eq=False)
class ClickRequest:
    """An image that is to be encoded for clicks."""

    pixels: torch.Tensor  # from `ClickModel.prepare`
    key: str  # of its features in the cache
    features: Future[ClickFeatures] = field(default_factory=Future)


class ClickQueue:
    """Holds images that wait for the click model, projects in turn, and encodes them.

    Threads may share it: `changed` guards it, and is notified of images that come.
    """

    def __init__(self, changed: threading.Condition, cache: FeatureCache) -> None:
        self._changed = changed
        self._cache = cache
        self._queue = FairQueue[ClickRequest]()

    def __len__(self) -> int:
        with self._changed:
            return len(self._queue)

    def put(self, request: ClickRequest, project: Hashable) -> None:
        """Append a request, or raise `Busy` where as many as may wait do so already."""
        with self._changed:
            if len(self._queue) >= CAPACITY:
                raise Busy("Too many pictures wait for the click model: try again in a moment.")
            self._queue.push(request, 0, project)
            self._changed.notify_all()

    def encode_next(
        self,
        model: ClickModel,
        with_room: Callable[[Callable[[], ClickFeatures]], ClickFeatures],
    ) -> None:
        """Encode the next image if one waits; its fault costs no other.

        Features are in float16 on the CPU, as the cache keeps them: whether it has them changes no
        answer.

        Args:
            model: encodes the image.
            with_room: computes in the memory of the model's device, see `BatchEncoder.with_room`.
        """
        with self._changed:
            if not self._queue:
                return
            request = self._queue.pop()
        cached = self._cache.get(request.key)  # another click on the image may have come first
        if isinstance(cached, ClickFeatures):
            request.features.set_result(cached)
            return
        try:
            seen = with_room(lambda: model.encode([request.pixels])[0])
            half = seen.to("cpu", torch.float16)
        except Exception as error:  # noqa: BLE001 -- one image
            request.features.set_exception(error)
            return
        self._cache.put(request.key, half)
        request.features.set_result(half)

    def fail_all(self, reason: str) -> None:
        """Fail all requests that wait with `ModelUnavailable`."""
        with self._changed:
            waiting = self._queue.take(lambda _: True)
        for request in waiting:
            request.features.set_exception(ModelUnavailable(reason))
