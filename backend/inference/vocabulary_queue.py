"""The vocabularies that are being embedded, a few prompts at a time, in turn.

An annotator need not wait until a large vocabulary is embedded in all templates: an image request
that is `quick` waits for quick embeddings alone, see `clearclip_core.TextEncoder`. The embeddings
in all templates are made behind it, between the images of others.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from cachetools import LRUCache

from backend.errors import ModelUnavailable, code_of
from backend.inference.image_queue import ImageQueue
from backend.inference.image_request import ImageRequest, Priority
from backend.inference.memory import is_out_of_memory
from clearclip_core import QUICK_TEMPLATES, TEMPLATES, Label, Segmenter

log = logging.getLogger(__name__)

#: Quick embeddings that are made in the time of one in all templates.
_QUICK_AT_ONCE = len(TEMPLATES) // len(QUICK_TEMPLATES)

#: Time of one prompt in all templates on a CPU until the first is measured, in seconds: a ViT-B's.
#: On other devices, new words are waited for until then.
_CPU_GUESS_S = 0.5

#: What a prompt leaves of the measurements before it in the estimate of that time.
_REMEMBERED_SHARE = 0.8

#: How long a prompt that could not be embedded is left out, in seconds, where nobody waits for it.
_RETRY_AFTER_S = 600.0

#: Most such prompts that are remembered.
_MOST_FAILED = 1024


@dataclass(frozen=True)
class FailedPrompt:
    """A prompt that could not be embedded in all templates when it was last tried.

    Attributes:
        prompt: the words.
        reason: the name of the error.
        sentence: what the error says.
        at: when, in seconds since the epoch.
        retry_at: from when on it is tried again where nobody waits for it, in seconds of the
            monotonic clock.
    """

    prompt: str
    reason: str
    sentence: str
    at: float
    retry_at: float


@dataclass(eq=False)
class EmbeddingRequest:
    """A vocabulary that is being embedded.

    Attributes:
        labels: the labels of the vocabulary.
        quick: whether it is embedded in a few templates, where it is not yet in all.
        is_in_use: whether annotators are answered with quick embeddings until it is done.
        missing: prompts that are not embedded yet; None until they are known.
        one_by_one: whether prompts are embedded one at a time, since some together have failed.
        images: image requests that wait for it.
        futures: resolved once it is embedded, for annotators who wait.
        turn: when it was served last; the lowest number is served next.
    """

    labels: tuple[Label, ...]
    quick: bool = False
    is_in_use: bool = False
    missing: list[str] | None = None
    one_by_one: bool = False
    images: list[ImageRequest] = field(default_factory=list)
    futures: list[Future[None]] = field(default_factory=list)
    turn: int = 0

    @property
    def is_awaited(self) -> bool:
        """Whether an image or an annotator waits for it, or would be answered better with it."""
        return bool(self.images or self.futures or self.is_in_use)

    @property
    def priority(self) -> int:
        """The most urgent priority of those who wait; below all priorities where nobody does."""
        if self.futures:
            return Priority.INTERACTIVE
        nobody = Priority.BATCH if self.is_in_use else len(Priority)
        return min((request.priority for request in self.images), default=nobody)


class VocabularyQueue:
    """Embeds vocabularies between batches of images.

    Safe to share between threads; `admit` and `embed_some` are for the model's thread alone.

    Args:
        images: the queue to which images return once their words are embedded.
        changed: guards the queue; notified when a vocabulary comes.
        capacity: most vocabularies; above it, none is added for which nobody waits.

    Attributes:
        prompts_at_once: most prompts that are embedded in all templates in one turn.
        seconds_per_prompt: estimate of the time of one prompt in all templates; None until one is
            measured.
        words_known: images whose words were embedded before they came.
        words_new: images that had to wait for their words.
    """

    def __init__(
        self, images: ImageQueue, changed: threading.Condition, capacity: int = 64
    ) -> None:
        self._images = images
        self._changed = changed
        self._capacity = capacity
        self._requests: dict[tuple[tuple[Label, ...], bool], EmbeddingRequest] = {}
        self._is_next = False
        self._turns = 0
        self.prompts_at_once = 1
        self.seconds_per_prompt: float | None = None
        self._failed: LRUCache[str, FailedPrompt] = LRUCache(_MOST_FAILED)
        self.words_known = self.words_new = 0

    def __len__(self) -> int:
        """Return the number of vocabularies that are not embedded in all templates yet."""
        with self._changed:
            return len({labels for labels, _ in self._requests})

    @property
    def failed(self) -> tuple[FailedPrompt, ...]:
        """The prompts that could not be embedded when they were last tried, the newest first."""
        with self._changed:
            return tuple(sorted(self._failed.values(), key=lambda each: -each.at))

    def forget_embedded(self, segmenter: Segmenter) -> None:
        """Drop the failures of prompts that are embedded by now, as by another process."""
        with self._changed:
            failed = tuple(self._failed)
        if not failed:
            return
        left = set(segmenter.embed.missing(failed))  # may read files: nobody has to wait for that
        with self._changed:
            for prompt in failed:
                if prompt not in left:
                    self._failed.pop(prompt, None)

    def add(self, labels: tuple[Label, ...], is_in_use: bool = False) -> None:
        """Embed labels in all templates; does nothing where there is no room.

        Args:
            labels: the labels.
            is_in_use: take turns with images, as annotators are answered with quick embeddings
                until then; by default, embed them when there is nothing else to do.
        """
        with self._changed:
            if len(self) < self._capacity or (labels, False) in self._requests:
                request = self._request(labels)
                request.is_in_use = request.is_in_use or is_in_use
                self._changed.notify_all()

    def embed_soon(self, labels: tuple[Label, ...]) -> Future[None]:
        """Embed labels before the next batch of images; return a future for the end of it."""
        future: Future[None] = Future()
        with self._changed:
            self._request(labels).futures.append(future)
            self._is_next = True
            self._changed.notify_all()
        return future

    def embedding_s(self, segmenter: Segmenter, labels: Iterable[Label]) -> float:
        """Estimate how long it takes to embed labels in all templates, in seconds.

        Infinity where one of their prompts could not be embedded when it was last tried.
        """
        prompts = missing(segmenter, labels)
        with self._changed:
            if any(prompt in self._failed for prompt in prompts):
                return math.inf
            per_prompt = self.seconds_per_prompt
        if per_prompt is None:
            per_prompt = _CPU_GUESS_S if segmenter.encoder.device.type == "cpu" else 0.0
        return len(prompts) * per_prompt

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
        """Return whether an image's words are embedded; where not, hold it until they are.

        The words of a quick request are embedded in a few templates first and in all behind it.
        """
        try:
            known = (request.labels, request.quick) not in self._requests and not (
                missing(segmenter, request.labels, request.quick)
            )
            if request.quick and self._untried(missing(segmenter, request.labels)):
                self.add(request.labels, is_in_use=True)
        except Exception as error:  # noqa: BLE001 -- one image's words
            self._images.fail(request, error)
            return False
        if request.is_new:
            request.is_new = False
            self.words_known += known
            self.words_new += not known
        if not known:
            with self._changed:
                self._request(request.labels, request.quick).images.append(request)
                self._is_next = True
        return known

    def embed_some(self, segmenter: Segmenter, request: EmbeddingRequest) -> None:
        """Embed the next few prompts of a vocabulary; after the last, requeue its images.

        Where a prompt cannot be embedded, all who wait for the vocabulary get its error. Where
        nobody waits, it is left out, and the other prompts are embedded.
        """
        self._turns += 1
        request.turn = self._turns
        some: list[str] = []
        try:
            if request.missing is None:
                request.missing = missing(segmenter, request.labels, request.quick)
            some, passed = self._next_prompts(segmenter, request)
            if some:
                self._embed(segmenter, some, request.quick)
            del request.missing[:passed]
            is_over = not request.missing
            left_out = missing(segmenter, request.labels) if is_over and not request.quick else []
        except Exception as error:  # noqa: BLE001 -- `_fail` logs it
            if is_out_of_memory(error) and self.prompts_at_once > 1:
                log.warning("Words are embedded one by one from now on: %s", error)
                self.prompts_at_once = 1
            elif len(some) > 1:
                request.one_by_one = True  # to find the one that fails
            else:
                self._fail(request, some, error)
            return
        if is_over:
            self._finish(request, bool(left_out))

    def fail_all(self, reason: str) -> None:
        """Fail all who wait for words with `ModelUnavailable`."""
        with self._changed:
            removed = [self._remove(request) for request in list(self._requests.values())]
        for images, futures in removed:
            for image in images:
                self._images.fail(image, ModelUnavailable(reason))
            for future in futures:
                future.set_exception(ModelUnavailable(reason))

    def _request(self, labels: tuple[Label, ...], quick: bool = False) -> EmbeddingRequest:
        return self._requests.setdefault((labels, quick), EmbeddingRequest(labels, quick))

    def _next_prompts(
        self, segmenter: Segmenter, request: EmbeddingRequest
    ) -> tuple[list[str], int]:
        """Return the prompts of a turn, and how many of those that are missing are over with it.

        Prompts that were embedded since, for another vocabulary or by another process, take no
        turn.
        """
        prompts = request.missing or []
        at_once = 1 if request.one_by_one else self.prompts_at_once
        at_once *= _QUICK_AT_ONCE if request.quick and not request.one_by_one else 1
        some: list[str] = []
        passed = 0
        while len(some) < at_once and passed < len(prompts):
            ahead = prompts[passed : passed + at_once - len(some)]
            passed += len(ahead)
            new = segmenter.embed.missing(ahead, request.quick)
            some += new if request.images or request.futures else self._untried(new)
        return some, passed

    def _embed(self, segmenter: Segmenter, prompts: list[str], quick: bool) -> None:
        began = time.perf_counter()
        segmenter.embed(prompts, quick)
        if quick:
            return
        self._measure((time.perf_counter() - began) / len(prompts), len(prompts))
        with self._changed:
            for prompt in prompts:
                self._failed.pop(prompt, None)

    def _measure(self, seconds_per_prompt: float, prompts: int) -> None:
        before = self.seconds_per_prompt
        share = 1.0 if before is None else 1.0 - _REMEMBERED_SHARE**prompts
        self.seconds_per_prompt = (before or 0.0) * (1.0 - share) + share * seconds_per_prompt

    def _untried(self, prompts: Iterable[str]) -> list[str]:
        """Return prompts without those that have failed and are not to be tried again yet."""
        now = time.monotonic()
        with self._changed:
            waiting = {each.prompt for each in self._failed.values() if each.retry_at > now}
        return [prompt for prompt in prompts if prompt not in waiting]

    def _finish(self, request: EmbeddingRequest, has_left_out: bool) -> None:
        """Give those who wait for a vocabulary their turn.

        Args:
            request: the vocabulary.
            has_left_out: whether a prompt was left out, before somebody came who waits for it.
        """
        images, futures = self._remove(request)
        self._images.requeue(images)  # they are admitted anew
        if futures and has_left_out:
            with self._changed:
                self._request(request.labels).futures += futures
            return
        for future in futures:
            future.set_result(None)

    def _fail(self, request: EmbeddingRequest, prompts: list[str], error: Exception) -> None:
        """Fail all who wait for a vocabulary; embed its other prompts, where that is of use.

        Args:
            request: the vocabulary.
            prompts: the one that failed; none where it is not known which.
            error: why.
        """
        with self._changed:
            is_known = bool(prompts) and all(prompt in self._failed for prompt in prompts)
            if not request.quick:
                # Of the error only the words: its traceback holds on to tensors.
                told = (code_of(error), str(error), time.time(), time.monotonic() + _RETRY_AFTER_S)
                for prompt in prompts:
                    self._failed[prompt] = FailedPrompt(prompt, *told)
        log.error("Words cannot be embedded: %s", error, exc_info=None if is_known else error)
        images, futures = self._remove(request)
        for image in images:
            self._images.fail(image, error)
        for future in futures:
            future.set_exception(error)
        request.missing = [each for each in request.missing or () if each not in prompts]
        is_awaited = request.is_in_use or not (images or futures)
        if request.missing and prompts and is_awaited and not request.quick:
            with self._changed:  # unless somebody has asked for the same meanwhile
                self._requests.setdefault((request.labels, False), request)

    def _remove(self, request: EmbeddingRequest) -> tuple[list[ImageRequest], list[Future[None]]]:
        with self._changed:
            self._requests.pop((request.labels, request.quick), None)
            images, request.images = request.images, []
            futures, request.futures = request.futures, []
            return images, futures


def missing(segmenter: Segmenter, labels: Iterable[Label], quick: bool = False) -> list[str]:
    """Return the prompts that scores of labels need and that are not embedded in all templates.

    Args:
        segmenter: the model, whose contrast words are needed as well.
        labels: the labels.
        quick: leave out those as well that have a quick embedding.
    """
    prompts = (prompt for label in labels for prompt in label.prompts)
    return segmenter.embed.missing([*prompts, *segmenter.model.contrast], quick)
