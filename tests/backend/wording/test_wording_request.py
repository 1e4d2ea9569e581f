"""Requests are bounded, and a wrong one is told in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import BadRequest
from backend.wording.wording_request import Wording, WordingRequest, parse_words


def test_what_the_project_has_comes_first_and_each_trial_once() -> None:
    asked = WordingRequest.parse(
        7, {"label": "tree", "wordings": ["a", "a ", "b,c"], "thresholds": [0.5, 0.50001]}
    )
    assert asked.trials == (Wording(), Wording(("a",), 0.5), Wording(("b", "c"), 0.5))
    assert WordingRequest.parse(7, asked.to_json()) == asked
    assert WordingRequest.parse(7, {}).trials == ()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"wordings": ["a"]}, "name the label"),
        ({"label": "x", "wordings": [", ,"]}, "1 to 10 words"),
        ({"label": "x", "wordings": ["a" * 201]}, "200 letters"),
        ({"label": "x", "wordings": ["a\0b"]}, "control characters"),
        ({"label": "x", "wordings": "a"}, "list of texts"),
        ({"label": "x", "thresholds": [2]}, "from 0 to 1"),
        ({"label": "x", "thresholds": [True]}, "from 0 to 1"),
        ({"label": "x", "methods": ["magic"]}, "magic"),
        ({"label": "x", "wordings": list("abcdef"), "thresholds": [0.1, 0.2]}, "13 trials"),
        ({"pictures": 25}, "at most 24"),
        ({"on": "all"}, "auto, corrected, diverse"),
        ({"lable": "x"}, "but got 'lable'"),
    ],
)
def test_what_is_not_allowed_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        WordingRequest.parse(7, fields)


def test_blanks_within_a_word_are_one() -> None:
    assert parse_words(" traffic \t light,traffic light") == ("traffic light",)
