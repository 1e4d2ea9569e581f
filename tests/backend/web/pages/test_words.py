"""People and programs try words, and use the best."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from backend.settings import Settings
from backend.wording.wording_report import PictureTrial, Trial, WordingReport
from backend.wording.wording_request import Wording
from clearclip_core.evaluation.comparison import LabelFigures
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.wording.vocabulary_check import LabelResponse, UnknownWord, VocabularyCheck
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.web.pages.browser import (
    HERE,
    PEOPLE,
    Dashboard,
    Page,
    dashboard_and_services,
)
from tests.backend.wording.scene_project import CONFIG

WORDS = "/projects/7/words"
EVIL = "<script>alert(1)</script>"
LINE = '<Label value="tree" predicted_values="fir"/>'


def figures(shared: int) -> LabelFigures:
    return LabelFigures.of(MaskOverlap(predicted_px=100, true_px=100, shared_px=shared))


def trial(wording: Wording, words: tuple[str, ...], shared: int, line: str = LINE) -> Trial:
    picture = PictureTrial(
        3, 0.25, 12.0, figures(shared), figures(shared), "data:image/jpeg;base64,AA"
    )
    return Trial(wording, words, 0.0, "clearclip", line, (picture,))


def report(asked: Any, advance: Any) -> WordingReport:
    """What a laboratory would say, with words that want to be escaped."""
    if not asked.label:
        check = VocabularyCheck((), (UnknownWord("tree", EVIL, 0.9),), 0.5, 0.5)
        answers = (LabelResponse("tree", 0.5, None, 0.75),)
        return WordingReport(
            "", ("sky", "tree"), "diverse", check=check, responses=answers, pictures=2
        )
    trials: tuple[Trial, ...] = (
        trial(Wording(), ("tree",), 60, '<Label value="tree"/>'),
        trial(Wording(("fir",)), ("fir",), 90),
        trial(Wording((EVIL,)), (EVIL,), 10, f'<Label value="tree" hint="{EVIL}"/>'),
    )
    if asked.methods:
        other = trial(Wording(("fir",), None, "maskclip"), ("fir",), 80)
        trials = (*trials, replace(other, method="maskclip"))
    return WordingReport(
        "tree", ("sky", "tree"), "corrected", trials, pictures=1, left_out={4: EVIL}, config=CONFIG
    )


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {3: {}})


@pytest.fixture
def dashboard(studio: FakeStudio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    with studio.served() as server:
        dashboard, services = dashboard_and_services(
            monkeypatch, label_studio_url=server.url, label_studio_api_key=TOKEN
        )
        services.wording_runs._measure = report
        dashboard.run_next = services.wording_runs.run_next  # type: ignore[attr-defined]
        yield dashboard


def tried(dashboard: Dashboard, form: dict[str, str]) -> str:
    """Ask on the page, and measure; the value is the path of the trial."""
    response = dashboard.post(WORDS, form)
    assert response.status_code == 303
    assert "queued" in dashboard.page(response.headers["Location"]).text
    assert dashboard.run_next()  # type: ignore[attr-defined]
    return str(response.headers["Location"])


def test_words_are_tried_ranked_and_used_on_the_page(
    dashboard: Dashboard, studio: FakeStudio
) -> None:
    form = {"label": "tree", "wordings": "fir\r\noak, pine", "thresholds": ""}
    path = tried(dashboard, form)
    page = dashboard.page(path)
    rows = [each["id"] for each in page.all("tr") if each.get("id")]
    assert rows == ["row-1", "row-0", "row-2"], "the best first"
    assert "90.0 %" not in page.text.split("Saved paint")[0]
    assert {"data-line": LINE}.items() <= page.all("button")[0].items()
    assert [each["src"] for each in page.all("img")] == ["data:image/jpeg;base64,AA"] * 3
    assert f"{studio.label_config}" == CONFIG
    response = dashboard.post(f"{path}/use", {"row": "1"})
    assert response.status_code == 200
    used = Page(response)
    assert "has these words now" in used.text
    assert "Use this" not in used.text, "it would be refused: the figures are of another config"
    (now,) = (each for each in response.text.split("<tr id=")[1:] if "in use" in each)
    assert now.startswith('"row-1"'), "the words that were in use before are not any more"
    assert studio.label_config == CONFIG.replace('<Label value="tree"/>', LINE)
    again = dashboard.post(f"{path}/use", {"row": "1"})
    assert again.status_code == 409
    assert "was changed since" in Page(again).text
    for later in (again, dashboard.client.get(path, headers=PEOPLE)):
        assert "Use this" not in Page(later).text
        assert "These words were written into the label config" in Page(later).text
        (now,) = (each for each in later.text.split("<tr id=")[1:] if "in use" in each)
        assert now.startswith('"row-1"')


def test_words_are_in_use_with_the_method_of_the_backend_alone(dashboard: Dashboard) -> None:
    """The same words with another method make the same tag."""
    path = tried(dashboard, {"label": "tree", "wordings": "fir", "methods": "maskclip"})
    response = dashboard.post(f"{path}/use", {"row": "1"})
    assert response.status_code == 200
    rows = response.text.split("<tr id=")[1:]
    assert sorted(each[:7] for each in rows) == [f'"row-{row}"' for row in range(4)]
    assert [each[:7] for each in rows if "in use" in each] == ['"row-1"']


def test_words_of_people_are_text_on_the_page_and_never_a_script(dashboard: Dashboard) -> None:
    for form in ({"label": "tree", "wordings": EVIL}, {"pictures": "2"}):
        path = tried(dashboard, form)
        for address in (path, f"{WORDS}?label={EVIL}"):
            response = dashboard.client.get(address, headers=PEOPLE)
            assert EVIL.encode() not in response.data
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert EVIL in dashboard.page(path).text
    assert "Try a more common word" in dashboard.page(path).text


def test_a_program_has_the_same_figures(dashboard: Dashboard, studio: FakeStudio) -> None:
    client = dashboard.client
    response = client.post(WORDS, json={"label": "tree", "wordings": ["fir"]})
    assert response.status_code == 202
    path = response.headers["Location"].removeprefix("http://localhost")
    assert json.loads(response.data)["state"] == "queued"
    assert client.post(f"{path}/use", json={"row": 1}).status_code == 400
    assert dashboard.run_next()  # type: ignore[attr-defined]
    told = json.loads(client.get(path).data)
    rows = told["report"]["trials"]
    assert [(row["row"], row["rank"], row["words"]) for row in rows] == [
        (1, 1, ["fir"]),
        (0, 2, ["tree"]),
        (2, 3, [EVIL]),
    ]
    assert rows[0]["saved_paint"] == pytest.approx(0.8)
    assert rows[0]["iou"] == pytest.approx(90 / 110)
    (listed,) = json.loads(client.get(WORDS).data)["runs"]
    assert listed["id"] == told["id"]
    for body in ({"row": 7}, {"row": "x"}, {}, {"row": 1, "more": 1}):
        assert client.post(f"{path}/use", json=body).status_code == 400
    assert json.loads(client.post(f"{path}/use", json={"row": 1}).data) == {"line": LINE}


def test_label_studio_may_refuse_the_words(dashboard: Dashboard, studio: FakeStudio) -> None:
    studio.annotate(3, [{"value": {"brushlabels": ["gone"]}}])
    path = tried(dashboard, {"label": "tree", "wordings": "fir"})
    response = dashboard.post(f"{path}/use", {"row": "1"})
    assert response.status_code == 424
    assert "gone" in Page(response).text
    assert studio.label_config == CONFIG


def test_a_refused_form_keeps_all_that_was_typed(dashboard: Dashboard) -> None:
    form = {
        "label": "tree",
        "wordings": "\npine\nfir, oak",
        "thresholds": "0.2 high",
        "on": "diverse",
    }
    response = dashboard.post(WORDS, form | {"methods": ["maskclip", "clip"], "pictures": "12"})
    assert response.status_code == 400
    page = Page(response)
    values = [(each["name"], each.get("value")) for each in page.all("input")]
    assert ("label", "tree") in values
    assert ("thresholds", "0.2 high") in values
    assert [value for name, value in values if name == "pictures"] == ["12", ""]
    assert "\n\npine\nfir, oak</textarea>" in response.text, "a browser drops the first line end"
    chosen = [each["value"] for each in page.all("option") if "selected" in each]
    assert sorted(map(str, chosen)) == ["clip", "diverse", "maskclip"]


def test_a_refused_check_of_all_words_keeps_its_pictures(dashboard: Dashboard) -> None:
    page = Page(dashboard.post(WORDS, {"pictures": "99"}))
    assert [each["value"] for each in page.all("input") if each["name"] == "pictures"] == ["", "99"]


def test_what_is_wrong_is_said_on_the_page(dashboard: Dashboard) -> None:
    response = dashboard.post(WORDS, {"label": "tree", "thresholds": "many"})
    assert response.status_code == 400
    assert "numbers from 0 to 1" in Page(response).text
    assert dashboard.client.get(f"{WORDS}/12", headers=PEOPLE).status_code == 404
    assert dashboard.post(WORDS, {"label": "a"}, Origin="http://evil.example").status_code == 403


def test_without_a_token_the_page_says_what_is_missing() -> None:
    dashboard = Dashboard(label_studio_api_key=None)
    assert "LABEL_STUDIO_API_KEY" in dashboard.page(WORDS).text
    assert dashboard.client.post(WORDS, json={}, headers=HERE).status_code == 400
    assert Settings().label_studio_api_key is None


def test_the_labels_of_a_project_are_known_before_its_first_trial(
    dashboard: Dashboard, studio: FakeStudio
) -> None:
    """The page asks for them by its script: `tests/e2e/test_words.py`."""
    labels = f"{WORDS}/labels"
    assert f'fetch("{labels}")' in dashboard.page(WORDS).text
    assert dashboard.client.get(labels).get_json() == {"labels": ["sky", "grass", "tree", "house"]}
    studio.label_config = CONFIG.replace('"tree"', '"tree, tall"')
    assert dashboard.client.get(labels).get_json() == {
        "labels": ["sky", "grass", "tree, tall", "house"]
    }
    studio.label_config = "<View/>"
    assert dashboard.client.get(labels).status_code == 400


def test_labels_are_asked_for_once_and_the_page_does_not_wait_for_them(
    dashboard: Dashboard, studio: FakeStudio
) -> None:
    asked = []

    def fault(request: Asked) -> Answer:
        if "include=id%2Ctitle" not in request.path:  # the title of the project, once
            asked.append(request.path)
        return Answer(503)

    studio.fault = fault
    assert "Try words for a label" in dashboard.page(WORDS).text
    assert not asked
    assert dashboard.client.get(f"{WORDS}/labels").status_code == 424
    assert len(asked) == 1
