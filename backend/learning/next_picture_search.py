"""Find the pictures that it helps most to correct next: those that a candidate changes most.

Between two steps, a candidate is fitted to all corrections, as a version would be. It predicts a
bounded sample of the pictures that nobody has annotated, and so does what predictions use now.
"""

from __future__ import annotations

import heapq
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from backend.annotations.annotated_image import LEAVE_OUT, AnnotatedImage
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import telling
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.task_filter import TaskFilter
from backend.learning.compared_images import TAKEN_AWAY, draw_new_labels, propagated
from backend.learning.learner import Fitted, Learner
from backend.learning.next_pictures import NextPicture, NextPictures, NextPictureStore
from backend.learning.predicted_masks import MaskPredictor
from backend.learning.versions import StepLease
from backend.projects.scores import ScoreStore
from clearclip_core import Adaptation

log = logging.getLogger(__name__)

#: Pictures that are shown, and pictures that are predicted to find them.
SHOWN: Final = 6
TRIED: Final = 24


@dataclass(frozen=True, eq=False)
class NextPictureSearch:
    """Searches the projects of a backend, one after the other."""

    learner: Learner
    store: NextPictureStore
    scores: ScoreStore  # of predictions: these are the pictures that have masks
    is_busy: Callable[[], bool]  # whether a job or an annotation waits, which comes first

    def search_one(self, client: LabelStudioClient) -> bool:
        """Search a project with new corrections; return whether there was one.

        It gives way, and comes again later, as soon as something waits.

        Raises:
            BackendError: Label Studio or the model is away; it is tried again later.
        """
        learner = self.learner
        if not learner.can_learn or learner.engine.status.state != "ready" or self.is_busy():
            return False
        lease = learner.versions.lease_search(learner.settings.adapt_every)
        if lease is None:
            return False

        try:
            with learner.versions.leases.kept():
                self._search(lease, client)
        finally:
            learner.versions.end_search(lease)
        return True

    def _search(self, lease: StepLease, client: LabelStudioClient) -> None:
        """Find the pictures of a leased project and keep them."""
        project, began = lease.project, time.monotonic()
        self.store.put_off(project)
        config = client.config(project)
        stored = self.learner.examples.examples(project)
        found: NextPictures | None = NextPictures()
        if stored and config.adapt != "off":
            fitted = self.learner.fit(lease, config, stored)
            found = self._compare(client, lease, config, fitted)

        if found is not None:
            took_s = time.monotonic() - began
            newest, changed = lease.newest, lease.changed
            self.store.keep(project, found, newest=newest, changed=changed, took_s=took_s)

    def _compare(
        self, client: LabelStudioClient, lease: StepLease, config: LabelConfig, fitted: Fitted
    ) -> NextPictures | None:
        """Compare a candidate with what predictions use; None where something waits meanwhile."""
        active = self.learner.versions.active(lease.project, config.adapt)
        now = None if active is None else active.adaptation
        candidate = fitted.fit.adaptation
        if candidate is not None and now is not None and now.propagate:
            candidate = propagated(candidate)  # which is tried only for a version

        changes = self._changes(client, lease, config, (now, candidate))
        if changes is None:
            return None
        return _most_changed(changes, len({annotation for annotation, _ in fitted.used}))

    def _changes(
        self,
        client: LabelStudioClient,
        lease: StepLease,
        config: LabelConfig,
        adaptations: tuple[Adaptation | None, Adaptation | None],
    ) -> list[_Change] | None:
        """Draw what differs in a sample of images; None as soon as something waits."""
        changes: list[_Change] = []
        for image in self._sample(client, lease.project, config):
            if self.is_busy() or self.learner.versions.state(lease.project).asked:
                return None
            try:
                changes.append(self._change(lease, image, config, adaptations))
            except LEAVE_OUT as error:
                log.warning("Task %s is not looked at: %s", image.task.id, error)
        return changes

    def _sample(
        self, client: LabelStudioClient, project: int, config: LabelConfig
    ) -> Iterator[AnnotatedImage]:
        """Yield an image of some tasks that nobody has annotated, of those with the least scores.

        They are the same ones each time until they are annotated: so their features are cached.
        """
        tag = next(iter(config.annotated), None)
        uncertain = next(iter(self.scores.in_order(project, "", highest_first=False)), [])
        if tag is None or not uncertain:
            return
        ids = sorted((each.task for each in uncertain), key=_place)[:TRIED]
        for task in client.all_tasks(project, TaskFilter(labeled=False, ids=tuple(sorted(ids)))):
            yield AnnotatedImage(task, tag, next(iter(tag.indices(task.data)), None), ())

    def _change(
        self,
        lease: StepLease,
        image: AnnotatedImage,
        config: LabelConfig,
        adaptations: tuple[Adaptation | None, Adaptation | None],
    ) -> _Change:
        """Predict an image with what is used now and with a candidate, and draw what differs."""
        learner, tag = self.learner, image.tag.name
        rgb = image.read(telling(learner.read_image, partial(learner.versions.begin, lease)))
        prepared = learner.engine.segmenter().prepare(rgb)
        predictor = MaskPredictor(learner.engine, learner.settings, config, lease.project)
        before, after = (
            predictor.predict_map(tag, rgb, prepared=prepared, adaptation=each)
            for each in adaptations
        )

        differs = before != after
        drawn = draw_new_labels(rgb, before, after, config.colours_of(tag)) if differs.any() else ""
        labels = [index for index in np.unique(after[differs]).tolist() if index >= 0]
        picture = NextPicture(int(image.task.id or 0), drawn, float(differs.mean()))
        colours = config.legend_of(tag, labels)
        if (differs & (after < 0)).any():
            colours |= TAKEN_AWAY
        return _Change(picture, colours)


class _Change(NamedTuple):
    picture: NextPicture
    colours: dict[str, str]  # of the labels that it shows


def _most_changed(changes: list[_Change], annotations: int) -> NextPictures:
    """Return what changes most, with the number of annotations that the candidate has learned."""
    shown = heapq.nlargest(SHOWN, changes, key=lambda each: each.picture.changed)
    shown = [each for each in shown if each.picture.changed]
    colours: dict[str, str] = {}
    for each in shown:
        colours |= each.colours

    return NextPictures(
        pictures=tuple(each.picture for each in shown),
        colours=colours,
        annotations=annotations,
        tried=len(changes),
    )


def _place(task: int) -> int:
    """Return the place of a task in an order that looks random, and stays as tasks are added."""
    return zlib.crc32(str(task).encode())
