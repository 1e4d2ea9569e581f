"""The review page before a stand-in for Label Studio: which pictures it shows, and what it does."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.experiment import ExperimentStore
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.projects.scores import ScoreStore
from backend.review.score_walk import read_scores
from backend.review.verdicts import ReviewStore
from backend.review.writing import write_due
from backend.settings import Settings
from clearclip_core import render_scene
from clearclip_core.images.drawing import thumbnail
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.feedback.test_annotation_reader import OURS, region
from tests.backend.web.browser import PEOPLE, Dashboard, Page

REVIEW = "/projects/7/review"


@pytest.fixture
def studio() -> FakeStudio:
    """Forty-five tasks with a prediction; the higher its number, the more certain it is."""
    picture = data_url(np.full((4, 8, 3), 100, np.uint8))
    studio = FakeStudio(brush_config("red", "blue"), {n: {"image": picture} for n in range(1, 46)})
    for task in studio.tasks:
        studio.add(task, OURS, 1.0, [region("a", "red" if task % 2 else "blue", 4)])
        studio.predictions[-1]["score"] = task / 100
    return studio


@pytest.fixture
def scored(studio: FakeStudio, server: LocalServer) -> None:
    """Have the scores of all predictions read, as after the first visit of the page."""
    scores = ScoreStore(Database.from_settings(Settings()))
    scores.ask(7)
    read_all_scores(scores, server)


def read_all_scores(scores: ScoreStore, server: LocalServer) -> None:
    while read_scores(scores, LabelStudioClient(server.url, TOKEN)):
        pass


def tasks(page: Page) -> list[int]:
    return [int(str(each["data-task"])) for each in page.all("button") if "data-task" in each]


def post(lead: Dashboard, seat: str, studio: FakeStudio, *of: int, verdict: str = "good") -> Any:
    found = {each["task"]: each["id"] for each in studio.predictions}
    one = {"verdict": verdict, "seconds": 1}
    said = [{"task": e, "prediction": found[e], "score": e / 100} | one for e in of]
    body = {"seat": seat, "since": 1.0, "verdicts": said}
    return lead.client.post(REVIEW, json=body).get_json()


def test_the_most_certain_come_first_each_on_one_page(
    lead: Dashboard, studio: FakeStudio, scored: None
) -> None:
    studio.annotate(45, [])
    studio.drafted.add(44)
    mine = tasks(lead.page(f"{REVIEW}?seat=a"))
    assert mine == [*range(43, 3, -1)]
    assert tasks(lead.page(REVIEW)) == mine, "whoever leaves and comes back has the same page"
    assert tasks(lead.page(f"{REVIEW}?seat=b")) == [3, 2, 1]
    assert tasks(lead.page(f"{REVIEW}?seat=a&part=ahead")) == []


def test_pictures_without_a_score_come_last_until_it_is_read(
    lead: Dashboard, studio: FakeStudio, server: LocalServer
) -> None:
    scores = ScoreStore(Database.from_settings(Settings()))
    scores.keep(7, OURS, {5: 0.05, 9: 0.09})
    first = lead.page(f"{REVIEW}?seat=a")
    assert tasks(first)[:3] == [9, 5, 1]
    assert "are being read" in first.text
    read_all_scores(scores, server)
    then = lead.page(f"{REVIEW}?seat=a")
    assert tasks(then) == [*range(45, 5, -1)]
    assert "are being read" not in then.text
    number = studio.create(studio.tasks[1])
    studio.add(number, OURS, 1.0, [region("a", "red", 4)])
    assert tasks(lead.page(f"{REVIEW}?seat=b"))[-1] == number, "new, and nobody has said its score"


def test_a_page_that_is_loaded_again_keeps_its_pictures_and_what_is_ahead_is_anybodys(
    lead: Dashboard, studio: FakeStudio, scored: None
) -> None:
    mine = tasks(lead.page(f"{REVIEW}?seat=a"))
    ahead = tasks(lead.page(f"{REVIEW}?seat=a&part=ahead"))
    assert (len(mine), ahead) == (40, [5, 4, 3, 2, 1])
    assert tasks(lead.page(f"{REVIEW}?seat=b")) == ahead
    body = {"seat": "a", "since": 1.0, "verdicts": [], "next": ahead}
    assert lead.client.post(REVIEW, json=body).get_json()["taken"] == ahead
    assert tasks(lead.page(f"{REVIEW}?seat=a&part=ahead")) == [], "what it has left stays behind"
    assert tasks(lead.page(f"{REVIEW}?seat=c")) == mine, "and is anybody's"


def test_what_was_judged_comes_again_only_with_a_prediction_of_the_version_in_use(
    lead: Dashboard, studio: FakeStudio, scored: None
) -> None:
    assert post(lead, "a", studio, 45, 44, verdict="skip") == {
        "saved": 2, "others": [], "foreign": [], "too_fast": 0,
    }  # fmt: skip
    assert post(lead, "b", studio, 45)["others"] == [45]
    first = lead.page(f"{REVIEW}?seat=a")
    assert tasks(first)[0] == 43
    assert "older masks" in first.text
    setup = {"schema": studio.label_config, "project": "7.1"}
    current = lead.client.post("/setup", json=setup).get_json()["model_version"]
    studio.add(45, current, 2.0, [region("a", "red", 4)])
    ScoreStore(Database.from_settings(Settings())).keep(7, current, {45: 0.5})
    assert tasks(lead.page(f"{REVIEW}?seat=a"))[:2] == [45, 43]


def test_label_view_and_confidence_choose_the_pictures(
    lead: Dashboard, studio: FakeStudio, scored: None
) -> None:
    studio.views[3] = [1, 2, 44]
    assert tasks(lead.page(f"{REVIEW}?seat=a&least=0.44")) == [45, 44]
    assert tasks(lead.page(f"{REVIEW}?seat=a&view=3&label=blue")) == [2, 44]
    assert tasks(lead.page(f"{REVIEW}?seat=a&view=3&least=0.02")) == [2, 44]
    assert lead.client.get(f"{REVIEW}?least=much", headers=PEOPLE).status_code == 400
    studio.predictions[44]["result"].append(region("b", "blue", 2))
    by_label = lead.page(f"{REVIEW}?seat=a&label=red&least=0.43").all("button")
    cards = {each["data-task"]: each for each in by_label if "data-task" in each}
    assert [*cards] == ["45", "43"]
    assert ["data-others" in each for each in cards.values()] == [True, False]


def test_a_picture_is_drawn_with_masks_or_cropped(
    lead: Dashboard, studio: FakeStudio, scored: None
) -> None:
    def drawn(query: str) -> Any:
        answer = lead.client.get(f"{REVIEW}/1/1{query}")
        return np.asarray(Image.open(io.BytesIO(answer.data)).convert("RGB"), int)

    masks, plain, crop = drawn(""), drawn("?plain=1"), drawn("?label=red")
    assert plain.shape == (4, 8, 3)
    assert np.abs(plain - 100).max() <= 3
    assert np.abs(masks - plain)[:, :3].max() > 30 > np.abs(masks - plain)[:, 6:].max()
    assert crop.shape[1] < 8
    asked: list[str] = []
    studio.fault = lambda each: asked.append(each.path.partition("?")[0])
    lead.page(f"{REVIEW}?seat=a")
    lead.client.get(f"{REVIEW}/45/45")
    assert sorted(asked) == ["/api/current-user/whoami", "/api/tasks/"], "the page has read it"
    for gone in ("1/999", "1/1?label=blue"):
        assert lead.client.get(f"{REVIEW}/{gone}").status_code == 404


def test_a_picture_of_a_large_photograph_is_that_of_its_full_size(
    lead: Dashboard, studio: FakeStudio
) -> None:
    """Of a JPEG only a quarter is decoded for it; what was drawn is of the full size."""
    scene = render_scene(5, size_hw=(1501, 2003))
    mask = scene.label_map == scene.label_map[750, 1000]
    studio.tasks[1] = {"image": data_url(scene.image, "jpeg", quality=90)}
    studio.predictions[0]["result"] = [brush_region(mask, "red", id="a", to_name="image")]
    nothing = np.full(mask.shape, -1)
    colours = parse_label_config(studio.label_config, None).colours_of("image")
    for query, label_map in (("?plain=1", nothing), ("", np.where(mask, 0, -1))):
        answer = lead.client.get(f"{REVIEW}/1/1{query}")
        drawn = np.asarray(Image.open(io.BytesIO(answer.data)).convert("RGB"), int)
        expected = thumbnail(scene.image, label_map, colours, 480).astype(int)
        assert drawn.shape == expected.shape
        assert np.abs(drawn - expected).mean() < 4


@pytest.fixture
def work(server: LocalServer) -> Callable[[], None]:
    """Do what the worker does with verdicts, until nothing is due."""
    reviews = ReviewStore(Database.from_settings(Settings()), "worker")
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.0)

    def work() -> None:
        while write_due(reviews, client):
            pass

    return work


def undo(lead: Dashboard, **of: Any) -> Any:
    return lead.client.post(f"{REVIEW}/undo", query_string={"seat": "a", **of}, json={}).get_json()


def test_pictures_that_are_taken_back_wait_for_a_review_again(
    lead: Dashboard, scored: None, studio: FakeStudio, work: Callable[[], None]
) -> None:
    """Though the page was looked at while they were accepted, so Label Studio listed none."""
    before = tasks(lead.page(f"{REVIEW}?seat=b"))
    post(lead, "a", studio, *before)
    work()
    accepted = {each["task"] for each in studio.annotations.values()}
    assert not accepted.intersection(tasks(lead.page(f"{REVIEW}?seat=b")))
    undo(lead)
    work()
    assert tasks(lead.page(f"{REVIEW}?seat=b")) == before


def test_pictures_that_are_taken_back_are_shown_though_their_annotations_were_read(
    lead: Dashboard, scored: None, studio: FakeStudio, work: Callable[[], None]
) -> None:
    before = tasks(lead.page(f"{REVIEW}?seat=b"))
    post(lead, "a", studio, *before)
    work()

    store = AnnotationStore(Database.from_settings(Settings()), "worker")
    written = {number: each["task"] for number, each in studio.annotations.items()}
    store.mark(7, written, written)
    for each in store.lease(99):
        task = written[each.annotation]
        store.complete(each, ReadAnnotation(each.annotation, 7, task, "reviewed"))

    undo(lead)
    work()
    assert tasks(lead.page(f"{REVIEW}?seat=b")) == before


def test_the_last_page_is_taken_back_but_what_somebody_has_changed_since_stays(
    lead: Dashboard, studio: FakeStudio, work: Callable[[], None]
) -> None:
    post(lead, "a", studio, 1)
    post(lead, "a", studio, 2, 3, 4, 5)
    work()
    made = {each["task"]: each["id"] for each in studio.annotations.values()}
    last = [task for task in (2, 3, 4, 5) if task in made]
    studio.update(made[last[0]], result=[region("a", "red", 3)])
    assert undo(lead) == {"undone": 4, "left": len(last)}
    work()
    left = {each["task"] for each in studio.annotations.values()}
    assert left == {last[0], *({1} & made.keys())}


def test_a_page_that_is_taken_back_does_not_wait_for_label_studio(
    lead: Dashboard, studio: FakeStudio, server: LocalServer, work: Callable[[], None]
) -> None:
    post(lead, "a", studio, *range(1, 39))
    work()
    made = len(studio.annotations)
    assert made > 30
    server.asked.clear()
    assert undo(lead) == {"undone": 38, "left": made}
    assert not [each for each in server.asked if "annotations" in each.path]
    work()
    assert not studio.annotations


def test_how_far_a_page_is_taken_back_is_on_the_page(
    lead: Dashboard, studio: FakeStudio, work: Callable[[], None]
) -> None:
    post(lead, "a", studio, *range(1, 39))
    work()
    tally = f"{REVIEW}?seat=a&part=tally"
    assert "Undo the last page (38)" in lead.page(tally).text
    left = undo(lead)["left"]
    page = lead.page(tally)
    assert f"Taking back 38 verdicts: {38 - left} so far." in page.text
    assert "Undo the last page" not in page.text
    work()
    assert "Taking back" not in lead.page(tally).text
    assert "38 verdicts are taken back." in lead.page(f"{REVIEW}?seat=a&undone=38").text


def test_a_second_press_takes_no_other_page_back(lead: Dashboard, studio: FakeStudio) -> None:
    post(lead, "a", studio, 1, 2, verdict="skip")
    post(lead, "a", studio, 3, 4, verdict="skip")
    page = lead.page(f"{REVIEW}?seat=a")
    (form,) = [each for each in page.all("form") if "/undo" in str(each.get("action"))]
    for _ in range(2):
        lead.client.post(str(form["action"]), data={})
    assert "Undo the last page (2)" in lead.page(f"{REVIEW}?seat=a").text


def test_a_verdict_about_a_task_of_another_project_is_not_kept(
    lead: Dashboard, studio: FakeStudio
) -> None:
    one = {"prediction": 900, "verdict": "work", "seconds": 1}
    body = {"seat": "a", "since": 1.0, "verdicts": [{"task": 46} | one, {"task": 2} | one]}
    told = lead.client.post(REVIEW, json=body).get_json()
    assert (told["saved"], told["foreign"]) == (1, [46])
    assert ReviewStore(Database.from_settings(Settings())).to_correct(7) == [2]


def test_verdicts_are_counted_by_the_name_that_somebody_gives_and_a_browser_keeps(
    lead: Dashboard, studio: FakeStudio
) -> None:
    post(lead, "a", studio, 1)
    assert "No name given" in lead.page(REVIEW).text
    lead.page(f"{REVIEW}?person=Zoë")
    post(lead, "a", studio, 2)
    page = lead.page(REVIEW)
    assert "Zoë" in page.text
    assert [each["value"] for each in page.all("input") if each.get("name") == "person"] == ["Zoë"]


@pytest.mark.parametrize("required", ["true", "false"])
def test_what_good_leaves_empty_is_said_before_anybody_presses(
    lead: Dashboard, studio: FakeStudio, required: str
) -> None:
    choices = f'<Choices name="weather" toName="image" required="{required}"/></View>'
    studio.label_config = studio.label_config.replace("</View>", choices)
    assert ("requires “weather”" in lead.page(REVIEW).text) == (required == "true")


@pytest.mark.parametrize(
    "said",
    [{"task": 1 << 63}, {"prediction": 0}, {"seconds": -1}, {"version": "\0"}, {"verdict": "?"}],
)
def test_a_verdict_that_no_page_sends_is_refused(lead: Dashboard, said: dict[str, Any]) -> None:
    one = {"task": 1, "prediction": 1, "verdict": "good"} | said
    body = {"seat": "a", "since": 1.0, "verdicts": [one]}
    assert lead.client.post(REVIEW, json=body).status_code == 400


@pytest.mark.parametrize(("score", "worst"), [("confidence", [5, 9]), ("effort", [9, 5])])
def test_what_needs_work_is_a_view_and_the_page_names_the_worst(
    lead: Dashboard, studio: FakeStudio, score: str, worst: list[int]
) -> None:
    studio.label_config = brush_config("red", "blue", attributes=f'score="{score}"')
    assert lead.client.post(f"{REVIEW}/view?seat=a", json={}).status_code == 400
    post(lead, "a", studio, 5, 9, verdict="work")
    assert "Correct 2 tasks in Label Studio" in lead.page(f"{REVIEW}?seat=a").text
    assert "Undo the last page (2)" in lead.page(f"{REVIEW}?seat=a&part=tally").text
    view = lead.client.post(f"{REVIEW}/view?seat=a", json={}).get_json()["view"]
    tab = studio.tabs[view]
    assert tab["ordering"] == ["tasks:id"]
    leads_to = [link for link in lead.page(f"{REVIEW}?seat=a&made={view}").links if "task=" in link]
    assert [int(link.rpartition("=")[2]) for link in leads_to] == worst
    assert [each["value"] for each in tab["filters"]["items"]] == [5, 9]


def test_without_a_token_or_an_answer_and_during_a_measurement_the_page_says_so(
    dashboard: Dashboard, lead: Dashboard, studio: FakeStudio
) -> None:
    assert tasks(dashboard.page(f"{REVIEW}?seat=a")) == []
    ExperimentStore(Database.from_settings(Settings())).begin(7)
    page = lead.page(f"{REVIEW}?seat=a")
    assert tasks(page) == []
    assert "is being measured" in page.text
    ExperimentStore(Database.from_settings(Settings())).stop(7)
    studio.fault = lambda _: Answer(401)
    assert "check LABEL_STUDIO_API_KEY" in lead.page(f"{REVIEW}?seat=b").text
