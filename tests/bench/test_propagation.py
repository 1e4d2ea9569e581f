"""What drawing scores together gains beside refined edges, by the words and after corrections.

``STREET_PICTURES=… STREET_ENCODER=NAME@FILE make bench ARGS=tests/bench/test_propagation.py``: see
`tests.bench.corrections`. Figures are points of IoU in pixels on every second unseen picture.
"""

import os
from collections.abc import Callable
from functools import cache

import pytest

from clearclip_core import Adaptation, adapt
from clearclip_core.segmentation.propagation import propagate
from clearclip_core.segmentation.refined_argmax import decide_refined
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
