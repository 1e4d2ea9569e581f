"""The features and scores of an image, and the CUDA stream on which a thread goes on with them."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import LifoQueue
from typing import Final

import torch

from clearclip_core import ClickFeatures, DenseFeatures, Scores

#: How many threads compute on a CUDA device at the same time: kernels of more would wait for each
#: other, while torch's allocator keeps some hundred MB for each stream.
MOST_STREAMS: Final = 3


def _unmade() -> LifoQueue[torch.cuda.Stream | None]:
    streams: LifoQueue[torch.cuda.Stream | None] = LifoQueue()
    for _ in range(MOST_STREAMS):
        streams.put(None)
    return streams


#: Streams that no thread uses now, by device, None for one that was never needed; the one used last
#: is taken first.
_IDLE_STREAMS: Final[defaultdict[torch.device, LifoQueue[torch.cuda.Stream | None]]] = defaultdict(
    _unmade
)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """The features and scores of an image, from which prompts are answered."""

    features: DenseFeatures
    scores: Scores
    computed: torch.cuda.Event | None = None  # on CUDA, an event behind the scores on their stream
    #: What the click model has seen, on the CPU; None without such a model, or where nobody clicks.
    seen: ClickFeatures | None = None

    @classmethod
    def of(cls, features: DenseFeatures, scores: Scores) -> "EncodedImage":
        """Return an encoded image; called by the thread that computes it, maybe before the end."""
        device = scores.cosines.device
        if device.type != "cuda":
            return cls(features, scores)
        return cls(features, scores, torch.cuda.current_stream(device).record_event())

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        """Let this thread compute on a CUDA stream of its own; on other devices do nothing.

        Wait while `MOST_STREAMS` other threads compute.

        On the default stream, which is the model's, its kernels would wait for those of all other
        threads and for the encoder's next batch. This is safe because of the order:

        - Of the model's work, the thread reads features and scores alone. Both come before
          `computed` on the model's stream, whether they were encoded or uploaded from the cache,
          and the thread's stream waits for it. (The host does not: the encoder's check for
          overflow waits for features of fp16 models alone, and nothing waits for scores.)
        - Once this object is dropped, the memory of features and scores goes back to the model's
          stream, which may write there at once. So it is held until the host has waited for the
          thread's stream at the end, after an error too.
        - Memory that is taken inside goes back to the thread's stream, and the next thread that
          uses this stream comes behind. Results leave it as copies on the CPU.

        Work on the default stream, without this, comes in the model's order.
        """
        if self.computed is None:
            yield
            return
        device = self.scores.cosines.device
        idle = _IDLE_STREAMS[device]
        stream = idle.get()
        try:
            if stream is None:
                stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                stream.wait_event(self.computed)
                yield
        finally:
            if stream is not None:
                stream.synchronize()
            idle.put(stream)
