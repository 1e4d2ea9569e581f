"""Ordinary situations of a project, on the real Label Studio: what its page calls the next step.

The rule as a table without servers: `tests/backend/views/test_next_step.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import render_scene
from tests.backend.fakes.waiting import wait_for
from tests.e2e.editor import press, visit
from tests.e2e.masks import scene_regions
from tests.e2e.servers import finished_run, sdk, wait_for_json

pytestmark = pytest.mark.thorough

#: The demo model knows neither "turf" nor "lane", so that corrections teach it much.
CALLED = {"grass": "turf", "road": "lane"}
PAINTED = ["sky", "grass", "tree", "house", "road", "mountain"]
SEEDS = list(range(10_000_850, 10_000_864))
EARLIER, BROKEN = 8, 2
LATER = len(SEEDS) - EARLIER + BROKEN
SKIP = {"result": [], "was_cancelled": True, "lead_time": 3}


@dataclass(frozen=True)
class Project:
    studio: LabelStudioProcess
    id: int
    url: str

    def is_next(self, step: str) -> dict[str, Any]:
        return self.comes(lambda now: now["next"] == step and not now["read"]["open"])

    def comes(self, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for what the page shows, where Label Studio has said how far the project is."""
        return wait_for_json(self.url, lambda now: not now["trouble"] and is_there(now))

    def post(self, path: str, **body: Any) -> requests.Response:
        answer = requests.post(f"{self.url}/{path}", json=body, timeout=60)
        answer.raise_for_status()
        return answer

    def suspicions(self) -> int:
        """Look for label errors, and return how many annotations are listed."""
        self.post("label-errors")
        return len(finished_run(f"{self.url}/label-errors")["suspicions"])

    @property
    def tasks(self) -> list[int]:
        return sorted(each.id for each in sdk(self.studio).tasks.list(project=self.id))

    def annotate(self, place: int, **more: Any) -> int:
        result = scene_regions(render_scene(SEEDS[place]).label_map, PAINTED, CALLED)
        path = f"/api/tasks/{self.tasks[place]}/annotations/"
        return int(self.studio.post(path, json={"result": result, "lead_time": 30} | more)["id"])


def test_the_next_step_is_right_in_every_ordinary_situation(
    page: Page, studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    labels = [CALLED.get(name, name) for name in PAINTED]
    number = new_project(labels, seeds=SEEDS)
    config = sdk(studio).projects.get(id=number).label_config
    asks = config.replace("<Brush ", '<Brush adapt="ask" ', 1)
    sdk(studio).projects.update(id=number, label_config=asks)
    gone = [{"image": f"/data/upload/{number}/gone-{each}.png"} for each in range(BROKEN)]
    studio.post(f"/api/projects/{number}/import", json=gone)
    project = Project(studio, number, f"{backend_url}/projects/{number}")
    for place in range(EARLIER):
        project.annotate(place)
    demo.connect(studio, number, backend_url)

    told = project.is_next("words")  # annotations from before the connection are read at once
    assert (told["counts"]["left"], told["data_set"]["corrected_since"]) == (LATER, EARLIER)
    report = f"{project.url}/report.json"
    wait_for_json(report, lambda told: told["annotations"]["scratch"] == EARLIER)

    requests.post(f"{backend_url}/jobs", json={"project": number}, timeout=60).raise_for_status()
    told = project.comes(lambda told: told["jobs"][0]["over"])
    assert (told["next"], told["counts"]["failed"]) == ("correct", BROKEN), "the others"
    assert [each["count"] for each in told["findings"] if "prediction" in each["what"]] == [BROKEN]
    visit(page, project.url)
    masks = f"6 of {LATER} tasks left to correct have masks of the version in use"
    expect(page.locator("#prelabel")).to_contain_text(f"{masks}; 2 could not be predicted")
    page.get_by_role("link", name="Correct").click()
    page.locator(".konvajs-content canvas").first.wait_for()
    assert page.evaluate("Htx.task.id") in project.tasks[EARLIER:], "no list of tasks between"
    page.goto("about:blank")

    (backend,) = sdk(studio).ml.list(project=number)
    sdk(studio).ml.train(id=int(backend.id or 0))  # Start Training
    told = project.is_next("learn")
    assert (told["learned"]["waits"], told["learned"]["adapt"]) == (1, "ask")
    visit(page, project.url)
    expect(page.locator("#learn")).to_contain_text("version 1 waits for you")
    project.post("learning/use", number=1)

    told = project.is_next("prelabel")
    assert (told["counts"]["older"], told["counts"]["waiting"]) == (6, LATER)
    visit(page, project.url)
    each_once = "; 6 have older ones; 2 could not be predicted"
    expect(page.locator("#prelabel")).to_contain_text(each_once)
    press(page.get_by_role("button", name="Prelabel the 6 that are left with version 1 (+"))
    told = project.comes(lambda told: told["jobs"][0]["over"])
    assert (told["next"], told["counts"]["older"]) == ("correct", 0)

    for place in range(EARLIER, 12):
        project.annotate(place)
    assert project.suspicions() == 0, "twelve right ones say too little"
    for place in range(12, len(SEEDS)):
        last = project.annotate(place)
    assert project.suspicions() <= 1, "of fourteen right ones"
    assert project.is_next("look")["counts"]["left"] == BROKEN, "only those without a mask"
    for place in range(len(SEEDS), len(SEEDS) + BROKEN):
        studio.post(f"/api/tasks/{project.tasks[place]}/annotations/", json=SKIP)
    told = project.is_next("export")  # too few for the next version, and nobody checked the words
    assert (told["counts"]["left"], told["counts"]["skipped"]) == (0, BROKEN)

    broken = sdk(studio).annotations.get(id=last).result
    sdk(studio).annotations.update(id=last, result=[e | {"original_width": 7} for e in broken])
    project.post("datasets", formats=["coco"])
    told = project.is_next("")
    assert (told["data_set"]["pictures"], told["data_set"]["left_out"]) == (len(SEEDS) - 1, 1)
    visit(page, project.url)
    expect(page.locator("#export")).to_contain_text("1 left out")

    project.post("learning/reset")  # all are read again at once
    project.comes(lambda told: (told["learned"] or {}).get("changed", 0) >= EARLIER)
    sdk(studio).projects.update(id=number, label_config=asks.replace('"ask"', '"off"'))
    assert project.is_next("")["learned"]["adapt"] == "off"
    missing = f"{backend_url}/projects/{number + 1000}"
    wait_for(lambda: requests.get(f"{missing}/learning", timeout=60).status_code == 404, "a 404")
    assert requests.get(missing, timeout=60).status_code == 404


def of_dashboard(told: dict[str, Any], project: int) -> dict[str, Any]:
    """Return the figures of a project that the dashboard draws, from ``/status``."""
    served = {each["project"]: each for each in told["served"]}
    return served.get(project, {})


def test_tasks_that_need_two_people_are_left_after_one(
    studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    number = new_project(["sky"], seeds=SEEDS[:3])
    sdk(studio).projects.update(id=number, maximum_annotations=2)
    project = Project(studio, number, f"{backend_url}/projects/{number}")
    for place in range(3):
        project.annotate(place, result=[])
    studio.post(f"/api/tasks/{project.tasks[2]}/annotations/", json=SKIP)
    demo.connect(studio, number, backend_url)

    told = project.is_next("correct")
    assert (told["counts"]["left"], told["counts"]["begun"]) == (3, 3)
    assert told["progress"].startswith("of 3 tasks done, 3 left")

    assert told["counts"]["needed"] == 3
    status = f"{backend_url}/status"
    figures = of_dashboard(
        wait_for_json(status, lambda told: of_dashboard(told, number).get("left") is not None),
        number,
    )
    assert (figures["tasks"], figures["left"]) == (3, 3), "its bar is empty, with 3 annotations"

    requests.patch(
        f"{studio.url}/api/projects/{number}/",
        json={"overlap_cohort_percentage": 34},
        headers={"Authorization": studio.authorization},
        timeout=60,
    ).raise_for_status()
    told = project.comes(lambda told: told["counts"]["left"] == 1)
    assert (told["counts"]["begun"], told["counts"]["needed"]) == (1, 1), "one of three"

    sdk(studio).projects.update(id=number, maximum_annotations=1)
    told = project.is_next("export")
    assert (told["counts"]["left"], told["counts"]["begun"]) == (0, 0)

    sdk(studio).tasks.delete(id=str(project.tasks[0]))
    told = wait_for_json(status, lambda told: of_dashboard(told, number)["tasks"] == 2)
    assert of_dashboard(told, number)["left"] == 0, "counted again, though no task has changed"


def test_a_job_of_a_deleted_project_is_not_resumed(
    studio: LabelStudioProcess, backend_url: str
) -> None:
    number = demo.create_project(studio, ["sky"])
    asked = {"project": number}
    job = requests.post(f"{backend_url}/jobs", json=asked, timeout=60).json()["id"]
    sdk(studio).projects.delete(id=number)
    refused = requests.post(f"{backend_url}/jobs/{job}/resume", timeout=60)
    assert refused.status_code == 404
    assert f"project {number}" in refused.json()["error"]
