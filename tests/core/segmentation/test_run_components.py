"""Parts, islands and holes on label maps drawn by hand."""

from __future__ import annotations

import numpy as np

from clearclip_core.segmentation.label_runs import LabelRuns
from clearclip_core.segmentation.run_components import RunComponents

#: The right 2 and the lower one meet at a corner; the 1 and the -1 share a side inside of 0.
LABELS = np.array(
    [
        [0, 0, 0, 0, 2],
        [0, 1, -1, 0, 2],
        [0, 0, 0, 2, 0],
    ],
    np.int16,
)


def components() -> RunComponents:
    return RunComponents(LabelRuns.of(LABELS))


def part_at(made: RunComponents, y: int, x: int) -> int:
    run = np.searchsorted(made.runs.starts, y * LABELS.shape[1] + x, side="right") - 1
    return int(made.part_of_run[run])


def test_parts_are_joined_by_sides_and_islands_by_corners_too() -> None:
    made = components()
    assert len(made.areas) == 6
    ring, corner = part_at(made, 0, 0), part_at(made, 2, 3)
    assert (made.areas[ring], made.labels[ring]) == (9, 0)
    assert (made.areas[corner], made.labels[corner]) == (1, 2)
    few = made.islands(3)
    assert not few[corner]  # 3 px with those above
    assert few[part_at(made, 1, 1)]
    assert not few[part_at(made, 2, 4)]  # of the ring, by a corner
    assert not made.islands(1).any()


def test_a_hole_is_made_of_all_parts_inside() -> None:
    made = components()
    inside = {part_at(made, 1, 1), part_at(made, 1, 2)}
    for dropped in (made.islands(1), made.islands(3)):
        found = [(label, set(parts.tolist())) for label, parts in made.holes(dropped, 3)]
        assert found == [(0, inside)]
        assert not list(made.holes(dropped, 2))
