"""People and programs export data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from backend.dataset.archives.archive_maker import ArchiveFiles
from backend.dataset.archives.archive_store import ArchiveStore
from backend.dataset.exporter import formats
from backend.dataset.labelled_image import overlaps
from backend.jobs.project_titles import ProjectTitles
from backend.label_studio.annotations import Rule
from backend.settings import Settings
from tests.backend.web.pages.browser import HERE, PEOPLE, Dashboard, Page


@pytest.fixture
def store(dashboard: Dashboard) -> ArchiveStore:
    return ArchiveStore(dashboard.store.database)


def finish(store: ArchiveStore, *, content: bytes = b"PK zip", **report: Any) -> int:
    """Do what the maker does; return the number of the data set."""
    archive = store.lease("maker")
    assert archive is not None
    path = ArchiveFiles(Settings()).path(archive)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    told = {"pictures": 2, "parts": {"train": 2}, "regions": 5, "unlabelled": 1}
    store.finish(archive.id, "maker", report=told | report, size_bytes=len(content))
    return archive.id


def test_a_data_set_is_exported_watched_downloaded_and_deleted_on_the_page(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    form = {"project": "7", "formats": ["coco", "yolo"], "split": "80/20", "pictures": "true"}
    response = dashboard.post("/datasets", form)
    assert (response.status_code, response.headers["Location"]) == (303, "/datasets/1")
    waits = dashboard.page("/datasets/1")
    assert "Waits for its turn" in waits.text
    assert {"http-equiv": "refresh", "content": "3"} in waits.all("meta")
    store.lease("maker")
    store.advance(1, "maker", 3, 12)
    running = dashboard.page("/datasets/1")
    assert "3 of 12 tasks read" in running.text
    assert [(each["max"], each["value"]) for each in running.all("progress")] == [("12", "3")]
    store.release(1, "maker")
    finish(store, skipped=[{"task": 41, "reason": "There is no file."}])
    done = dashboard.page("/datasets/1")
    assert "There is no file." in done.text
    assert {"http-equiv": "refresh", "content": "3"} not in done.all("meta")
    links = [each.get("href") for each in done.all("a")]
    assert "/datasets/1/file" in links
    assert "the ground truth, else the newest" in done.text
    assert "http://studio:8080/projects/7/data?task=41" in links
    assert "coco, yolo, split 80/20" in dashboard.page("/datasets").text
    file = dashboard.client.get("/datasets/1/file")
    assert file.data == b"PK zip"
    assert "project-7-coco-yolo-1.zip" in file.headers["Content-Disposition"]
    response = dashboard.post("/datasets/1/delete")
    assert (response.status_code, response.headers["Location"]) == (303, "/datasets")
    assert store.list_archives() == []
    assert dashboard.client.get("/datasets/1/file").status_code == 404


def test_the_form_offers_what_the_command_does(dashboard: Dashboard) -> None:
    page = dashboard.page("/datasets?project=7")
    values = {each.get("value") for each in (*page.all("option"), *page.all("input"))}
    assert {*get_args(Rule)} - {"annotator"} <= values, "which has a field of its own"
    assert {*overlaps(), *formats()} <= values
    assert "annotator" in {each.get("name") for each in page.all("input")}


def test_a_data_set_is_exported_listed_and_deleted_by_a_program(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    client = dashboard.client
    response = client.post("/datasets", json={"project": 7, "formats": ["parquet"], "view": 3})
    assert response.status_code == 201
    assert response.headers["Location"].endswith("/datasets/1")
    told = json.loads(response.data)
    expected = {"id": 1, "project": 7, "formats": ["parquet"], "view": 3, "state": "queued"}
    assert expected.items() <= told.items()
    assert json.loads(client.get("/datasets?project=7").data)["datasets"] == [told]
    assert json.loads(client.get("/datasets?project=8").data)["datasets"] == []
    assert client.get("/datasets/1/file").status_code == 404, "it has no file yet"
    finish(store)
    assert json.loads(client.get("/datasets/1").data)["state"] == "done"
    assert json.loads(client.delete("/datasets/1").data)["id"] == 1
    assert client.get("/datasets/1").status_code == client.delete("/datasets/1").status_code == 404


def test_a_file_of_another_machine_is_told_in_a_sentence(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    dashboard.client.post("/datasets", json={"project": 7})
    archive = finish(store)
    ArchiveFiles(Settings()).remove(store.get(archive))
    response = dashboard.client.get(f"/datasets/{archive}/file")
    assert response.status_code == 404
    assert "another backend has made it" in json.loads(response.data)["error"]


def test_files_are_on_this_machine_alone_for_a_running_data_set_that_is_deleted(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    """Who makes it works in the folder still, and removes it."""
    dashboard.client.post("/datasets", json={"project": 7})
    archive = store.lease("maker")
    assert archive is not None
    folder: Path = ArchiveFiles(Settings()).work_folder(archive)
    folder.mkdir(parents=True)
    assert dashboard.client.delete(f"/datasets/{archive.id}").status_code == 200
    assert folder.is_dir()


@pytest.mark.parametrize(
    "form", [{"project": ""}, {"project": "7", "split": "50/60"}, {"project": "7", "what": "x"}]
)
def test_a_wrong_form_is_answered_on_the_page(
    dashboard: Dashboard, store: ArchiveStore, form: dict[str, str]
) -> None:
    response = dashboard.post("/datasets", {"formats": "coco"} | form)
    assert response.status_code == 400
    assert "Expected " in Page(response).text
    assert store.list_archives() == []


def test_a_form_with_no_format_checked_exports_nothing(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    response = dashboard.post("/datasets", {"project": "7", "split": "", "pictures": "true"})
    assert response.status_code == 400
    assert "Choose one format or more." in Page(response).text
    assert store.list_archives() == []


def test_a_refused_form_keeps_the_project_and_all_that_was_typed(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    dashboard.client.post("/datasets", json={"project": 8})
    form = {"project": "20", "formats": ["coco", "parquet"], "split": "80", "view": "x<y"}
    more = {"annotations": "newest", "annotator": "5", "overlap": "score"}
    shown = Page(dashboard.post("/datasets", form | more | {"with_predictions": "true"}))
    inputs = {str(each["name"]): each for each in shown.all("input") if each["name"] != "formats"}
    typed = {name: each.get("value") for name, each in inputs.items()}
    assert (
        typed.items() >= {"project": "20", "split": "80", "view": "x<y", "annotator": "5"}.items()
    )
    boxes = [each for each in shown.all("input") if each["name"] == "formats"]
    assert [each["value"] for each in boxes if "checked" in each] == ["coco", "parquet"]
    assert "checked" in inputs["with_predictions"]
    assert "checked" not in inputs["pictures"], "a form that lacks it had it unchecked"
    chosen = [each["value"] for each in shown.all("option") if "selected" in each]
    assert chosen == ["newest", "score"]
    links = {each.get("href") for each in shown.all("a")}
    assert "/datasets" in links, "the list is of the project, and leads to that of all"
    assert not [each for each in shown.all("li") if each.get("id") == "dataset-1"]


def test_a_refused_form_keeps_a_project_that_is_no_number(dashboard: Dashboard) -> None:
    shown = Page(dashboard.post("/datasets", {"project": "seven", "formats": "coco"}))
    (project,) = (each for each in shown.all("input") if each["name"] == "project")
    assert project["value"] == "seven"


def test_a_new_form_has_the_first_format_and_the_pictures_checked(dashboard: Dashboard) -> None:
    checked = [
        each["name"] for each in dashboard.page("/datasets").all("input") if "checked" in each
    ]
    assert checked == ["formats", "pictures"]


def test_a_chosen_project_stays_chosen_where_its_title_is_not_known(
    monkeypatch: pytest.MonkeyPatch, dashboard: Dashboard
) -> None:
    monkeypatch.setattr(ProjectTitles, "choices", lambda _: [(3, "Trees"), (7, "Roads")])
    for asked, expected in ((20, "20"), (7, "7"), (None, "")):
        page = dashboard.page(f"/datasets?project={asked or ''}")
        options = [each for each in page.all("option") if "selected" in each]
        assert [each["value"] for each in options] == [expected]


def test_a_form_that_deletes_goes_back_to_the_list_of_its_project(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    dashboard.client.post("/datasets", json={"project": 7})
    (form,) = (
        str(each["action"])
        for each in dashboard.page("/datasets?project=7").all("form")
        if "/delete" in str(each["action"])
    )
    response = dashboard.post(form)
    assert (response.status_code, response.headers["Location"]) == (303, "/datasets?project=7")
    again = dashboard.post(form)
    assert again.status_code == 404
    shown = Page(again)
    assert "There is no data set 1" in shown.text
    (project,) = (each for each in shown.all("input") if each["name"] == "project")
    assert project["value"] == "7"


def test_a_page_of_another_site_cannot_export_or_delete(
    dashboard: Dashboard, store: ArchiveStore
) -> None:
    dashboard.client.post("/datasets", json={"project": 7})
    elsewhere = {"Origin": "http://elsewhere"}
    assert dashboard.post("/datasets", {"project": "8"}, **elsewhere).status_code == 403
    assert dashboard.post("/datasets/1/delete", **elsewhere).status_code == 403
    assert dashboard.client.delete("/datasets/1", headers=elsewhere).status_code == 403
    assert [each.request.project for each in store.list_archives()] == [7]


def test_every_route_asks_for_the_password() -> None:
    client = Dashboard(basic_auth_user="ann", basic_auth_pass="secret").client
    for path in ("/datasets", "/datasets/1", "/datasets/1/file"):
        assert client.get(path, headers=PEOPLE).status_code == 401
    assert client.post("/datasets", json={"project": 7}, headers=HERE).status_code == 401


def test_without_a_token_the_page_says_what_to_set() -> None:
    dashboard = Dashboard(label_studio_api_key=None)
    assert "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in dashboard.page("/datasets").text
    assert dashboard.client.post("/datasets", json={"project": 7}).status_code == 400
