"""Views of the data manager in a stand-in for Label Studio."""

from __future__ import annotations

import pytest

from backend.errors import StudioRefused
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer


def test_a_view_takes_the_place_of_the_one_of_its_title() -> None:
    studio = FakeStudio("<View/>", {})
    with studio.served() as server:
        views = LabelStudioClient(server.url, TOKEN, retry_for_s=0.05, first_pause_s=0.01).views
        first = views.show(7, "Safe", [3, 1])
        other = views.show(7, "Audit", [2])
        assert views.show(7, "Safe", [5]) == first != other
        ids = {tab["title"]: tab["filters"]["items"][0]["value"] for tab in studio.tabs.values()}
        assert ids == {"Safe": [5], "Audit": [2]}


def test_a_token_that_may_make_no_views_is_told() -> None:
    studio = FakeStudio("<View/>", {})
    studio.fault = lambda asked: Answer(403) if asked.method == "POST" else None
    with studio.served() as server:
        views = LabelStudioClient(server.url, TOKEN, retry_for_s=0.05, first_pause_s=0.01).views
        with pytest.raises(StudioRefused):
            views.show(7, "Safe", [1])
