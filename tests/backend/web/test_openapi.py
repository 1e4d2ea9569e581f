"""The description is the truth: schemathesis asks the application for all that it describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings

from backend import create_app
from backend.inference.model_loader import ModelState
from backend.jobs.job_store import JobState, Only
from backend.settings import Settings
from backend.web.openapi import description
from backend.web.pages.learning import ACTIONS
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(Settings(), colour_engine())


#: A string is no label config, although JSON's schema can say no more of it than that; and of what
#: Label Studio sends too much or in another form, one task suffers and not the request.
SAYS_LESS = [
    schemathesis.checks.positive_data_acceptance,
    schemathesis.checks.negative_data_rejection,
]


@pytest.mark.parametrize("examples", [5, pytest.param(50, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("path", description()["paths"])
def test_each_route_answers_as_it_is_described(app: Flask, path: str, examples: int) -> None:
    """By hand what schemathesis' own pytest plugin does, which knows no current pytest."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    for method in description()["paths"][path]:

        @given(case=schema[path][method.upper()].as_strategy())
        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            case.call_and_validate(excluded_checks=SAYS_LESS)

        ask()
    task = {"id": 1, "data": {"image": data_url(flag("red"))}}
    body = {"tasks": [task], "label_config": brush_config("red")}
    good = app.test_client().post("/predict", json=body)
    assert json.loads(good.data)["results"][0]["result"], "the next good request works"


def test_every_route_is_described_with_its_methods(app: Flask) -> None:
    served = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {
        (path, method) for path, methods in description()["paths"].items() for method in methods
    }
    assert described == served


def enumerated(described: Any) -> Iterator[tuple[str, ...]]:
    """Every list of values in a description."""
    if isinstance(described, dict):
        if "enum" in described:
            yield tuple(described["enum"])
        described = list(described.values())
    if isinstance(described, list):
        for part in described:
            yield from enumerated(part)


def test_values_that_are_listed_are_those_of_the_code() -> None:
    types = (ModelState, JobState, Only)
    assert {*map(get_args, types), ACTIONS} <= {*enumerated(description())}


def test_where_a_password_is_asked_for_the_description_says_so() -> None:
    app = create_app(Settings(basic_auth_user="ann", basic_auth_pass="secret"), colour_engine())
    client = app.test_client()
    served = json.loads(client.get("/openapi.json", auth=("ann", "secret")).data)
    for path, methods in served["paths"].items():
        for method, operation in methods.items():
            refused = client.open(path, method=method.upper()).status_code == 401
            assert refused == bool(operation["security"]) == ("401" in operation["responses"])
            assert refused == (path not in ("/health", "/webhook"))
    assert all("security" not in m for ms in description()["paths"].values() for m in ms.values())
