"""The description is the truth: schemathesis asks the application for all that it describes."""

from __future__ import annotations

import json

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings

from backend import create_app
from backend.settings import Settings
from backend.web.ml_backend import description
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
def test_each_route_answers_as_it_is_described(app: Flask, examples: int) -> None:
    """By hand what schemathesis' own pytest plugin does, which knows no current pytest."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    paths = description(app, has_password=False)["paths"]
    for path, method in [(each, method) for each in paths for method in paths[each]]:

        @given(case=schema[path][method.upper()].as_strategy())
        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(excluded_checks=SAYS_LESS)

        ask()
    task = {"id": 1, "data": {"image": data_url(flag("red"))}}
    body = {"tasks": [task], "label_config": brush_config("red")}
    good = app.test_client().post("/predict", json=body)
    assert json.loads(good.data)["results"][0]["result"], "the next good request works"


def test_the_description_names_parameters_bodies_and_reports(app: Flask) -> None:
    paths = description(app, has_password=False)["paths"]
    assert "put" not in paths["/jobs"]
    action, report = (
        paths["/projects/{project}/learning/{action}"],
        paths["/projects/{project}/words"],
    )
    assert "keep-words" in action["post"]["parameters"][1]["schema"]["enum"]
    assert "ActionRequest" in str(action["post"]["requestBody"])
    assert "WordsReport" in str(report["get"]["responses"])


def test_where_a_password_is_asked_for_the_description_says_so(app: Flask) -> None:
    for path, methods in description(app, has_password=True)["paths"].items():
        is_open = path in ("/health", "/webhook")
        assert all(("security" in operation) != is_open for operation in methods.values())
