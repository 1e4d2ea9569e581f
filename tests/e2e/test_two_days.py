"""A lead and two annotators live two days in Label Studio as README's reader starts it.

Their project has a past: annotations that came with its tasks, and a labeling config of its own.
Each scene is a fixture that goes on where the one before has ended, and tells what was seen then;
each test is a fact of a scene. The second day begins after a night for which both servers were off.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from backend.cli import demo
from backend.database.database import Database
from backend.jobs.job_store import JobStore
from clearclip_core import SCENE_LABELS, render_scene
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.local_server import LocalServer
from tests.backend.fakes.waiting import wait_for
from tests.e2e.masks import brush_region, scene_seed
from tests.e2e.people import Person
from tests.e2e.reviewer import Reviewer, accepted
from tests.e2e.servers import OwnBackend, OwnLabelStudio, finished_run, wait_for_json
from tests.e2e.slow_studio import SlowStudio

pytestmark = pytest.mark.thorough

LABELS = ["sky", "grass", "tree", "house"]
CONFIG = """<View><Image name="picture" value="$photo"/>
  <BrushLabels name="mask" toName="picture">
    <Label value="sky"/><Label value="grass"/><Label value="tree"/><Label value="house"/>
  </BrushLabels></View>"""

IMPORTED = [10_000_900 + number for number in range(4)]
FIRST_DAY = [10_000_910 + number for number in range(26)]
SECOND_DAY = [10_000_940 + number for number in range(8)]

#: How long an open review page keeps its tasks on the second day, in seconds.
CLAIM_S = 6.0
SHORT_CLAIMS = f"from backend.review import queue; queue._KEPT_S = {CLAIM_S}"

A_DAY = "UPDATE task_completion SET created_at = datetime(created_at, '-1 day')"

Region = dict[str, Any]


def painted(seed: int) -> list[Region]:
    """Paint a scene by hand, as it is."""
    label_map = render_scene(seed).label_map
    masks = {label: label_map == SCENE_LABELS.index(label) for label in LABELS}
    how = {"control": "mask", "image": "picture", "kind": "brushlabels"}
    return [brush_region(mask, label, **how) for label, mask in masks.items() if mask.any()]


@dataclass
class Team:
    """The people, their project, and both servers; `slow` stands between these."""

    studio: OwnLabelStudio
    backend: OwnBackend
    slow: SlowStudio
    lead: Person
    ann: Person
    bo: Person
    project: int

    @property
    def people(self) -> tuple[Person, ...]:
        return self.lead, self.ann, self.bo

    @property
    def page(self) -> str:
        return f"{self.backend.url}/projects/{self.project}"

    def post(self, path: str, **body: Any) -> requests.Response:
        """Press a button on a page of the backend, as a program does."""
        return requests.post(f"{self.backend.url}/{path}", json=body, timeout=300)

    def configure(self, config: str) -> None:
        """Have the lead change the labeling config."""
        self.lead.ask("PATCH", f"/api/projects/{self.project}/", json={"label_config": config})

    def pictures(self) -> dict[int, int]:
        """Return task -> seed of its scene, in the order of tasks."""
        query = f"/api/tasks?project={self.project}&page_size=200"
        rows = self.lead.ask("GET", query)["tasks"]
        return {row["id"]: scene_seed(row["data"]["photo"]) for row in rows}

    def predictions(self) -> dict[int, list[Region]]:
        """Return task -> its predictions, the oldest first."""
        made: dict[int, list[Region]] = {}
        for each in self.lead.ask("GET", f"/api/predictions/?project={self.project}"):
            made.setdefault(each["task"], []).append(each)
        return made

    def annotations(self) -> dict[int, list[Region]]:
        """Return task -> its annotations; skips are none."""
        path = f"/api/projects/{self.project}/export?exportType=JSON"
        exported = self.lead.ask("GET", path)
        there = {
            task["id"]: [each for each in task["annotations"] if not each["was_cancelled"]]
            for task in exported
        }
        return {task: [] for task in self.pictures()} | there

    def annotated(self) -> int:
        """Count the tasks with an annotation."""
        return sum(bool(each) for each in self.annotations().values())

    def comes(self, is_there: Callable[[dict[str, Any]], bool], page: str = "") -> dict[str, Any]:
        """Wait for what a page of the project says as JSON."""
        return wait_for_json(self.page + page, is_there)

    def ended(self, job: int) -> dict[str, Any]:
        """Wait for a job, and return it."""
        return wait_for_json(f"{self.backend.url}/jobs/{job}", lambda told: told["over"])

    def upload(self, seeds: list[int]) -> list[int]:
        """Have the lead upload scenes; return their tasks."""
        known = self.pictures()
        files = {name: (name, content) for name, content in map(demo.scene_file, seeds)}
        self.lead.ask("POST", f"/api/projects/{self.project}/import", files=files)
        return [task for task in self.pictures() if task not in known]


@pytest.fixture(scope="module")
def team(studio_command: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Sign three people up, turn old tokens off as new installations have it, and begin."""
    folder = tmp_path_factory.mktemp("two-days")
    studio = OwnLabelStudio.copied(studio_command, folder / "label-studio")
    reach = studio.start_as_readme_says()
    lead, ann, bo = (Person.sign_up(name, reach) for name in ("Lea", "Ann", "Bo"))
    tokens = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": False}
    lead.ask("POST", "/api/jwt/settings", json=tokens)
    fields = {"title": "A project with a past", "label_config": CONFIG}
    project = lead.ask("POST", "/api/projects/", json=fields)["id"]

    slow = SlowStudio(reach.url)
    with LocalServer(slow.route) as proxy:
        key = {"LABEL_STUDIO_URL": proxy.url, "LABEL_STUDIO_API_KEY": lead.make_token()}
        backend = OwnBackend(folder, key)
        try:
            backend.start()
            yield Team(studio, backend, slow, lead, ann, bo, project)
        finally:
            backend.stop()
            studio.stop()


# ---- the first morning: a project with a past is set up ------------------------------------------


@dataclass(frozen=True)
class SetUp:
    refused: requests.Response  # to a press at which Label Studio forbids the connection
    answers: list[int]  # statuses of the presses
    said: str  # to the lead's colleague, who has typed another label
    imported: list[int]  # tasks that came with an annotation
    connections: list[Region]
    config: str
    predictions: dict[int, list[Region]]
    page: dict[str, Any]
    html: str  # of the page
    report: dict[str, Any]
    renamed: dict[str, Any]  # the page, while a label of imported annotations had another name


@pytest.fixture(scope="module")
def set_up(team: Team) -> SetUp:
    """Import annotated tasks, press *Set up* three times at once, and again with another label."""
    for task in team.upload(IMPORTED):
        address = team.lead.ask("GET", f"/api/tasks/{task}/")["data"]
        annotated = {
            "data": address,
            "annotations": [{"result": painted(scene_seed(address["photo"]))}],
        }
        team.lead.ask("DELETE", f"/api/tasks/{task}/")
        team.lead.ask("POST", f"/api/projects/{team.project}/import", json=[annotated])
    imported = [*team.pictures()]
    team.upload(FIRST_DAY)

    def press(labels: str) -> requests.Response:
        asked = {"project": team.project, "url": team.backend.url, "labels": labels}
        return team.post("set-up", **asked, tools="change")

    team.slow.broken, team.slow.error = "/api/ml/", 403
    refused = press("sky")
    team.slow.broken, team.slow.error = "", 500
    with ThreadPoolExecutor(3) as together:
        answers = [*together.map(press, ["sky; grass"] * 3)]
    colleague = press("sky; lake")
    jobs = [each.json()["id"] for each in (*answers, colleague) if each.status_code == 201]
    for job in {*jobs}:
        team.ended(job)
    page = team.comes(lambda told: told["next"] == "correct")
    html = requests.get(team.page, headers={"Accept": "text/html"}, timeout=60).text
    report = team.comes(lambda told: told["annotations"]["scratch"] == 4, "/report.json")
    config = team.lead.ask("GET", f"/api/projects/{team.project}/")["label_config"]
    team.configure(CONFIG.replace('"sky"', '"heaven"'))
    renamed = team.comes(lambda told: bool(told["counts"]["unknown"]))
    team.configure(CONFIG)
    return SetUp(
        refused=refused,
        answers=[each.status_code for each in answers],
        said=colleague.json()["said"],
        imported=imported,
        connections=team.lead.ask("GET", f"/api/ml?project={team.project}"),
        config=config,
        predictions=team.predictions(),
        page=page,
        html=html,
        report=report,
        renamed=renamed,
    )


def test_a_connection_that_is_forbidden_is_no_success(set_up: SetUp) -> None:
    assert set_up.refused.status_code == 424
    assert "did not connect" in set_up.refused.json()["error"]


def test_imported_annotations_keep_the_control_that_shows_them(set_up: SetUp) -> None:
    assert set_up.config == CONFIG


def test_tools_are_not_offered_where_something_is_annotated(set_up: SetUp) -> None:
    assert "Something is annotated, so its controls have to stay." in set_up.html
    assert "offers a config with tools" not in set_up.html


def test_presses_at_once_are_done_or_told_to_wait(set_up: SetUp) -> None:
    assert set_up.answers.count(201) >= 1
    assert {*set_up.answers} <= {201, 429}


def test_presses_at_once_make_one_connection(set_up: SetUp) -> None:
    assert len(set_up.connections) == 1


def test_a_second_lead_reads_which_label_was_not_added(set_up: SetUp) -> None:
    assert "“lake” was not added" in set_up.said
    assert "sky" not in set_up.said


def test_each_task_is_predicted_once_and_annotated_ones_are_not(set_up: SetUp) -> None:
    counts = {task: len(made) for task, made in set_up.predictions.items()}
    assert counts == dict.fromkeys(range(min(counts), max(counts) + 1), 1)
    assert len(counts) == len(FIRST_DAY)
    assert not counts.keys() & {*set_up.imported}


def test_the_page_counts_imported_annotations_as_done(set_up: SetUp) -> None:
    assert set_up.page["counts"]["left"] == len(FIRST_DAY)
    assert set_up.page["progress"].startswith(f"of {len(FIRST_DAY) + 4} tasks done, 26 left")


def test_imported_annotations_are_drawn_from_nothing(set_up: SetUp) -> None:
    assert set_up.report["annotations"]["scratch"] == len(IMPORTED)


def test_a_renamed_label_of_imported_annotations_is_told(set_up: SetUp) -> None:
    regions = [each for seed in IMPORTED for each in painted(seed)]
    skies = [each for each in regions if each["value"]["brushlabels"] == ["sky"]]
    assert set_up.renamed["counts"]["unknown"] == {"sky": len(skies)}


# ---- the first morning: a second project ---------------------------------------------------------


@dataclass(frozen=True)
class Another:
    refused: requests.Response  # to the press while somebody else makes the labeling config
    config: str  # after it
    prediction: Region  # of its only task, once it was set up


@pytest.fixture(scope="module")
def another(team: Team, set_up: SetUp) -> Another:
    """Set a second project up, for which a colleague makes the labeling config at that moment."""
    project = team.lead.ask("POST", "/api/projects/", json={"title": "Another one"})["id"]
    data = team.lead.ask("GET", f"/api/tasks/{set_up.imported[0]}/")["data"]
    team.lead.ask("POST", f"/api/projects/{project}/import", json=[{"data": data}])

    def make_config() -> None:
        team.lead.ask("PATCH", f"/api/projects/{project}/", json={"label_config": CONFIG})

    def press() -> requests.Response:
        asked = {"project": project, "url": team.backend.url, "labels": "lake; sand"}
        return team.post("set-up", **asked)

    team.slow.meanwhile = f"project={project}", make_config  # when its tasks are looked at
    refused = press()
    config = team.lead.ask("GET", f"/api/projects/{project}/")["label_config"]
    team.ended(press().json()["id"])
    (prediction,) = team.lead.ask("GET", f"/api/predictions/?project={project}")
    return Another(refused, config, prediction)


def test_a_config_that_a_colleague_makes_meanwhile_stays(another: Another) -> None:
    assert another.config == CONFIG


def test_whose_config_was_made_meanwhile_reads_what_to_do(another: Another) -> None:
    assert another.refused.status_code == 409
    assert "meanwhile: set it up again" in another.refused.json()["error"]


# ---- the first day: two people correct -----------------------------------------------------------


@dataclass(frozen=True)
class FirstDay:
    done: list[int]  # tasks of Ann, then of Bo
    report: dict[str, Any]
    page: dict[str, Any]
    jobs: list[int]  # of two presses of *Prelabel*
    predictions: dict[int, list[Region]]


@pytest.fixture(scope="module")
def first_day(team: Team, set_up: SetUp) -> FirstDay:
    """Ann corrects six, Bo accepts four, draws two of Ann's as well, and skips one."""
    tasks = [task for task in team.pictures() if task in set_up.predictions]

    def known(task: int) -> dict[str, Any]:
        return {"parent_prediction": set_up.predictions[task][-1]["id"]}

    for task in tasks[:6]:
        result = set_up.predictions[task][-1]["result"]
        team.ann.annotate(task, result[:-1], **known(task))
    for task in tasks[6:10]:
        team.bo.annotate(task, set_up.predictions[task][-1]["result"], **known(task))
    pictures = team.pictures()
    for task in tasks[:2]:
        team.bo.annotate(task, painted(pictures[task]), lead_time=120.0)
    team.bo.annotate(tasks[10], [], was_cancelled=True)
    page = team.comes(lambda told: told["counts"]["left"] == len(FIRST_DAY) - 11)
    report = team.comes(
        lambda told: not told["waiting"] and sum(told["annotations"].values()) == 17, "/report.json"
    )
    presses = [team.post("jobs", project=team.project) for _ in range(2)]
    jobs = [each.json()["id"] for each in presses]
    team.ended(jobs[-1])
    return FirstDay(tasks[:10], report, page, jobs, team.predictions())


def test_two_peoples_corrections_are_compared(first_day: FirstDay) -> None:
    assert first_day.report["annotations"]["compared"] == 10


def test_a_second_annotation_of_a_task_is_drawn_from_nothing(first_day: FirstDay) -> None:
    assert first_day.report["annotations"]["scratch"] == len(IMPORTED) + 2


def test_what_ann_took_away_is_false_and_nothing_of_bo_is(first_day: FirstDay) -> None:
    assert first_day.report["all"]["total"]["false"] == 6


def test_a_skipped_task_is_neither_done_nor_left(first_day: FirstDay) -> None:
    counts = first_day.page["counts"]
    assert (counts["tasks"], counts["left"], counts["skipped"]) == (30, 15, 1)


def test_a_second_press_predicts_nothing_twice(first_day: FirstDay) -> None:
    assert {len(made) for made in first_day.predictions.values()} == {1}


# ---- the first afternoon: two review -------------------------------------------------------------


@dataclass(frozen=True)
class Review:
    anns: list[int]
    bos: list[int]
    annotations: dict[int, list[Region]]  # after Ann has taken her page back
    bo_again: str  # Bo's page, opened without the name
    page_of_ann: list[dict[str, Any]]  # as she left it open
    refused: dict[str, Any]  # to a verdict about the task of another project
    of_another: list[Region]  # annotations of that task, at the end


@pytest.fixture(scope="module")
def reviewers(team: Team, first_day: FirstDay) -> tuple[Reviewer, Reviewer]:
    return Reviewer(team.page, "Ann"), Reviewer(team.page, "Bo")


@pytest.fixture(scope="module")
def review(
    team: Team, reviewers: tuple[Reviewer, Reviewer], first_day: FirstDay, another: Another
) -> Review:
    """Ann accepts eight, Bo four of those that she has left; then Ann takes hers back."""
    ann, bo = reviewers
    page = ann.cards
    made = another.prediction
    foreign = {"task": made["task"], "prediction": made["id"], "version": made["model_version"]}
    refused = ann.says("good", [foreign])
    ann.opens()
    good = ann.cards[:8]
    ann.says("good", good)
    bo.opens()
    bos = bo.cards
    bo.says("good", bos[:4])
    written = len(accepted(good)) + len(accepted(bos[:4]))
    before = len(IMPORTED) + len(first_day.done)
    wait_for(lambda: team.annotated() == before + written, "verdicts", 60)
    ann.undoes()
    kept = len(accepted(bos[:4]))
    wait_for(lambda: team.annotated() == before + kept, "the undo", 60)
    again = bo.opens()
    return Review(
        anns=[each["task"] for each in good],
        bos=[each["task"] for each in bos[:4]],
        annotations=team.annotations(),
        bo_again=again,
        page_of_ann=page,
        refused=refused,
        of_another=team.lead.ask("GET", f"/api/tasks/{made['task']}/annotations/"),
    )


def test_two_reviewers_see_no_task_together(review: Review) -> None:
    assert review.bos
    assert not {*review.anns} & {*review.bos}


def test_an_undo_takes_back_ones_own_page_alone(review: Review) -> None:
    assert not any(review.annotations[task] for task in review.anns)
    assert any(review.annotations[task] for task in review.bos)


def test_a_browser_keeps_its_reviewers_name(review: Review) -> None:
    assert re.search(r'name="person"[^>]*value="Bo"', review.bo_again)


def test_verdicts_are_counted_by_the_name_that_was_given(review: Review) -> None:
    row = r'<tr>\s*<td>(\w+)</td>\s*<td [^>]*data-of="Good">(\d+)<'
    rows = dict(re.findall(row, review.bo_again))
    assert rows == {"Bo": "4"}


def test_a_verdict_about_a_task_of_another_project_is_refused(
    review: Review, another: Another
) -> None:
    assert (review.refused["saved"], review.refused["foreign"]) == (0, [another.prediction["task"]])


def test_a_task_of_another_project_is_left_as_it_is(review: Review) -> None:
    assert review.of_another == []


# ---- a slow hour ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlowHour:
    page: dict[str, Any]
    setup: requests.Response
    picture: requests.Response  # of a prediction, as a program asks for it
    failing: int  # a task whose annotation Label Studio fails to store
    meanwhile: dict[int, list[Region]]  # the annotations, when those of the others were there
    written: list[int]
    annotations: dict[int, list[Region]]


@pytest.fixture(scope="module")
def slow_hour(
    team: Team, first_day: FirstDay, review: Review, reviewers: tuple[Reviewer, Reviewer]
) -> SlowHour:
    """Each call takes 6 s at first, longer than a page waits, then half a second.

    At one verdict of three Label Studio fails for a time.
    """
    _, bo = reviewers
    bo.opens()
    cards = bo.cards[:3]
    team.slow.delay_s = 6.0
    page = requests.get(team.page, timeout=60).json()
    body = {"project": f"{team.project}.1", "schema": CONFIG, "hostname": team.studio.studio.url}
    setup = team.post("setup", **body)
    corrected = first_day.done[0]
    prediction = first_day.predictions[corrected][-1]["id"]
    picture = requests.get(f"{team.page}/review/{corrected}/{prediction}", timeout=60)
    team.slow.delay_s = 0.5
    failing, *others = there = accepted(cards)
    team.slow.broken = f"/api/tasks/{failing}/annotations/"
    bo.says("good", cards)
    wait_for(lambda: all(team.annotations()[task] for task in others), "the other verdicts")
    meanwhile = team.annotations()
    team.slow.broken = ""
    wait_for(lambda: all(team.annotations()[task] for task in there), "verdicts, slowly")
    team.slow.delay_s = 0.0
    return SlowHour(
        page=page,
        setup=setup,
        picture=picture,
        failing=failing,
        meanwhile=meanwhile,
        written=there,
        annotations=team.annotations(),
    )


def test_a_slow_label_studio_is_said_to_be_busy(slow_hour: SlowHour) -> None:
    assert "is busy" in slow_hour.page["trouble"]


def test_the_page_keeps_what_it_was_told_before(slow_hour: SlowHour) -> None:
    assert slow_hour.page["counts"]["tasks"] == 30
    assert slow_hour.page["counted"] is not None


def test_label_studio_opens_tasks_meanwhile(slow_hour: SlowHour) -> None:
    assert slow_hour.setup.status_code == 200


def test_a_program_reads_that_label_studio_is_busy(slow_hour: SlowHour) -> None:
    assert slow_hour.picture.status_code == 503
    assert "is busy" in slow_hour.picture.json()["error"]


def test_one_verdict_that_label_studio_fails_at_stops_no_other(slow_hour: SlowHour) -> None:
    assert not slow_hour.meanwhile[slow_hour.failing]


def test_verdicts_of_a_slow_hour_are_written_once(slow_hour: SlowHour) -> None:
    assert {len(slow_hour.annotations[task]) for task in slow_hour.written} == {1}


# ---- the night -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Morning:
    job: dict[str, Any]
    tasks: list[int]  # new ones that were to be predicted in the evening
    predictions: dict[int, list[Region]]
    left_open: dict[str, Any]  # what is said to verdicts of a page that was open all night
    annotations: dict[int, list[Region]]
    bos_page: str


@pytest.fixture(scope="module")
def morning(
    team: Team, slow_hour: SlowHour, review: Review, reviewers: tuple[Reviewer, Reviewer]
) -> Morning:
    """The backend is killed at a job, and Label Studio stopped; both start again a day later."""
    ann, bo = reviewers
    tasks = team.upload(SECOND_DAY)
    team.slow.delay_s = 0.3
    job = team.post("jobs", project=team.project).json()["id"]
    store = JobStore(Database(team.backend.database_url))
    wait_for(lambda: store.get_job(job).state == "running", "the job")
    team.backend.kill()
    team.studio.stop()
    end_leases(store.database, store.get_job(job).owner)
    with closing(sqlite3.connect(team.studio.data_dir / "label_studio.sqlite3")) as database:
        database.execute(A_DAY)
        database.commit()
    store.database.close()
    team.slow.delay_s = 0.0
    team.studio.start_as_readme_says()
    team.backend.before = SHORT_CLAIMS
    team.backend.start()
    ended = team.ended(job)
    # Bo's four are annotated by now; Ann's page of yesterday has them still.
    kept = [each for each in review.page_of_ann if each["task"] in review.bos]
    left_open = ann.says("good", kept)
    bos_page = bo.opens()
    return Morning(ended, tasks, team.predictions(), left_open, team.annotations(), bos_page)


def test_the_job_goes_on_after_the_night(morning: Morning) -> None:
    assert (morning.job["state"], morning.job["failed"]) == ("done", 0)


def test_nothing_is_predicted_twice_through_a_kill(morning: Morning) -> None:
    counts = Counter({task: len(made) for task, made in morning.predictions.items()})
    assert {counts[task] for task in morning.tasks} == {1}
    assert {*counts.values()} == {1}


def test_a_page_left_open_overnight_writes_nothing_twice(morning: Morning, review: Review) -> None:
    assert sorted(morning.left_open["others"]) == sorted(review.bos)
    assert {len(morning.annotations[task]) for task in review.bos} <= {0, 1}


def test_a_reviewers_name_outlives_the_night(morning: Morning) -> None:
    assert re.search(r'name="person"[^>]*value="Bo"', morning.bos_page)


# ---- the second day: a page that stays open, and one that is left --------------------------------


@dataclass(frozen=True)
class Claims:
    before: set[int]  # tasks of Ann's page
    after: set[int]  # those of the same page, loaded again and again for longer than it keeps them
    beside: set[int]  # tasks of Bo's page then
    taken: set[int]  # of Ann's tasks those on Bo's page, once she has gone


@pytest.fixture(scope="module")
def claims(morning: Morning, reviewers: tuple[Reviewer, Reviewer]) -> Claims:
    ann, bo = reviewers

    def tasks(reviewer: Reviewer) -> set[int]:
        reviewer.opens()
        return {each["task"] for each in reviewer.cards}

    bo.says("good", [])  # he moves on, and leaves what his page has
    before, began = tasks(ann), time.monotonic()
    while time.monotonic() < began + CLAIM_S + 1:
        after = tasks(ann)
        time.sleep(0.5)
    beside = tasks(bo)
    wait_for(lambda: tasks(bo) & after, "tasks of a page that was left")
    return Claims(before, after, beside, tasks(bo) & after)


def test_a_page_that_is_loaded_again_keeps_its_tasks(claims: Claims) -> None:
    assert claims.before
    assert claims.before == claims.after
    assert not claims.before & claims.beside


def test_tasks_of_a_page_that_was_left_come_to_others(claims: Claims) -> None:
    assert claims.taken


# ---- the second day ------------------------------------------------------------------------------


@dataclass(frozen=True)
class SecondDay:
    report: dict[str, Any]
    data_sets: list[dict[str, Any]]
    annotated: int
    withdrawn: dict[str, Any]
    annotations: dict[int, list[Region]]
    predictions: dict[int, list[Region]]


@pytest.fixture(scope="module")
def second_day(team: Team, morning: Morning) -> SecondDay:
    """Ann corrects six more; all is read again, exported twice, and the night's job taken back."""
    for task in morning.tasks[:6]:
        made = morning.predictions[task][-1]
        team.ann.annotate(task, made["result"][:-1], parent_prediction=made["id"])
    requests.post(f"{team.page}/report/read-again", timeout=60)
    report = team.comes(
        lambda told: (
            not told["waiting"]
            and told["annotations"]["compared"] == 16
            and ((told["hours_left"] or {}).get("expected") or {}).get("days") == 2
        ),
        "/report.json",
    )
    annotated = team.annotated()
    data_sets = []
    for _ in range(2):
        asked = requests.post(f"{team.page}/datasets", json={"formats": ["coco"]}, timeout=60)
        asked.raise_for_status()
        data_sets.append(finished_run(f"{team.page}/datasets"))
    withdrawal = team.post(f"jobs/{morning.job['id']}/withdraw").json()["id"]
    return SecondDay(
        report=report,
        data_sets=data_sets,
        annotated=annotated,
        withdrawn=team.ended(withdrawal),
        annotations=team.annotations(),
        predictions=team.predictions(),
    )


def test_the_pace_of_two_days_is_known(second_day: SecondDay) -> None:
    assert second_day.report["hours_left"]["expected"]["days"] == 2


def test_two_days_tell_no_range_of_hours(second_day: SecondDay) -> None:
    expected = second_day.report["hours_left"]["expected"]
    assert (expected["low"], expected["high"]) == (None, None)


def test_a_data_set_has_each_annotated_picture(second_day: SecondDay) -> None:
    assert [each["pictures"] for each in second_day.data_sets] == [second_day.annotated] * 2


def test_the_nights_job_is_taken_back_where_nobody_has_begun(
    second_day: SecondDay, morning: Morning
) -> None:
    left = [task for task in morning.tasks if task in second_day.predictions]
    assert left == morning.tasks[:6]


def test_no_annotation_is_lost_in_two_days(second_day: SecondDay) -> None:
    assert sum(map(bool, second_day.annotations.values())) == second_day.annotated
