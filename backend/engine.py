"""The one owner of the model: loads it in the background, and lets one picture in at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from backend.errors import ModelUnavailable
from backend.settings import Settings
from clearclip_core import (
    Label,
    RGBArray,
    Segmentation,
    Segmenter,
    WeightsNotFoundError,
    resolve_method,
    weights_id,
)

log = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed"]


@dataclass(frozen=True)
class Status:
    """Where the model is; `reason` says why where it has failed to load."""

    state: State
    reason: str = ""


class Engine:
    """Loads a segmenter in a thread of its own and serves it.

    Nothing runs before `start`. A failed load is tried again every `retry_after_s` seconds; until
    one succeeds, whoever asks hears the reason at once.

    Args:
        load: makes the segmenter; raises where it cannot.
        model_id: tells these weights from others, before they are loaded too; asked at each call.
        retry_after_s: pause in seconds between two tries.
    """

    def __init__(
        self,
        load: Callable[[], Segmenter],
        model_id: Callable[[], str],
        retry_after_s: float = 30.0,
    ) -> None:
        self._load = load
        self._model_id = model_id
        self._retry_after_s = retry_after_s
        self._changed = threading.Condition()
        self._status = Status("loading")
        self._segmenter: Segmenter | None = None
        self._one_at_a_time = threading.Lock()
        self._stopping = threading.Event()

    @classmethod
    def from_settings(cls, settings: Settings) -> Engine:
        """The engine that settings describe.

        Raises:
            ValueError: a model or method that does not exist, or a model that is never served.
        """
        if settings.model.endswith("/random"):
            raise ValueError("MODEL: random weights are for benchmarks and are never served.")
        resolve_method(settings.method)
        try:
            weights_id(settings.model)
        except WeightsNotFoundError as error:
            log.warning("%s", error)  # they may be brought later

        def load() -> Segmenter:
            return Segmenter.load(
                settings.model,
                method=settings.method,
                device=settings.device,
                precision=settings.precision,
                short_side_px=settings.short_side_px,
                folder=settings.model_dir,
            )

        return cls(load, lambda: weights_id(settings.model))

    def start(self) -> None:
        """Begin to load, in the background."""
        threading.Thread(target=self._keep_loading, name="model-loader", daemon=True).start()

    def stop(self) -> None:
        """Stop trying to load."""
        self._stopping.set()

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

    def segmenter(self) -> Segmenter:
        """The segmenter; waits while it loads for the first time.

        Raises:
            ModelUnavailable: loading has failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._status.state != "loading")
            if self._segmenter is None:
                raise ModelUnavailable(self._status.reason)
            return self._segmenter

    def segment(self, image: RGBArray, labels: tuple[Label, ...]) -> Segmentation:
        """Segment one picture, contrast words included; waits for the model and for its turn.

        Args:
            image: (H, W, 3) uint8.
            labels: the labels that compete on it.

        Raises:
            ModelUnavailable: loading has failed.
        """
        segmenter = self.segmenter()
        with self._one_at_a_time:
            return segmenter.segment(image, labels, contrast=True)

    def _keep_loading(self) -> None:
        while not self._try_to_load():
            if self._stopping.wait(self._retry_after_s):
                return

    def _try_to_load(self) -> bool:
        try:
            segmenter = self._load()
            # The first request should not pay for the words that every request needs.
            segmenter.embed(segmenter.model.contrast)
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait must hear of it
            log.error(
                "The model cannot be loaded, next try in %g s: %s", self._retry_after_s, error
            )
            self._set(Status("failed", str(error) or type(error).__name__), None)
            return False
        if segmenter.model.notice:
            log.warning("%s", segmenter.model.notice)
        log.info("The model is ready: %s, %s", segmenter.model.name, segmenter.encoder.device)
        self._set(Status("ready"), segmenter)
        return True

    def _set(self, status: Status, segmenter: Segmenter | None) -> None:
        with self._changed:
            self._status, self._segmenter = status, segmenter
            self._changed.notify_all()
