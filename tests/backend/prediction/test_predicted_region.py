"""A click or a box on a predicted region is answered in its place, with its id.

That the editor puts it there: `tests/e2e/test_on_demand.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.prediction import masks
from tests.backend.prediction.annotator import (
    BRUSH,
    CONFIG,
    IMAGE,
    LABELS,
    Annotator,
    Mask,
    config_of,
    keypoint,
    mask_of,
    of_colour,
    painted,
    rectangle,
)
from tests.e2e.masks import brush_region

#: Two red things, which one predicted region has together.
THINGS = painted((100, 200), red=(20, 20, 60, 60)) | painted((100, 200), red=(140, 20, 180, 60))
ONE_ROW = (
    f'<View>{IMAGE}<Labels name="mask" toName="image">{LABELS}</Labels>'
    '<Brush name="brush" toName="image"/><KeyPoint name="click" toName="image" smart="true"/>'
    '<Rectangle name="box" toName="image" smart="true"/></View>'
)


def region(mask: Mask, config: str, **more: Any) -> dict[str, Any]:
    kind = "labels" if "<Labels" in config else "brushlabels"
    return brush_region(mask, "red", "mask", "image", kind) | {"id": "predicted"} | more


def box_of(left: int, top: int, right: int, bottom: int) -> Mask:
    mask = np.zeros((100, 200), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


ALL = of_colour(THINGS, "red")
LEFT, RIGHT = ALL & box_of(0, 0, 100, 100), ALL & box_of(100, 0, 200, 100)
SPILLED = LEFT | box_of(60, 40, 90, 60)
ON_LEFT, ON_RIGHT = keypoint(20, 40, id="p"), keypoint(80, 40, id="q")


def answer(
    *prompts: Any, seen: Mask = SPILLED | RIGHT, config: str = CONFIG, **task: Any
) -> tuple[str, Mask]:
    """The id and the mask of the answer where such a region is predicted."""
    given = {"predictions": [{"id": 4, "result": [region(seen, config)]}]} | task
    found = Annotator().asks(THINGS, *prompts, config=config, **given)
    return found[-1]["id"], mask_of(found[-1])


@pytest.mark.parametrize("config", [CONFIG, ONE_ROW])
def test_what_is_clicked_on_is_drawn_anew_and_other_islands_stay(config: str) -> None:
    place, mask = answer(ON_LEFT, config=config)
    assert place == "predicted"
    np.testing.assert_array_equal(mask, LEFT | RIGHT)


def test_inside_a_box_it_is_drawn_anew_and_outside_it_stays() -> None:
    box = rectangle(5, 10, 30, 60)
    place, mask = answer(box)
    alone = answer(box, predictions=[])[1]
    assert place == "predicted"
    np.testing.assert_array_equal(mask, alone | ((SPILLED | RIGHT) & ~box_of(10, 10, 70, 70)))


def test_a_click_beside_it_adds_what_touches_it_and_leaves_what_does_not() -> None:
    half = LEFT & box_of(0, 0, 40, 100)
    place, mask = answer(keypoint(25, 40), seen=half)
    assert place == "predicted"
    np.testing.assert_array_equal(mask, LEFT)
    place, mask = answer(ON_RIGHT, seen=half)
    assert place != "predicted"
    np.testing.assert_array_equal(mask, RIGHT)


def test_it_is_the_draft_that_counts() -> None:
    smaller = RIGHT & box_of(0, 0, 160, 100)
    changed = region(SPILLED | smaller, CONFIG, origin="prediction-changed")
    place, mask = answer(ON_LEFT, drafts=[{"result": [changed]}])
    assert place == "predicted"
    np.testing.assert_array_equal(mask, LEFT | smaller)
    by_hand = region(SPILLED, CONFIG, id="by-hand")
    for result in ([], [by_hand]):
        assert answer(ON_LEFT, drafts=[{"result": result}])[0] not in ("predicted", "by-hand")


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": [{"result": []}]},  # nobody knows whether it is the open one
        {"predictions": []},
        {"config": config_of(BRUSH.replace("toName", 'overlap="false" toName'))},
        {"predictions": [{"id": 4, "result": [{"id": "predicted"}, 3]}]},
    ],
)
def test_where_that_is_not_known_or_not_wanted_it_is_a_region_of_its_own(more: Any) -> None:
    place, mask = answer(ON_LEFT, **more)
    assert place != "predicted"
    np.testing.assert_array_equal(mask, LEFT)


def test_until_a_draft_is_saved_an_accepted_answer_is_not_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clicks come together until they are accepted; then others come, and the draft is old."""
    annotator, now = Annotator(), [100.0]
    monkeypatch.setattr(masks.time, "monotonic", lambda: now[0])
    seen = {"predictions": [{"id": 4, "result": [region(ALL, CONFIG)]}]}

    def place(*prompts: Any) -> bool:
        return bool(annotator.asks(THINGS, *prompts, **seen)[0]["id"] == "predicted")

    further = keypoint(22, 45, id="r")
    assert [place(ON_LEFT), place(ON_LEFT, further), place(ON_LEFT)] == [True] * 3
    assert not place(ON_RIGHT)
    now[0] += 11
    assert place(ON_RIGHT)
