"""Views of the data manager in a stand-in for Label Studio."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import StudioRefused
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer


def test_a_view_takes_the_place_of_the_one_of_its_title() -> None:
    studio = FakeStudio("<View/>", {})
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.05, first_pause_s=0.01)
        first = client.show_tasks(7, "Safe", [3, 1])
        other = client.show_tasks(7, "Audit", [2])
        assert client.show_tasks(7, "Safe", [5]) == first != other
        ids = {tab["title"]: tab["filters"]["items"][0]["value"] for tab in studio.tabs.values()}
        assert ids == {"Safe": 5, "Audit": 2}


def shown(*tasks: int) -> list[tuple[str, Any]]:
    """Operator and value of each condition of a view of tasks, one of which is to be met."""
    studio = FakeStudio("<View/>", {})
    with studio.served() as server:
        LabelStudioClient(server.url, TOKEN, retry_for_s=1).show_tasks(7, "Safe", tasks)
    (tab,) = studio.tabs.values()
    assert tab["filters"]["conjunction"] == "or"
    items = tab["filters"]["items"]
    assert {(each["filter"], each["type"]) for each in items} == {("filter:tasks:id", "Number")}
    return [(each["operator"], each["value"]) for each in items]


def test_a_view_has_only_operators_that_the_page_of_label_studio_knows() -> None:
    """With "in_list" no task list of the project opens: `tests/e2e/test_next_tasks.py`."""
    assert shown(9, 3, 4, 5, 11, 12) == [
        ("in", {"min": 3, "max": 5}),
        ("equal", 9),
        ("in", {"min": 11, "max": 12}),
    ]
    assert shown() == [("equal", 0)], "without a condition it would list all tasks"


def test_a_token_that_may_make_no_views_is_told() -> None:
    studio = FakeStudio("<View/>", {})
    studio.fault = lambda asked: Answer(403) if asked.method == "POST" else None
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.05, first_pause_s=0.01)
        with pytest.raises(StudioRefused):
            client.show_tasks(7, "Safe", [1])
