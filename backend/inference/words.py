"""The words that are to be embedded, a few prompts at a time, between the batches of images.

So a large vocabulary delays nobody but those who use it.
"""

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from backend.errors import ModelUnavailable
from backend.inference.queue import CAPACITY, ImageQueue, ImageRequest, Priority
from clearclip_core import Label, Segmenter

log = logging.getLogger(__name__)


@dataclass(eq=False)
class WordsRequest:
    """Labels whose words are being embedded."""

    labels: tuple[Label, ...]
    prompts_at_once: int  # most prompts of the next turn
    missing: list[str] | None = None  # prompts that are not embedded yet; None until they are known
    images: list[ImageRequest] = field(default_factory=list)
    futures: list[Future[None]] = field(default_factory=list)  # of who waits for them
    turn: int = 0  # when it was served last; the lowest number is served next

    @property
    def is_awaited(self) -> bool:
        """Whether an image or an annotator waits for it."""
        return bool(self.images or self.futures)

    @property
    def priority(self) -> int:
        """The most urgent priority of those who wait; below all priorities where nobody does."""
        if self.futures:
            return Priority.INTERACTIVE
        return min((request.priority for request in self.images), default=len(Priority))


class WordsQueue:
    """Embeds the words of labels between batches of images, which return to their queue then.

    Safe to share between threads, by `changed`, which is notified when labels come; `admit` and
    `embed_some` are for the model's thread alone.
    """

    def __init__(self, images: ImageQueue, changed: threading.Condition) -> None:
        self._images = images
        self._changed = changed
        self._requests: dict[tuple[Label, ...], WordsRequest] = {}
        self._is_next = False
        self._turns = 0
        self.prompts_at_once = 1  # at most, in one turn
        self.known = self.new = 0  # images, by whether their words were embedded before they came

    def __len__(self) -> int:
        """Return the number of sets of labels that are not embedded yet."""
        with self._changed:
            return len(self._requests)

    def add(self, labels: tuple[Label, ...]) -> None:
        """Embed labels when there is nothing else to do; does nothing where there is no room."""
        with self._changed:
            if len(self._requests) < CAPACITY:
                self._request(labels)
                self._changed.notify_all()

    def embed_soon(self, labels: tuple[Label, ...]) -> Future[None]:
        """Embed labels before the next batch of images; return a future for the end of it."""
        future: Future[None] = Future()
        with self._changed:
            self._request(labels).futures.append(future)
            self._is_next = True
            self._changed.notify_all()
        return future

    def next(self) -> WordsRequest | None:
        """Return the labels whose turn it is; None where it is the images' turn.

        Words that images wait for alternate with the other images; words that none waits for come
        when there is nothing else to do.
        """
        with self._changed:
            if self._images and not self._is_next:
                self._is_next = True
                return None
            self._is_next = False
            served = [r for r in self._requests.values() if r.is_awaited or not self._images]
            return min(served, key=lambda r: (r.priority, r.turn), default=None)

    def admit(self, segmenter: Segmenter, request: ImageRequest) -> bool:
        """Return whether an image's words are embedded; where not, hold it until they are."""
        try:
            known = request.labels not in self._requests and not _missing(segmenter, request.labels)
        except Exception as error:  # noqa: BLE001 -- one image's words
            self._images.fail(request, error)
            return False
        if request.is_new:
            request.is_new = False
            self.known += known
            self.new += not known
        if not known:
            with self._changed:
                self._request(request.labels).images.append(request)
                self._is_next = True
        return known

    def embed_some(self, segmenter: Segmenter, request: WordsRequest) -> None:
        """Embed the next few prompts of labels; after the last, requeue their images.

        Where a prompt cannot be embedded alone either, all who wait for the labels get its error.
        """
        self._turns += 1
        request.turn = self._turns

        try:
            if request.missing is None:
                request.missing = _missing(segmenter, request.labels)
            if some := request.missing[: request.prompts_at_once]:
                segmenter.embed(some)  # computes those that were not embedded since
        except Exception as error:
            if request.prompts_at_once > 1:
                log.warning("Words are embedded one by one: %s", error)
                request.prompts_at_once = 1
            else:
                log.exception("Words cannot be embedded")
                self._fail(request, error)
            return

        del request.missing[: len(some)]
        if not request.missing:
            images, futures = self._remove(request)
            self._images.requeue(images)  # they are admitted again
            for future in futures:
                future.set_result(None)

    def fail_all(self, reason: str) -> None:
        """Fail all who wait for words with `ModelUnavailable`."""
        with self._changed:
            requests = list(self._requests.values())
        for request in requests:
            self._fail(request, ModelUnavailable(reason))

    def _request(self, labels: tuple[Label, ...]) -> WordsRequest:
        return self._requests.setdefault(labels, WordsRequest(labels, self.prompts_at_once))

    def _fail(self, request: WordsRequest, error: Exception) -> None:
        images, futures = self._remove(request)
        for image in images:
            self._images.fail(image, error)
        for future in futures:
            future.set_exception(error)

    def _remove(self, request: WordsRequest) -> tuple[list[ImageRequest], list[Future[None]]]:
        with self._changed:
            self._requests.pop(request.labels, None)
            return request.images, request.futures


def _missing(segmenter: Segmenter, labels: Iterable[Label]) -> list[str]:
    """Return the prompts, the model's contrast words too, that are not embedded yet."""
    prompts = (prompt for label in labels for prompt in label.prompts)
    return segmenter.embed.missing([*prompts, *segmenter.model.contrast])
