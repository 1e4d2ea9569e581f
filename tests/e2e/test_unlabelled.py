"""A project learns from pictures that nobody has corrected, and then from corrections."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.editor import visit
from tests.e2e.servers import wait_for
from tests.e2e.test_learning import CALLED, CORRECTED, SEEDS, Team, corrected, true_masks

pytestmark = pytest.mark.timeout(600)


@pytest.mark.thorough
def test_it_learns_from_unlabelled_pictures_is_used_judged_and_replaced(
    page: Page, studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    seeds = [*SEEDS, *range(SEEDS[-1] + 1, SEEDS[-1] + 13)]
    project = new_project(list(CALLED.values()), seeds=seeds)
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    team = Team(studio, project, backend_url)
    words, done, rest = team.version(), team.tasks[:CORRECTED], team.tasks[CORRECTED : len(SEEDS)]

    visit(page, team.learning)
    page.get_by_role("button", name="Learn from unlabelled pictures").click()
    wait_for(lambda: team.learned()["waits"], "a version that waits")
    assert team.version() == words, "somebody has to look at it"
    visit(page, team.learning)
    expect(page.get_by_text("nobody has corrected one").first).to_be_visible()
    expect(page.locator("#before-after .pair")).to_have_count(6)
    (version,) = team.learned()["versions"]
    assert version["unlabelled"] >= 20
    assert sorted(version["areas"]) == sorted(CALLED.values())
    page.get_by_role("button", name="Use version 1").click()
    wait_for(lambda: team.version().endswith(" +0 v1"), "the version in use")
    team.retrieve(team.tasks)
    used = team.version()
    shown = team.predictions(used)
    before, after = (np.mean([*team.quality(each, rest).values()]) for each in (words, used))
    print(f"mean IoU with the words {before:.3f}, with unlabelled pictures {after:.3f}")

    for task in done:
        result = corrected(shown[task].result, true_masks(team.images[task]))
        known = {"parent_prediction": shown[task].id, "lead_time": 20.0}
        studio.client.annotations.create(id=task, result=result, **known)
    wait_for(lambda: team.learned()["waits"] == 2, "a version of corrections")
    newest, first = team.learned()["versions"]
    assert newest["annotations"] >= CORRECTED - 1
    assert newest["unlabelled_gain"] is not None
    assert first["live"] == (newest["unlabelled_gain"] >= 0)
    visit(page, team.learning)
    expect(page.locator("#learned")).to_contain_text("that nobody had corrected is")
    page.get_by_role("button", name="Use version 2").click()
    wait_for(lambda: team.version().endswith(" v2"), "what corrections teach")
