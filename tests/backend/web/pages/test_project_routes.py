"""The number of a project is one that a database can hold, on each of its pages."""

from __future__ import annotations

import pytest

from tests.backend.web.pages.browser import Dashboard


def test_all_rules_of_a_project_begin_alike() -> None:
    rules = [each.rule for each in Dashboard().client.application.url_map.iter_rules()]
    below = [each for each in rules if each.startswith("/projects/")]
    assert len(below) > 20
    start = "/projects/<int(min=1, max=2147483647):project>"
    assert [each for each in below if not each.startswith(start)] == []


@pytest.mark.parametrize("project", ["0", "2147483648", "-1", "seven"])
@pytest.mark.parametrize(
    "page", ["agreement", "label-errors", "learning", "next-tasks", "report", "words"]
)
def test_another_number_is_not_found(page: str, project: str) -> None:
    assert Dashboard().client.get(f"/projects/{project}/{page}").status_code == 404
