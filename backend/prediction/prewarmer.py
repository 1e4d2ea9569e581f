"""Encode the images of tasks before an annotator clicks, so that the first click need not wait."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from backend.errors import BackendError
from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.requests import Task
from backend.label_studio.score_options import score_options
from backend.settings import Settings

log = logging.getLogger(__name__)

#: Tasks whose images are fetched and encoded at the same time.
_WORKERS = 2
#: Most tasks that wait or are worked on: each may hold a large body. Further ones are left out.
_MAX_WAITING = 16


class Prewarmer:
    """Puts the features of tasks' images into the feature cache, in threads of its own.

    Args:
        engine: the owner of the model, and of the cache.
        read_image: reads images so that they are at hand for the click.
        settings: what scores need beside the features of patches.
    """

    def __init__(self, engine: Engine, read_image: ReadImage, settings: Settings) -> None:
        self._engine = engine
        self._read_image = read_image
        self._settings = settings
        self._places = threading.BoundedSemaphore(_MAX_WAITING)
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="prewarm")

    def prewarm(self, task: Task, config: LabelConfig, project: int | None) -> None:
        """Have all images of a task encoded; never wait, and do nothing if too many wait."""
        if not self._places.acquire(blocking=False):
            log.info("Task %s is not prewarmed: too many tasks wait for it.", task.id)
            return
        self._workers.submit(copy_context().run, self._run, task, config, project)

    def _run(self, task: Task, config: LabelConfig, project: int | None) -> None:
        try:
            self._encode(task, config, project)
        except BackendError as error:  # the click itself tells its annotator
            log.info("Task %s is not prewarmed: %s", task.id, error)
        except Exception:
            log.exception("Task %s is not prewarmed", task.id)
        finally:
            self._places.release()

    def _encode(self, task: Task, config: LabelConfig, project: int | None) -> None:
        segmenter = self._engine.segmenter()
        options = score_options(self._settings, config)
        for tag in config.images:
            labels = config.labels_of(tag.name)
            for source in tag.sources(task.data):
                prepared = segmenter.prepare(self._read_image(source, task))
                self._engine.encode(prepared, labels, Priority.OPENED, project, options=options)
