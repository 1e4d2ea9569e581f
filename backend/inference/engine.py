"""The one owner of the model: loads it, and serves all requests from a single thread.

Images wait in an `ImageQueue` and are encoded together, as many as make one good batch of windows
and never waiting for more. New words are embedded between these batches, a few at a time, so that
a large vocabulary delays nobody but those who use it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

import torch

from backend.errors import ModelUnavailable
from backend.inference.batching import BatchCollector, BatchEncoder
from backend.inference.clicks import ClickQueue, ClickRequest, click_key
from backend.inference.encoded_image import EncodedImage
from backend.inference.feature_cache import CacheUse, FeatureCache
from backend.inference.queue import ImageQueue, ImageRequest, Priority
from backend.inference.words import WordsQueue
from backend.settings import Settings
from backend.telemetry.logs import stage
from clearclip_core import (
    BEST_TEMPLATES,
    TEMPLATES,
    Adaptation,
    ClickFeatures,
    DenseFeatures,
    Label,
    Method,
    PreparedImage,
    RGBArray,
    Segmenter,
    Vocabulary,
    WeightsNotFoundError,
    WindowFeatures,
    missing_weights,
    weights_id,
)
from clearclip_core.devices import usable_cpus
from clearclip_core.thread_pools import reserve_torch_threads, set_pool_threads

log = logging.getLogger(__name__)

Result = TypeVar("Result")

ModelState = Literal["loading", "ready", "failed"]


@dataclass(frozen=True)
class ModelStatus:
    """The state of the model, and the reason where it failed to load or has stopped."""

    state: ModelState
    reason: str = ""


class ModelLoader:
    """Loads a segmenter and hands it to those who wait for it."""

    def __init__(
        self, load: Callable[[], Segmenter], retry_after_s: float, changed: threading.Condition
    ) -> None:
        self._load = load
        self._retry_after_s = retry_after_s
        self._changed = changed
        self._stopping = threading.Event()
        self._status = ModelStatus("loading")
        self._segmenter: Segmenter | None = None
        self.device = self.precision = self.features_id = ""  # known once it is loaded

    @property
    def status(self) -> ModelStatus:
        with self._changed:
            return self._status

    @property
    def has_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def wait(self) -> Segmenter:
        """Return the segmenter; wait while it loads for the first time."""
        with self._changed:
            self._changed.wait_for(lambda: self._status.state != "loading")
            return self.loaded()

    def loaded(self) -> Segmenter:
        """Return the segmenter without waiting, or raise `ModelUnavailable`."""
        with self._changed:
            if self._segmenter is None:
                raise ModelUnavailable(self._status.reason)
            return self._segmenter

    def load(self) -> Segmenter | None:
        """Load the segmenter, as often as it takes; None where the loader stops meanwhile."""
        while (segmenter := self._try_to_load()) is None:
            if self._stopping.wait(self._retry_after_s):
                return None
        return segmenter

    def stop(self) -> None:
        """Take the segmenter away and end the attempts to load it."""
        self._stopping.set()
        with self._changed:
            if self._status.state != "failed":
                self._status = ModelStatus("failed", "The backend is shutting down.")
            self._segmenter = None
            self._changed.notify_all()

    def _try_to_load(self) -> Segmenter | None:
        try:
            segmenter = self._load()
            # The first request should not pay for the words that every request needs.
            segmenter.embed(segmenter.model.contrast)
            features_id = segmenter.features_id
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait must hear of it
            reason = str(error) or type(error).__name__
            if reason != self.status.reason:
                often = self._retry_after_s
                log.error("The model cannot be loaded; tried again every %g s. %s", often, reason)
            self._set(ModelStatus("failed", reason))
            return None

        if segmenter.model.notice:
            log.warning("%s", segmenter.model.notice)
        self.device = _device_name(segmenter.encoder.device)
        self.precision = str(segmenter.encoder.dtype).removeprefix("torch.")
        self.features_id = features_id

        log.info(
            "The model is ready: %s, %s, %s", segmenter.model.name, self.device, self.precision
        )
        self._set(ModelStatus("ready"), segmenter)
        return segmenter

    def _set(self, status: ModelStatus, segmenter: Segmenter | None = None) -> None:
        with self._changed:
            if not self.has_stopped:
                self._status, self._segmenter = status, segmenter
            self._changed.notify_all()


def _device_name(device: torch.device) -> str:
    """Return a device's name; a GPU's with that of its model."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


_SENTENCES_PER_WINDOW = 20  # sentences that cost a ViT-B as much as one window
_LAST_BATCH_S = 5.0  # how long `Engine.join` waits for the batch that is running


@dataclass(frozen=True, eq=False)
class _Lent(Generic[Result]):
    """What is computed in the engine's thread for somebody else, see `Engine.lend`."""

    compute: Callable[[], Result]
    result: Future[Result] = field(default_factory=Future)


@dataclass(frozen=True)
class Snapshot:
    """The state and the counts of the engine at one moment."""

    status: ModelStatus
    device: str  # on which it runs, with the model of a GPU; empty before it is loaded
    precision: str  # number format of the model; empty before it is loaded
    waiting: dict[Priority, int]  # images of each priority that are not done yet
    waiting_by_project: dict[tuple[Priority, Hashable], int]  # such images; only numbers above 0
    vocabularies: int
    done: int
    failed: int
    batches: int
    windows: int
    windows_at_once: int  # most windows of a batch; 0 before the model is loaded
    cache: CacheUse
    words_known: int  # images whose words were embedded before they came
    words_new: int


class Engine:
    """Loads a segmenter in a thread of its own and serves it there.

    Nothing runs before `start`, or after `stop`; ``with`` calls both. A failed load is tried again
    every `retry_after_s` seconds; until one succeeds, each request fails with the reason at once.

    Args:
        load: makes the segmenter; raises where it cannot.
        model_id: identifies the weights, before they are loaded too; called each time.
    """

    def __init__(
        self,
        load: Callable[[], Segmenter],
        model_id: Callable[[], str],
        retry_after_s: float = 30.0,
        cache: FeatureCache | None = None,
    ) -> None:
        self._model_id = model_id
        self._cache = cache or FeatureCache(0)
        # One lock for all parts: a request checks the model, waits for room and joins the queue in
        # one step, and a snapshot is of one moment.
        self._changed = threading.Condition()
        self._loader = ModelLoader(load, retry_after_s, self._changed)
        self._images = ImageQueue(self._changed)
        self._words = WordsQueue(self._images, self._changed)
        self._collector = BatchCollector(self._images, self._words, self._cache)
        self._encoder = BatchEncoder(self._changed)
        self._clicks = ClickQueue(self._changed, self._cache)
        self._lent: deque[_Lent[Any]] = deque()
        self._thread: threading.Thread | None = None

    @classmethod
    def from_settings(cls, settings: Settings, answers_clicks: bool = False) -> "Engine":
        """Return the engine that settings describe.

        Args:
            settings: those of the process.
            answers_clicks: load the settings' click model too, which other processes never need.

        Raises:
            ValueError: a model or method that does not exist, a model that is never served, or
                caches that do not fit this machine.
        """
        answers_clicks = answers_clicks or settings.regions
        if settings.model.endswith("/random"):
            raise ValueError("MODEL: random weights are for benchmarks and are never served.")
        Method.of(settings.method)
        try:
            weights_id(settings.model, settings.second_model)
            if answers_clicks:  # a name of another form is refused
                missing_weights(settings.model, settings.model_dir, click=settings.click_model)
        except WeightsNotFoundError as error:
            log.warning("%s", error)  # the file may be copied there later
        return cls(
            lambda: load_segmenter(settings, answers_clicks),
            lambda: _model_id(settings),
            cache=FeatureCache.from_settings(settings),
        )

    def start(self) -> None:
        """Load the model and then serve it, in the background; a second call does nothing."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop serving: requests that wait, and later ones, fail with `ModelUnavailable`."""
        self._loader.stop()
        self._fail_all()

    def __enter__(self) -> "Engine":
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
    def status(self) -> ModelStatus:
        return self._loader.status

    @property
    def model_id(self) -> str:
        """The identifier of the weights, known before they are loaded, or `ModelUnavailable`."""
        try:
            return self._model_id()
        except OSError as error:
            raise ModelUnavailable(str(error)) from None

    def snapshot(self) -> Snapshot:
        """Return the state and all counts of one moment."""
        with self._changed:
            return Snapshot(
                status=self._loader.status,
                device=self._loader.device,
                precision=self._loader.precision,
                waiting={priority: self._images.waiting(priority) for priority in Priority},
                waiting_by_project=self._images.waiting_by_project,
                vocabularies=len(self._words),
                done=self._images.done,
                failed=self._images.failed,
                batches=self._encoder.batches,
                windows=self._encoder.windows,
                windows_at_once=self._encoder.windows_at_once,
                cache=self._cache.use,
                words_known=self._words.known,
                words_new=self._words.new,
            )

    def segmenter(self) -> Segmenter:
        """Return the segmenter; wait while it loads for the first time.

        Only its methods that need no model may be called in threads other than the engine's own.
        """
        return self._loader.wait()

    def warm_up(self, labels: Iterable[Label]) -> None:
        """Embed labels when there is nothing else to do, so that their first image need not wait.

        Never waits. Does nothing while many vocabularies are being embedded.
        """
        labels = tuple(labels)
        with self._changed:
            if not self._loader.has_stopped:
                self._words.add(labels)

    def embed(self, labels: tuple[Label, ...]) -> torch.Tensor:
        """Return (Q, D) float32 unit embeddings of labels' prompts, for an annotator who waits."""
        segmenter = self.segmenter()
        prompts = [prompt for label in labels for prompt in label.prompts]
        if segmenter.embed.missing(prompts):
            with self._changed:
                self._loader.loaded()
                embedded = self._words.embed_soon(labels)
            embedded.result()
        return segmenter.embed(prompts)  # kept by now: nothing is computed in this thread

    def encode(
        self,
        image: PreparedImage,
        labels: tuple[Label, ...],
        priority: Priority = Priority.INTERACTIVE,
        project: Hashable = None,
        adaptation: Adaptation | None = None,
    ) -> EncodedImage:
        """Encode and score an image, contrast words included; wait for the model and its turn.

        `Segmenter.prepare` before this and `Segmenter.decide` after it are for the caller's own
        thread, beside the next images of others; on CUDA in `EncodedImage.own_stream`.

        Args:
            adaptation: what scores follow beside the words; features do not depend on it.
        """
        self.segmenter()
        key = f"{self._loader.features_id} {image.digest}"
        request = ImageRequest(image, key, labels, priority, project, adaptation)
        with stage("wait"):
            self._enqueue(request)
            request.began.wait()
        with stage("model"):
            return request.encoded.result()

    def encode_for_clicks(
        self, encoded: EncodedImage, rgb: RGBArray, digest: str, project: Hashable = None
    ) -> EncodedImage:
        """Add what the click model sees in an image; wait for its turn. Without one add nothing.

        Args:
            encoded: the image's features and scores.
            rgb: the image, (H, W, 3) uint8.
            digest: of the image as it was prepared.
            project: projects are served in turn.
        """
        model = self.segmenter().click_model
        if model is None:
            return encoded
        key = click_key(rgb, digest)
        seen = self._cache.get(key)
        if not isinstance(seen, ClickFeatures):
            with stage("prepare"):
                request = ClickRequest(model.prepare(rgb), key)
            with stage("model"):
                with self._changed:
                    self._loader.loaded()
                    self._clicks.put(request, project)
                seen = request.features.result()
        return replace(encoded, seen=seen)

    def with_room(self, compute: Callable[[], Result]) -> Result:
        """Compute in the caller's thread beside the model, see `BatchEncoder.with_room`."""
        return self._encoder.with_room(compute, self.segmenter())

    def lend(self, compute: Callable[[], Result]) -> Result:
        """Compute in the engine's own thread, between its batches; wait for the result.

        For what runs other encoders than the segmenter's: it takes turns with the model, and no
        annotator waits for more than one computation. Errors of `compute` are raised here.

        Raises:
            ModelUnavailable: the model is not there, or the engine stops.
        """
        lent = _Lent(compute)
        self.segmenter()
        with self._changed:
            self._loader.loaded()
            self._lent.append(lent)
            self._changed.notify_all()
        return lent.result.result()

    def _enqueue(self, request: ImageRequest) -> None:
        with self._changed:
            if request.priority is not Priority.INTERACTIVE:
                self._changed.wait_for(
                    lambda: self._images.has_room(request.priority) or self._loader.has_stopped
                )
            self._loader.loaded()
            self._images.put(request)

    def _fail_all(self) -> None:
        """Fail all requests that wait, because the engine has stopped."""
        reason = self._loader.status.reason
        self._images.fail_all(reason)
        self._words.fail_all(reason)
        self._clicks.fail_all(reason)
        with self._changed:
            lent, self._lent = self._lent, deque()
        for each in lent:
            each.result.set_exception(ModelUnavailable(reason))

    # The methods from here on run in the model's own thread.

    def _run(self) -> None:
        segmenter = self._loader.load()
        if segmenter is None:
            return
        self._encoder.windows_at_once = segmenter.windows_at_once
        sentences = self._encoder.windows_at_once * _SENTENCES_PER_WINDOW
        self._words.prompts_at_once = max(1, sentences // len(segmenter.embed.templates))
        while self._wait_for_work():
            self._encode_for_a_click(segmenter)
            self._compute_lent(segmenter)
            words = self._words.next()
            if words is None:
                self._encode_some(segmenter)
            else:
                self._words.embed_some(segmenter, words)
        self._fail_all()

    def _wait_for_work(self) -> bool:
        """Wait for something to do; return False once the engine has stopped."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._images
                    or self._words
                    or self._clicks
                    or self._lent
                    or self._loader.has_stopped
                )
            )
            return not self._loader.has_stopped

    def _encode_for_a_click(self, segmenter: Segmenter) -> None:
        """Encode one image for the click model if one waits, before the next batch."""
        if segmenter.click_model is not None:
            self._clicks.encode_next(
                segmenter.click_model, lambda compute: self._encoder.with_room(compute, segmenter)
            )

    def _compute_lent(self, segmenter: Segmenter) -> None:
        """Compute what one borrower waits for, while nobody waits for an image."""
        with self._changed:
            people = (Priority.INTERACTIVE, Priority.OPENED)
            if not self._lent or any(self._images.waiting(each) for each in people):
                return
            lent = self._lent.popleft()
        try:
            result = self._encoder.with_room(lent.compute, segmenter)
        except Exception as error:  # noqa: BLE001 -- the borrower hears of it
            lent.result.set_exception(error)
        else:
            lent.result.set_result(result)

    def _encode_some(self, segmenter: Segmenter) -> None:
        """Encode and score the images whose turn it is."""
        fresh: dict[str, list[ImageRequest]] = {}
        for request in self._collector.collect(segmenter, self._encoder.windows_at_once):
            request.began.set()
            cached = self._cache.get(request.key)
            if isinstance(cached, WindowFeatures):
                self._score(segmenter, request, cached)
            else:
                fresh.setdefault(request.key, []).append(request)
        if not fresh:
            return
        firsts = [requests[0] for requests in fresh.values()]
        outcomes = self._encoder.encode(segmenter, [each.image for each in firsts])
        for requests, outcome in zip(fresh.values(), outcomes, strict=True):
            self._answer(segmenter, requests, outcome)

    def _answer(
        self,
        segmenter: Segmenter,
        requests: list[ImageRequest],
        outcome: WindowFeatures | Exception,
    ) -> None:
        """Score or fail all requests for one image."""
        if isinstance(outcome, Exception):
            for request in requests:
                self._images.fail(request, outcome)
            return
        self._keep(requests[0].key, outcome)
        for request in requests:
            self._score(segmenter, request, outcome)

    def _keep(self, key: str, features: WindowFeatures) -> None:
        try:
            self._cache.put(key, features)
        except Exception as error:  # noqa: BLE001 -- the image itself is well
            log.warning("The features of a picture are not kept: %s", error)

    def _score(self, segmenter: Segmenter, request: ImageRequest, half: WindowFeatures) -> None:
        """Resolve a request with its features and scores, computed from float16 features."""

        def score() -> EncodedImage:
            windows = half.to(segmenter.encoder.device)
            features = DenseFeatures(
                windows.patches,
                request.image.plan,
                windows.cls,
                segmenter.method.remove_redundancy,
                windows.second,
            )
            words, learned = Vocabulary(request.labels), request.adaptation
            scores = segmenter.score(features, words, contrast=True, adaptation=learned)
            return EncodedImage.of(features, scores)

        try:
            encoded = self._encoder.with_room(score, segmenter)
        except Exception as error:  # noqa: BLE001 -- one image of a batch
            self._images.fail(request, error)
            return
        self._images.finish(request, encoded)


def load_segmenter(settings: Settings, answers_clicks: bool = False) -> Segmenter:
    # Only this thread's encoder may use all CPUs: requests work on masks in threads beside it.
    set_pool_threads(usable_cpus(), 1)
    reserve_torch_threads()
    is_short = settings.templates == len(BEST_TEMPLATES)
    templates = BEST_TEMPLATES if is_short else TEMPLATES
    needs_click_model = answers_clicks or settings.regions
    click_model = settings.click_model if needs_click_model else None
    return Segmenter.load(
        settings.model,
        method=settings.method,
        device=settings.device,
        precision=settings.precision,
        short_side_px=settings.short_side_px,
        folder=settings.model_dir,
        templates=templates,
        second=settings.second_model,
        second_short_side_px=settings.second_short_side_px,
        click_model=click_model,
    )


def _model_id(settings: Settings) -> str:
    """Identify the weights, and the size set for the second encoder's pictures."""
    made = weights_id(settings.model, settings.second_model)
    size_px = settings.second_short_side_px if settings.second_model else None
    return f"{made} at {size_px} px" if size_px else made
