"""Stand-ins for Label Studio's API and for its files, and a client of the API."""

from collections.abc import Iterator

import pytest

from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.file_studio import FileStudio
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red"), {i: {"image": f"{i}.png"} for i in range(1, 251)})


@pytest.fixture
def client(server: LocalServer) -> LabelStudioClient:
    return LabelStudioClient(server.url, TOKEN, retry_for_s=20, first_pause_s=0.01)


@pytest.fixture
def file_studio() -> FileStudio:
    return FileStudio()


@pytest.fixture
def file_server(file_studio: FileStudio) -> Iterator[LocalServer]:
    with LocalServer(file_studio.route) as server:
        yield server


@pytest.fixture
def stranger() -> Iterator[LocalServer]:
    """Another host, which answers anything to anyone."""
    with LocalServer(lambda asked: Answer(body=b"strange")) as server:
        yield server
