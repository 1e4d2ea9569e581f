"""The page of a project: what it says of its steps, what comes next, and what needs a look."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.jobs.change_poller import PollStore, UnservedTask
from backend.jobs.connection_watch import ConnectionWatch
from backend.label_studio.client import LabelStudioClient
from backend.projects.failures import FailureStore
from backend.projects.scores import ScoreStore
from backend.runs.agreement import AGREEMENT
from backend.runs.dataset import DATASETS, AskedDataset
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.run_store import AskedNothing, RunKind, RunStore
from backend.runs.runner import KINDS
from backend.runs.words import WORDS, AskedWords
from backend.settings import Settings
from backend.views.project import REMAKING
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.learning_stores import LearningStores
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.runs import samples
from tests.backend.runs.samples import CHECKED_WORDS
from tests.backend.web.browser import PEOPLE, Dashboard, Page, started

PAGE = "/projects/7"
CONFIG = brush_config("red", "blue")
CHECK = msgspec.structs.replace(CHECKED_WORDS, labels=("red", "blue"), advice=(), config=CONFIG)


@pytest.fixture
def studio() -> FakeStudio:
    tasks = {number: {"image": "data:,"} for number in range(1, 11)}
    return FakeStudio(CONFIG, tasks, titles={7: "Streets"})


@pytest.fixture
def database() -> Database:
    return Database.from_settings(Settings())


def keep(database: Database, kind: RunKind[Any, Any], asked: Any, report: Any) -> None:
    RunStore(database).add_done(kind, 7, asked, report, created=2.5e9)


def figures(lead: Dashboard) -> dict[str, Any]:
    shown: dict[str, Any] = lead.client.get(PAGE).get_json()
    return shown


def paint(studio: FakeStudio, task: int, label: str, control: str = "mask") -> None:
    value = {"format": "rle", "rle": [], "brushlabels": [label]}
    region = {"id": "a", "from_name": control, "to_name": "image", "type": "brushlabels"}
    studio.annotate(task, [region | {"value": value}])


def read(database: Database, *tasks: int, updated: float = 2e9, kind: Any = "compared") -> None:
    annotations = AnnotationStore(database, "reader")
    for task in tasks:
        annotations.mark(7, [task])
        made = ReadAnnotation(task, 7, task, kind, "m", 1, 60.0, updated, updated)
        annotations.complete(annotations.lease(1)[0], made)


def test_tasks_that_are_not_served_are_linked(lead: Dashboard, database: Database) -> None:
    polls = PollStore(database, "me")
    polls.add(7, 0)
    poll = polls.lease()
    assert poll is not None
    unserved = {task: UnservedTask("HTTP 500.", 1, 0.0, 0.0) for task in range(3, 10)}
    polls.finish(replace(poll, unserved=unserved), 60)
    page = lead.page(PAGE)
    for task in range(3, 8):
        assert f"1 task that Label Studio cannot serve: {task}" in page.text
        assert f"/projects/7/data?task={task}" in "".join(page.links)
    assert "2 more such tasks" in page.text
    assert "doctor --project 7" in page.text


def test_the_next_step_moves_on(lead: Dashboard, studio: FakeStudio, database: Database) -> None:
    assert (figures(lead)["next"], figures(lead)["words"]) == ("words", None)
    keep(database, WORDS, AskedWords(), CHECK)
    shown = figures(lead)
    assert (shown["next"], shown["words"]["weak"]) == ("prelabel", 0)
    counts = shown["counts"]
    assert [counts[name] for name in ("tasks", "left", "waiting", "older")] == [10, 10, 10, 0]
    for task in (1, 2):
        studio.add(task, "an older version")
    assert figures(lead)["counts"]["older"] == 2
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


def test_a_task_is_done_when_label_studio_takes_it_for_finished(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    """Tasks that need two people are not done after one of them."""
    studio.overlap = 2
    keep(database, WORDS, AskedWords(), CHECK)
    for task in studio.tasks:
        studio.annotate(task, [], completed_by=1)
    read(database, *studio.tasks)
    shown = figures(lead)
    assert (shown["counts"]["left"], shown["next"]) == (10, "correct")
    assert "0 of 10 tasks done, 10 left (10 need somebody" in " ".join(lead.page(PAGE).text.split())

    studio.annotate(1, [], completed_by=2)
    assert figures(lead)["progress"].startswith("of 10 tasks done, 9 left")
    for task in range(2, 11):
        studio.annotate(task, [], completed_by=2)
    assert (figures(lead)["counts"]["left"], figures(lead)["next"]) == (0, "export")


def test_hours_are_of_all_annotations_that_tasks_need(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    studio.overlap = 3
    read(database, *range(100, 120))  # a minute each
    studio.annotate(1, [], completed_by=1)
    studio.annotate(2, [], completed_by=1)
    studio.annotate(2, [], completed_by=2)
    assert figures(lead)["hours"]["hours"] == pytest.approx((10 * 3 - 3) / 60)


def test_hours_of_a_share_of_tasks_that_several_people_annotate(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    studio.overlap, studio.overlap_percent = 3, 35  # tasks 1 to 4 of 10
    read(database, *range(100, 120))  # a minute each
    for person in (1, 2, 3):
        studio.annotate(1, [], completed_by=person)
    studio.annotate(2, [], completed_by=1)
    studio.annotate(9, [], completed_by=1)
    needed = 2 + 2 * 3 + 5  # of task 2, of 3 and 4, of the others without an annotation
    assert figures(lead)["hours"]["hours"] == pytest.approx(needed / 60)


def test_the_page_renews_itself_where_a_job_ends_after_its_tasks_were_counted(
    lead: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, count = started(lead), LabelStudioClient.region_counts

    def end(client: LabelStudioClient, project: int) -> Any:
        lead.store.finish(job, "worker")
        return count(client, project)

    monkeypatch.setattr(LabelStudioClient, "region_counts", end)
    assert lead.page(PAGE).next_page == PAGE
    assert not lead.page(PAGE).next_page


def test_what_needs_a_look_is_counted_and_linked(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    FailureStore(database).add([(3, "It is gone.")], project=7)
    keep(database, LABEL_ERRORS, AskedNothing(), samples.LABEL_ERRORS)
    keep(database, AGREEMENT, AskedNothing(), samples.AGREEMENT)
    for task in range(1, 6):
        paint(studio, task, "red")
    paint(studio, 6, "crimson <b>")
    paint(studio, 6, "red", "tag <b>")
    found = {each["what"]: each for each in figures(lead)["findings"]}
    assert {what: each["count"] for what, each in found.items()} == {
        "task without a prediction": 1,
        "suspicious annotations": 2,
        "pictures on which annotators disagree": 400,
        "region has the label 'crimson <b>', which the labeling config no longer has, "
        "counted in all annotations": 1,
        "region made with the control 'tag <b>', which the labeling config lacks, "
        "counted in all annotations": 1,
    }
    page = lead.page(PAGE)
    assert 'alias="crimson <b>"' in page.text
    assert {f"{PAGE}/label-errors", f"{PAGE}/agreement"} <= {*page.links}
    for link in page.links:
        if link.startswith(PAGE):
            assert lead.client.get(link, headers={"Accept": "text/html"}).status_code == 200


def test_a_label_that_only_imported_annotations_have_needs_a_look(
    lead: Dashboard, database: Database
) -> None:
    """Label Studio's summary leaves them out, as in a copied project."""
    annotations = AnnotationStore(database, "reader")
    annotations.mark(7, [1])
    regions = {"mask|image|brushlabels": {"crimson": 3, "red": 1}}
    made = ReadAnnotation(1, 7, 1, "scratch", regions=regions)
    annotations.complete(annotations.lease(1)[0], made)
    (found,) = (each for each in figures(lead)["findings"] if "crimson" in each["what"])
    assert found["count"] == 3


def test_pictures_are_shown_once_no_job_is_at_work(lead: Dashboard, database: Database) -> None:
    asked = {"project": "7.1", "schema": CONFIG}
    version = lead.client.post("/setup", json=asked).get_json()["model_version"]
    ScoreStore(database).keep(7, version, {1: 0.2, 2: 0.9})
    pictures = [f"{PAGE}/tasks/1/picture", f"{PAGE}/tasks/2/picture"]
    assert [each["src"] for each in lead.page(PAGE).all("img")] == pictures
    assert lead.client.post("/jobs", json={"project": 7}).status_code == 201
    assert lead.page(PAGE).all("img") == []


def test_while_label_studio_is_away_the_last_numbers_are_shown_with_their_age(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    keep(database, WORDS, AskedWords(), CHECK)
    away = lambda _: Answer(503)  # noqa: E731
    studio.fault = away
    shown = figures(lead)
    assert (shown["counts"], shown["next"], shown["words"]["labels"]) == (None, "", 2)
    page = lead.page(PAGE).text
    assert "Label Studio does not say how far the project is:" in page
    assert "Nothing found." not in page
    assert "Set up" not in page, "it may not be there"
    studio.fault = lambda asked: None
    known = figures(lead)
    assert (known["counts"]["left"], known["counted"], known["next"]) == (10, None, "prelabel")
    assert "Set up" in lead.page(PAGE).text
    studio.fault = away
    studio.tasks.clear()
    later = figures(lead)
    assert (later["counts"], later["next"]) == (known["counts"], "prelabel")
    assert "so the numbers of tasks are those of just now:" in lead.page(PAGE).text


def test_pictures_that_cannot_be_read_stop_nobody_from_correcting_the_others(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    keep(database, WORDS, AskedWords(), CHECK)
    asked = {"project": "7.1", "schema": CONFIG}
    for task in range(3, 11):
        studio.add(task, lead.client.post("/setup", json=asked).get_json()["model_version"])
    gone = [(task, "It is gone.") for task in (1, 2, 99)]
    FailureStore(database).add(gone, project=7)
    studio.annotate(10, [], was_cancelled=True)
    counts = figures(lead)["counts"]
    assert [counts[name] for name in ("left", "waiting", "failed", "skipped")] == [9, 2, 2, 1]
    assert figures(lead)["next"] == "correct"
    page = lead.page(PAGE)
    assert any(link.endswith("/projects/7/data?labeling=1") for link in page.links)
    assert "Try the 2 again" in page.text
    assert "0 of 10 tasks done, 9 left, 1 skipped" in " ".join(page.text.split())


def test_words_that_were_changed_since_they_were_checked_are_checked_again(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    keep(database, WORDS, AskedWords(), CHECK)
    studio.label_config = CONFIG.replace('<Label value="red"', '<Label value="red" hint="new"')
    assert not figures(lead)["words"]["is_old"], "the words are the same"
    studio.label_config = brush_config("red", "green")
    shown = figures(lead)
    assert (shown["words"]["is_old"], shown["next"]) == (True, "words")
    lead.client.post("/projects/7/words", json={})
    shown = figures(lead)
    assert (shown["words"]["at"], shown["next"]) == (None, "prelabel")


def test_while_a_version_is_made_again_nothing_older_is_offered(
    lead: Dashboard, studio: FakeStudio, database: Database
) -> None:
    """With another model than before, the words alone would predict over better masks."""
    keep(database, WORDS, AskedWords(), CHECK)
    for task in studio.tasks:
        studio.add(task, "of the version that was in use")
    assert "Prelabel the 10 that are left" in lead.page(PAGE).text
    before = LearningStores.of(database, "me", lambda: "another model")
    before.replace_all(1)
    before.make_version()
    assert figures(lead)["next"] == "correct"
    page = lead.page(PAGE).text
    assert "Prelabel the 10 that are left" not in page
    assert REMAKING in page


def test_a_project_that_is_gone_has_none(lead: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = lead.client.get("/projects/999", headers=PEOPLE)
    assert (answer.status_code, "Reset" in Page(answer).text) == (404, False)
    assert lead.client.get("/projects/999").status_code == 404
    assert lead.client.get("/projects/999/learning").status_code == 200, "nobody has listed them"
    monkeypatch.setattr(ConnectionWatch, "is_gone", lambda self, project: True)  # both are new
    for page in ("learning", "report", "words", "datasets"):
        assert lead.client.get(f"/projects/999/{page}").status_code == 404, page
        assert lead.client.get(f"/projects/7/{page}").status_code == 200, page


#: Route -> the body of a program, and that of a form.
STARTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "/jobs": ({"project": 8}, {"project": "8"}),
    "/jobs/1/withdraw": ({}, {}),
    **{f"/projects/8/{kind.name}": ({}, {}) for kind in KINDS},
    "/projects/8/words": ({}, {"pictures": "8"}),
    "/projects/8/datasets": ({}, {"formats": "coco"}),
}


def test_nothing_is_started_in_a_project_that_is_not_there(lead: Dashboard) -> None:
    job = lead.store.start_job(8)
    lead.store.lease_job("worker", job.id)
    lead.store.advance(job.id, "worker", version="v2", total=1, done=1)
    lead.store.finish(job.id, "worker")
    for path, (body, form) in STARTS.items():
        refused, on_page = lead.client.post(path, json=body), lead.post(path, form)
        assert (refused.status_code, on_page.status_code) == (404, 404), path
        assert refused.get_json()["error"].startswith("Label Studio has no project 8, or ")
        assert "Label Studio has no project 8" in Page(on_page).text
    assert [job["id"] for job in lead.client.get("/jobs").get_json()["jobs"]] == [1]
    for kind in KINDS:
        assert lead.client.get(f"/projects/8/{kind.name}").get_json()["runs"] == [], kind.name
        assert lead.client.post(f"/projects/7/{kind.name}", json={}).status_code == 202


@pytest.mark.parametrize("status", [401, 403, 500, 503, None])
def test_a_job_is_taken_where_label_studio_does_not_say_whether_the_project_is_there(
    status: int | None,
) -> None:
    """It waits then, and says why; a page in Label Studio's place says nothing either."""
    answer = Answer(404, b"<html>Not here.</html>") if status is None else Answer(status, b"{}")
    with LocalServer(lambda asked: answer) as server:
        lead = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        assert lead.client.post("/jobs", json={"project": 8}).status_code == 201
        assert len(server.asked) == 1, "it is asked once"


def test_the_number_of_a_project_is_one_that_a_database_can_hold(lead: Dashboard) -> None:
    rules = [each.rule for each in lead.app.url_map.iter_rules()]
    below = [each for each in rules if each.startswith("/projects/")]
    assert len(below) > 20
    start = "/projects/<int(min=1, max=2147483647):project>"
    assert [each for each in below if not each.startswith(start)] == []
    for project in ("0", "2147483648", "-1", "seven", "1e3"):
        assert lead.client.get(f"/projects/{project}/report").status_code == 404


SET = ": set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."
JOBS = "To prelabel a project this backend writes to Label Studio"
RUNS = {f"/projects/7/{kind.name}": kind.use for kind in KINDS}


def test_what_needs_label_studio_is_refused() -> None:
    lead = Dashboard(label_studio_api_key=None)
    views = {f"/projects/7/{kind.name}/view": kind.use for kind in KINDS if kind.tasks}
    step = {"/projects/7/learning/step": "A project learns from what Label Studio has"}
    for address, said in (RUNS | views | step | {"/jobs": JOBS}).items():
        answer = lead.client.post(address, json={"project": 7} if address == "/jobs" else {})
        assert (answer.status_code, answer.get_json()) == (400, {"error": said + SET})


def test_a_page_says_so_before_anybody_tries() -> None:
    lead = Dashboard(label_studio_api_key=None)
    report = {"/projects/7/report": "What annotators change is read from Label Studio"}
    for address, said in (RUNS | report | {"/": JOBS, "/projects/7": JOBS}).items():
        page = lead.page(address)
        assert said + SET in " ".join(page.text.split())
        assert page.all("form") == []
