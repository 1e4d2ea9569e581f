"""The one owner of the model: loads it, and serves all requests from a single thread.

Pictures wait in a `FairQueue` and are encoded together, as many as make one good batch of windows
and never waiting for more. New words are embedded between these batches, a few at a time, so that
a large vocabulary delays nobody but those who use it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
import torch

from backend.errors import Busy, ModelUnavailable
from backend.inference.fair_queue import FairQueue
from backend.inference.feature_cache import CacheUse, FeatureCache
from backend.settings import Settings
from backend.telemetry.tracing import stage
from clearclip_core import (
    Adaptation,
    DenseFeatures,
    Label,
    PreparedImage,
    Scores,
    Segmenter,
    WeightsNotFoundError,
    WindowFeatures,
    resolve_method,
    usable_cpus,
    weights_id,
)

log = logging.getLogger(__name__)

ModelState = Literal["loading", "ready", "failed"]

#: After how many more urgent pictures a less urgent one has its turn.
PATIENCE = 16

#: One prompt, a sentence for each of 80 templates, costs a ViT-B as much as some windows.
_WINDOWS_A_PROMPT = 4

#: How long the end waits for the batch that is running.
_LAST_BATCH_S = 5.0

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class Priority(IntEnum):
    """The order of service."""

    INTERACTIVE = 0  # an annotator has clicked and waits
    OPENED = 1  # an annotator has opened a task
    BATCH = 2  # a project is being prelabeled

    @property
    def word(self) -> str:
        """How answers, metrics and logs call it."""
        return ("interactive", "opened", "batch")[self]


@dataclass(frozen=True)
class Status:
    """Where the model is; `reason` says why where it has failed to load, or is gone."""

    state: ModelState
    reason: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What the engine has done, and what it has before it.

    Attributes:
        status: where the model is.
        device: that it runs on, with its name where it is a GPU; empty before it is loaded.
        precision: number format of the model; empty before it is loaded.
        waiting: pictures of each urgency that are not done yet.
        lines: the same by urgency and project; only those above 0.
        vocabularies: how many are being embedded.
        done: pictures that were scored.
        failed: pictures that were not.
        batches: how often the encoder was asked.
        windows: how many windows it was asked for, all batches together.
        windows_at_once: most windows of a batch; 0 before the model is loaded.
        cache: the features that are kept.
        words_known: pictures whose words were embedded before they came.
        words_new: pictures that had to wait for theirs.
    """

    status: Status
    device: str
    precision: str
    waiting: dict[Priority, int]
    lines: dict[tuple[Priority, Hashable], int]
    vocabularies: int
    done: int
    failed: int
    batches: int
    windows: int
    windows_at_once: int
    cache: CacheUse
    words_known: int
    words_new: int


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture as the model sees it: what prompts are answered from."""

    features: DenseFeatures
    scores: Scores


@dataclass(eq=False)
class _Item:
    """A picture that waits; `began` once it is the model's, or will never be."""

    picture: PreparedImage
    key: str
    labels: tuple[Label, ...]
    priority: Priority
    project: Hashable
    adaptation: Adaptation | None = None
    look: Future[EncodedImage] = field(default_factory=Future)
    began: threading.Event = field(default_factory=threading.Event)
    is_new: bool = True


@dataclass(eq=False)
class _EmbeddingRequest:
    """A vocabulary that is being embedded, and the pictures and annotators that wait for it."""

    labels: tuple[Label, ...]
    missing: list[str] | None = None
    waiting: list[_Item] = field(default_factory=list)
    asked: list[Future[None]] = field(default_factory=list)
    turn: int = 0

    @property
    def awaited(self) -> bool:
        return bool(self.waiting or self.asked)

    @property
    def priority(self) -> int:
        """That of the most urgent who waits; where nobody does, less urgent than all."""
        if self.asked:
            return Priority.INTERACTIVE
        return min((item.priority for item in self.waiting), default=len(Priority))


class Engine:
    """Loads a segmenter in a thread of its own and serves it there.

    Nothing runs before `start`, or after `stop`; ``with`` does both. A failed load is tried again
    every `retry_after_s` seconds; until one succeeds, whoever asks hears the reason at once.

    Args:
        load: makes the segmenter; raises where it cannot.
        model_id: tells these weights from others, before they are loaded too; asked at each call.
        retry_after_s: pause in seconds between two tries.
        cache: keeps features; none are kept by default.
        queue_size: most pictures of one urgency that may wait.
        windows_at_once: most windows of a batch; the segmenter's own choice by default.
    """

    def __init__(
        self,
        load: Callable[[], Segmenter],
        model_id: Callable[[], str],
        retry_after_s: float = 30.0,
        cache: FeatureCache | None = None,
        queue_size: int = 64,
        windows_at_once: int | None = None,
    ) -> None:
        self._load = load
        self._model_id = model_id
        self._retry_after_s = retry_after_s
        self._cache = cache or FeatureCache(0)
        self._queue_size = queue_size
        self._windows_at_once = windows_at_once or 0
        self._prompts_at_once = 1
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

        # What follows is read and written by several threads, under this lock.
        self._changed = threading.Condition()
        self._status = Status("loading")
        self._segmenter: Segmenter | None = None
        self._device = self._precision = ""
        self._features_id = ""
        self._queue = FairQueue[_Item](PATIENCE)
        self._words: dict[tuple[Label, ...], _EmbeddingRequest] = {}
        self._words_come_next = False
        self._waiting: Counter[Priority] = Counter()
        self._lines: Counter[tuple[Priority, Hashable]] = Counter()
        self._done = self._failed = self._batches = self._windows = self._turns = 0
        self._words_known = self._words_new = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> Engine:
        """The engine that settings describe.

        Raises:
            ValueError: a model or method that does not exist, a model that is never served, or
                caches that do not fit this machine.
        """
        if settings.model.endswith("/random"):
            raise ValueError("MODEL: random weights are for benchmarks and are never served.")
        resolve_method(settings.method)
        try:
            weights_id(settings.model)
        except WeightsNotFoundError as error:
            log.warning("%s", error)  # they may be brought later

        def load() -> Segmenter:
            torch.set_num_threads(usable_cpus())
            segmenter = Segmenter.load(
                settings.model,
                method=settings.method,
                device=settings.device,
                precision=settings.precision,
                short_side_px=settings.short_side_px,
                folder=settings.model_dir,
                compile=settings.compile,
            )
            if settings.compile:  # now, while nobody waits: the first picture would take minutes
                segmenter.encode(np.zeros((448, 448, 3), np.uint8))
            return segmenter

        return cls(
            load,
            lambda: weights_id(settings.model),
            cache=FeatureCache.from_settings(settings),
            queue_size=settings.queue_size,
            windows_at_once=None if settings.batch_windows == "auto" else settings.batch_windows,
        )

    def start(self) -> None:
        """Begin to load, and then to serve, in the background; once, however often it is called."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Serve no more: whoever waits, or asks later, hears that the model is gone."""
        self._stopping.set()
        with self._changed:
            if self._status.state != "failed":
                self._status = Status("failed", "The backend is shutting down.")
            self._segmenter = None
            self._changed.notify_all()
        self._give_up()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()

    def join(self) -> None:
        """Wait for the end of the batch that is running: a process that ends under it may abort."""
        if self._thread is not None:
            self._thread.join(_LAST_BATCH_S)

    @property
    def status(self) -> Status:
        """Where the model is now."""
        with self._changed:
            return self._status

    @property
    def model_id(self) -> str:
        """What tells these weights from others, known before they are loaded.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        try:
            return self._model_id()
        except OSError as error:
            raise ModelUnavailable(str(error)) from None

    def snapshot(self) -> Snapshot:
        """Counts for those who watch; all of one moment."""
        with self._changed:
            return Snapshot(
                status=self._status,
                device=self._device,
                precision=self._precision,
                waiting={priority: self._waiting[priority] for priority in Priority},
                lines=dict(self._lines),
                vocabularies=len(self._words),
                done=self._done,
                failed=self._failed,
                batches=self._batches,
                windows=self._windows,
                windows_at_once=self._windows_at_once,
                cache=self._cache.use,
                words_known=self._words_known,
                words_new=self._words_new,
            )

    def segmenter(self) -> Segmenter:
        """The segmenter; waits while it loads for the first time.

        Only what needs no model may be called on it from other threads than the engine's own.

        Raises:
            ModelUnavailable: loading has failed, or the engine has stopped.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._status.state != "loading")
            return self._loaded()

    def warm_up(self, labels: Iterable[Label]) -> None:
        """Embed labels when there is nothing else to do, so that their first picture need not wait.

        Never waits; does nothing where as many vocabularies as pictures may wait for that.
        """
        labels = tuple(labels)
        with self._changed:
            if len(self._words) < self._queue_size and not self._stopping.is_set():
                self._vocabulary(labels)
                self._changed.notify_all()

    def embed(self, labels: tuple[Label, ...]) -> torch.Tensor:
        """The text embeddings of all prompts of labels, for an annotator who waits.

        Returns:
            (Q, D) float32 on the CPU, each row of length 1: the prompts of the labels in order.

        Raises:
            ModelUnavailable: loading has failed, or the engine has stopped.
        """
        segmenter = self.segmenter()
        prompts = [prompt for label in labels for prompt in label.prompts]
        if segmenter.embed.missing(prompts):
            embedded: Future[None] = Future()
            with self._changed:
                self._loaded()
                self._vocabulary(labels).asked.append(embedded)
                self._words_come_next = True
                self._changed.notify_all()
            embedded.result()
        return segmenter.embed(prompts)  # kept by now: nothing is computed in this thread

    def score(
        self,
        picture: PreparedImage,
        labels: tuple[Label, ...],
        priority: Priority = Priority.OPENED,
        project: Hashable = None,
        adaptation: Adaptation | None = None,
    ) -> Scores:
        """Score a picture, contrast words included; see `look`, whose scores these are."""
        return self.look(picture, labels, priority, project, adaptation).scores

    def look(
        self,
        picture: PreparedImage,
        labels: tuple[Label, ...],
        priority: Priority = Priority.INTERACTIVE,
        project: Hashable = None,
        adaptation: Adaptation | None = None,
    ) -> EncodedImage:
        """Encode and score a picture, contrast words included; waits for the model and its turn.

        `Segmenter.prepare` before this and `Segmenter.decide` after it are for the caller's own
        thread, beside the next pictures of others.

        Args:
            picture: from `Segmenter.prepare`.
            labels: the labels that compete on it.
            urgency: who is served first.
            project: projects of one urgency take turns.
            adaptation: what scores follow beside the words; features do not depend on it.

        Raises:
            ModelUnavailable: loading has failed, or the engine has stopped.
            Busy: too many pictures of annotators' clicks wait; others wait for room.
        """
        self.segmenter()
        key = f"{self._features_id} {picture.digest}"
        item = _Item(picture, key, labels, priority, project, adaptation)
        with stage("cache"):
            self._cache.load(key)
        with stage("wait"):
            self._enqueue(item)
            item.began.wait()
        with stage("model"):
            look = item.look.result()
        with stage("cache"):
            self._cache.save(key)
        return look

    def _enqueue(self, item: _Item) -> None:
        with self._changed:
            if item.priority is not Priority.INTERACTIVE:
                self._changed.wait_for(lambda: self._has_room(item) or self._stopping.is_set())
            self._loaded()
            if not self._has_room(item):
                raise Busy("Too many pictures wait for the model: try again in a moment.")
            self._waiting[item.priority] += 1
            self._lines[item.priority, item.project] += 1
            self._queue.push(item, item.priority, item.project)
            self._changed.notify_all()

    def _has_room(self, item: _Item) -> bool:
        return self._waiting[item.priority] < self._queue_size

    def _loaded(self) -> Segmenter:
        if self._segmenter is None:
            raise ModelUnavailable(self._status.reason)
        return self._segmenter

    # From here on: the model's own thread.

    def _run(self) -> None:
        segmenter = self._try_to_load()
        while segmenter is None:
            if self._stopping.wait(self._retry_after_s):
                return
            segmenter = self._try_to_load()
        while self._work_comes():
            words = self._next_words()
            if words is None:
                self._encode_some(segmenter)
            else:
                self._embed_some(segmenter, words)
        self._give_up()

    def _try_to_load(self) -> Segmenter | None:
        try:
            segmenter = self._load()
            # The first request should not pay for the words that every request needs.
            segmenter.embed(segmenter.model.contrast)
            features_id = segmenter.features_id
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait must hear of it
            log.error(
                "The model cannot be loaded, next try in %g s: %s", self._retry_after_s, error
            )
            self._set(Status("failed", str(error) or type(error).__name__))
            return None
        if segmenter.model.notice:
            log.warning("%s", segmenter.model.notice)
        self._device = _device_name(segmenter.encoder.device)
        self._precision = str(segmenter.encoder.dtype).removeprefix("torch.")
        log.info(
            "The model is ready: %s, %s, %s", segmenter.model.name, self._device, self._precision
        )
        self._features_id = features_id
        self._windows_at_once = self._windows_at_once or segmenter.windows_at_once
        self._prompts_at_once = max(1, self._windows_at_once // _WINDOWS_A_PROMPT)
        self._set(Status("ready"), segmenter)
        return segmenter

    def _set(self, status: Status, segmenter: Segmenter | None = None) -> None:
        with self._changed:
            if not self._stopping.is_set():
                self._status, self._segmenter = status, segmenter
            self._changed.notify_all()

    def _work_comes(self) -> bool:
        """Wait for something to do; False once the engine has stopped."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue or self._words or self._stopping.is_set(),
            )
            return not self._stopping.is_set()

    def _next_words(self) -> _EmbeddingRequest | None:
        """The vocabulary whose turn it is, or None where it is the pictures'.

        Words that pictures wait for alternate with the other pictures; those that none waits for
        come when there is nothing else to do.
        """
        with self._changed:
            if self._queue and not self._words_come_next:
                self._words_come_next = True
                return None
            self._words_come_next = False
            words = [w for w in self._words.values() if w.awaited or not self._queue]
            return min(words, key=lambda w: (w.priority, w.turn), default=None)

    def _embed_some(self, segmenter: Segmenter, words: _EmbeddingRequest) -> None:
        """Embed the next few prompts of a vocabulary; after the last, its pictures have a turn."""
        self._turns += 1
        words.turn = self._turns
        try:
            if words.missing is None:
                words.missing = segmenter.embed.missing(_prompts(segmenter, words.labels))
            some = words.missing[: self._prompts_at_once]
            if some:
                segmenter.embed(some)
            del words.missing[: len(some)]
        except Exception as error:
            if is_out_of_memory(error) and self._prompts_at_once > 1:
                log.warning("Words are embedded one by one from now on: %s", error)
                self._prompts_at_once = 1
                return
            log.exception("Words cannot be embedded")
            items, asked = self._forget(words)
            for item in items:
                self._fail(item, error)
            for embedded in asked:
                embedded.set_exception(error)
            return
        if not words.missing:
            items, asked = self._forget(words)
            self._queue_again(items)
            for embedded in asked:
                embedded.set_result(None)

    def _forget(self, words: _EmbeddingRequest) -> tuple[list[_Item], list[Future[None]]]:
        with self._changed:
            self._words.pop(words.labels, None)
            waiting, words.waiting = words.waiting, []
            asked, words.asked = words.asked, []
            return waiting, asked

    def _queue_again(self, items: Sequence[_Item]) -> None:
        """They came before all others of their project that wait now."""
        with self._changed:
            for item in reversed(items):
                self._queue.push(item, item.priority, item.project, first=True)

    def _encode_some(self, segmenter: Segmenter) -> None:
        """Encode and score the pictures whose turn it is."""
        fresh: dict[str, list[_Item]] = {}
        for item in self._collect(segmenter):
            item.began.set()
            kept = self._cache.get(item.key)
            if kept is None:
                fresh.setdefault(item.key, []).append(item)
            else:
                self._finish(segmenter, item, kept)
        if not fresh:
            return
        pictures = [items[0].picture for items in fresh.values()]
        for items, outcome in zip(fresh.values(), self._encode(segmenter, pictures), strict=True):
            if not isinstance(outcome, Exception):
                self._keep(items[0].key, outcome)
            for item in items:
                if isinstance(outcome, Exception):
                    self._fail(item, outcome)
                else:
                    self._finish(segmenter, item, outcome)

    def _collect(self, segmenter: Segmenter) -> list[_Item]:
        """Pictures in the order of service, about as many as fill a batch of windows.

        Others that wait for the features of one of them come along. A picture that has to wait for
        its words is not overtaken by less urgent ones before these had their turn.
        """
        items: list[_Item] = []
        room, least_urgent = self._windows_at_once, max(Priority)
        while (item := self._pop(room, least_urgent, at_any_cost=not items)) is not None:
            if self._has_words(segmenter, item):
                items.append(item)
                room -= self._cost(item)
            else:
                least_urgent = item.priority
        keys = {item.key for item in items}
        with self._changed:
            same = self._queue.take(lambda other: other.key in keys)
        return items + [item for item in same if self._has_words(segmenter, item)]

    def _pop(self, room: int, least_urgent: Priority, at_any_cost: bool) -> _Item | None:
        """The next picture, if it fits into `room` windows and is urgent enough."""
        with self._changed:
            if not self._queue:
                return None
            item = self._queue.peek()
            fits = at_any_cost or self._cost(item) <= room
            return self._queue.pop() if fits and item.priority <= least_urgent else None

    def _cost(self, item: _Item) -> int:
        """In windows; kept features cost something too, so that a batch of them ends."""
        return 1 if item.key in self._cache else item.picture.plan.count

    def _has_words(self, segmenter: Segmenter, item: _Item) -> bool:
        """Whether a picture's words are embedded; where not, it goes to wait for them."""
        try:
            known = item.labels not in self._words and not segmenter.embed.missing(
                _prompts(segmenter, item.labels)
            )
        except Exception as error:  # noqa: BLE001 -- one picture's words
            self._fail(item, error)
            return False
        if item.is_new:
            item.is_new = False
            self._words_known += known
            self._words_new += not known
        if not known:
            with self._changed:
                self._vocabulary(item.labels).waiting.append(item)
                self._words_come_next = True
        return known

    def _vocabulary(self, labels: tuple[Label, ...]) -> _EmbeddingRequest:
        return self._words.setdefault(labels, _EmbeddingRequest(labels))

    def _encode(
        self, segmenter: Segmenter, pictures: list[PreparedImage]
    ) -> list[WindowFeatures | Exception]:
        """The features of each picture, or why it has none; the fault of one stays with it."""
        try:
            return list(self._encode_in_memory(segmenter, pictures))
        except Exception as error:  # noqa: BLE001 -- one picture of a batch
            if len(pictures) == 1:
                return [error]
            log.warning("%d pictures are encoded one by one: %s", len(pictures), error)
        return [outcome for one in pictures for outcome in self._encode(segmenter, [one])]

    def _encode_in_memory(
        self, segmenter: Segmenter, pictures: list[PreparedImage]
    ) -> list[WindowFeatures]:
        """Encode as one batch; where memory is too small for it, in batches half as large.

        Returns:
            The features of each picture in float16: what the cache keeps, so that whether it has
            them changes no answer.
        """
        windows = sum(picture.plan.count for picture in pictures)
        while True:
            at_once = min(windows, self._windows_at_once)
            with self._changed:
                self._batches += 1
                self._windows += windows
            try:
                encoded = segmenter.encode_batch(pictures, self._windows_at_once)
                return [_halved(features) for features in encoded]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or at_once == 1:
                    raise
            # Outside the handler: until it is left, the error's traceback keeps tensors alive.
            self._windows_at_once = at_once // 2
            _free_memory()
            log.warning(
                "%d windows are too many for the memory of %s: from now on at most %d at once",
                at_once,
                segmenter.encoder.device,
                self._windows_at_once,
            )

    def _keep(self, key: str, features: WindowFeatures) -> None:
        try:
            self._cache.put(key, features)
        except Exception as error:  # noqa: BLE001 -- the picture itself is well
            log.warning("The features of a picture are not kept: %s", error)

    def _finish(self, segmenter: Segmenter, item: _Item, halved: WindowFeatures) -> None:
        """Hand a picture's features and scores to the thread that waits for them."""
        try:
            windows = halved.to(segmenter.encoder.device)
            features = DenseFeatures(windows.patches, item.picture.plan, windows.cls)
            scores = segmenter.score(
                features, item.labels, contrast=True, adaptation=item.adaptation
            )
        except Exception as error:  # noqa: BLE001 -- one picture of a batch
            self._fail(item, error)
            return
        with self._changed:
            self._done += 1
            self._leaves(item)
        item.look.set_result(EncodedImage(features, scores))

    def _fail(self, item: _Item, error: Exception) -> None:
        with self._changed:
            self._failed += 1
            self._leaves(item)
        item.look.set_exception(error)

    def _leaves(self, item: _Item) -> None:
        item.began.set()
        self._waiting[item.priority] -= 1
        self._lines[item.priority, item.project] -= 1
        self._lines += Counter()  # without those at 0: projects come and go
        self._changed.notify_all()

    def _give_up(self) -> None:
        """Let all who wait hear that the model is gone."""
        with self._changed:
            items = self._queue.take(lambda _: True)
            items += [item for words in self._words.values() for item in words.waiting]
            asked = [embedded for words in self._words.values() for embedded in words.asked]
            self._words.clear()
            reason = self._status.reason
        for item in items:
            self._fail(item, ModelUnavailable(reason))
        for embedded in asked:
            embedded.set_exception(ModelUnavailable(reason))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, of whatever release and on whatever device, ran out of memory.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"))
    True
    """
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in message for sign in _OUT_OF_MEMORY)


def _device_name(device: torch.device) -> str:
    """A device, with what it is called where it is a GPU."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _halved(features: DenseFeatures) -> WindowFeatures:
    """In float16, where they are."""
    windows = WindowFeatures(features.patches, features.cls)
    return windows.to(features.patches.device, torch.float16)


def _free_memory() -> None:
    """Give what torch's allocators hold back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _prompts(segmenter: Segmenter, labels: tuple[Label, ...]) -> list[str]:
    """All that has to be embedded before these labels can be scored."""
    return [*(prompt for label in labels for prompt in label.prompts), *segmenter.model.contrast]
