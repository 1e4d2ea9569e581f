"""People and programs use the words of a trial, and are helped with the form."""

from __future__ import annotations

from backend.database.database import Database
from backend.runs.run_store import RunStore
from backend.runs.words import WORDS as KIND
from backend.runs.words import AskedWords, WordsReport
from backend.settings import Settings
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.runs import samples
from tests.backend.runs.samples import EVIL, LINE
from tests.backend.runs.scene_project import CONFIG
from tests.backend.web.browser import Dashboard, Page

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
    assert [each["src"] for each in page.all("img")] == ["data:image/jpeg;base64,AA"] * 3
    assert studio.label_config == CONFIG
    used = dashboard.post(f"{path}/use", {"row": "1"})
    assert "The words are in the label config" in dashboard.page(used.headers["Location"]).text
    assert studio.label_config == CONFIG.replace('<Label value="tree"/>', LINE)
    again = dashboard.post(f"{path}/use", {"row": "1"})
    assert again.status_code == 409, "the figures are of another config"


def test_a_program_uses_words(dashboard: Dashboard, studio: FakeStudio) -> None:
    client = dashboard.client
    asked = client.post(WORDS, json={"label": "tree"})
    assert client.post(f"{asked.headers['Location']}/use", json={"row": 1}).status_code == 400
    path = tried()
    for body in ({"row": 7}, {"row": "x"}, {}, {"row": 1, "more": 1}):
        assert client.post(f"{path}/use", json=body).status_code == 400
    assert client.post(f"{path}/use", json={"row": 1}).status_code == 200
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
    form = {"label": "tree", "wordings": "\npine\nfir, oak", "pictures": "99"}
    response = dashboard.post(WORDS, form)
    assert response.status_code == 400
    page = Page(response)
    values = [(each["name"], each.get("value")) for each in page.all("input")]
    assert ("label", "tree") in values
    assert [value for name, value in values if name == "pictures"] == ["99", ""]
    assert "\n\npine\nfir, oak</textarea>" in response.text, "a browser drops the first line end"
    page = Page(dashboard.post(WORDS, {"pictures": "99"}))
    assert [each["value"] for each in page.all("input") if each["name"] == "pictures"] == ["", "99"]
