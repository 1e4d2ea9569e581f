"""What forms and programs send."""

import pytest

from backend.errors import BadRequest
from backend.web.pages.forms import JobRequest, parse_fields


def test_a_job_as_a_program_and_as_a_form_asks_for_it() -> None:
    asked = JobRequest(7, "all", 3, 10)
    body = b'{"project": 7, "filter": "all", "view": "3", "limit": 10}'
    assert parse_fields(body, False, JobRequest) == asked
    assert parse_fields(b"project=7&filter=all&view=3&limit=+10+", True, JobRequest) == asked
    assert parse_fields(b"project=7&filter=&view=&limit=", True, JobRequest) == JobRequest(7)


@pytest.mark.parametrize(
    ("body", "is_form"),
    [
        (b"project=\xff", True),
        (b"&".join(b"project=7" for _ in range(30)), True),
        (b"project=7&also=8", True),
        (b"project=7&filter=none", True),
        (b"", False),
        (b"[]", False),
        (b"[" * 100_000, False),
        (b'{"project": true}', False),
        (b'{"project": 7, "filter": ["all"]}', False),
        ('{"project": "\u0667"}'.encode(), False),
    ],
)
def test_a_job_that_cannot_be(body: bytes, is_form: bool) -> None:
    with pytest.raises(BadRequest, match=r"^Expected "):
        parse_fields(body, is_form, JobRequest)
