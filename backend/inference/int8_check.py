"""Compare an int8 model with the fp32 one on the first pictures, before it serves."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from clearclip_core import DenseFeatures, PreparedImage, Segmenter, compare_features
from clearclip_core.clip.int8 import INT8_LAYERS

log = logging.getLogger(__name__)

#: Different pictures that are compared.
PICTURES: Final = 4

#: Largest share of the time in fp32 that all pictures together may take in int8. A smaller gain may
#: be noise: on a machine with other work fp32 is mostly within a tenth of itself.
MOST_TIME: Final = 0.9

#: Least mean cosine of each picture's features to those in fp32.
LEAST_COSINE: Final = 0.999


@dataclass(frozen=True)
class Int8Status:
    """How far the check is, and what came of it.

    Attributes:
        state: ``checking``; ``serving`` once int8 has passed; ``fp32`` where that stays.
        pictures: pictures that are compared.
        least_cosine: least of their mean cosines, of the layers that serve or else of the last that
            were tried; None before the first, and where features are not finite.
        layers: the layers of `INT8_LAYERS` that serve; empty where none does.
        reason: why fp32 stays; empty otherwise.
    """

    state: Literal["checking", "serving", "fp32"] = "checking"
    pictures: int = 0
    least_cosine: float | None = None
    layers: str = ""
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Compared:
    """A picture in fp32, and the seconds that it took."""

    image: PreparedImage
    reference: DenseFeatures
    seconds: float


class _StoppedError(Exception):
    """The engine has stopped, and nobody waits for the comparison."""


class Int8Check:
    """Compares int8 with fp32 on `PICTURES` pictures, the most layers first.

    Layers pass with a mean cosine of `LEAST_COSINE` or more on each picture, CLS features included.
    Where a picture fails them, the next fewer layers are compared, on the earlier pictures too.
    int8 serves if any layers pass and all pictures together took `MOST_TIME` of the time in fp32 or
    less. Before the first timed pass over so many windows each model makes one that is not timed:
    what a first pass alone takes, as to make kernels for batches of that size, counts against none.

    Nothing is remembered beyond the process. `compare` is for the model's thread alone; `status`
    may be read in any.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._status = Int8Status()
        self._untried = list(INT8_LAYERS)
        self._compared: dict[str, _Compared] = {}
        self._candidate: Segmenter | None = None
        self._cosines: list[float] = []
        self._seconds = 0.0  # of the candidate, for all pictures
        self._warmed: set[tuple[str, tuple[int, int], int]] = set()
        self._windows_at_once: int | None = None
        self._has_stopped: Callable[[], bool] = lambda: False

    @property
    def status(self) -> Int8Status:
        """How far the check is."""
        with self._lock:
            return self._status

    @property
    def is_over(self) -> bool:
        """Whether it is decided what serves."""
        return self.status.state != "checking"

    def compare(
        self,
        segmenter: Segmenter,
        image: PreparedImage,
        windows_at_once: int | None = None,
        has_stopped: Callable[[], bool] = lambda: False,
    ) -> Segmenter | None:
        """Compare one more picture, unless it was before.

        A picture takes two to four passes of the image model, and the last one up to twelve.

        Args:
            segmenter: the model in fp32.
            image: a picture that it has encoded.
            windows_at_once: windows of a batch at most; the segmenter's own by default.
            has_stopped: tells before each pass whether nobody waits for the outcome; then the
                comparison ends, and nothing is decided.

        Returns:
            The segmenter in int8 once it has passed, its `features_id` computed; None before, and
            where fp32 stays.
        """
        if self.is_over or image.digest in self._compared:
            return None
        self._windows_at_once, self._has_stopped = windows_at_once, has_stopped
        try:
            self._add(segmenter, image)
            return self._decide()
        except _StoppedError:
            return None
        except Exception as error:  # noqa: BLE001 -- fp32 serves on
            lines = str(error).splitlines() or [type(error).__name__]
            self._end("fp32", reason=f"int8 failed: {lines[0].rstrip('.')}.")
            return None

    def _decide(self) -> Segmenter | None:
        """Return the segmenter that has passed all pictures, if it has and there are enough."""
        if not self._untried:
            self._end("fp32", reason=f"a picture's mean cosine to fp32 was below {LEAST_COSINE}.")
            return None
        if len(self._compared) < PICTURES:
            return None
        fp32_s = sum(each.seconds for each in self._compared.values())
        if self._seconds > MOST_TIME * fp32_s:
            took = f"it took {self._seconds:.2f} s where fp32 took {fp32_s:.2f} s"
            self._end("fp32", reason=f"{took}, and serves from {1 - MOST_TIME:.0%} less on.")
            return None
        passed = self._candidate
        assert passed is not None
        passed.features_id  # noqa: B018 -- here, where its failure leaves fp32
        self._end("serving", layers=self._untried[0])
        return passed

    def _add(self, segmenter: Segmenter, image: PreparedImage) -> None:
        """Compare an image, with fewer and fewer layers until it passes or none are left."""
        reference, seconds = self._encode(segmenter, image, "")
        self._compared[image.digest] = _Compared(image, reference, seconds)
        while self._untried and not self._passes(segmenter):
            layers, found = self._untried.pop(0), _cosine(self.status.least_cosine)
            log.info("int8 (layers: %s) fails on a picture: mean cosine %s", layers, found)
            self._candidate, self._cosines, self._seconds = None, [], 0.0

    def _passes(self, segmenter: Segmenter) -> bool:
        """Compare the images that the present layers have not seen; say whether all have passed."""
        if self._candidate is None:
            self._candidate = segmenter.to_int8(self._untried[0])
        for each in [*self._compared.values()][len(self._cosines) :]:
            features, seconds = self._encode(self._candidate, each.image, self._untried[0])
            self._cosines.append(compare_features(features, each.reference))
            self._seconds += seconds
        least = min(self._cosines, key=lambda cosine: (math.isfinite(cosine), cosine))
        told = least if math.isfinite(least) else None
        self._set(replace(self.status, pictures=len(self._compared), least_cosine=told))
        return least >= LEAST_COSINE

    def _encode(
        self, segmenter: Segmenter, image: PreparedImage, layers: str
    ) -> tuple[DenseFeatures, float]:
        """Encode an image with a model that is warm, and time it.

        Args:
            segmenter: the model.
            image: the image.
            layers: its layers in int8; empty in fp32.
        """
        windows = (layers, image.plan.grid_hw, image.plan.count)
        if windows not in self._warmed:
            self._run(segmenter, image)
            self._warmed.add(windows)
        began = self._clock()
        features = self._run(segmenter, image)
        return features, self._clock() - began

    def _run(self, segmenter: Segmenter, image: PreparedImage) -> DenseFeatures:
        if self._has_stopped():
            raise _StoppedError
        (features,) = segmenter.encode_batch([image], self._windows_at_once, with_cls=True)
        return features

    def _end(self, state: Literal["serving", "fp32"], layers: str = "", reason: str = "") -> None:
        """Decide, say so in the log, and let go of all that was compared."""
        status = replace(self.status, state=state, layers=layers, reason=reason)
        self._set(status)
        self._compared, self._candidate = {}, None
        on = f"{status.pictures} pictures, least mean cosine {_cosine(status.least_cosine)}"
        if state == "serving":
            log.info("int8 serves from now on (layers: %s): compared on %s", layers, on)
        else:
            log.warning("PRECISION=int8 is not used, fp32 stays (compared on %s): %s", on, reason)

    def _set(self, status: Int8Status) -> None:
        with self._lock:
            self._status = status


def _cosine(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.5f}"
