"""What an annotation says of the labels of an image."""

from unittest.mock import Mock

import numpy as np
import numpy.typing as npt

from backend.feedback.evidence import LazyMasks


def drawn(*rows: str) -> npt.NDArray[np.bool_]:
    return np.array([[cell == "#" for cell in row] for row in rows])


LEFT = drawn("####....", "####....", "........", "........")


def test_masks_are_drawn_when_they_are_asked_for_and_not_before() -> None:
    draw = Mock(return_value=LEFT)
    masks = LazyMasks({"car": draw})
    assert ("car" in masks, "dog" in masks, list(masks), len(masks)) == (True, False, ["car"], 1)
    draw.assert_not_called()
    assert masks["car"] is LEFT
