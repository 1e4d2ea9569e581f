"""Addresses of files and tasks on Label Studio."""

from __future__ import annotations

import base64

import pytest

from backend.errors import ImageNotFound
from backend.label_studio.download import LabelStudioFiles
from backend.settings import load_settings
from tests.backend.fakes.file_studio import (
    LEGACY,
    fetch_file,
)
from tests.backend.fakes.local_server import LocalServer


def test_a_server_under_a_path() -> None:
    files = LabelStudioFiles("https://host/label-studio")
    expected = "https://host/label-studio/data/upload/1/a.png"
    assert files.file_url("/label-studio/data/upload/1/a.png") == expected
    assert files.file_url("/data/upload/1/a.png") == expected


def test_storages_are_asked_by_task_or_by_project() -> None:
    files = LabelStudioFiles("http://studio")
    fileuri = base64.urlsafe_b64encode("gs://b/ü?.png".encode()).decode().replace("=", "%3D")
    assert files.storage_url("gs://b/ü?.png", None, 7).endswith(
        f"/projects/7/presign/?fileuri={fileuri}"
    )
    with pytest.raises(ImageNotFound, match="no number"):
        files.storage_url("gs://b/a.png", "word", None)


def test_settings_become_a_studio(
    file_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(label_studio_url=file_server.url, label_studio_api_key=LEGACY)
    assert fetch_file(LabelStudioFiles.from_settings(settings)) == b"picture"


@pytest.mark.parametrize(
    "path",
    [
        "/data/../api/users/",
        "/data/upload/..",
        "/data/upload/%2e%2e/%2E%2E/api/",
        "/data/upload/%252e%252e/x",
        "/data/upload\\..\\..\\api",
        "/data/upload/..%5capi",
        "/data/local-files/?d=../../etc/passwd",
        "/data/local-files/?d=%2e%2e%2fetc%2fpasswd",
        "/data/local-files/?d=a/../../b",
        "/etc/passwd",
        "data/upload/a.png",
        "~/a.png",
    ],
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    with pytest.raises(ImageNotFound, match="no address of an image"):
        LabelStudioFiles("http://studio").file_url(path)


def test_dots_in_a_name_lead_nowhere() -> None:
    assert (
        LabelStudioFiles("http://studio")
        .file_url("/data/upload/1/a..b...png")
        .endswith("a..b...png")
    )


@pytest.mark.parametrize("trusted", [False, True])
def test_no_announced_address_replaces_a_configured_one(trusted: bool) -> None:
    """As without a password anybody can announce one."""
    files = LabelStudioFiles("http://label-studio:8080")
    files.use_setup("https://evil.example.com", "", trusted)
    assert files.task_url(7) == "http://label-studio:8080/projects/7/data"
    assert files.browser_url == "http://label-studio:8080"
    files = LabelStudioFiles("http://studio:8080", browser_url="https://people.example.com")
    files.use_setup("https://evil.example.com", "", trusted)
    assert files.task_url(7, 3) == "https://people.example.com/projects/7/data?task=3"
    assert files.file_url("/data/upload/1/a.png") == "http://studio:8080/data/upload/1/a.png"


def test_people_are_sent_to_label_studio_by_the_name_of_its_own_setting() -> None:
    settings = load_settings(
        label_studio_url="http://studio:8080", label_studio_browser_url="http://localhost:8080"
    )
    assert LabelStudioFiles.from_settings(settings).browser_url == "http://localhost:8080"


def test_people_are_sent_where_label_studio_says_that_it_is() -> None:
    files = LabelStudioFiles()
    files.use_setup("https://studio.example.com/label/", "")
    assert files.task_url(7, 3) == "https://studio.example.com/label/projects/7/data?task=3"
    assert files.task_url(7, "3&x=<") == "https://studio.example.com/label/projects/7/data"
    assert files.task_url(None, 3) is None
    assert LabelStudioFiles().task_url(7, 3) is None
