"""People and programs use the words of a trial, and are helped with the form."""

from __future__ import annotations

import json

from backend.database.database import Database
from backend.runs.run_store import RunStore
from backend.runs.words import WORDS as KIND
from backend.runs.words import AskedWords, WordsReport
from backend.settings import Settings
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.runs import samples
from tests.backend.runs.samples import EVIL, LINE
from tests.backend.runs.scene_project import CONFIG
from tests.backend.web.pages.browser import Dashboard, Page

WORDS = "/projects/7/words"


def tried(report: WordsReport = samples.WORDS) -> str:
    """Keep a trial; the value is its path."""
    store = RunStore(Database.from_settings(Settings()))
    store.add_done(KIND, 7, AskedWords(report.label), report, 1.0)
    return f"{WORDS}/{store.runs(KIND, 7)[0].id}"


def test_words_are_ranked_and_used_on_the_page(dashboard: Dashboard, studio: FakeStudio) -> None:
    path = tried()
    page = dashboard.page(path)
    rows = [each["id"] for each in page.all("tr") if each.get("id")]
    assert rows == ["row-1", "row-0", "row-2"], "the best first"
    assert {"data-line": LINE}.items() <= page.all("button")[0].items()
    assert [each["src"] for each in page.all("img")] == ["data:image/jpeg;base64,AA"] * 3
    assert studio.label_config == CONFIG
    assert dashboard.post(f"{path}/use", {"row": "1"}).headers["Location"] == path
    response = dashboard.client.get(path, headers={"Accept": "text/html"})
    used = Page(response)
    assert "These words were written" in used.text
    assert "Use this" not in used.text, "it would be refused: the figures are of another config"
    (now,) = (each for each in response.text.split("<tr id=")[1:] if "in use" in each)
    assert now.startswith('"row-1"'), "the words that were in use before are not any more"
    assert studio.label_config == CONFIG.replace('<Label value="tree"/>', LINE)
    again = dashboard.post(f"{path}/use", {"row": "1"})
    assert again.status_code == 409


def test_a_program_uses_words(dashboard: Dashboard, studio: FakeStudio) -> None:
    client = dashboard.client
    asked = client.post(WORDS, json={"label": "tree"})
    assert client.post(f"{asked.headers['Location']}/use", json={"row": 1}).status_code == 400
    path = tried()
    for body in ({"row": 7}, {"row": "x"}, {}, {"row": 1, "more": 1}):
        assert client.post(f"{path}/use", json=body).status_code == 400
    assert client.post(f"{path}/use", json={"row": 1}).status_code == 200
    assert json.loads(client.get(path).data)["report"]["used"] == LINE
    assert studio.label_config != CONFIG


def test_a_check_of_all_words_says_what_to_try(dashboard: Dashboard) -> None:
    text = dashboard.page(tried(samples.CHECKED_WORDS)).text
    assert EVIL in text
    assert "Try a more common word" in text


def test_label_studio_may_refuse_the_words(dashboard: Dashboard, studio: FakeStudio) -> None:
    studio.annotate(3, [{"value": {"brushlabels": ["gone"]}}])
    response = dashboard.post(f"{tried()}/use", {"row": "1"})
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
