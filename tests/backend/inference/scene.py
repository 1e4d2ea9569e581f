"""An engine with the stand-in for the model, and requests in a known order."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from backend.inference.queue import Priority
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag
from tests.backend.fakes.waiting import wait_for

CLICK, OPENED, BATCH = Priority.INTERACTIVE, Priority.OPENED, Priority.BATCH
RED = (Label("red"),)
NEW = (Label("crimson"),)  # not embedded yet
TWO_NEW = (Label("crimson"), Label("scarlet"))


class Scene:
    """An engine with the stand-in, and requests that come in a known order.

    A picture is known by its width. While the model is held, whatever is asked waits.
    """

    def __init__(self, words_known: bool = True, windows_at_once: int = 4, **options: Any) -> None:
        self.segmenter = ColourSegmenter(words_known=words_known)
        self.segmenter.windows_at_once = windows_at_once
        self.engine = colour_engine(self.segmenter, **options)
        self.segmenter.log.clear()
        self._threads = ThreadPoolExecutor(40)

    def ask(
        self,
        width: int,
        priority: Priority = OPENED,
        project: int = 1,
        labels: tuple[Label, ...] = RED,
    ) -> Future[Any]:
        """Ask in a thread of its own, while the model is held; returns once it is in the queue."""
        before = sum(self.engine.snapshot().waiting.values())
        future = self.start(width, priority, project, labels)
        wait_for(lambda: sum(self.engine.snapshot().waiting.values()) > before)
        return future

    def start(self, *asked: Any) -> Future[Any]:
        return self._threads.submit(self.score, *asked)

    def score(
        self,
        width: int,
        priority: Priority = OPENED,
        project: int = 1,
        labels: tuple[Label, ...] = RED,
    ) -> Any:
        picture = self.segmenter.prepare(flag("red", size_hw=(2, width)))
        return self.engine.encode(picture, labels, priority, project).scores

    def hold(self) -> None:
        """Keep the model busy with a picture 99 wide."""
        while self.segmenter.started.acquire(blocking=False):
            pass  # batches from before
        self.segmenter.gate.clear()
        self.ask(99, project=99)
        assert self.segmenter.started.acquire(timeout=60)

    def release(self) -> None:
        self.segmenter.gate.set()

    def served(self) -> list[tuple[Any, ...]]:
        wait_for(lambda: not sum(self.engine.snapshot().waiting.values()))
        return [what for _, what in self.segmenter.log if what != (99,)]


def widths(futures: list[Future[Any]]) -> list[int]:
    return [future.result(60).image.shape[1] for future in futures]
