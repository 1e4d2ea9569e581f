"""Mistakes of one of two people, planted: how many are in the most disputed tenth of the pictures.

Both paint 100 pictures, up to 2 px outside or inside of their edges. Of one of them six pictures
have a mistake, as in `tests.bench.test_label_errors`: in two a thing has another label, in two a
thing is not painted, and in two all edges are 8 px off. No model is asked.
``AGREEMENT_DRAWS`` says how often mistakes are drawn (5).
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from clearclip_core import BoolMask, render_scene
from clearclip_core.agreement import ImageAgreement, compare_image
from clearclip_core.images.label_maps import Truth
from tests.bench.conftest import Report
from tests.bench.corrections import PROJECT
from tests.bench.street import scene_values, unseen
from tests.bench.test_label_errors import MISTAKES, SEEDS, WRONG_EACH, painted, things

DRAWS = int(os.environ.get("AGREEMENT_DRAWS", "5"))
CAREFUL_PX = 2
WORST = 0.1
#: Three times what a list in any order has.
LEAST = 0.3


def drawn() -> tuple[list[Truth], list[str]]:
    values = scene_values(PROJECT)
    return [values[scene.label_map] for scene in map(render_scene, SEEDS)], [*PROJECT]


def street() -> tuple[list[Truth], list[str]]:
    folder = unseen(100)
    truths = [picture.read()[1] for picture in folder.pictures]
    return truths, [label.name for label in folder.labels]


def compared(people: Sequence[Truth], labels: Sequence[str]) -> ImageAgreement:
    masks: list[dict[str, BoolMask]] = [
        {name: own == index for index, name in enumerate(labels)} for own in people
    ]
    return compare_image(masks, labels, (people[0].shape[0], people[0].shape[1]))


@pytest.mark.parametrize("make", [drawn, street], ids=["drawn scenes", "street photographs"])
def test_mistakes_of_one_of_two_people_are_most_disputed(
    report: Report, make: Callable[[], tuple[list[Truth], list[str]]], request: Any
) -> None:
    truths, labels = make()
    by_kind: dict[str, list[float]] = defaultdict(list)
    seconds: list[float] = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        careful = lambda: int(rng.integers(-CAREFUL_PX, CAREFUL_PX + 1))  # noqa: B023, E731
        people = [[painted(truth, careful, rng) for _ in range(2)] for truth in truths]
        rich = [index for index, (_, own) in enumerate(people) if things(own)]
        chosen = rng.permutation(rich)[: WRONG_EACH * len(MISTAKES)]
        planted = dict(zip(chosen.tolist(), [*MISTAKES] * WRONG_EACH, strict=True))
        for index, kind in planted.items():
            people[index][1] = MISTAKES[kind](people[index][1], len(labels), rng)
        shares = []
        for pair in people:
            began = time.perf_counter()
            shares.append(compared(pair, labels).disputed_share)
            seconds.append(time.perf_counter() - began)
        order = np.argsort(-np.array(shares), kind="stable").tolist()
        for index, kind in planted.items():
            by_kind[kind].append(order.index(index) / len(truths))
    found = {kind: np.mean(np.array(each) < WORST) for kind, each in by_kind.items()}
    overall = np.mean(np.concatenate([*by_kind.values()]) < WORST)
    size = "×".join(map(str, truths[0].shape[::-1]))
    report.add(
        f"mistakes of one of two people in the most disputed tenth of {len(truths)} pictures: "
        f"{request.node.callspec.id}",
        f"({100 * LEAST:.0f} %)",
        f"{100 * overall:.0f} %",
        ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in sorted(found.items()))
        + f"; {DRAWS} draws of {WRONG_EACH} each; {1000 * np.median(seconds):.0f} ms a picture of "
        f"{size} px with {len(labels)} labels",
    )
    assert overall >= LEAST
