"""A lead takes one project from its words to a data set, page by page, in the real Label Studio."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import (
    DESK,
    PHONE,
    check_accessibility,
    keep_picture,
    make_view,
    no_complaints,
    press,
    resize,
    visit,
)
from tests.e2e.masks import scene_regions
from tests.e2e.servers import finished_run, sdk

#: "turf" means nothing to the demo model, and "lawn" is a synonym that it was trained on.
LABELS = ["sky", "turf", "tree", "house"]
PAINTED = ["sky", "grass", "tree", "house"]
SEEDS = list(range(10_000_731, 10_000_751))  # of twelve, no label errors are listed
BY_TWO, OFF_PX = 4, 4


@dataclass
class Lead:
    page: Page
    studio: LabelStudioProcess
    project: int
    address: str
    folder: Path

    @property
    def tasks(self) -> list[int]:
        return sorted(each.id for each in sdk(self.studio).tasks.list(project=self.project))

    def annotate(self, place: int, names: dict[str, str] | None = None, **more: Any) -> None:
        """Paint a scene as it is, or with other names, moved where a second person does it."""
        label_map = render_scene(SEEDS[place]).label_map
        if more:
            label_map = np.roll(label_map, OFF_PX, axis=1)
        result = scene_regions(label_map, PAINTED, {"grass": "turf"} | (names or {}))
        path = f"/api/tasks/{self.tasks[place]}/annotations/"
        self.studio.post(path, json={"result": result, "lead_time": 30} | more)

    def opens(self, name: str = "") -> str:
        address = f"{self.address}/{name}".rstrip("/")
        visit(self.page, address)
        return address

    def runs(self, name: str, button: str) -> Any:
        address = self.opens(name)
        press(self.page.get_by_role("button", name=button))
        report = finished_run(address)
        visit(self.page, address)
        return report

    def step(self, name: str, *said: str) -> None:
        self.opens()
        steps = self.page.locator(".steps > div")
        next_one = steps.filter(has=self.page.get_by_text("next", exact=True))
        expect(next_one).to_have_attribute("id", name)
        for each in said:
            expect(next_one).to_contain_text(each)

    def keeps(self, name: str, height: int) -> None:
        keep_picture(self.page, f"{name}.png", self.folder, (1100, height))


@pytest.fixture
def second_person(studio: LabelStudioProcess) -> Iterator[int]:
    person = {"email": "bo@example.com", "username": "bo", "first_name": "Bo", "last_name": "Lind"}
    made = studio.post("/api/users/", json=person | {"password": "a-second-annotator"})["id"]
    yield made
    sdk(studio).users.delete(id=made)


def test_a_project_goes_from_its_words_to_a_data_set(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    second_person: int,
    tmp_path: Path,
) -> None:
    """Two people have annotated four tasks; the second has called one sky a house, left out one."""
    project = new_project(LABELS, seeds=SEEDS)
    demo.connect(studio, project, backend_url)
    lead = Lead(page, studio, project, f"{backend_url}/projects/{project}", tmp_path)
    for place, wrong in enumerate([{"sky": "house"}, {"sky": ""}, {}, {}]):
        lead.annotate(place, wrong, completed_by=second_person)
        lead.annotate(place)
    with no_complaints(page, backend_url, "409"):
        lead.step("words", "not checked")
        find_words(lead)
        compare_models(lead)
        prelabel(lead)
        for place in range(BY_TWO, len(SEEDS)):
            lead.annotate(place)
        find_label_errors(lead)
        find_disputes(lead)
        export_data_set(lead)


def find_words(lead: Lead) -> None:
    """Check all words, try some for the one that is unknown, and use the best."""
    page, client = lead.page, sdk(lead.studio).projects
    lead.runs("words", "Check words")
    advice = page.locator("#advice")
    expect(advice).to_contain_text("“turf” (turf) means as little to the model")
    advice.get_by_role("link", name="Try words").first.click()
    expect(page.get_by_label("Label", exact=True)).to_have_value("turf")
    page.get_by_label("Words, one try a line").fill("lawn\ngrass, meadow\nroad")
    page.get_by_role("button", name="Try words").click()
    expect(page.locator("#trials")).to_contain_text("the best first")
    told = finished_run(page.url)
    ranked = [tuple(row["words"]) for row in told["trials"]]
    assert set(ranked[:2]) == {("lawn",), ("grass", "meadow")}
    expect(page.locator("#masks img")).to_have_count(4 * BY_TWO)
    lead.keeps("words", 900)
    before = client.get(id=lead.project).label_config
    page.once("dialog", lambda question: question.dismiss())
    page.get_by_role("button", name="Use this").first.click()
    assert client.get(id=lead.project).label_config == before, "nobody said yes"
    other = page.context.new_page()
    visit(other, page.url)
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="Use this").first.click()
    expect(page.get_by_role("status")).to_contain_text("The words are in the labeling config")
    after = client.get(id=lead.project).label_config
    assert f'predicted_values="{", ".join(ranked[0])}"' in after
    other.once("dialog", lambda question: question.accept())
    other.get_by_role("button", name="Use this").last.click()
    expect(other.get_by_role("alert")).to_contain_text("was changed since")
    other.close()
    assert client.get(id=lead.project).label_config == after
    expect(page.locator("#advice")).to_be_visible()  # all words are checked again
    expect(page.get_by_role("status")).to_contain_text("The words are in the labeling config")


def compare_models(lead: Lead) -> None:
    """See other settings beside those in use, and that four pictures are too few to tell."""
    report = lead.runs("models", "Start")
    rows = lead.page.locator("#models tbody tr")
    expect(rows).to_have_count(len(report["models"]))
    expect(rows.first).to_contain_text("as it is now")
    expect(lead.page.locator("#models")).to_contain_text(f"{BY_TWO} pictures: too few to tell")
    lead.keeps("models", 900)


def prelabel(lead: Lead) -> None:
    left = len(SEEDS) - BY_TWO
    lead.step("prelabel", f"0 of {left} tasks")
    press(lead.page.get_by_role("button", name="Prelabel"))
    lead.step("correct", f"{BY_TWO} of {len(SEEDS)} tasks done")
    done = f"{left} of {left} tasks"
    expect(lead.page.locator("#prelabel")).to_contain_text(done, timeout=120_000)
    resize(lead.page, PHONE)
    resize(lead.page, DESK)


def find_label_errors(lead: Lead) -> None:
    report = lead.runs("label-errors", "Start")
    assert {each["task"] for each in report["suspicions"][:2]} == {*lead.tasks[:2]}
    expect(lead.page.locator("article")).to_have_count(len(report["suspicions"]))
    lead.keeps("label_errors", 900)
    shown = make_view(lead.page, lead.studio, lead.project, "Label errors")
    assert shown == sorted({each["task"] for each in report["suspicions"]}), "each task once"
    lead.opens("label-errors")
    first = report["suspicions"][0]["annotation"]
    lead.page.get_by_role("button", name=f"Annotation {first} is right").click()
    expect(lead.page.locator(f"[id^='annotation-{first}-']")).to_have_count(0)
    expect(lead.page.locator("#confirmed")).to_contain_text(f"Annotation {first}")


def find_disputes(lead: Lead) -> None:
    report = lead.runs("agreement", "Start")
    assert (report["tasks"], report["annotations"]) == (BY_TWO, 2 * BY_TWO)
    assert {each["task"] for each in report["disputes"][:2]} == {*lead.tasks[:2]}
    assert ("sky", "house") in {(each["label"], each["other"]) for each in report["confusions"]}
    assert "Bo Lind" in {each["name"] for each in report["annotators"]}
    expect(lead.page.locator("article")).to_have_count(len(report["disputes"]))
    lead.keeps("agreement", 1340)
    shown = make_view(lead.page, lead.studio, lead.project, "Agreement")
    assert shown == sorted(each["task"] for each in report["disputes"])


def export_data_set(lead: Lead) -> None:
    """What was painted is in the file; what cannot be read is told with its reason."""
    page, last = lead.page, lead.tasks[-1]
    (good,) = sdk(lead.studio).annotations.list(id=last)
    broken = [region | {"original_width": 77} for region in good.result]
    sdk(lead.studio).annotations.update(id=good.id, result=broken)
    lead.opens()
    expect(page.locator("#export")).to_contain_text("corrected and no data set yet")
    page.locator("#export").get_by_role("link").click()
    page.get_by_label("COCO (Detectron2").check()
    page.get_by_label("Split in percent").fill("80/20")
    page.get_by_role("button", name="Export data set").click()
    link = page.get_by_role("link", name="Download", exact=True)
    expect(link).to_be_visible()
    expect(page.locator("#left-out")).to_contain_text(f"Task {last}")
    with page.expect_download() as started:
        link.click()
    assert started.value.suggested_filename.startswith(f"project-{lead.project}-index-png-coco-")
    with zipfile.ZipFile(started.value.path()) as file:
        names = {*file.namelist()}
        assert {"classes.json", "report.json", "annotations/instances_val.json"} <= names
        (name,) = (each for each in names if f"scene-{SEEDS[5]}" in each and "masks/" in each)
        with file.open(name) as content, Image.open(content) as found:
            values = np.asarray(found)
    label_map = render_scene(SEEDS[5]).label_map
    for value, label in enumerate(PAINTED):
        assert np.array_equal(values == value, label_map == SCENE_LABELS.index(label)), label
    lead.keeps("dataset", 620)
    for name in ("", "report", "review", "learning", "models", "checks"):
        lead.opens(name)
        check_accessibility(page)
    lead.opens()
    expect(page.locator("#export")).to_contain_text("since the last data set")
    lead.opens("datasets")
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".jobs")).to_have_count(0)
