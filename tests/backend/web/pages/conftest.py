"""A person before the pages."""

from __future__ import annotations

import pytest

from tests.backend.fakes.label_studio import TOKEN
from tests.backend.fakes.local_server import LocalServer
from tests.backend.web.pages.browser import Dashboard


@pytest.fixture
def lead(server: LocalServer) -> Dashboard:
    """A lead before a backend that has a token."""
    return Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
