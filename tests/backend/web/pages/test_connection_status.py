"""What the pages say of the connection to Label Studio; nobody asks it for that."""

from __future__ import annotations

from tests.backend.web.pages.browser import Dashboard
from tests.backend.web.pages.status_scene import KEY, Scene


def test_polls_are_shown_and_their_troubles_scrubbed() -> None:
    scene = Scene()
    scene.polls.add(7, 0)
    scene.polls.add(8, 0)
    poll = scene.polls.lease()
    assert poll is not None
    scene.polls.finish(poll, 60.0)
    assert scene.polls.lease() is not None
    scene.polls.fail(8, f"Label Studio refuses {KEY}.", 60.0)
    now = scene.read()["connection"]
    assert now["poll_interval_s"] == 15
    good, bad = now["polled"]
    assert (good["project"], good["trouble"], good["at"] > 1e9) == (7, "", True)
    assert good["url"] == "http://label-studio:8080/projects/7/data"
    assert (bad["project"], bad["at"]) == (8, None)
    assert "Label Studio refuses" in bad["trouble"]
    assert KEY not in bad["trouble"]


def test_without_a_token_nothing_is_polled() -> None:
    now = Dashboard(label_studio_api_key=None).client.get("/status").get_json()["connection"]
    assert now == {"trouble": "", "poll_interval_s": None, "polled": []}
