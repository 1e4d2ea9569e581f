"""Regions as Label Studio sends them, read and drawn as masks."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from backend.label_studio.region_reader import Area, area_mask, drawn_areas, written_labels
from backend.label_studio.requests import Task, parse_predict


def _version(*regions: Any, at: str = "2026-01-01T00:00:00Z", **rest: Any) -> dict[str, Any]:
    return {"result": list(regions), "updated_at": at, **rest}


def _task(**task: Any) -> Task:
    context = {"result": [{"type": "textarea", "value": {"text": "cat"}}]}
    tasks = [{"id": 1, "data": {}, **task}]
    message = {"tasks": tasks, "label_config": "<View/>", "params": {"context": context}}
    return parse_predict(json.dumps(message).encode()).tasks[0]


def _drawn(**task: Any) -> list[Area]:
    return list(drawn_areas(_task(**task)))


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


@pytest.mark.parametrize("drafts", [None, 3, [None], [{}], [{"result": "x"}], [{"result": None}]])
def test_strange_drafts_are_none(drafts: Any) -> None:
    assert _drawn(drafts=drafts) == []


@pytest.mark.parametrize(
    "region",
    [
        None,
        {},
        _area("a", type=None),
        _area("a", value=None),
        _area("a", original_width=None),
        _area("a", original_height=0),
        _area("a", original_height="4"),
    ],
)
def test_strange_regions_are_left_out(region: Any) -> None:
    assert [area.id for area in _drawn(drafts=[_version(region, _area("good"))])] == ["good"]


def test_a_polygon_covers_the_pixels_inside_to_within_one_at_its_edge() -> None:
    corners = [[20, 10], [60, 10], [60, 50], [20, 50]]  # columns 40 to 120, rows 10 to 50
    mask = area_mask(Area("polygonlabels", "tag", "img", None, (100, 200), {"points": corners}))
    assert mask[10:50, 40:120].all()
    mask[9:51, 39:121] = False
    assert not mask.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (
            "brushlabels",
            {"rle": [1, 2]},
            "strokes are cut off, or are of a picture .* than 800×400",
        ),
        ("brushlabels", {"rle": "x"}, "its strokes are cut off"),
        ("brushlabels", {"rle": 10**18}, "its strokes are cut off"),
        ("brushlabels", {}, "it has no rle"),
        (
            "bitmasklabels",
            {"imageDataURL": "data:image/png;base64,AAAA"},
            "no PNG of 800×400 px that can be opened",
        ),
        ("bitmasklabels", {"imageDataURL": "data:image/png;base64,A"}, "no PNG of 800×400 px"),
        ("bitmasklabels", {}, "it has no imageDataURL"),
        ("polygonlabels", {"points": [["x", 1]]}, "pairs of numbers"),
        ("polygonlabels", {"points": [[1, 1], [1], [1, 2]]}, "pairs of numbers"),
        ("polygonlabels", {"points": [[{}, 1], [1, 1], [1, 2]]}, "in a number's place"),
        ("polygonlabels", {"points": [[10**400, 1], [1, 1], [1, 2]]}, "in a number's place"),
        ("polygonlabels", {"points": [[float("inf"), 1], [1, 1], [1, 2]]}, "finite"),
        ("polygonlabels", {"points": [[1e308, 1], [1, 1], [1, 2]]}, "finite"),
        ("rectanglelabels", {"x": 1, "y": 1, "width": 1}, "it has no height"),
        ("rectanglelabels", {"x": float("nan"), "y": 1, "width": 1, "height": 1}, "finite"),
        (
            "rectanglelabels",
            {"x": "left", "y": 1, "width": 1, "height": 1, "rectanglelabels": ["car"]},
            "A rectangle of car is broken: what it has in a number's place is none. Delete it",
        ),
        ("ellipselabels", {"x": "left", "y": 1, "radiusX": 1, "radiusY": 1}, "number's place"),
        ("ellipselabels", {"x": 1, "y": 1}, "it has no radiusX"),
        ("ellipselabels", {"x": 1e308, "y": 1, "radiusX": 1, "radiusY": 1}, "finite"),
    ],
)
def test_broken_geometry_is_refused(kind: str, value: dict[str, Any], reason: str) -> None:
    """In words that a person understands, and without a word in the log."""
    with pytest.raises(ValueError, match=reason):
        area_mask(Area(kind, "tag", "img", None, (400, 800), value))


def test_a_broken_region_is_told_by_what_an_annotator_sees() -> None:
    value = {"rle": [0] * 9, "brushlabels": ["car"]}
    told = (
        "A brush region of car is broken: its strokes are cut off, or are of a picture of another "
        "size than 8×4. Delete it and draw it again."
    )
    with pytest.raises(ValueError, match=f"^{told}$"):
        area_mask(Area("brushlabels", "mask", "img", None, (4, 8), value))


def test_labels_that_are_no_texts_are_left_out() -> None:
    value = {"brushlabels": ["car", 3, "", " ", None, "c"], "labels": ["sky"]}
    area = Area("brushlabels", "tag", "img", None, (4, 8), value)
    assert written_labels(area) == ["car", "c"]


@pytest.mark.parametrize("image_format", ["EPS", "TIFF"])
def test_a_bitmask_is_a_png_and_starts_no_other_program(
    image_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript in an annotation ran in Ghostscript, which Pillow starts for EPS."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # as where Pillow may look for it
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, image_format)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    area = Area("bitmasklabels", "mask", "img", None, (4, 6), {"imageDataURL": url}, "a")
    with pytest.raises(ValueError, match="is broken"):
        area_mask(area)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("seed", range(4))
def test_an_outline_covers_the_pixels_whose_centres_are_inside(seed: int) -> None:
    chance = np.random.default_rng(seed)
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
