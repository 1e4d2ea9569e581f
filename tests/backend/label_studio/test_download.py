"""Downloads over real HTTP: redirects, errors, limits of time and size, who is sent the token."""

import base64
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.errors import HostRefused, ImageNotFound, ImageRefused, ImageTooLarge
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.download import LabelStudioFiles
from tests.backend.fakes.file_studio import (
    LEGACY,
    LOOPBACK,
    PERSONAL,
    FileStudio,
    fetch_file,
    make_jwt,
)
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("file:///etc/passwd", ImageNotFound),
        ("{stranger}/a.png", HostRefused),
        ("http://2130706433:{port}/", HostRefused),
        ("http://169.254.169.254/latest/meta-data/", HostRefused),
        # a machine without IPv6 cannot reach those at all
        ("http://[::ffff:169.254.169.254]/latest/", (HostRefused, ImageRefused)),
    ],
)
def test_redirects_to_files_and_private_addresses_are_not_followed(
    file_server: LocalServer,
    stranger: LocalServer,
    file_studio: FileStudio,
    location: str,
    error: type[Exception],
) -> None:
    place = location.replace("{stranger}", stranger.url).replace("{port}", str(stranger.port))
    file_studio.answers["/data/x"] = Answer(302, headers={"Location": place})
    with pytest.raises(error):
        LabelStudioFiles(file_server.url, LEGACY, timeout_s=3).download(f"{file_server.url}/data/x")
    assert stranger.asked == []


def test_passwords_in_a_url_are_sent_but_not_shown() -> None:
    with LocalServer(lambda asked: Answer(404)) as server:
        with pytest.raises(ImageNotFound) as caught:
            LabelStudioFiles(rules=LOOPBACK).download(
                f"http://ann:secret@127.0.0.1:{server.port}/a.png?key=hidden"
            )
        assert server.asked[0].authorization == "Basic " + base64.b64encode(b"ann:secret").decode()
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (Answer(404), ImageNotFound, r"is not handed out \(HTTP 404\).$"),
        (Answer(204), ImageRefused, "HTTP 204"),
        (Answer(200, b"half", length=8), ImageRefused, "broke off"),
        (Answer(200, b""), ImageRefused, "is empty, or its download broke off"),
        (Answer(200, b"", length=3 << 20), ImageTooLarge, "larger than the limit of 1 MB"),
        (Answer(200, b"x" * (1 << 20) + b"x", has_length=False), ImageTooLarge, "limit of 1 MB"),
    ],
)
def test_answers_that_are_no_file(answer: Answer, error: type[Exception], sentence: str) -> None:
    with (
        LocalServer(lambda asked: answer) as server,
        pytest.raises(error, match=sentence) as caught,
    ):
        LabelStudioFiles(rules=LOOPBACK, max_file_mb=1).download(f"{server.url}/a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/tasks/3/presign/?fileuri=czM6Ly9iL2EucG5n", 404, "connect the bucket"),
        ("/data/local-files/?d=a/b.png", 404, "no local storage of the task's project"),
        ("/data/local-files/?d=a/b.png", 403, "LOCAL_FILES_SERVING_ENABLED=true"),
        ("/data/upload/1/a.png", 403, "check LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"),
        ("/data/upload/1/a.png", 500, "its uploaded file may be gone"),
        ("/data/upload/1/a.png", 404, "(HTTP 404)."),
    ],
)
def test_what_label_studio_does_not_hand_out(
    file_server: LocalServer, file_studio: FileStudio, path: str, status: int, sentence: str
) -> None:
    """As the real one answers: without a reason, and 500 for a file that is gone from its disk."""
    file_studio.answers[path] = Answer(status)
    files = LabelStudioFiles(file_server.url, LEGACY)
    with pytest.raises(ImageNotFound if status == 404 else ImageRefused) as caught:
        files.download(f"{file_server.url}{path}", "s3://b/a")
    assert str(caught.value).startswith("s3://b/a is not handed out")
    assert sentence in str(caught.value)


def test_slow_hosts() -> None:
    given_up = threading.Event()  # who waited for all of it would have its answer
    with LocalServer(lambda _: Answer(500 if given_up.wait(60) else 200, b"late")) as server:
        with pytest.raises(ImageRefused):
            LabelStudioFiles(rules=LOOPBACK, timeout_s=0.2).download(f"{server.url}/a.png")
        given_up.set()


def test_own_redirects_keep_the_token(file_server: LocalServer, file_studio: FileStudio) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY)
    for path, place in (("old.png", "upload/1/a.png"), ("loop", "/data/loop")):
        file_studio.answers[f"/data/{path}"] = Answer(302, headers={"Location": place})
    assert files.download(f"{file_server.url}/data/old.png") == b"picture"
    with pytest.raises(ImageRefused, match="too many redirects"):
        files.download(f"{file_server.url}/data/loop")
    assert len(file_server.asked) == 2 + 6


def test_passwords_in_a_netrc_are_not_sent(
    stranger: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    LabelStudioFiles(rules=LOOPBACK).download(f"{stranger.url}/a.png")
    assert stranger.asked[0].authorization is None


def test_other_hosts_never_see_a_token(file_server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY, rules=LOOPBACK)
    own, other = (f"127.0.0.1:{each.port}" for each in (file_server, stranger))
    # To Python's urlsplit the last one's host is what follows the @.
    for url in (f"http://{other}/a.png", f"http://{own}@{other}/a", f"http://{other}\\@{own}/a"):
        assert files.download(url) == b"strange"
    assert all("Token" not in (asked.authorization or "") for asked in stranger.asked)


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


def test_only_files_get_the_token(file_server: LocalServer, file_studio: FileStudio) -> None:
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


def test_a_sent_token_stays_with_its_host(file_server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(file_server.url, LEGACY)
    files.use_setup(stranger.url, "b" * 40)
    assert fetch_file(files) == b"picture"
    assert stranger.asked == []
    files = LabelStudioFiles(stranger.url)
    files.use_setup(file_server.url, LEGACY)
    assert fetch_file(files) == b"strange"
    assert stranger.asked[0].authorization is None


@pytest.mark.parametrize("url", [None, "configured"])
def test_a_sent_token_serves_its_own_host(file_server: LocalServer, url: str | None) -> None:
    files = LabelStudioFiles(url and file_server.url, rules=LOOPBACK)
    files.use_setup(file_server.url + "/", LEGACY)
    assert fetch_file(files) == b"picture"


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


@pytest.mark.parametrize("hostname", ["", "studio", "file:///etc", "http://["])
def test_names_that_are_none_are_not_learned(hostname: str) -> None:
    files = LabelStudioFiles()
    files.use_setup(hostname, LEGACY)
    with pytest.raises(ImageNotFound, match="set LABEL_STUDIO_URL"):
        files.file_url("/data/upload/1/a.png")


def test_other_local_hosts_are_not_asked(file_server: LocalServer, stranger: LocalServer) -> None:
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


def test_storages_are_asked_by_task_or_by_project() -> None:
    files = LabelStudioFiles("http://studio")
    fileuri = base64.urlsafe_b64encode("gs://b/ü?.png".encode()).decode().replace("=", "%3D")
    assert files.storage_url("gs://b/ü?.png", None, 7).endswith(
        f"/projects/7/presign/?fileuri={fileuri}"
    )
    with pytest.raises(ImageNotFound, match="no number"):
        files.storage_url("gs://b/a.png", "word", None)


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


def test_people_are_sent_where_label_studio_says_that_it_is() -> None:
    files = LabelStudioFiles()
    files.use_setup("https://ann:secret@studio.example.com/label/", "")
    assert files.task_url(7, 3) == "https://studio.example.com/label/projects/7/data?task=3"
    assert files.task_url(7, "3&x=<") == "https://studio.example.com/label/projects/7/data"
    assert files.task_url(None, 3) is None
    assert LabelStudioFiles().task_url(7, 3) is None


def behind_proxy(answer: Callable[[Asked], Answer]) -> LocalServer:
    """A reverse proxy that takes a prefix away; another application has the rest of the host."""

    def route(asked: Asked) -> Answer:
        if not asked.path.startswith("/label/"):
            return Answer(body=b"another application")
        return answer(replace(asked, path=asked.path.removeprefix("/label")))

    return LocalServer(route)


def test_the_api_is_called_below_the_prefix(studio: FakeStudio) -> None:
    with behind_proxy(studio.answer) as proxy:
        client = LabelStudioClient(f"{proxy.url}/label", TOKEN, retry_for_s=0)
        assert client.label_config(7) == studio.label_config
    assert all(each.path.startswith("/label/api/") for each in proxy.asked)


def test_files_are_fetched_below_the_prefix_and_no_token_goes_beside_it() -> None:
    with behind_proxy(FileStudio().route) as proxy:
        files = LabelStudioFiles(f"{proxy.url}/label", LEGACY)
        for path in ("/label/data/upload/1/a.png", "/data/upload/1/a.png"):
            assert files.download(files.file_url(path)) == b"picture"
        for path in ("/data/upload/1/a.png", "/labels/data/a.png", "/tasks/3/presign/"):
            assert files.download(f"{proxy.url}{path}") == b"another application"
    assert [each.path for each in proxy.asked[:2]] == ["/label/data/upload/1/a.png"] * 2
    assert [each.authorization for each in proxy.asked[2:]] == [None] * 3


def test_the_prefix_of_the_address_for_people_is_known_inside_too(file_server: LocalServer) -> None:
    """As in Docker Compose: inside, nothing takes the prefix away, and there is none."""
    people = "https://host.example/label"
    announced = LabelStudioFiles(file_server.url, LEGACY)
    announced.use_setup(people, "")
    for files in (announced, LabelStudioFiles(file_server.url, LEGACY, browser_url=people)):
        for path in ("/label/data/upload/1/a.png", "/data/upload/1/a.png"):
            assert files.file_url(path) == f"{file_server.url}/data/upload/1/a.png"
        assert fetch_file(files) == b"picture"


def test_threads_exchange_a_token_once(file_server: LocalServer, file_studio: FileStudio) -> None:
    files = LabelStudioFiles(file_server.url, PERSONAL)
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(fetch_file, [files] * 8)] == [b"picture"] * 8
    assert (file_studio.exchanges, len(file_server.asked)) == (1, 9)
    assert all(PERSONAL not in (asked.authorization or "") for asked in file_server.asked)


def test_an_exchanged_token_is_renewed_before_it_ends_and_when_refused(
    file_server: LocalServer, file_studio: FileStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LabelStudioFiles(file_server.url, PERSONAL)
    fetch_file(files)
    later = time.monotonic() + 200
    clock = SimpleNamespace(monotonic=lambda: later)
    monkeypatch.setattr("backend.label_studio.tokens.time", clock)
    fetch_file(files)
    assert (file_studio.exchanges, len(file_server.asked)) == (2, 4)
    file_studio.valid = set()  # the server has restarted with other keys
    assert fetch_file(files) == b"picture"
    assert file_studio.exchanges == 3


@pytest.mark.parametrize("token", [LEGACY[::-1], make_jwt("refresh", "other")])
def test_refused_tokens(file_server: LocalServer, token: str) -> None:
    with pytest.raises(ImageRefused, match="LABEL_STUDIO_API_KEY") as caught:
        fetch_file(LabelStudioFiles(file_server.url, token))
    assert token not in str(caught.value)
    assert len(file_server.asked) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"access": 3}'])
def test_strange_exchanges(body: bytes) -> None:
    with LocalServer(lambda asked: Answer(body=body)) as server, pytest.raises(ImageRefused):
        fetch_file(LabelStudioFiles(server.url, PERSONAL))
