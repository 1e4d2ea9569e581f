"""A Label Studio under a path of its host, as behind a reverse proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.task_filter import TaskFilter
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.file_studio import LEGACY, FileStudio
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

CONFIG = brush_config("red")


def behind_proxy(answer: Callable[[Asked], Answer], prefix: str = "/label") -> LocalServer:
    """A reverse proxy that takes a prefix away; another application has the rest of the host."""

    def route(asked: Asked) -> Answer:
        if not asked.path.startswith(f"{prefix}/"):
            return Answer(body=b"another application")
        return answer(replace(asked, path=asked.path.removeprefix(prefix)))

    return LocalServer(route)


@pytest.fixture
def proxy() -> Iterator[LocalServer]:
    with behind_proxy(FakeStudio(CONFIG, {3: {"image": "/label/data/a.png"}}).answer) as server:
        yield server


@pytest.fixture
def file_proxy() -> Iterator[LocalServer]:
    with behind_proxy(FileStudio().route) as server:
        yield server


def test_the_api_is_called_below_the_prefix(proxy: LocalServer) -> None:
    client = LabelStudioClient(f"{proxy.url}/label", TOKEN, retry_for_s=0)
    assert client.label_config(7) == CONFIG
    assert [task.id for task in client.tasks(7, TaskFilter())] == [3]
    entry = {"model_version": "v1", "result": [], "score": 0.5}
    assert client.prediction_writer.write(7, "v1", {3: entry}) == {}
    assert [each.version for each in client.stored(3)] == ["v1"]
    assert client.user() == "ann@example.com"
    assert client.newest_change(7)[1] == 1
    assert all(each.path.startswith("/label/api/") for each in proxy.asked)


@pytest.mark.parametrize("path", ["/label/data/upload/1/a.png", "/data/upload/1/a.png"])
def test_files_are_fetched_below_the_prefix(file_proxy: LocalServer, path: str) -> None:
    files = LabelStudioFiles(f"{file_proxy.url}/label", LEGACY)
    assert files.download(files.file_url(path)) == b"picture"
    assert [each.path for each in file_proxy.asked] == ["/label/data/upload/1/a.png"]


@pytest.mark.parametrize("announced", [False, True])
def test_the_prefix_of_the_address_for_people_is_known_inside_too(
    file_server: LocalServer, announced: bool
) -> None:
    """As in Docker Compose: inside, nothing takes the prefix away, and there is none."""
    people = "https://host.example/label"
    files = LabelStudioFiles(file_server.url, LEGACY, browser_url=None if announced else people)
    if announced:
        files.use_setup(people, "")
    for path in ("/label/data/upload/1/a.png", "/data/upload/1/a.png"):
        assert files.file_url(path) == f"{file_server.url}/data/upload/1/a.png"
        assert files.download(files.file_url(path)) == b"picture"


def test_another_application_on_the_host_gets_no_token(file_proxy: LocalServer) -> None:
    files = LabelStudioFiles(f"{file_proxy.url}/label", LEGACY)
    for path in ("/data/upload/1/a.png", "/labels/data/a.png", "/tasks/3/presign/"):
        assert files.download(f"{file_proxy.url}{path}") == b"another application"
    assert [each.authorization for each in file_proxy.asked] == [None] * 3
