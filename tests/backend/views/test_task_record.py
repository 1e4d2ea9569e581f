"""The record of a task is what Label Studio and the database say of it, in order of time."""

import pytest

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.experiment import ExperimentStore
from backend.projects.failures import FailureStore
from backend.review.verdicts import Reviewed, ReviewStore
from backend.services import Services
from backend.settings import Settings
from backend.views.task_record import TaskRecord, task_record
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("sky", "car"), {3: {"image": "a.png"}})


@pytest.fixture
def services(server: LocalServer) -> Services:
    return Services(Settings(label_studio_url=server.url, label_studio_api_key=TOKEN))


def record_of(services: Services) -> TaskRecord:
    record = task_record(services, 7, 3)
    assert record is not None
    return record


def sentences(services: Services) -> list[str]:
    return [each.sentence for each in record_of(services).entries]


def test_a_task_that_nobody_has_touched_says_so(services: Services) -> None:
    assert sentences(services) == ["Nothing has happened to it yet."]


def test_a_task_that_is_nowhere_has_no_record(services: Services) -> None:
    assert task_record(services, 7, 99) is None


def test_predictions_name_their_version_and_score(studio: FakeStudio, services: Services) -> None:
    studio.add(3, "v1")
    (said,) = sentences(services)
    assert said.endswith("of v1, with the score 0.50.")


def test_failures_give_their_reason(services: Services) -> None:
    FailureStore(services.database).add([(3, "The picture is gone.")], job=5, project=7)
    assert sentences(services) == ["Job 5 could not predict it: The picture is gone."]


def test_a_verdict_names_who_gave_it(services: Services) -> None:
    said = Reviewed(3, 30, "work", 1.2, "v1")
    ReviewStore(services.database).save(7, 1, "seat", [said], since=0.0, person="Ada")
    (sentence,) = sentences(services)
    assert sentence == "Ada called the prediction of v1 in need of work in the review."


def test_annotations_say_who_made_them_and_how_they_were_read(
    studio: FakeStudio, services: Services
) -> None:
    made = studio.annotate(3, [], 1e9)["id"]
    annotations = AnnotationStore(Database.from_settings(services.settings), "who reads")
    annotations.mark(7, [made])
    read = ReadAnnotation(made, 7, 3, "scratch", created=1e9, updated=1e9)
    annotations.complete(annotations.lease(1)[0], read)
    said = sentences(services)
    assert any(f"made annotation {made}" in each for each in said)
    assert f"Annotation {made} was read: it began from nothing, and it teaches nothing." in said


def test_withheld_tasks_are_named(services: Services) -> None:
    experiments = ExperimentStore(services.database)
    experiments.begin(7)
    drawn = experiments.withhold(7, range(1, 500))
    assert drawn
    record = task_record(services, 7, min(drawn))
    assert record is not None
    assert "while the time that predictions save is measured" in record.entries[-1].sentence


def test_what_the_database_knows_is_told_while_label_studio_is_away(
    services: Services, server: LocalServer
) -> None:
    FailureStore(services.database).add([(3, "The picture is gone.")], job=5, project=7)
    server.__exit__()
    record = record_of(services)
    assert record.entries[0].sentence == "Job 5 could not predict it: The picture is gone."
    assert record.trouble.startswith("Label Studio does not say what the task holds")


def test_a_task_of_another_project_has_no_record(services: Services) -> None:
    assert task_record(services, 8, 3) is None
