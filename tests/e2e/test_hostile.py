"""Hostile annotations and tasks, through the API of the real Label Studio."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import requests

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.servers import wait_for_json

pytestmark = [pytest.mark.timeout(300), pytest.mark.thorough]

LABELS = '<Label value="sky"/><Label value="grass"/>'
CONFIG: Final = (
    '<View><Image name="image" value="$image" smoothing="false"/>'
    f'<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels>'
    f'<BitmaskLabels name="bits" toName="image">{LABELS}</BitmaskLabels>'
    f'<PolygonLabels name="poly" toName="image">{LABELS}</PolygonLabels></View>'
)
BOX = [[0, 0], [99, 9], [9, 99]]


def region(control: str, kind: str, side: int, value: dict[str, Any]) -> dict[str, Any]:
    """A region of the label sky on a square picture."""
    sides = {"original_width": side, "original_height": side}
    names = {"id": "r1", "type": kind, "from_name": control, "to_name": "image"}
    return names | sides | {"value": {kind: ["sky"]} | value}


def bitmask(content: bytes) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    return region("bits", "bitmasklabels", 64, {"imageDataURL": url})


def polygon(points: list[Any], number: int = 1) -> dict[str, Any]:
    return region("poly", "polygonlabels", 16_000, {"points": points}) | {"id": f"r{number}"}


def stroke(rle: list[int], side: int) -> dict[str, Any]:
    return region("mask", "brushlabels", side, {"format": "rle", "rle": rle})


def postscript(written: Path) -> bytes:
    """A picture that makes a file where somebody runs it."""
    program = f"({written}) (w) file closefile"
    return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{program}\n".encode()


def hostile(written: Path) -> list[tuple[list[Any], str]]:
    """Results of annotations, and what the reason says why each is broken."""
    far = {"x": 1e308, "y": 1, "radiusX": 1e-308, "radiusY": 1e308}
    return [
        ([bitmask(postscript(written))], "no PNG of "),
        ([stroke([64, 0, 0, 0, 57, 27, 252] + [0] * 200_000, 16_384)], "its strokes are cut off"),
        ([stroke([0] * 9, 10**9)], "regions on at most 268 are drawn"),
        ([polygon([[n % 101, n % 2 * 100] for n in range(20_000)])], "rows of pixels, more than"),
        ([polygon([["a", "b"], [None, {}], [[], 1]])], "pairs of numbers"),
        ([polygon([[1e308, 1e308], [-1e308, 2], [3, 1e308]])], "is no finite number"),
        ([region("mask", "ellipselabels", 16_000, far)], "is no finite number"),
        ([polygon([[10**400, 1], [1, 2], [2, 3]])], "in a number's place is none"),
        ([polygon(BOX, number) for number in range(1000)], "too many regions"),
        (
            [{"from_name": "mask", "type": None, "value": None}],
            "has not kept its kind, its shape or the size of its picture",
        ),
    ]


#: Addresses of pictures that Label Studio lets tasks have.
PICTURES: Final = [
    "data:image/png;base64,AA",
    "x" * 3_000_000,
    "a\0b",
    "javascript:alert(1)",
    [[[]]],
    json.loads("[" * 90 + "]" * 90),
]


@pytest.fixture
def project(studio: LabelStudioProcess, backend_url: str) -> Iterator[int]:
    project = int(studio.client.projects.create(title="Hostile", label_config=CONFIG).id)
    demo.connect(studio, project, backend_url)
    yield project
    studio.client.projects.delete(id=project)


def test_what_hostile_people_send_through_label_studio_stops_nothing(
    studio: LabelStudioProcess, backend_url: str, project: int, tmp_path: Path
) -> None:
    tasks = [{"data": {"image": picture}} for picture in PICTURES]
    studio.post(f"/api/projects/{project}/import", json=tasks)
    task = min(each.id for each in studio.client.tasks.list(project=project))
    written = tmp_path / "written"
    reasons = {}
    for result, reason in hostile(written):
        made = studio.post(f"/api/tasks/{task}/annotations/", json={"result": result})
        reasons[str(made["id"])] = reason
    good = studio.post(f"/api/tasks/{task}/annotations/", json={"result": [polygon(BOX)]})

    report = f"{backend_url}/projects/{project}/report"

    def is_read(told: dict[str, Any]) -> bool:
        counts = told["annotations"]
        return not told["waiting"] and counts["broken"] + counts["scratch"] == len(reasons) + 1

    broken = wait_for_json(f"{report}.json", is_read)["broken"]
    assert broken.keys() == reasons.keys()
    assert str(good["id"]) not in broken
    for annotation, reason in reasons.items():
        assert reason in broken[annotation]
    assert not written.exists()
    page = requests.get(report, headers={"Accept": "text/html"}, timeout=60).text
    assert all(f"Annotation {annotation}" in page for annotation in reasons)

    before = requests.get(f"{backend_url}/status", timeout=60).json()["failed"]
    demo.retrieve_predictions(studio, project)
    status = requests.get(f"{backend_url}/status", timeout=60).json()
    assert status["failed"] - before == len(PICTURES)
    assert requests.get(f"{backend_url}/health", timeout=5).json()["state"] == "ready"
