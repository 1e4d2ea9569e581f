"""A second encoder and a click model are switched on in a project that uses what it has learned.

Label Studio is slow meanwhile, so that what happens while the version is made again can be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from backend.views.project import REMAKING
from clearclip_core import Segmenter, render_scene
from tests.backend.fakes.local_server import LocalServer
from tests.backend.test_kills import second_model
from tests.core.prompting.click_models import write_click_model
from tests.e2e.masks import Mask, iou, masks_of, scene_regions
from tests.e2e.servers import OwnBackend, OwnLabelStudio, sdk, wait_for_json
from tests.e2e.slow_studio import SlowStudio

pytestmark = pytest.mark.thorough

#: The demo model knows neither "turf" nor "lane", so that corrections teach it much.
CALLED = {"grass": "turf", "road": "lane"}
PAINTED = ["sky", "grass", "tree", "house", "road", "mountain"]
SEEDS = [10_000_960 + number for number in range(12)]
CORRECTED = 8
NEW_SEED = 10_000_975
CLICK_XY = (300, 380)  # px in the scene of the new task


@dataclass(frozen=True)
class Switched:
    """What was seen of the project, and of the predictions that its tasks have."""

    before: dict[str, Any]  # the page, with the first encoder alone
    versions_before: dict[int, list[str]]  # task -> versions of its predictions
    meanwhile: dict[str, Any]
    html_meanwhile: str
    versions_meanwhile: dict[int, list[str]]
    after: dict[str, Any]
    versions_after: dict[int, list[str]]
    new_task: int
    clicked: Mask  # the answer to a click on the new task
    click_model: str  # the folder of the model that answers clicks


def versions(studio: LabelStudioProcess, project: int) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for each in sdk(studio).predictions.list(project=project):
        found.setdefault(each.task, []).append(str(each.model_version))
    return found


def use_what_is_learned(studio: LabelStudioProcess, project: int, page: str) -> dict[str, Any]:
    """Annotate eight tasks, have that learned, use it, and predict the other four with it."""
    tasks = sorted(each.id for each in sdk(studio).tasks.list(project=project))
    for task, seed in zip(tasks[:CORRECTED], SEEDS, strict=False):
        result = scene_regions(render_scene(seed).label_map, PAINTED, CALLED)
        body = {"result": result, "lead_time": 30}
        studio.post(f"/api/tasks/{task}/annotations/", json=body)
    wait_for_json(f"{page}/report.json", lambda told: told["annotations"]["scratch"] == CORRECTED)
    requests.post(f"{page}/learning/step", timeout=60).raise_for_status()
    wait_for_json(page, lambda told: told["learned"]["waits"] == 1)
    requests.post(f"{page}/learning/use", json={"number": 1}, timeout=60).raise_for_status()
    requests.post(f"{page}/words", timeout=60).raise_for_status()
    home = page.partition("/projects")[0]
    requests.post(f"{home}/jobs", json={"project": project}, timeout=60).raise_for_status()
    return wait_for_json(page, lambda told: told["next"] == "correct" and told["jobs"][0]["over"])


def click(studio: LabelStudioProcess, project: int, task: int) -> Mask:
    """Have Label Studio ask its backend for the thing under a click, as its editor does."""
    (connection,) = sdk(studio).ml.list(project=project)
    width, height = render_scene(NEW_SEED).image.shape[1::-1]
    place = {
        "x": 100 * CLICK_XY[0] / width,
        "y": 100 * CLICK_XY[1] / height,
        "width": 0.3,
        "labels": ["house"],
    }
    point = {
        "id": "click",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "is_positive": True,
        "value": place,
    }
    told = [
        {**point, "from_name": "click", "type": "keypoint"},
        {**point, "from_name": "label", "type": "labels"},
    ]
    answer = studio.post(
        f"/api/ml/{connection.id}/interactive-annotating",
        json={"task": task, "context": {"result": told}},
    )
    return masks_of(answer["data"]["result"])["house"]


@pytest.fixture(scope="module")
def switched(
    own_studio: OwnLabelStudio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Switched]:
    studio = own_studio.studio
    folder: Path = tmp_path_factory.mktemp("second-model")
    project = demo.create_project(studio, [CALLED.get(e, e) for e in PAINTED], title="Switched")
    demo.upload(studio, project, map(demo.scene_file, SEEDS))
    slow = SlowStudio(studio.url)
    with LocalServer(slow.route) as proxy:
        reach = {"LABEL_STUDIO_URL": proxy.url, "LABEL_STUDIO_API_KEY": studio.token}
        backend = OwnBackend(folder, reach)
        page = f"{backend.url}/projects/{project}"
        try:
            backend.start()
            demo.connect(studio, project, backend.url)
            before = use_what_is_learned(studio, project, page)
            of_before = versions(studio, project)
            backend.stop()

            demo.upload(studio, project, [demo.scene_file(NEW_SEED)])
            slow.delay_s = 0.5
            click_model = str(write_click_model("sam2", folder / "sam2"))
            backend.variables = {
                **reach,
                "SECOND_MODEL": second_model(folder),
                "CLICK_MODEL": click_model,
                "AUTO_PRELABEL": str(project),
            }
            backend.start()
            meanwhile = requests.get(page, timeout=60).json()
            html = requests.get(page, headers={"Accept": "text/html"}, timeout=60).text
            of_then = versions(studio, project)

            slow.delay_s = 0.0
            new_task = max(each.id for each in sdk(studio).tasks.list(project=project))
            after = wait_for_json(page, lambda told: not told["learned"]["made_again"])
            wait_for_json(page, lambda told: new_task in versions(studio, project))
            yield Switched(
                before=before,
                meanwhile=meanwhile,
                html_meanwhile=html,
                versions_before=of_before,
                versions_meanwhile=of_then,
                after=after,
                versions_after=versions(studio, project),
                new_task=new_task,
                clicked=click(studio, project, new_task),
                click_model=click_model,
            )
        finally:
            backend.stop()
            sdk(studio).projects.delete(id=project)


def test_a_version_is_in_use_before(switched: Switched) -> None:
    assert switched.before["learned"]["live"] == 1


def test_what_was_in_use_is_made_again(switched: Switched) -> None:
    assert switched.meanwhile["learned"]["made_again"]


def test_nothing_older_is_offered_meanwhile(switched: Switched) -> None:
    assert switched.meanwhile["next"] == "correct"


def test_the_page_says_why_masks_stay_as_they_are(switched: Switched) -> None:
    assert REMAKING in switched.html_meanwhile


def test_nothing_is_predicted_by_the_words_alone_meanwhile(switched: Switched) -> None:
    assert switched.versions_meanwhile == switched.versions_before


def test_what_is_made_again_is_in_use_by_itself(switched: Switched) -> None:
    assert switched.after["learned"]["live"] == 1


def test_a_new_task_waits_for_the_version(switched: Switched) -> None:
    (version,) = switched.versions_after[switched.new_task]
    assert version.endswith(" v1")


def test_the_click_model_answers_a_click(switched: Switched) -> None:
    segmenter = Segmenter.load("demo", device="cpu", click_model=switched.click_model)
    predictor = segmenter.set_image(render_scene(NEW_SEED).image)
    sizes = predictor.click((CLICK_XY[0] + 0.5, CLICK_XY[1] + 0.5), several=True)
    assert max(iou(switched.clicked, size.mask) for size in sizes) > 0.95
