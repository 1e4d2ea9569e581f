"""Without a token for Label Studio each page says what it needs one for, and starts nothing."""

from __future__ import annotations

import pytest

from backend.runs.kinds import KINDS
from tests.backend.web.pages.browser import HERE, Dashboard

#: What is asked for -> the body of the request, and what is said.
REFUSED = {
    **{f"/projects/7/{kind.name}": ({}, kind.use) for kind in KINDS},
    "/projects/7/learning/step": ({}, "A project learns from what Label Studio has"),
    "/jobs": ({"project": 7}, "To prelabel a project this backend writes to Label Studio"),
}

#: A page -> what it says.
TOLD = {
    **{page: said for page, (_, said) in REFUSED.items() if not page.endswith(("/step", "/jobs"))},
    "/": "To prelabel a project this backend writes to Label Studio",
    "/projects/7/report": "What annotators change is read from Label Studio",
}

SET = ": set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard(label_studio_api_key=None)


@pytest.mark.parametrize("address", REFUSED)
def test_what_needs_label_studio_is_refused(dashboard: Dashboard, address: str) -> None:
    body, said = REFUSED[address]
    answer = dashboard.client.post(address, json=body)
    assert (answer.status_code, answer.json) == (400, {"error": said + SET})


@pytest.mark.parametrize("address", ["/projects/7/agreement/view", "/projects/7/label-errors/view"])
def test_a_view_is_refused_in_the_words_of_its_page(dashboard: Dashboard, address: str) -> None:
    answer = dashboard.client.post(address, headers=HERE)
    assert answer.status_code == 400
    assert answer.json == {"error": f"Annotations are read from Label Studio{SET}"}


def test_labels_are_refused_in_the_words_of_their_page(dashboard: Dashboard) -> None:
    answer = dashboard.client.get("/projects/7/words/labels")
    assert answer.status_code == 400
    assert answer.json == {"error": REFUSED["/projects/7/words"][1] + SET}


@pytest.mark.parametrize("address", TOLD)
def test_a_page_says_so_before_anybody_tries(dashboard: Dashboard, address: str) -> None:
    assert TOLD[address] + SET in " ".join(dashboard.page(address).text.split())
