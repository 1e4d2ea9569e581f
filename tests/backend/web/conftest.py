"""Who asks an application with a stand-in for the model."""

import pytest
from flask.testing import FlaskClient

from tests.backend.fakes.label_studio import TOKEN
from tests.backend.fakes.local_server import LocalServer
from tests.backend.web.browser import Dashboard, make_app


@pytest.fixture
def client() -> FlaskClient:
    return make_app().test_client()


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()


@pytest.fixture
def lead(server: LocalServer) -> Dashboard:
    """A lead before a backend that has a token."""
    return Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
