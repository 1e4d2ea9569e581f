"""An annotator prompts with clicks, boxes and words, and gets one mask; in Chromium.

The scene has two dogs, one before the other: to the label they are one thing, to a click two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Response

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from backend.label_studio.set_up import label_config
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import Canvas, drag, keep_editor_picture, settled, submit, switch, visit
from tests.e2e.masks import Mask, decode, iou, masks_of
from tests.e2e.servers import sdk

SEED = 10_000_004
LABELS = ["sky", "house", "dog", "tree", "water", "snow", "mountain"]
FRONT_DOG, BACK_DOG = (355, 390), (300, 470)  # rows and columns of pixels that are clicked,
NEAR_FRONT, NEAR_BACK = (350, 405), (312, 482)  # and of some beside them: a click leaves its mark
SUGGESTIONS = "[...Htx.annotationStore.selected.suggestions.values()]"
REGIONS = "Htx.annotationStore.selected.regions"
IS_BRUSH = "r => r.type === 'brushregion'"
ASKED = "/interactive-annotating"


@dataclass
class Annotator:
    page: Page
    studio: LabelStudioProcess
    task: int
    truth: Any
    answers: list[Response] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("response", self._note)
        self.canvas = Canvas(self.page, self.truth.shape)
        self.bare: Any = None

    def _note(self, answer: Response) -> None:
        if answer.url.endswith(ASKED):
            self.answers.append(answer)

    def leave(self) -> None:
        self.page.remove_listener("response", self._note)

    def of(self, label: str) -> Mask:
        return np.asarray(self.truth == SCENE_LABELS.index(label))

    def takes(self, tool: str, label: str) -> None:
        """Choose a tool, and select a label unless it is empty."""
        self.page.locator(".lsf-tool_smart").first.hover()
        self.page.locator(f"[aria-label={tool}]").last.click()
        chip = self.page.locator(".lsf-label").filter(has_text=label)
        if label and "lsf-label_selected" not in str(chip.get_attribute("class")):
            chip.click()  # it stays selected after a prompt
        self.page.mouse.move(5, 5)
        if self.bare is None:  # before, the brush's slider may lie over the picture
            self.bare, in_sight = self.canvas.read_pixels()
            assert in_sight.mean() > 0.8

    def asks(self, prompt: Any) -> None:
        """Do something that sends a prompt, and wait until the response is drawn."""
        ids = f"[...{SUGGESTIONS}, ...{REGIONS}].filter({IS_BRUSH}).map(r => r.id + r.rle).join()"
        before = self.page.evaluate(ids)
        with self.page.expect_response(lambda answer: answer.url.endswith(ASKED)) as asked:
            prompt()
        assert asked.value.status == 200
        self.page.wait_for_function(f"before => {ids} !== before", arg=before)
        settled(self.page)

    def clicks(self, label: str, pixel: tuple[int, int], key: str = "") -> None:
        self.takes("key-point-tool", label)
        if key:
            self.page.keyboard.down(key)
        self.asks(lambda: self.page.mouse.click(*self.canvas.on_screen(*pixel)))
        if key:
            self.page.keyboard.up(key)
        self.page.mouse.move(5, 5)

    def draws_box(self, label: str, mask: Mask) -> None:
        self.takes("rectangle-tool", label)
        rows, columns = np.nonzero(mask)
        start = self.canvas.on_screen(rows.min(), columns.min())
        end = self.canvas.on_screen(rows.max(), columns.max())

        by = (end[0] - start[0], end[1] - start[1])
        self.asks(lambda: drag(self.page, start, by))
        self.page.mouse.move(5, 5)

    def types(self, words: str) -> None:
        """Type words while no label is selected: an accepted answer would get that one."""
        self.page.keyboard.press("Escape")
        self.page.fill("[name=words]", words)
        self.asks(lambda: self.page.keyboard.press("Shift+Enter"))

    def labels(self, regions: str) -> list[str]:
        found: list[str] = self.page.evaluate(f"{regions}.filter({IS_BRUSH}).map(r => r.labels[0])")
        return found

    def brushes(self) -> list[dict[str, Any]]:
        what = "r => ({clean: r.cleanId, label: r.labels[0], rle: [...r.rle]})"
        found: list[Any] = self.page.evaluate(f"{REGIONS}.filter({IS_BRUSH}).map({what})")
        return found

    def seen(self) -> Mask:
        """Return the image's pixels that changed on the screen since the first tool was chosen."""
        shown, _ = self.canvas.read_pixels()
        return np.asarray(np.abs(shown - self.bare).sum(axis=2) > 20)

    def accepts(self) -> None:
        self.page.click("[data-testid=bottombar-accept-suggestions-button]")
        self.page.wait_for_function(f"{SUGGESTIONS}.length === 0")

    def submits(self) -> list[dict[str, Any]]:
        submit(self.page, self.task)
        self.page.wait_for_timeout(1500)  # what the editor asks after that, and adds
        (annotation,) = sdk(self.studio).annotations.list(id=self.task)
        result: list[dict[str, Any]] = annotation.result
        return result


@pytest.fixture(scope="module")
def project(studio: LabelStudioProcess, backend_url: str) -> Iterator[int]:
    """Make a project with `overlap="false"` that shows no predictions."""
    config = label_config(LABELS).replace('name="mask"', 'name="mask" overlap="false"')
    config = config.replace("</View>", '<TextArea name="words" toName="image"/></View>')
    assert config.count("overlap") == config.count("words") == 1
    made = sdk(studio).projects.create(
        title="On demand", label_config=config, evaluate_predictions_automatically=False
    )
    demo.connect(studio, made.id, backend_url)
    sdk(studio).projects.update(id=made.id, show_collab_predictions=False)
    yield int(made.id)
    sdk(studio).projects.delete(id=made.id)


@contextmanager
def sitting_down(
    page: Page, studio: LabelStudioProcess, project: int, task: int, predicted: int = -1
) -> Iterator[Annotator]:
    """Open a task with more than so many masks, and let tools ask the backend."""
    visit(page, f"{studio.url}/projects/{project}/data?task={task}")
    page.wait_for_selector(".konvajs-content canvas")
    switch(page, "auto-annotation", True)
    switch(page, "auto-accept", False)
    page.wait_for_function(f"{REGIONS}.filter({IS_BRUSH}).length > {predicted}")
    settled(page)
    annotator = Annotator(page, studio, task, render_scene(SEED).label_map)
    yield annotator
    annotator.leave()


@pytest.fixture
def annotator(page: Page, studio: LabelStudioProcess, project: int) -> Iterator[Annotator]:
    demo.upload(studio, project, [demo.scene_file(SEED)])
    task = max(task.id for task in sdk(studio).tasks.list(project=project))
    with sitting_down(page, studio, project, task) as made:
        yield made


def test_a_click_then_a_click_beside_it(annotator: Annotator, tmp_path: Path) -> None:
    annotator.clicks("dog", FRONT_DOG)
    assert annotator.labels(SUGGESTIONS) == ["dog"]
    both = annotator.seen()
    assert both[NEAR_FRONT]
    assert both[NEAR_BACK]
    assert iou(both, annotator.of("dog")) > 0.6

    annotator.clicks("dog", BACK_DOG, key="Alt")
    assert annotator.labels(SUGGESTIONS) == ["dog"]
    front = annotator.seen()
    assert front[NEAR_FRONT]
    assert not front[NEAR_BACK]
    assert (front & ~both).mean() < 0.001
    assert 0.4 < front.sum() / both.sum() < 0.8
    keep_editor_picture(annotator.page, "on_demand.png", tmp_path)

    annotator.accepts()
    assert annotator.labels(REGIONS) == ["dog"]
    brush, stored = annotator.submits()
    assert [brush["type"], stored["type"], *stored["value"]["labels"]] == ["brush", "labels", "dog"]
    assert iou(decode(stored), front) > 0.9
    assert decode(stored)[FRONT_DOG]
    assert not decode(stored)[BACK_DOG]
    assert annotator.labels(REGIONS) == ["dog"]
    assert not annotator.labels(SUGGESTIONS)


def test_a_click_without_a_selected_label_gets_the_one_that_the_words_give(
    annotator: Annotator,
) -> None:
    annotator.clicks("", FRONT_DOG)
    assert annotator.labels(SUGGESTIONS) == ["dog"]
    likeliest = annotator.seen()
    annotator.clicks("", FRONT_DOG, key="Control")  # the same click again
    assert annotator.labels(SUGGESTIONS) == ["dog"]
    assert iou(likeliest, annotator.seen()) < 0.9, "the next size"
    annotator.accepts()
    assert annotator.labels(REGIONS) == ["dog"]
    types = annotator.page.evaluate(f"{REGIONS}.map(r => r.type)")
    assert types == ["brushregion"], "no key point stays"


def test_a_box_then_words_beside_it(annotator: Annotator) -> None:
    house = annotator.of("house")
    annotator.draws_box("house", house)
    assert annotator.labels(SUGGESTIONS) == ["house"]
    # Accepted regions come with the draft, which the editor saves some seconds later.
    with annotator.page.expect_response(lambda answer: "/drafts" in answer.url):
        annotator.accepts()

    before = annotator.seen()
    annotator.types("sea -> water")
    assert annotator.labels(SUGGESTIONS) == ["water"]
    assert iou(annotator.seen() & ~before, annotator.of("water")) > 0.7
    annotator.accepts()

    stored = annotator.submits()
    masks = masks_of(stored)
    assert len(stored) == 5  # two of each region, and the words are kept as well
    assert masks.keys() == {"house", "water"}
    rows, columns = np.nonzero(house)
    outside = np.ones_like(house)
    outside[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3] = False
    assert not (masks["house"] & outside).any()
    assert iou(masks["house"], house) > 0.8
    assert iou(masks["water"], annotator.of("water")) > 0.7
    assert not (masks["house"] & masks["water"]).any()


@pytest.fixture
def prelabeled(page: Page, studio: LabelStudioProcess, backend_url: str) -> Iterator[Annotator]:
    """Open a task whose predictions are shown, as a project has it that is set up as documented."""
    config = label_config(LABELS)
    made = sdk(studio).projects.create(
        title="Prelabeled and on demand", label_config=config, show_collab_predictions=True
    )
    demo.upload(studio, made.id, [demo.scene_file(SEED)])
    demo.connect(studio, made.id, backend_url)
    demo.retrieve_predictions(studio, made.id)
    (task,) = sdk(studio).tasks.list(project=made.id)
    with sitting_down(page, studio, made.id, task.id, predicted=2) as annotator:
        yield annotator
    sdk(studio).projects.delete(id=made.id)


def test_on_a_predicted_region_ctrl_click_asks_and_a_plain_click_where_regions_are_hidden(
    prelabeled: Annotator,
) -> None:
    page = prelabeled.page
    assert "dog" in prelabeled.labels(REGIONS)
    prelabeled.takes("key-point-tool", "dog")
    page.mouse.click(*prelabeled.canvas.on_screen(*FRONT_DOG))
    page.wait_for_timeout(1500)
    assert not prelabeled.answers, "Label Studio selects the region"
    page.keyboard.press("Escape")
    before = {each["clean"]: each for each in prelabeled.brushes()}
    (old,) = (each for each in before.values() if each["label"] == "dog")
    prelabeled.clicks("dog", FRONT_DOG, key="Control")
    assert prelabeled.labels(SUGGESTIONS) == ["dog"]
    assert len(prelabeled.answers) == 1
    prelabeled.accepts()
    after = {each["clean"]: each for each in prelabeled.brushes()}
    assert after.keys() == before.keys(), "it took the place of the predicted one"
    changed = {name for name in before if before[name]["rle"] != after[name]["rle"]}
    assert changed == {old["clean"]}
    page.keyboard.press("Control+z")
    page.wait_for_function(f"{REGIONS}.some(r => r.rle?.length === {len(old['rle'])})")
    page.keyboard.press("Control+Shift+z")
    page.wait_for_function(f"{SUGGESTIONS}.length === 0")
    page.click("[aria-label='Hide all regions']")
    page.wait_for_function(f"{REGIONS}.every(r => r.hidden)")
    prelabeled.clicks("dog", FRONT_DOG)
    assert prelabeled.labels(SUGGESTIONS) == ["dog"]
