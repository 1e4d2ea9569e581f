"""The pages of runs: ask, watch, read, cancel, confirm, use; people and programs alike."""

import json
from typing import Any

import msgspec
import pytest

from backend.database.database import Database
from backend.dataset.dataset_report import Change, Changes, ClassCount
from backend.runs.agreement import AGREEMENT
from backend.runs.checks import CHECKS
from backend.runs.dataset import DATASETS, AskedDataset, DatasetFile
from backend.runs.label_errors import LABEL_ERRORS, LabelErrors
from backend.runs.run_store import AskedNothing, RunKind, RunStore
from backend.runs.runner import KINDS
from backend.runs.words import WORDS, AskedWords, WordsReport
from backend.settings import Settings
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.runs import samples
from tests.backend.runs.samples import EVIL, LINE, SAMPLES, SUSPICION
from tests.backend.runs.scene_project import CONFIG
from tests.backend.web.browser import PEOPLE, Dashboard, Page

Kind = RunKind[Any, Any]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {3: {}, 4: {}})


@pytest.fixture
def store() -> RunStore:
    return RunStore(Database.from_settings(Settings()))


def keep(report: WordsReport | LabelErrors) -> str:
    kind: Kind = WORDS if isinstance(report, WordsReport) else LABEL_ERRORS
    asked = AskedWords(report.label) if isinstance(report, WordsReport) else AskedNothing()
    runs = RunStore(Database.from_settings(Settings()))
    runs.add_done(kind, 7, asked, report, 1.0)
    return f"/projects/7/{kind.name}/{runs.runs(kind, 7)[0].id}"


def told(lead: Dashboard, path: str) -> Any:
    response = lead.client.get(path)
    assert response.status_code == 200
    return json.loads(response.data)


@each_kind
def test_people_ask_watch_cancel_and_read(lead: Dashboard, store: RunStore, kind: Kind) -> None:
    path = f"/projects/7/{kind.name}"
    asked, report = SAMPLES[kind.name]
    assert lead.page(path).next_page == ""
    run = store.request(kind, 7, asked)
    page = lead.page(path)
    assert page.next_page == path
    assert "queued" in page.text
    assert lead.post(f"{path}/{run.id}/cancel").status_code == 303
    page = lead.page(path)
    assert page.next_page == ""
    assert "cancelled" in page.text
    assert lead.page(f"{path}/{run.id}").next_page == ""
    store.add_done(kind, 7, asked, report, 1.0)
    page = lead.page(path)
    assert EVIL in page.text, "and no script"
    assert not [each for each in page.all("script") if "nonce" not in each]
    links = [each["href"] or "" for each in page.all("a")]
    assert any("/projects/7/data?task=" in link for link in links) == (kind is not CHECKS)
    made = store.last(kind, 7)
    assert made is not None
    assert EVIL in lead.page(f"{path}/{made[0].id}").text
    assert lead.client.get(f"{path}/99", headers=PEOPLE).status_code == 404
    assert lead.client.get(f"/projects/8/{kind.name}/{run.id}").status_code == 404


def test_a_run_that_waits_says_for_which(lead: Dashboard, store: RunStore) -> None:
    store.request(WORDS, 8, AskedWords())
    store.request(AGREEMENT, 7, AskedNothing())
    assert "comes first" not in lead.page("/projects/7/agreement").text
    another = RunStore(store.database, "another")
    first = another.lease([WORDS.name])
    assert first is not None
    page = lead.page("/projects/7/agreement")
    assert "Words of Project 8 comes first" in " ".join(page.text.split())
    assert "/projects/8/words" in page.links
    another.finish(first, reason="It broke.")
    assert lead.page("/projects/8/words").text.count("It broke.") == 1, "above the form"


@each_kind
def test_a_program_has_the_same(lead: Dashboard, store: RunStore, kind: Kind) -> None:
    path = f"/projects/7/{kind.name}"
    asked, report = SAMPLES[kind.name]
    answered = lead.client.post(path, json=msgspec.to_builtins(asked))
    assert answered.status_code == 202
    run = json.loads(answered.data)
    assert (run["state"], run["kind"], run["project"]) == ("queued", kind.name, 7)
    assert answered.headers["Location"] == f"{path}/{run['id']}"
    again = lead.client.post(path, json=msgspec.to_builtins(asked))
    assert json.loads(again.data)["id"] == run["id"]
    assert told(lead, path)["run"] == run
    cancelled = json.loads(lead.client.post(f"{path}/{run['id']}/cancel").data)
    assert cancelled["run"]["state"] == "cancelled"
    store.add_done(kind, 7, asked, report, 1.0)
    answer = told(lead, path)
    assert msgspec.convert(answer["report"], kind.report, strict=False) == report
    assert [each["state"] for each in answer["runs"]] == ["done", "cancelled"]
    one, none = (told(lead, f"{path}/{each['id']}") for each in answer["runs"])
    assert one["report"] == answer["report"]
    assert none["report"] is None


@each_kind
def test_what_is_no_request_is_refused(lead: Dashboard, kind: Kind) -> None:
    path = f"/projects/7/{kind.name}"
    for body in (b"[]", b"{", b"\xff", b"[" * 60_000, b'"x"'):
        refused = lead.client.post(path, data=body, content_type="application/json")
        assert refused.status_code == 400, body
    assert lead.client.post(path, data=b" " * 70_000).status_code == 413
    for end in ("", "/1/cancel", "/view"):
        crossed = lead.post(f"{path}{end}", None, Origin="http://evil.example")
        assert crossed.status_code in (403, 404, 405)
        assert end or crossed.status_code == 403


@pytest.mark.parametrize("kind", [each for each in KINDS if each.tasks], ids=lambda kind: kind.name)
def test_a_view_is_made(lead: Dashboard, store: RunStore, studio: FakeStudio, kind: Kind) -> None:
    view = f"/projects/7/{kind.name}/view"
    refused = lead.post(view)
    assert refused.status_code == 400
    assert "There is no report yet" in Page(refused).text
    studio.tabs[99] = {"title": "Default"}
    store.add_done(kind, 7, *SAMPLES[kind.name], 1.0)
    made_view = lead.post(view)
    assert made_view.status_code == 303
    said = lead.page(made_view.headers["Location"])
    number = min(studio.tabs)
    assert "lists these tasks now" in said.text
    assert any(str(each.get("href")).endswith(f"?tab={number}") for each in said.all("a"))
    assert lead.client.post(view).status_code == 200
    default, made = studio.tabs.values()
    assert (default, made["title"]) == ({"title": "Default"}, kind.title)
    (item,) = made["filters"]["items"]
    assert (item["operator"], item["value"]) == ("in", {"min": 3, "max": 4})


def test_the_page_of_agreement_shows_all_figures(lead: Dashboard, store: RunStore) -> None:
    store.add_done(AGREEMENT, 7, *SAMPLES["agreement"], 1.0)
    page = lead.page("/projects/7/agreement")
    text = " ".join(page.text.split())
    bars = [float(str(each["value"])) for each in page.all("progress")]
    assert bars[:4] == [0.75, 0.01, 0.25, 0.02], "by label"
    for figures in (
        "3.1 % of a picture's pixels, on average over 41",
        f"{EVIL} 9 few 75.0 % 1.0 %",
        f"{EVIL}tree12.5 % treenothing6.2 %",
        "User 6 2 few 50.0 %",
        "The picture cannot be read.",
        "The first 1 of 7 tasks.",
    ):
        assert figures in text


WORDS_PAGE = "/projects/7/words"


def test_what_is_found_comes_before_the_forms_unless_somebody_comes_to_try(
    lead: Dashboard,
) -> None:
    def order(path: str) -> list[str]:
        ids = (given.get("id") for _, given in lead.page(path).elements)
        return [str(each) for each in ids if each in ("try", "advice", "check")]

    assert order(WORDS_PAGE) == ["try", "check"]
    keep(samples.CHECKED_WORDS)
    assert order(WORDS_PAGE) == ["advice", "try", "check"]
    assert order(f"{WORDS_PAGE}?label=tree") == ["try", "check", "advice"]


def test_words_are_ranked_on_the_page(lead: Dashboard) -> None:
    page = lead.page(keep(samples.WORDS))
    rows = [each["id"] for each in page.all("tr") if each.get("id")]
    assert rows == ["row-1", "row-0", "row-2"], "the best first"
    assert [each["src"] for each in page.all("img")] == ["data:image/jpeg;base64,AA"] * 3


@pytest.mark.parametrize("body", [{"row": 7}, {"row": "x"}, {}, {"row": 1, "more": 1}])
def test_words_of_no_row_are_refused(lead: Dashboard, studio: FakeStudio, body: Any) -> None:
    path = keep(samples.WORDS)
    assert lead.client.post(f"{path}/use", json=body).status_code == 400
    assert studio.label_config == CONFIG


def test_words_of_a_run_that_is_not_done_are_refused(lead: Dashboard, studio: FakeStudio) -> None:
    asked = lead.client.post(WORDS_PAGE, json={"label": "tree"})
    used = lead.client.post(f"{asked.headers['Location']}/use", json={"row": 1})
    assert used.status_code == 400
    assert studio.label_config == CONFIG


def test_words_that_are_used_stand_in_the_config_and_all_are_checked_again(
    lead: Dashboard, studio: FakeStudio
) -> None:
    path = keep(samples.WORDS)
    used = lead.post(f"{path}/use", {"row": "1"})
    assert "The words are in the labeling config" in lead.page(used.headers["Location"]).text
    assert studio.label_config == CONFIG.replace('<Label value="tree"/>', LINE)
    checked = lead.client.get(WORDS_PAGE).get_json()["run"]
    assert (checked["state"], checked["asked"]["label"]) == ("queued", "")
    again = lead.post(f"{path}/use", {"row": "1"})
    assert again.status_code == 409, "the figures are of another config"


def test_words_that_label_studio_refuses_leave_the_config(
    lead: Dashboard, studio: FakeStudio
) -> None:
    """It refuses a config without a label in use."""
    studio.annotate(3, [{"value": {"brushlabels": ["gone"]}}])
    response = lead.post(f"{keep(samples.WORDS)}/use", {"row": "1"})
    assert response.status_code == 424
    assert "gone" in Page(response).text
    assert studio.label_config == CONFIG


def test_checked_words_that_find_little_are_told_with_what_to_do(lead: Dashboard) -> None:
    text = lead.page(keep(samples.CHECKED_WORDS)).text
    assert EVIL in text
    assert "Try a more common word" in text


def test_a_refused_form_keeps_all_that_was_typed(lead: Dashboard) -> None:
    form = {"label": "tree", "wordings": "\npine\nfir, oak", "pictures": "99"}
    response = lead.post(WORDS_PAGE, form)
    assert response.status_code == 400
    page = Page(response)
    values = [(each["name"], each.get("value")) for each in page.all("input")]
    assert ("label", "tree") in values
    assert [value for name, value in values if name == "pictures"] == ["99", ""]
    assert "\n\npine\nfir, oak</textarea>" in response.text, "a browser drops the first line end"
    page = Page(lead.post(WORDS_PAGE, {"pictures": "99"}))
    assert [each["value"] for each in page.all("input") if each["name"] == "pictures"] == ["", "99"]


ERRORS = "/projects/7/label-errors"


def ids(page: Page) -> list[str | None]:
    return [each.get("id") for each in page.all("article")]


def test_what_is_confirmed_leaves_the_list_and_comes_back(lead: Dashboard) -> None:
    keep(samples.LABEL_ERRORS)
    assert ids(lead.page(ERRORS)) == ["annotation-12-1", "annotation-13-2"]
    answered = lead.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "5.25"})
    assert answered.status_code == 303
    page = lead.page(ERRORS)
    assert ids(page) == ["annotation-13-1"]
    assert "Confirmed as right" in page.text
    assert told(lead, ERRORS)["confirmed"] == [{"annotation": 12, "task": 3}]
    too_large = lead.post(f"{ERRORS}/take-back", {"annotation": str(1 << 63)})
    assert too_large.status_code == 400
    lead.post(f"{ERRORS}/take-back", {"annotation": "12"})
    assert ids(lead.page(ERRORS)) == ["annotation-12-1", "annotation-13-2"]


def test_an_annotation_of_several_pictures_is_confirmed_as_a_whole(lead: Dashboard) -> None:
    pages = [msgspec.structs.replace(SUSPICION, item_index=index) for index in (0, 2)]
    keep(msgspec.structs.replace(samples.LABEL_ERRORS, suspicions=(*pages,)))
    page = lead.page(ERRORS)
    assert ids(page) == ["annotation-12-1", "annotation-12-2"]
    assert page.text.count("The whole annotation is right") == 2
    lead.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "5.25"})
    assert "No annotation is suspicious" in lead.page(ERRORS).text


def test_a_version_that_was_not_compared_is_not_confirmed(lead: Dashboard) -> None:
    for body in ({"annotation": 12, "updated": 4.0}, {"annotation": 14, "updated": 5.25}, {}):
        assert lead.client.post(f"{ERRORS}/confirm", json=body).status_code == 400
    keep(samples.LABEL_ERRORS)
    refused = lead.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "4"})
    assert refused.status_code == 400
    assert "load the page again" in Page(refused).text
    for updated in ("soon", [5.25], 10**400, float("inf"), float("nan"), "nan"):
        wrong = {"annotation": 12, "updated": updated}
        assert lead.client.post(f"{ERRORS}/confirm", json=wrong).status_code == 400
    assert told(lead, ERRORS)["confirmed"] == []
    assert samples.LABEL_ERRORS.without({12: 6.0}) == samples.LABEL_ERRORS, "another version"


def test_counts_of_classes_are_named_where_the_head_of_the_table_is_gone(
    lead: Dashboard, store: RunStore
) -> None:
    """As on a phone, where each class is a card."""
    count = {"train": ClassCount(8, 12, 80), "val": ClassCount(2, 2, 20)}
    file = DatasetFile(
        pictures=10,
        parts={"train": 8, "val": 2},
        regions=14,
        unlabelled=0,
        notes=[],
        left_out={},
        left_out_count=0,
        size_bytes=1,
        asked={"train": 80, "val": 20},
        classes={"road": count},
        changes=Changes(0.0, Change(1, 2, 3), {"road": Change(1, 2, 3)}),
    )
    store.add_done(DATASETS, 7, AskedDataset(split="80/20"), file, 1.0)
    page = lead.page("/projects/7/datasets")
    named = [each["data-of"] for each in page.all("td") if "data-of" in each]
    assert named == ["train", "val", "New", "Corrected", "Gone"]
    assert "8 pictures (80 %), 12 objects" in page.text
