"""What drawing scores together gains beside refined edges, by the words and after corrections.

``STREET_PICTURES=… STREET_ENCODER=NAME@FILE make bench ARGS=tests/bench/test_propagation.py``: see
`tests.bench.corrections`. Figures are points of IoU in pixels on every second unseen picture. What
the trial costs that chooses it for a learned version is measured on drawn scenes.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import pytest

from backend.feedback.annotation_reader import AnnotationReader
from backend.inference.engine import Engine
from backend.inference.feature_cache import FeatureCache
from backend.label_studio.client import LabelStudioClient
from backend.learning.compared_images import ImageComparer
from backend.learning.learner import Learner
from backend.services import Services
from backend.settings import Settings
from clearclip_core import HELD_OUT_SEEDS, Adaptation, Segmenter, adapt
from clearclip_core.segmentation.propagation import propagate
from clearclip_core.segmentation.refined_argmax import decide_refined
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.runs import scene_project
from tests.bench.conftest import Report
from tests.bench.corrections import COUNT, Floats, World, corrects_with_care, drawn, street

WORLDS: dict[str, Callable[[], World]] = {
    "drawn": drawn,
    "colours": street,
    "network": lambda: street(_encoder()),
    "noisier words, second": lambda: street(second=_encoder(), words_off=0.85),
}

#: World and number of corrected pictures -> the least that the mean gains.
GAINS = {
    ("drawn", 0): -0.5,
    ("drawn", COUNT): -0.5,
    ("colours", 0): 1,
    ("colours", COUNT): 0.5,
    ("network", 0): 1,
    ("network", COUNT): 1,
    ("noisier words, second", 0): 1,
    ("noisier words, second", COUNT): 0.5,
}


def _encoder() -> str:
    """Return a network of timm and its weights, or skip."""
    return os.environ.get("STREET_ENCODER") or pytest.skip("set STREET_ENCODER to NAME@FILE")


@cache
def world_of(kind: str) -> World:
    return WORLDS[kind]()


def ious(world: World, adaptation: Adaptation | None, *, drawn_together: bool) -> Floats:
    """Measure the IoUs of the labels with refined edges, in percent."""
    words = world.embed(world.vocabulary.queries)
    decided = []
    for (features, truth), rgb in list(zip(world.unseen, world.unseen_images, strict=True))[::2]:
        scores = world.scores(features, adaptation)
        patch_px = scores.plan.patch_image_px
        if drawn_together:
            scores = propagate(scores, rgb, words)
        decided.append((decide_refined(scores, rgb, patch_px=patch_px)[0], truth))
    return world.ious_of(decided)


@pytest.mark.parametrize(("kind", "count"), GAINS)
def test_propagation_beside_refined_edges(report: Report, kind: str, count: int) -> None:
    """One draw of pictures, corrected with care."""
    world, least = world_of(kind), GAINS[kind, count]
    adaptation = None
    if count:
        examples = world.examples(corrects_with_care, 0, count)
        adaptation = adapt(examples, world.embed, world.vocabulary).adaptation
    refined = ious(world, adaptation, drawn_together=False)
    change = ious(world, adaptation, drawn_together=True) - refined

    what = f"{count} pictures corrected with care" if count else "words alone"
    report.add(
        f"PROPAGATE over REFINE, {world.name}: {what}",
        f"≥ {least:+g}",
        f"{change.mean():+.2f}",
        f"mIoU {refined.mean():.1f} with REFINE; worst label {change.min():+.1f} "
        f"{world.names[change.argmin()]}",
    )
    assert change.mean() >= least


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_the_trial_costs_less_than_the_rest_of_the_step(
    report: Report, monkeypatch: pytest.MonkeyPatch, cache_mb: int
) -> None:
    """24 corrected pictures; their features are cached as by default, or not at all."""
    monkeypatch.setattr(scene_project, "SEEDS", HELD_OUT_SEEDS[40:64])
    monkeypatch.setattr(scene_project, "SIZE_HW", (360, 480))
    cpu_s: Counter[str] = Counter()

    def timed(owner: type, name: str) -> None:
        method = getattr(owner, name)

        @wraps(method)
        def wrapped(*args: Any) -> Any:
            began = time.process_time()
            try:
                return method(*args)
            finally:
                cpu_s[name] += time.process_time() - began

        monkeypatch.setattr(owner, name, wrapped)

    timed(Learner, "step")
    timed(ImageComparer, "try_propagation")
    engine = Engine(
        lambda: Segmenter.load("demo", device="cpu", precision="fp32"),
        lambda: "demo",
        cache=FeatureCache(cache_mb << 20),
    )
    services = Services(Settings(model="demo", device="cpu", precision="fp32"), engine)
    studio = scene_project.scene_studio(annotated=24)
    with engine, studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=1)
        services.annotations.mark(7, list(studio.annotations))
        reader = AnnotationReader(services.annotations, client, services.learner)
        while reader.read_some():
            pass
        version = services.learner.step(7, client)

    assert version is not None
    trial = version.propagation_trial
    assert trial is not None
    rest_s = cpu_s["step"] - cpu_s["try_propagation"]
    report.add(
        f"a trial of PROPAGATE, demo model, {cache_mb} MB of cached features",
        f"≤ the rest of the step, {rest_s:.1f} CPU s",
        f"{cpu_s['try_propagation']:.1f} CPU s",
        f"{trial.pictures} of 24 pictures of 480 × 360 px; {100 * trial.gain:+.1f} points",
    )
    assert cpu_s["try_propagation"] <= rest_s
