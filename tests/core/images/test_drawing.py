"""Label maps drawn over images."""

import numpy as np
import pytest

from clearclip_core.images.drawing import blend, overlay, palette


def test_an_overlay_mixes_colours_where_there_is_a_label() -> None:
    rgb = np.full((200, 300, 3), 100, np.uint8)
    labels = np.full((200, 300), -1)
    labels[:, :150] = 1
    picture = np.asarray(overlay(rgb, labels, ["sky", "tree"], opacity=0.25))
    mixed = [round(0.25 * channel + 75) for channel in palette(2)[1].tolist()]
    assert np.abs(picture[:, :149].astype(int) - mixed).max() <= 1
    assert (picture[:, 151:300] == 100).all()
    assert (rgb == 100).all()


@pytest.mark.parametrize("rgb", [(0, 0, 255), (0, 128, 0), (255, 255, 255), (0, 0, 0)])
def test_a_contour_stands_out_from_its_own_colour_black_and_white(rgb: tuple[int, ...]) -> None:
    picture = np.full((40, 60, 3), rgb, np.uint8)
    label_map = np.full((40, 60), -1)
    label_map[10:30, 10:50] = 0
    shown = blend(picture, label_map, np.array([rgb], np.uint8)).astype(int)
    around = shown[9:11, 20]  # the last pixel outside, and the first one inside
    assert abs(around - np.array(rgb)).sum(axis=1).max() >= 200


def test_a_contour_parts_two_labels() -> None:
    picture = np.full((40, 60, 3), 100, np.uint8)
    label_map = np.repeat([[0] * 30 + [1] * 30], 40, axis=0)
    shown = blend(picture, label_map, palette(2)).astype(int)
    inside, dark, light = shown[20, 10], shown[20, 29], shown[20, 30]
    assert dark.sum() < inside.sum() < light.sum()
    assert (shown[20, :28] == inside).all()


def test_a_label_map_of_one_label_has_no_contour() -> None:
    picture = np.full((40, 60, 3), 100, np.uint8)
    shown = blend(picture, np.zeros((40, 60), int), palette(1))
    assert (shown == shown[0, 0]).all()


def has_colour(picture: np.ndarray, index: int) -> bool:
    return bool((picture == palette(index + 1)[index]).all(axis=-1).any())


def test_the_legend_shows_the_labels_that_are_there() -> None:
    rgb = np.full((120, 160, 3), 255, np.uint8)
    labels = np.zeros((120, 160), int)
    labels[:60] = 2
    picture = np.asarray(overlay(rgb, labels, ["sky", "tree", "horse"]))
    assert picture.shape[0] == 120
    legend = picture[:, 160:]
    assert legend.shape[1] > 60
    assert [has_colour(legend, i) for i in range(3)] == [True, False, True]
    longer = overlay(rgb, labels, ["sky", "tree", "horse on a far and foggy hill"])
    assert longer.width > picture.shape[1]
