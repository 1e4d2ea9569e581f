"""The vocabularies that are being embedded, a few prompts at a time, in turn."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from backend.errors import ModelUnavailable
from backend.inference.image_queue import ImageQueue
from backend.inference.image_request import ImageRequest, Priority
from backend.inference.memory import is_out_of_memory
from clearclip_core import Label, Segmenter

log = logging.getLogger(__name__)


@dataclass(eq=False)
class EmbeddingRequest:
    """A vocabulary that is being embedded.

    Attributes:
        labels: the labels of the vocabulary.
        missing: prompts that are not embedded yet; None until they are known.
        images: image requests that wait for it.
        futures: resolved once it is embedded, for annotators who wait.
        turn: when it was served last; the lowest number is served next.
    """

    labels: tuple[Label, ...]
    missing: list[str] | None = None
    images: list[ImageRequest] = field(default_factory=list)
    futures: list[Future[None]] = field(default_factory=list)
    turn: int = 0

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


class VocabularyQueue:
    """Embeds vocabularies between batches of images.

    Safe to share between threads; `admit` and `embed_some` are for the model's thread alone.

    Args:
        images: the queue to which images return once their words are embedded.
        changed: guards the queue; notified when a vocabulary comes.

    Attributes:
        prompts_at_once: most prompts that are embedded in one turn.
        words_known: images whose words were embedded before they came.
        words_new: images that had to wait for their words.
    """

    def __init__(self, images: ImageQueue, changed: threading.Condition) -> None:
        self._images = images
        self._changed = changed
        self._requests: dict[tuple[Label, ...], EmbeddingRequest] = {}
        self._is_next = False
        self._turns = 0
        self.prompts_at_once = 1
        self.words_known = self.words_new = 0

    def __len__(self) -> int:
        with self._changed:
            return len(self._requests)

    def add(self, labels: tuple[Label, ...]) -> None:
        """Embed labels when there is nothing else to do."""
        with self._changed:
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

    def next(self) -> EmbeddingRequest | None:
        """Return the vocabulary whose turn it is; None where it is the images' turn.

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
            known = request.labels not in self._requests and not segmenter.embed.missing(
                _prompts(segmenter, request.labels)
            )
        except Exception as error:  # noqa: BLE001 -- one image's words
            self._images.fail(request, error)
            return False
        if request.is_new:
            request.is_new = False
            self.words_known += known
            self.words_new += not known
        if not known:
            with self._changed:
                self._request(request.labels).images.append(request)
                self._is_next = True
        return known

    def embed_some(self, segmenter: Segmenter, request: EmbeddingRequest) -> None:
        """Embed the next few prompts of a vocabulary; after the last, requeue its images."""
        self._turns += 1
        request.turn = self._turns
        try:
            is_complete = self._embed(segmenter, request)
        except Exception as error:
            if is_out_of_memory(error) and self.prompts_at_once > 1:
                log.warning("Words are embedded one by one from now on: %s", error)
                self.prompts_at_once = 1
                return
            log.exception("Words cannot be embedded")
            self._fail(request, error)
            return
        if is_complete:
            self._finish(request)

    def fail_all(self, reason: str) -> None:
        """Fail all who wait for words with `ModelUnavailable`."""
        with self._changed:
            removed = [self._remove(request) for request in list(self._requests.values())]
        for images, futures in removed:
            for image in images:
                self._images.fail(image, ModelUnavailable(reason))
            for future in futures:
                future.set_exception(ModelUnavailable(reason))

    def _request(self, labels: tuple[Label, ...]) -> EmbeddingRequest:
        return self._requests.setdefault(labels, EmbeddingRequest(labels))

    def _embed(self, segmenter: Segmenter, request: EmbeddingRequest) -> bool:
        """Embed the next few prompts; return whether they were the last."""
        if request.missing is None:
            request.missing = segmenter.embed.missing(_prompts(segmenter, request.labels))
        some = request.missing[: self.prompts_at_once]
        if some:
            segmenter.embed(some)
        del request.missing[: len(some)]
        return not request.missing

    def _finish(self, request: EmbeddingRequest) -> None:
        images, futures = self._remove(request)
        self._images.requeue(images)
        for future in futures:
            future.set_result(None)

    def _fail(self, request: EmbeddingRequest, error: Exception) -> None:
        images, futures = self._remove(request)
        for image in images:
            self._images.fail(image, error)
        for future in futures:
            future.set_exception(error)

    def _remove(self, request: EmbeddingRequest) -> tuple[list[ImageRequest], list[Future[None]]]:
        with self._changed:
            self._requests.pop(request.labels, None)
            images, request.images = request.images, []
            futures, request.futures = request.futures, []
            return images, futures


def _prompts(segmenter: Segmenter, labels: tuple[Label, ...]) -> list[str]:
    """Return all prompts that scores of these labels need, contrast words included."""
    return [*(prompt for label in labels for prompt in label.prompts), *segmenter.model.contrast]
