"""Forms and JSON bodies of the pages."""

from __future__ import annotations

import pytest

from backend.errors import BadRequest
from backend.web.pages.forms import JobRequest, parse_job


def test_a_job_as_a_program_and_as_a_form_asks_for_it() -> None:
    asked = JobRequest(7, "all", 3, 10)
    body = b'{"project": 7, "filter": "all", "view": "3", "limit": 10}'
    assert parse_job(body) == asked
    assert parse_job(b"project=7&filter=all&view=3&limit=+10+", is_form=True) == asked
    assert parse_job(b"project=7&filter=&view=&limit=", is_form=True) == JobRequest(7)


@pytest.mark.parametrize(
    ("body", "is_form"),
    [
        (b"project=\xff", True),
        (b"&".join(b"project=7" for _ in range(30)), True),
        (b"project=7&also=8", True),
        (b'{"project": true}', False),
        (b'{"project": 7.5}', False),
        (b'{"project": [7]}', False),
        (b'{"project": 7, "limit": "1e3"}', False),
        (b'{"project": 7, "filter": ["all"]}', False),
        ('{"project": "\u0667"}'.encode(), False),
    ],
)
def test_a_job_that_cannot_be(body: bytes, is_form: bool) -> None:
    with pytest.raises(BadRequest, match=r"^Expected "):
        parse_job(body, is_form)
