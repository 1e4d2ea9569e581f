"""Files and tokens over real HTTP: who is sent which token, and who is not."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.errors import HostRefused, ImageNotFound, ImageRefused, ImageTooLarge
from backend.label_studio.files import LabelStudioFiles
from backend.label_studio.tokens import Access
from backend.network.host_rules import HostRules
from backend.network.time_limit import Clock, TimeLimit
from backend.settings import load_settings
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

#: As if this machine's own addresses were public ones.
LOOPBACK = HostRules.parse("127.0.0.0/8")
LEGACY = "c0ffee" * 6 + "beef"


def _jwt(kind: str, lifetime_s: int, name: str = "") -> str:
    claims = {"token_type": kind, "iat": 1000, "exp": 1000 + lifetime_s, "jti": name}
    parts = [json.dumps({"alg": "HS256"}), json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in parts)


PERSONAL = _jwt("refresh", 10**9)


class LabelStudio:
    """Token exchange and files, as the real server has them, on two hosts of one machine."""

    def __init__(self, lifetime_s: int = 300) -> None:
        self.lifetime_s = lifetime_s
        self.exchanges = 0
        self.valid = {f"Token {LEGACY}"}
        self.answers: dict[str, Answer] = {"/data/upload/1/a.png": Answer(body=b"picture")}

    def route(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            if json.loads(asked.body) != {"refresh": PERSONAL}:
                return Answer(401, b'{"detail": "Token is invalid"}')
            self.exchanges += 1
            access = _jwt("access", self.lifetime_s, str(self.exchanges))
            self.valid = {f"Bearer {access}"}
            return Answer(body=json.dumps({"access": access}).encode())
        if asked.authorization not in self.valid:
            return Answer(401)
        return self.answers.get(asked.path, Answer(404))


@pytest.fixture
def label_studio() -> LabelStudio:
    return LabelStudio()


@pytest.fixture
def server(label_studio: LabelStudio) -> Iterator[LocalServer]:
    with LocalServer(label_studio.route) as server:
        yield server


@pytest.fixture
def stranger() -> Iterator[LocalServer]:
    """Another host, which answers anything to anyone."""
    with LocalServer(lambda asked: Answer(body=b"strange")) as server:
        yield server


def _fetch(files: LabelStudioFiles) -> bytes:
    return files.download(files.file_url("/data/upload/1/a.png"))


def test_a_legacy_token(server: LocalServer) -> None:
    assert _fetch(LabelStudioFiles(server.url, LEGACY)) == b"picture"
    assert server.asked == [Asked("GET", "/data/upload/1/a.png", f"Token {LEGACY}")]


def test_a_personal_token_is_exchanged_once(server: LocalServer, label_studio: LabelStudio) -> None:
    files = LabelStudioFiles(server.url, PERSONAL)
    assert [_fetch(files) for _ in range(3)] == [b"picture"] * 3
    assert label_studio.exchanges == 1
    assert all(PERSONAL not in (asked.authorization or "") for asked in server.asked)


def test_a_personal_token_is_exchanged_once_by_many_threads(
    server: LocalServer, label_studio: LabelStudio
) -> None:
    files = LabelStudioFiles(server.url, PERSONAL)
    threads = [threading.Thread(target=_fetch, args=(files,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert label_studio.exchanges == 1
    assert len(server.asked) == 9


def test_pictures_do_not_wait_one_after_the_other_for_a_token_that_does_not_come() -> None:
    over, together = threading.Event(), threading.Barrier(8)
    sentences = []

    def hang(asked: Asked) -> Answer:
        over.wait(60)
        return Answer(500)

    with LocalServer(hang) as server:
        files = LabelStudioFiles(server.url, PERSONAL, timeout_s=2)

        def fetch() -> None:
            together.wait(20)
            with pytest.raises(ImageRefused) as caught:
                _fetch(files)
            sentences.append(str(caught.value))

        threads = [threading.Thread(target=fetch) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
    assert sentences == [f"Label Studio at {server.url} cannot be reached."] * 8
    assert [asked.path for asked in server.asked] == ["/api/token/refresh/"]


def test_an_exchanged_token_is_renewed_before_it_ends(
    server: LocalServer, label_studio: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_studio.lifetime_s = 2000
    files = LabelStudioFiles(server.url, PERSONAL)
    _fetch(files)
    now = time.monotonic()
    monkeypatch.setattr(
        "backend.label_studio.tokens.time", SimpleNamespace(monotonic=lambda: now + 1990)
    )
    _fetch(files)
    assert label_studio.exchanges == 2
    assert len(server.asked) == 4


def test_an_exchanged_token_is_renewed_when_refused(
    server: LocalServer, label_studio: LabelStudio
) -> None:
    files = LabelStudioFiles(server.url, PERSONAL)
    _fetch(files)
    label_studio.valid = set()  # the server has restarted with other keys
    assert _fetch(files) == b"picture"
    assert label_studio.exchanges == 2


def test_an_access_token_is_sent_as_it_is(server: LocalServer, label_studio: LabelStudio) -> None:
    token = _jwt("access", 300)
    label_studio.valid = {f"Bearer {token}"}
    assert _fetch(LabelStudioFiles(server.url, token)) == b"picture"


@pytest.mark.parametrize("token", [LEGACY[::-1], _jwt("refresh", 5), _jwt("access", 5)])
def test_refused_tokens(server: LocalServer, token: str) -> None:
    with pytest.raises(ImageRefused, match="LABEL_STUDIO_API_KEY") as caught:
        _fetch(LabelStudioFiles(server.url, token))
    assert token not in str(caught.value)
    assert len(server.asked) == 1


def test_no_token(server: LocalServer) -> None:
    with pytest.raises(ImageRefused, match="LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        _fetch(LabelStudioFiles(server.url))


def test_other_hosts_never_see_a_token(server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(server.url, LEGACY, rules=LOOPBACK)
    assert files.download(f"{stranger.url}/a.png") == b"strange"
    files.download(f"http://127.0.0.1:{server.port}@127.0.0.1:{stranger.port}/a.png")
    authorizations = [asked.authorization or "" for asked in stranger.asked]
    assert len(authorizations) == 2
    assert all("Token" not in value for value in authorizations)


def test_hosts_that_parsers_read_differently(server: LocalServer, stranger: LocalServer) -> None:
    """To Python's urlsplit the host is what follows the @, to the HTTP client what precedes it."""
    files = LabelStudioFiles(server.url, LEGACY, rules=LOOPBACK)
    assert files.download(f"{stranger.url}\\@127.0.0.1:{server.port}/a.png") == b"strange"
    assert stranger.asked[0].authorization is None


def test_redirects_leave_the_token_behind(
    server: LocalServer, stranger: LocalServer, label_studio: LabelStudio
) -> None:
    signed = f"{stranger.url}/bucket/a.png?signature=1"
    label_studio.answers["/tasks/3/presign/?fileuri=czM6Ly9iL2EucG5n"] = Answer(
        303, headers={"Location": signed}
    )
    files = LabelStudioFiles(server.url, LEGACY, rules=LOOPBACK)
    assert files.download(files.storage_url("s3://b/a.png", 3, 1)) == b"strange"
    assert stranger.asked == [Asked("GET", "/bucket/a.png?signature=1", None)]


def test_redirects_on_the_host_keep_it(server: LocalServer, label_studio: LabelStudio) -> None:
    label_studio.answers["/data/old.png"] = Answer(302, headers={"Location": "upload/1/a.png"})
    assert LabelStudioFiles(server.url, LEGACY).download(f"{server.url}/data/old.png") == b"picture"


def test_redirects_end(server: LocalServer, label_studio: LabelStudio) -> None:
    label_studio.answers["/data/loop"] = Answer(302, headers={"Location": "/data/loop"})
    with pytest.raises(ImageRefused, match="too many redirects"):
        LabelStudioFiles(server.url, LEGACY).download(f"{server.url}/data/loop")
    assert len(server.asked) == 6


def test_redirects_to_files_are_not_followed(
    server: LocalServer, label_studio: LabelStudio, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    label_studio.answers["/data/x"] = Answer(302, headers={"Location": f"file://{tmp_path}/secret"})
    with pytest.raises(ImageNotFound, match="no http"):
        LabelStudioFiles(server.url, LEGACY).download(f"{server.url}/data/x")


def test_passwords_in_a_netrc_are_not_sent(
    stranger: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    LabelStudioFiles(rules=LOOPBACK).download(f"{stranger.url}/a.png")
    assert stranger.asked[0].authorization is None


def test_passwords_in_a_url_are_sent_but_not_shown() -> None:
    with LocalServer(lambda asked: Answer(404)) as server:
        with pytest.raises(ImageNotFound) as caught:
            LabelStudioFiles(rules=LOOPBACK).download(
                f"http://ann:secret@127.0.0.1:{server.port}/a.png?key=hidden"
            )
        assert server.asked[0].authorization == "Basic " + base64.b64encode(b"ann:secret").decode()
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_setup_sends_is_used_where_nothing_is_configured(server: LocalServer) -> None:
    files = LabelStudioFiles(rules=LOOPBACK)
    files.learn(server.url + "/", LEGACY)
    assert _fetch(files) == b"picture"


def test_a_learned_token_stays_with_its_host(server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(stranger.url)
    files.learn(server.url, LEGACY)
    assert _fetch(files) == b"strange"
    assert stranger.asked[0].authorization is None


def test_a_learned_token_serves_the_configured_host_if_it_is_the_same(server: LocalServer) -> None:
    files = LabelStudioFiles(server.url)
    files.learn(server.url, LEGACY)
    assert _fetch(files) == b"picture"


def test_a_configured_token_is_not_replaced(server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles(server.url, LEGACY)
    files.learn(stranger.url, "b" * 40)
    assert _fetch(files) == b"picture"
    assert stranger.asked == []


def test_links_by_the_name_that_the_server_calls_itself(server: LocalServer) -> None:
    files = LabelStudioFiles(server.url, LEGACY)
    files.learn("http://localhost:8080", "b" * 40)
    assert files.download("http://localhost:8080/data/upload/1/a.png") == b"picture"


@pytest.mark.parametrize("hostname", ["", "  ", "studio", "file:///etc", "http://", "http://["])
def test_names_that_are_none_are_not_learned(hostname: str) -> None:
    files = LabelStudioFiles()
    files.learn(hostname, LEGACY)
    with pytest.raises(ImageNotFound, match="set LABEL_STUDIO_URL"):
        files.file_url("/data/upload/1/a.png")


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


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (Answer(404), ImageNotFound, "There is no file at"),
        (Answer(410), ImageNotFound, "There is no file at"),
        (Answer(403), ImageRefused, "HTTP 403"),
        (Answer(500, b"<html>traceback"), ImageRefused, "answered HTTP 500"),
        (Answer(204), ImageRefused, "answered HTTP 204"),
        (Answer(200, b"half", length=8), ImageRefused, "broke off"),
        (Answer(200, b"", length=3 << 20), ImageTooLarge, "larger than the limit of 1 MB"),
        (Answer(200, b"x" * (1 << 20) + b"x"), ImageTooLarge, "larger than the limit of 1 MB"),
    ],
)
def test_answers_that_are_no_file(answer: Answer, error: type[Exception], sentence: str) -> None:
    with (
        LocalServer(lambda asked: answer) as server,
        pytest.raises(error, match=sentence) as caught,
    ):
        LabelStudioFiles(rules=LOOPBACK, max_file_mb=1).download(f"{server.url}/a.png")
    assert "\n" not in str(caught.value)


def test_a_file_of_exactly_the_limit() -> None:
    with LocalServer(lambda asked: Answer(body=b"x" * (1 << 20))) as server:
        assert len(LabelStudioFiles(rules=LOOPBACK, max_file_mb=1).download(server.url)) == 1 << 20


def test_slow_hosts() -> None:
    given_up = threading.Event()

    def slow(asked: Asked) -> Answer:
        given_up.wait(60)  # who waited for all of it would have its answer
        return Answer(body=b"late")

    with LocalServer(slow) as server:
        with pytest.raises(ImageRefused):
            LabelStudioFiles(rules=LOOPBACK, timeout_s=0.2).download(f"{server.url}/a.png")
        given_up.set()


def test_drops_that_never_end(drip: LocalServer) -> None:
    with pytest.raises(ImageRefused, match="took longer than"):
        LabelStudioFiles(rules=LOOPBACK, timeout_s=0.3).download(f"{drip.url}/a.png")


@pytest.fixture
def drip() -> Iterator[LocalServer]:
    """Writes a byte now and then, each in time for a timeout of a single read; 3 s for all."""
    with LocalServer(lambda asked: Answer(body=b"x" * 30), pause_s=0.1) as server:
        yield server


def test_nobody_there() -> None:
    with LocalServer(lambda asked: Answer()) as server:
        url = server.url
    with pytest.raises(ImageRefused, match="cannot be reached"):
        LabelStudioFiles(rules=LOOPBACK).download(f"{url}/a.png")
    with pytest.raises(ImageRefused, match="cannot be reached"):
        _fetch(LabelStudioFiles(url, PERSONAL))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"access": 3}'])
def test_strange_exchanges(body: bytes) -> None:
    with LocalServer(lambda asked: Answer(body=body)) as server, pytest.raises(ImageRefused):
        Access(server.url, PERSONAL).header(TimeLimit(20, Clock()))


def test_settings_become_a_studio(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(label_studio_url=server.url, label_studio_api_key=LEGACY)
    assert _fetch(LabelStudioFiles.from_settings(settings)) == b"picture"


# ---- which hosts are asked ----------------------------------------------------------------------


def test_other_hosts_of_this_machine_are_not_asked(
    server: LocalServer, stranger: LocalServer
) -> None:
    """The configured Label Studio is trusted at its own port only."""
    files = LabelStudioFiles(server.url, LEGACY)
    for url in (f"{stranger.url}/a.png", f"http://localhost:{stranger.port}/a.png"):
        with pytest.raises(HostRefused, match="no public address"):
            files.download(url)
    assert stranger.asked == []
    assert _fetch(files) == b"picture"


@pytest.mark.parametrize(
    "location",
    [
        "{stranger}/a.png",
        "//127.0.0.1:{port}/a.png",
        "http://2130706433:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/latest/",
        "http://[fd00:ec2::254]/latest/",
    ],
)
def test_redirects_to_private_addresses_are_not_followed(
    server: LocalServer, stranger: LocalServer, label_studio: LabelStudio, location: str
) -> None:
    place = location.replace("{stranger}", stranger.url).replace("{port}", str(stranger.port))
    label_studio.answers["/data/x"] = Answer(302, headers={"Location": place})
    with pytest.raises((HostRefused, ImageRefused)) as caught:
        LabelStudioFiles(server.url, LEGACY, timeout_s=3).download(f"{server.url}/data/x")
    if "[" not in location:  # a machine without IPv6 cannot reach those at all
        assert isinstance(caught.value, HostRefused)
    assert stranger.asked == []


def test_who_has_no_password_teaches_no_private_address(server: LocalServer) -> None:
    for token in (LEGACY, PERSONAL):  # the latter would be sent to be exchanged
        files = LabelStudioFiles()
        files.learn(server.url, token)
        with pytest.raises(HostRefused, match="set LABEL_STUDIO_URL"):
            _fetch(files)
    assert server.asked == []


def test_who_has_the_password_does(server: LocalServer, stranger: LocalServer) -> None:
    files = LabelStudioFiles()
    files.learn(server.url, PERSONAL, vouched=True)
    assert _fetch(files) == b"picture"
    with pytest.raises(HostRefused):
        files.download(f"{stranger.url}/a.png")
    files.learn(stranger.url, LEGACY)  # somebody else, without: takes the trust along
    with pytest.raises(HostRefused):
        _fetch(files)


def test_the_token_goes_along_for_files_only(
    server: LocalServer, label_studio: LabelStudio
) -> None:
    files = LabelStudioFiles(server.url, LEGACY)
    paths = ["/api/users/", "/", "/user/account", "/data/%2e%2e/api/users/", "/data/x/..%2f../api"]
    paths += ["/data/%252e%252e/api/", "/data/upload/../../api/projects/"]
    for path in paths:
        with pytest.raises(ImageRefused, match="no file of Label Studio's"):
            files.download(f"{server.url}{path}")
    label_studio.answers["/data/y"] = Answer(302, headers={"Location": "/api/users/"})
    with pytest.raises(ImageRefused, match="no file of Label Studio's"):
        files.download(f"{server.url}/data/y")
    authorizations = {asked.path: asked.authorization for asked in server.asked}
    assert authorizations.pop("/data/y") == f"Token {LEGACY}"
    assert set(authorizations.values()) == {None}


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


def test_a_header_that_never_ends_is_too_slow() -> None:
    given_up = threading.Event()

    def slow(asked: Asked) -> Answer:
        given_up.wait(60)  # who waited for all of it would have its answer
        return Answer(headers={f"X-{number}": "y" for number in range(3)})

    with LocalServer(slow) as server:
        with pytest.raises(ImageRefused, match=r"took longer than 0\.2 s"):
            LabelStudioFiles(server.url, LEGACY, timeout_s=0.2).download(f"{server.url}/data/a.png")
        given_up.set()


# ---- links for people ---------------------------------------------------------------------------


def test_people_are_sent_where_label_studio_says_that_it_is() -> None:
    files = LabelStudioFiles("http://label-studio:8080")
    assert files.task_url(7) == "http://label-studio:8080/projects/7/data"
    files.learn("https://studio.example.com/label/", "")
    assert files.task_url(7, 3) == "https://studio.example.com/label/projects/7/data?task=3"
    assert files.task_url(7, "3&x=<") == "https://studio.example.com/label/projects/7/data"
    assert files.task_url(None, 3) is None
    assert LabelStudioFiles().task_url(7, 3) is None
