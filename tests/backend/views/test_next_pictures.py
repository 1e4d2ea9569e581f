"""The strip of pictures to correct next, as the pages show it."""

import pytest

from backend.feedback.annotation_store import AnnotationStore
from backend.learning.next_pictures import NextPicture, NextPictures, NextPictureStore
from tests.backend.web.browser import Dashboard
from tests.backend.web.pages.test_learning import LEARNING, stores_of


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()


NEXT = "/projects/7/next-pictures"
URL = "data:image/jpeg;base64,AAAA"


def keep(*tasks: int) -> NextPictureStore:
    """Keep pictures of these tasks, as a search of project 7 does."""
    stores = stores_of()
    stores.replace_all(1)
    store = NextPictureStore(stores.versions._database, stores.versions._model_key)
    pictures = tuple(NextPicture(task, URL, 1 / task) for task in tasks)
    found = NextPictures(pictures, {"wine": "#ff8000"}, annotations=12, tried=24)
    store.keep(7, found, newest=0, changed=1, took_s=1.0)
    return store


def test_both_pages_show_the_strip_and_lead_to_its_tasks(dashboard: Dashboard) -> None:
    keep(4, 8)
    for path in ("/projects/7", LEARNING):
        page = dashboard.page(path)
        assert [each["src"] for each in page.all("img")] == [URL, URL]
        assert "25.0 % changes" in page.text
        assert "12 corrections" in page.text
        assert "http://studio:8080/projects/7/data?task=8" in page.links


def test_a_picture_that_was_annotated_since_is_gone(dashboard: Dashboard) -> None:
    keep(4, 8)
    annotations = AnnotationStore(dashboard.store.database)
    annotations.mark(7, [30], {30: 4})
    told = dashboard.client.get(NEXT).get_json(force=True)
    assert [each["task"] for each in told["pictures"]] == [8]


def test_there_is_no_strip_before_corrections_or_without_them(dashboard: Dashboard) -> None:
    stores = stores_of()
    assert "hidden" in section(dashboard)
    keep(4)
    assert "hidden" not in section(dashboard)
    stores.examples.forget(1)
    assert "hidden" in section(dashboard)


def section(dashboard: Dashboard) -> dict[str, str | None]:
    (found,) = dashboard.page(NEXT).all("section")
    return found


def test_a_part_that_has_not_changed_is_not_sent_again(dashboard: Dashboard) -> None:
    keep(4)
    people = {"Accept": "text/html"}
    first = dashboard.client.get(NEXT, headers=people)
    again = {**people, "If-None-Match": first.headers["ETag"]}
    assert dashboard.client.get(NEXT, headers=again).status_code == 304
    keep(8)
    assert dashboard.client.get(NEXT, headers=again).status_code == 200
