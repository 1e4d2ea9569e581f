"""The page of a project: what it says of its steps, what comes next, and what needs a look."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.prediction.failures import FailureStore
from backend.runs.agreement import AGREEMENT
from backend.runs.dataset import DATASETS, AskedDataset
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.run import AskedNothing, RunKind
from backend.runs.run_store import RunStore
from backend.runs.words import WORDS, AskedWords
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.fakes.local_server import Answer
from tests.backend.runs import samples
from tests.backend.web.browser import Dashboard

PAGE = "/projects/7"
CHECK = msgspec.structs.replace(samples.CHECKED_WORDS, labels=("red", "blue"), advice=())


@pytest.fixture
def studio() -> FakeStudio:
    data = {"image": "data:,"}
    return FakeStudio(brush_config("red", "blue"), dict.fromkeys(range(1, 11), data))


@pytest.fixture
def database() -> Database:
    return Database.from_settings(Settings())


def keep(database: Database, kind: RunKind[Any, Any], asked: Any, report: Any) -> None:
    """Let a run be done."""
    RunStore(database).add_done(kind, 7, asked, report, created=2.5e9)


def figures(lead: Dashboard) -> dict[str, Any]:
    shown: dict[str, Any] = lead.client.get(PAGE).get_json()
    return shown


def paint(studio: FakeStudio, task: int, label: str) -> None:
    """Let a task have an annotation with one region."""
    value = {"format": "rle", "rle": [], "brushlabels": [label]}
    region = {"id": "a", "from_name": "mask", "to_name": "image", "type": "brushlabels"}
    studio.annotate(task, [region | {"value": value}])


def read(database: Database, *tasks: int, updated: float = 2e9, kind: Any = "compared") -> None:
    """Let the backend have read an annotation of each task, with its figures."""
    annotations = AnnotationStore(database, "reader")
    for task in tasks:
        annotations.mark(7, [task])
        made = ReadAnnotation(task, 7, task, kind, "m", 1, 60.0, updated, updated)
        annotations.complete(annotations.lease(1)[0], made)


def test_the_next_step_moves_from_words_to_the_export(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    assert (figures(lead)["next"], figures(lead)["words"]) == ("words", None)
    keep(database, WORDS, AskedWords(), CHECK)
    shown = figures(lead)
    assert (shown["next"], shown["words"]["weak"]) == ("prelabel", 0)
    assert shown["counts"] == {
        "tasks": 10, "left": 10, "waiting": 10, "older": 0, "unknown": {}
    }  # fmt: skip
    for task in (1, 2):
        studio.add(task, "an older version")
    assert figures(lead)["counts"]["older"] == 2
    assert "Prelabel again" in lead.page(PAGE).text
    answer = lead.post("/jobs", {"project": "7"})
    said = lead.page(answer.headers["Location"])
    assert "job 1: tasks without annotations" in " ".join(said.text.split())
    assert figures(lead)["next"] == "correct", "its masks are on their way"
    for task in studio.tasks:
        paint(studio, task, "red")
    read(database, *studio.tasks)
    shown = figures(lead)
    assert (shown["counts"]["left"], shown["next"]) == (0, "export")
    assert shown["data_set"]["corrected_since"] == 10
    keep(database, DATASETS, AskedDataset(), samples.DATASET)
    read(database, 11, updated=3e9)
    read(database, 12, updated=3e9, kind="skipped")
    assert figures(lead)["data_set"]["corrected_since"] == 1


def test_the_numbers_of_the_steps_add_up_and_hours_are_at_todays_pace(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    for task in (1, 2, 3, 4):
        paint(studio, task, "red")
    read(database, *range(100, 120))
    shown = figures(lead)
    counts = shown["counts"]
    assert (counts["tasks"], counts["left"], counts["waiting"]) == (10, 6, 6)
    assert shown["hours"]["hours"] == pytest.approx(6 * 60 / 3600)
    page = lead.page(PAGE).text
    assert "4 of 10 tasks done, 6 left: about 6 min at today's pace" in " ".join(page.split())


def test_what_needs_a_look_is_counted_and_linked(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    FailureStore(database).add([(3, "It is gone.")], project=7)
    keep(database, LABEL_ERRORS, AskedNothing(), samples.LABEL_ERRORS)
    keep(database, AGREEMENT, AskedNothing(), samples.AGREEMENT)
    for task in range(1, 6):
        paint(studio, task, "red")
    paint(studio, 6, "crimson <b>")
    found = {each["what"]: each for each in figures(lead)["findings"]}
    assert {what: each["count"] for what, each in found.items()} == {
        "task without a prediction": 1,
        "suspicious annotations": 2,
        "pictures on which annotators disagree": 400,
        "region has the label 'crimson <b>', which the label config no longer has": 1,
    }
    page = lead.page(PAGE)
    assert 'alias="crimson <b>"' in page.text
    assert {f"{PAGE}/label-errors", f"{PAGE}/agreement"} <= {*page.links}
    for link in page.links:
        if link.startswith(PAGE):
            assert lead.client.get(link, headers={"Accept": "text/html"}).status_code == 200


def test_a_label_studio_that_does_not_answer_costs_only_its_numbers(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    keep(database, WORDS, AskedWords(), CHECK)
    studio.fault = lambda asked: Answer(503) if "summary" in asked.path else None
    shown = figures(lead)
    assert (shown["counts"], shown["next"], shown["words"]["labels"]) == (None, "", 2)
    assert "Label Studio does not say how far the project is" in lead.page(PAGE).text
