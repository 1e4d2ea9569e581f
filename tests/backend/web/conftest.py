"""A client of an application with a stand-in for the model."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.backend.web.pages.browser import Dashboard
from tests.backend.web.requests_to_app import make_app


@pytest.fixture
def client() -> FlaskClient:
    return make_app().test_client()


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()
