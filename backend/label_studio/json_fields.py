"""Read single fields of JSON objects, with errors that name the field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from backend.errors import BadRequest

#: Bound of percentages and angles. Infinity and NaN are not below it.
_LARGEST_NUMBER = 1e6


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body that holds a JSON object.

    Raises:
        BadRequest: it is no JSON, or another value than an object.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("Expected a body of JSON, but got something else.") from None
    if not isinstance(message, dict):
        raise BadRequest(f"Expected a JSON object, but got {describe_type(message)}.")
    return message


def read_count(fields: Mapping[str, Any], name: str, least: int = 1) -> int | None:
    """Read a whole number of at least `least`, also as digits; None where it is not given.

    Raises:
        BadRequest: another value.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    digits = str(value).strip() if isinstance(value, int | str) else ""
    if not re.fullmatch("[0-9]{1,9}", digits) or int(digits) < least:
        raise BadRequest(
            f'Expected "{name}" to be a whole number of {least} or more, but got another.'
        )
    return int(digits)


def read_texts(given: Any) -> list[str]:
    """Read the texts of a list; other items and blank ones are left out."""
    given = given if isinstance(given, list) else []
    return [text for text in given if isinstance(text, str) and text.strip()]


def read_number(value: Any) -> float | None:
    """Read a number below 1e6 in size; None for another value."""
    return float(value) if type(value) in (int, float) and abs(value) < _LARGEST_NUMBER else None


def read_item_index(region: Mapping[str, Any]) -> int | None:
    """Read which image of a list a region is on; None where the region does not say."""
    index = region.get("item_index")
    return index if type(index) is int and index >= 0 else None


def read_project_id(raw: Any) -> int | None:
    """Read the id of a project, which Label Studio also sends as "<id>.<time of creation>".

    >>> read_project_id("7.1700000000"), read_project_id("seven")
    (7, None)
    """
    digits = str(raw).partition(".")[0] if isinstance(raw, int | str) else ""
    return int(digits) if re.fullmatch("[0-9]{1,18}", digits) else None


def read_text(message: Mapping[str, Any], key: str) -> str:
    """Read a text; empty where there is another value."""
    value = message.get(key)
    return value if isinstance(value, str) else ""


def describe_type(value: Any) -> str:
    """Name the type of a JSON value in words.

    >>> describe_type(None), describe_type([]), describe_type(True)
    ('nothing', 'a list', 'true or false')
    """
    if value is None:
        return "nothing"
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")


def to_float(value: Any) -> float:
    """Return a number of a region's geometry.

    Raises:
        OverflowError: it is too large.
        TypeError: it is none, such as a text.
    """
    try:
        return float(value)
    except ValueError:
        raise TypeError(f"{value!r:.50} is no number") from None
