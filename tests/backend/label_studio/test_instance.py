"""Which hosts are trusted, and which are sent the token of Label Studio, over real HTTP."""

from __future__ import annotations

import pytest

from backend.errors import HostRefused, ImageNotFound, ImageRefused
from backend.label_studio.download import LabelStudioFiles
from tests.backend.fakes.file_studio import (
    LEGACY,
    LOOPBACK,
    PERSONAL,
    FileStudio,
    fetch_file,
)
from tests.backend.fakes.local_server import Answer, Asked, LocalServer


def test_other_hosts_never_see_a_token(file_server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY, rules=LOOPBACK)
    assert files.download(f"{stranger.url}/a.png") == b"strange"
    files.download(f"http://127.0.0.1:{file_server.port}@127.0.0.1:{stranger.port}/a.png")
    authorizations = [asked.authorization or "" for asked in stranger.asked]
    assert len(authorizations) == 2
    assert all("Token" not in value for value in authorizations)


def test_hosts_that_parsers_disagree_on(file_server: LocalServer, stranger: LocalServer) -> None:
    """To Python's urlsplit the host is what follows the @, to the HTTP client what precedes it."""
    files = LabelStudioFiles(file_server.url, LEGACY, rules=LOOPBACK)
    assert files.download(f"{stranger.url}\\@127.0.0.1:{file_server.port}/a.png") == b"strange"
    assert stranger.asked[0].authorization is None


def test_redirects_leave_the_token_behind(
    file_server: LocalServer, stranger: LocalServer, file_studio: FileStudio
) -> None:
    signed = f"{stranger.url}/bucket/a.png?signature=1"
    file_studio.answers["/tasks/3/presign/?fileuri=czM6Ly9iL2EucG5n"] = Answer(
        303, headers={"Location": signed}
    )
    files = LabelStudioFiles(file_server.url, LEGACY, rules=LOOPBACK)
    assert files.download(files.storage_url("s3://b/a.png", 3, 1)) == b"strange"
    assert stranger.asked == [Asked("GET", "/bucket/a.png?signature=1", None)]


def test_redirects_on_the_host_keep_it(file_server: LocalServer, file_studio: FileStudio) -> None:
    file_studio.answers["/data/old.png"] = Answer(302, headers={"Location": "upload/1/a.png"})
    assert (
        LabelStudioFiles(file_server.url, LEGACY).download(f"{file_server.url}/data/old.png")
        == b"picture"
    )


def test_the_token_goes_along_for_files_only(
    file_server: LocalServer, file_studio: FileStudio
) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY)
    paths = ["/api/users/", "/", "/user/account", "/data/%2e%2e/api/users/", "/data/x/..%2f../api"]
    paths += ["/data/%252e%252e/api/", "/data/upload/../../api/projects/"]
    for path in paths:
        with pytest.raises(ImageRefused, match="no file of Label Studio's"):
            files.download(f"{file_server.url}{path}")
    file_studio.answers["/data/y"] = Answer(302, headers={"Location": "/api/users/"})
    with pytest.raises(ImageRefused, match="no file of Label Studio's"):
        files.download(f"{file_server.url}/data/y")
    authorizations = {asked.path: asked.authorization for asked in file_server.asked}
    assert authorizations.pop("/data/y") == f"Token {LEGACY}"
    assert set(authorizations.values()) == {None}


def test_what_setup_sends_is_used_where_nothing_is_configured(file_server: LocalServer) -> None:
    files = LabelStudioFiles(rules=LOOPBACK)
    files.use_setup(file_server.url + "/", LEGACY)
    assert fetch_file(files) == b"picture"


def test_a_password_in_a_sent_address_is_left_out() -> None:
    """The address is a link on pages that others see."""
    files = LabelStudioFiles()
    files.use_setup("https://ann:secret@studio.example.com/label/", "")
    assert files.task_url(7, 3) == "https://studio.example.com/label/projects/7/data?task=3"


def test_a_sent_token_stays_with_its_host(file_server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(stranger.url)
    files.use_setup(file_server.url, LEGACY)
    assert fetch_file(files) == b"strange"
    assert stranger.asked[0].authorization is None


def test_a_sent_token_serves_the_configured_host_where_it_is_one(
    file_server: LocalServer,
) -> None:
    files = LabelStudioFiles(file_server.url)
    files.use_setup(file_server.url, LEGACY)
    assert fetch_file(files) == b"picture"


def test_a_configured_token_is_kept(file_server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY)
    files.use_setup(stranger.url, "b" * 40)
    assert fetch_file(files) == b"picture"
    assert stranger.asked == []


def test_links_by_the_name_that_the_server_calls_itself(file_server: LocalServer) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY)
    files.use_setup("http://localhost:8080", "b" * 40, trusted=True)
    assert files.download("http://localhost:8080/data/upload/1/a.png") == b"picture"
    files = LabelStudioFiles(file_server.url, LEGACY, browser_url="http://localhost:8080/label")
    assert files.download("http://localhost:8080/label/data/upload/1/a.png") == b"picture"


@pytest.mark.parametrize("path", ["", "/data"])
def test_who_has_no_password_makes_no_other_host_a_name_of_label_studio(
    file_server: LocalServer, stranger: LocalServer, path: str
) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY, rules=LOOPBACK)
    files.use_setup(stranger.url + path, "")
    assert files.download(f"{stranger.url}/data/upload/1/a.png") == b"strange"
    files.use_setup(file_server.url + path, "")  # its own name, with a path that is none
    assert files.download(f"{file_server.url}/data/upload/1/a.png") == b"picture"


@pytest.mark.parametrize("hostname", ["", "  ", "studio", "file:///etc", "http://", "http://["])
def test_names_that_are_none_are_not_learned(hostname: str) -> None:
    files = LabelStudioFiles()
    files.use_setup(hostname, LEGACY)
    with pytest.raises(ImageNotFound, match="set LABEL_STUDIO_URL"):
        files.file_url("/data/upload/1/a.png")


def test_other_hosts_of_this_machine_are_not_asked(
    file_server: LocalServer, stranger: LocalServer
) -> None:
    """The configured Label Studio is trusted at its own port only."""
    files = LabelStudioFiles(file_server.url, LEGACY)
    for url in (f"{stranger.url}/a.png", f"http://localhost:{stranger.port}/a.png"):
        with pytest.raises(HostRefused, match="no public address"):
            files.download(url)
    assert stranger.asked == []
    assert fetch_file(files) == b"picture"


def test_who_has_no_password_teaches_no_private_address(file_server: LocalServer) -> None:
    for token in (LEGACY, PERSONAL):  # the latter would be sent to be exchanged
        files = LabelStudioFiles()
        files.use_setup(file_server.url, token)
        with pytest.raises(HostRefused, match="set LABEL_STUDIO_URL"):
            fetch_file(files)
    assert file_server.asked == []


def test_who_has_the_password_does(file_server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles()
    files.use_setup(file_server.url, PERSONAL, trusted=True)
    assert fetch_file(files) == b"picture"
    with pytest.raises(HostRefused):
        files.download(f"{stranger.url}/a.png")
    files.use_setup(stranger.url, LEGACY)  # somebody else, without: takes the trust along
    with pytest.raises(HostRefused):
        fetch_file(files)
