"""Regions as Label Studio sends them, read and drawn as masks."""

import base64
import io
import json
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.errors import BadRequest
from backend.label_studio.region_reader import (
    Area,
    area_box,
    area_mask,
    drawn_areas,
    fill_outline,
    read_areas,
)
from backend.label_studio.requests import Task, parse_predict
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config


def ellipse(x: float, y: float, a: float, b: float, degrees: float = 0) -> dict[str, float]:
    return {"x": x, "y": y, "radiusX": a, "radiusY": b, "rotation": degrees}


def data_url(picture: Image.Image, kind: str = "PNG") -> str:
    """A bitmask; PostScript in an annotation would run in Ghostscript, which Pillow starts."""
    file = io.BytesIO()
    picture.save(file, kind)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _version(*regions: Any, at: str = "2026-01-01T00:00:00Z", **rest: Any) -> dict[str, Any]:
    return {"result": list(regions), "updated_at": at, **rest}


def _task(**task: Any) -> Task:
    context = {"result": [{"type": "textarea", "value": {"text": "cat"}}]}
    tasks = [{"id": 1, "data": {}, **task}]
    message = {"tasks": tasks, "label_config": brush_config("red"), "params": {"context": context}}
    return parse_predict(json.dumps(message).encode(), Settings()).tasks[0]


def _drawn(**task: Any) -> list[Area]:
    return list(drawn_areas(_task(**task).drawn))


def _area(name: str, **changes: Any) -> dict[str, Any]:
    place = {"from_name": "mask", "to_name": "img", "original_width": 6, "original_height": 4}
    return {"id": name, "type": "brushlabels", "value": {"rle": [1]}, **place, **changes}


def test_what_is_drawn_already_is_the_newest_draft() -> None:
    old, new = _version(_area("old")), _version(_area("new"), at="2026-01-02T00:00:00Z")
    assert [area.id for area in _drawn(drafts=[old, new], annotations=[old])] == ["new"]
    assert [area.id for area in _drawn(drafts=[old], annotations=[new])] == ["old"]
    assert _task(drafts=[old], annotations=[new]).is_draft
    assert _drawn(predictions=[new]) == []
    expected = Area("brushlabels", "mask", "img", None, (4, 6), {"rle": [1]}, "new")
    assert _drawn(drafts=[new]) == [expected]


def test_without_a_draft_it_is_the_only_annotation() -> None:
    """Of several, nobody says which is open, or whose it is."""
    mine, other = _version(_area("mine"), completed_by=1), _version(_area("other"), completed_by=2)
    skipped = _version(_area("skipped"), was_cancelled=True)
    assert [area.id for area in _drawn(drafts=[], annotations=[mine, skipped])] == ["mine"]
    assert not _task(annotations=[mine]).is_draft
    assert _drawn(annotations=[mine, other]) == []


def test_strange_drafts_and_regions_are_left_out() -> None:
    for drafts in (None, 3, [None], [{}], [{"result": "x"}], [{"result": None}]):
        assert _drawn(drafts=drafts) == []
    strange = [None, {}, _area("a", type=None), _area("a", value=None)]
    strange += [_area("a", original_width=None), _area("a", original_height=0)]
    found = _drawn(drafts=[_version(*strange, _area("good"))])
    assert [area.id for area in found] == ["good"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("brushlabels", {"rle": [0] * 9}),
        ("brushlabels", {"rle": 10**18}),
        ("brushlabels", {}),
        ("bitmasklabels", {"imageDataURL": "data:image/png;base64,AAAA"}),
        ("bitmasklabels", {"imageDataURL": "data:image/png;base64,A"}),
        ("bitmasklabels", {"imageDataURL": data_url(Image.new("RGBA", (8, 4)))}),
        ("bitmasklabels", {"imageDataURL": data_url(Image.new("RGB", (800, 400)), "EPS")}),
        ("polygonlabels", {"points": [[1, 1], [1], [1, 2]]}),
        ("polygonlabels", {"points": [[1, 1, 1], [2, 2, 2]]}),
        ("polygonlabels", {"points": []}),
        ("polygonlabels", {"points": [[{}, 1], [1, 1], [1, 2]]}),
        ("polygonlabels", {"points": [[10**400, 1], [1, 1], [1, 2]]}),
        ("polygonlabels", {"points": [[1e308, 1], [1, 1], [1, 2]]}),
        ("rectanglelabels", {"x": "left", "y": 1, "width": 1, "height": 1}),
        ("rectanglelabels", {"x": math.nan, "y": 1, "width": 1, "height": 1}),
        ("ellipselabels", {"x": 1, "y": 1}),
        ("ellipselabels", ellipse(1e308, 1, 1, 1)),
        ("ellipselabels", ellipse(1, 1, 1, 1, math.inf)),
        ("keypointlabels", {"x": 1, "y": 1}),
    ],
)
@pytest.mark.parametrize("read", [area_mask, area_box])
def test_broken_geometry_is_refused(kind: str, value: dict[str, Any], read: Any) -> None:
    """In words that a person understands, and without a word in the log."""
    if read is area_box and kind in ("brushlabels", "bitmasklabels", "keypointlabels"):
        return  # their box is the picture
    told = f"^An? {kind[:-6]} region of car is broken: .* another size than 800×400 px. "
    with pytest.raises(BadRequest, match=told + "Delete it and draw it again.$"):
        read(Area(kind, "tag", "img", None, (400, 800), value, labels=("car",)))


def test_labels_that_are_no_texts_are_left_out() -> None:
    value = {"brushlabels": ["car", 3, "", " ", None, "c"], "labels": ["sky"]}
    region = {"type": "brushlabels", "from_name": "tag", "to_name": "img", "value": value}
    (area,) = read_areas([region | {"original_height": 4, "original_width": 8}], {"tag"})
    assert area.labels == ("car", "c")


def test_an_outline_covers_the_pixels_whose_centres_are_inside() -> None:
    chance = np.random.default_rng(3)
    angles = np.sort(chance.random(9)) * 2 * np.pi
    radii = 0.15 + 0.3 * chance.random(9)
    points = 0.5 + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]  # of the sides
    contour = (points * (60, 40)).astype(np.float32)[:, None]
    expected = [
        [cv2.pointPolygonTest(contour, (x + 0.5, y + 0.5), False) > 0 for x in range(60)]
        for y in range(40)
    ]
    value = {"points": (points * 100).tolist()}
    mask = area_mask(Area("polygonlabels", "p", "img", None, (40, 60), value))
    np.testing.assert_array_equal(mask, expected)


PERCENT = st.integers(-50, 150)


def ellipse_mask(value: dict[str, float], size_hw: tuple[int, int]) -> np.ndarray:
    area = Area("ellipselabels", "e", "img", None, size_hw, value)
    mask = area_mask(area)
    outside = mask.copy()
    outside[area_box(area)] = False
    assert not outside.any()
    return mask


@settings(max_examples=80)
@given(x=PERCENT, y=PERCENT, a=st.integers(1, 80), b=st.integers(1, 80), at=st.integers(0, 360))
def test_an_ellipse_covers_the_centres_inside(x: int, y: int, a: int, b: int, at: int) -> None:
    """Each pixel by the distances to the two foci, which add up to the longer axis."""
    size = 40, 40
    mask = ellipse_mask(ellipse(x, y, a, b, at), size)
    angle = math.radians(at + (90 if b > a else 0))
    far, longer = 0.4 * math.sqrt(abs(a**2 - b**2)), 0.4 * max(a, b)  # 40 px for 100 %
    centre = 0.4 * complex(x, y)
    foci = [centre + sign * far * complex(math.cos(angle), math.sin(angle)) for sign in (1, -1)]
    for row, column in np.ndindex(size):
        pixel = complex(column + 0.5, row + 0.5)
        slack = sum(abs(pixel - focus) for focus in foci) - 2 * longer
        if abs(slack) > 1e-9:
            assert mask[row, column] == (slack < 0)


@pytest.mark.parametrize(("a", "b", "at"), [(43, 31, 0), (12, 39, 30), (49, 2, 117)])
def test_a_large_ellipse_is_exact(a: int, b: int, at: int) -> None:
    """Each of five million pixels, but for rounding, by the distances to the two foci."""
    height, width = 2300, 2300
    mask = ellipse_mask(ellipse(52, 47, a, b, at), (height, width))
    rows, columns = np.ogrid[:height, :width]
    angle = math.radians(at + (90 if b > a else 0))
    far, centre = 23 * math.sqrt(abs(a**2 - b**2)), 23 * np.array([52, 47])
    foci = [centre + sign * far * np.array([math.cos(angle), math.sin(angle)]) for sign in (1, -1)]
    distance = sum(np.hypot(columns + 0.5 - x, rows + 0.5 - y) for x, y in foci)
    slack = distance - 2 * 23 * max(a, b)
    is_plain = abs(slack) > 1e-8
    np.testing.assert_array_equal(mask[is_plain], slack[is_plain] < 0)
    assert is_plain.mean() > 0.99999


@pytest.mark.parametrize(
    "value", [ellipse(50, 50, 0, 20), ellipse(50, 50, 20, 0), ellipse(300, 50, 20, 20)]
)
def test_an_ellipse_without_an_area_in_the_picture_covers_nothing(value: dict[str, float]) -> None:
    assert not ellipse_mask(value, (40, 60)).any()


def test_an_ellipse_much_larger_than_the_picture_covers_it() -> None:
    assert ellipse_mask(ellipse(50, 50, 1e250, 1e300, 30), (40, 60)).all()


def filled(points: list[list[float]] | npt.NDArray[np.float64], height: int, width: int) -> int:
    mask = np.zeros((height, width), np.bool_)
    fill_outline(np.array(points, np.float64), mask)
    return int(mask.sum())


def test_outlines_of_many_edges_and_of_points_far_outside_are_filled() -> None:
    angles = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    corners = np.stack([250 + 200 * np.cos(angles), 250 + 200 * np.sin(angles)], axis=1)
    assert filled(corners, 500, 500) == pytest.approx(np.pi * 200**2, rel=0.01)
    far = 1e12
    assert filled([[-far, -far], [far, -far], [far, far], [-far, far]], 30, 20) == 600
    mask = np.ones((4, 6), np.bool_)
    fill_outline(np.array([[1.0, 0], [5, 0], [3, 4]]), mask)
    assert mask.all(), "what others have filled stays"


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([[3, n % 2 * 1000] for n in range(5_002)], "cross 5002000 rows"),
        ([[0, 0], [float("nan"), 1], [2, 2]], "finite"),
    ],
)
def test_outlines_that_take_minutes_are_refused(points: list[list[float]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        filled(points, 1000, 1000)
