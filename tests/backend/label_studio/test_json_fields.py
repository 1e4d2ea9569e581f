"""Single fields of JSON objects, of the expected types and of others."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import BadRequest
from backend.label_studio.requests import (
    read_count,
    read_number,
    read_project_id,
    read_text,
    read_texts,
)


@pytest.mark.parametrize(
    ("value", "count"), [(None, None), ("", None), (3, 3), (" 3 ", 3), ("007", 7)]
)
def test_counts(value: Any, count: int | None) -> None:
    assert read_count({"n": value}, "n") == count


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "x", "1e3", [], "1" * 10])
def test_counts_that_are_none(value: Any) -> None:
    with pytest.raises(BadRequest, match='Expected "n" to be a whole number of 1 or more'):
        read_count({"n": value}, "n")


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (-1.5, -1.5), (True, None), ("3", None), (1e6, None), (float("nan"), None)],
)
def test_numbers(value: Any, number: float | None) -> None:
    assert read_number(value) == number


@pytest.mark.parametrize(
    ("value", "id_"),
    [
        (7, 7),
        ("7", 7),
        ("7.1700000000", 7),
        ("x", None),
        (None, None),
        (-7, None),
        ("1" * 19, None),
    ],
)
def test_project_ids(value: Any, id_: int | None) -> None:
    assert read_project_id(value) == id_


def test_texts() -> None:
    assert read_texts(["car", " ", 3, None, "sky"]) == ["car", "sky"]
    assert read_texts("car") == []
    assert (read_text({"a": "b"}, "a"), read_text({"a": 3}, "a"), read_text({}, "a")) == (
        "b",
        "",
        "",
    )
