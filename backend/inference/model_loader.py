"""Load the segmenter, retry until it succeeds, and report the model's status."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from backend.errors import ModelUnavailable
from clearclip_core import Segmenter

log = logging.getLogger(__name__)


ModelState = Literal["loading", "ready", "failed"]


@dataclass(frozen=True)
class ModelStatus:
    """The state of the model, and the reason where it failed to load or has stopped."""

    state: ModelState
    reason: str = ""


class ModelLoader:
    """Loads a segmenter and hands it to those who wait for it.

    Args:
        load: makes the segmenter; raises where it cannot.
        retry_after_s: pause in seconds between two attempts.
        changed: guards the status; notified when it changes.
    """

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
        """The present state of the model."""
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
        """Return the segmenter without waiting.

        Raises:
            ModelUnavailable: it is not loaded, or the loader has stopped.
        """
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
        self.precision = _precision_name(segmenter)
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


def _precision_name(segmenter: Segmenter) -> str:
    return str(segmenter.encoder.dtype).removeprefix("torch.")


def _device_name(device: torch.device) -> str:
    """Return a device's name; a GPU's with that of its model."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"
