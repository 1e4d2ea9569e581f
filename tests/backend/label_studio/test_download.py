"""Downloads over real HTTP: redirects, errors, limits of time and size."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest

from backend.errors import HostRefused, ImageNotFound, ImageRefused, ImageTooLarge
from backend.label_studio.download import LabelStudioFiles
from tests.backend.fakes.file_studio import (
    LEGACY,
    LOOPBACK,
    FileStudio,
)
from tests.backend.fakes.local_server import Answer, Asked, LocalServer


def test_redirects_to_files_are_not_followed(
    file_server: LocalServer, file_studio: FileStudio, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    file_studio.answers["/data/x"] = Answer(302, headers={"Location": f"file://{tmp_path}/secret"})
    with pytest.raises(ImageNotFound, match="no http"):
        LabelStudioFiles(file_server.url, LEGACY).download(f"{file_server.url}/data/x")


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
    file_server: LocalServer, stranger: LocalServer, file_studio: FileStudio, location: str
) -> None:
    place = location.replace("{stranger}", stranger.url).replace("{port}", str(stranger.port))
    file_studio.answers["/data/x"] = Answer(302, headers={"Location": place})
    with pytest.raises((HostRefused, ImageRefused)) as caught:
        LabelStudioFiles(file_server.url, LEGACY, timeout_s=3).download(f"{file_server.url}/data/x")
    if "[" not in location:  # a machine without IPv6 cannot reach those at all
        assert isinstance(caught.value, HostRefused)
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
        (Answer(404), ImageNotFound, "There is no file at"),
        (Answer(403), ImageRefused, "HTTP 403"),
        (Answer(500, b"<html>traceback"), ImageRefused, "answered HTTP 500"),
        (Answer(200, b"half", length=8), ImageRefused, "broke off"),
        (Answer(200, b""), ImageRefused, "is empty, or its download broke off"),
        (Answer(200, b"", length=3 << 20), ImageTooLarge, "larger than the limit of 1 MB"),
        (
            Answer(200, b"x" * (1 << 20) + b"x", has_length=False),
            ImageTooLarge,
            "larger than the limit of 1 MB",
        ),
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
    ("path", "status", "error", "sentence"),
    [
        # what the real Label Studio answers where no storage of the project has the file
        ("/tasks/3/presign/?fileuri=czM6Ly9iL2EucG5n", 404, ImageNotFound, "has no storage that"),
        ("/data/local-files/?d=a/b.png", 404, ImageNotFound, "or no local storage of the task's"),
        ("/data/upload/1/a.png", 404, ImageNotFound, "There is no file at"),
        # where it serves no local files at all
        ("/data/local-files/?d=a/b.png", 403, ImageRefused, "LOCAL_FILES_SERVING_ENABLED=true"),
        ("/data/upload/1/a.png", 403, ImageRefused, "check LABEL_STUDIO_API_KEY"),
        # and where an uploaded file is gone from its disk
        ("/data/upload/1/a.png", 500, ImageRefused, "its uploaded file may be gone"),
        ("/data/local-files/?d=a/b.png", 500, ImageRefused, "answered HTTP 500"),
    ],
)
def test_what_label_studio_does_not_hand_out(
    file_server: LocalServer,
    file_studio: FileStudio,
    path: str,
    status: int,
    error: type[Exception],
    sentence: str,
) -> None:
    file_studio.answers[path] = Answer(status)
    with pytest.raises(error, match=sentence) as caught:
        LabelStudioFiles(file_server.url, LEGACY).download(f"{file_server.url}{path}", "s3://b/a")
    assert "s3://b/a" in str(caught.value)


#: A JPEG without pixels, but with its marks, and the half of it.
WHOLE = b"\xff\xd8\xff\xda\x00\x02" + b"scan" * 9 + b"\xff\xd9"
HALF = WHOLE[:20]


def test_an_image_that_was_cut_off_without_a_length_is_refused() -> None:
    """A Label Studio that stops may have cut it off: a later try may have all of it."""
    png = b"\x89PNG\r\n\x1a\n" + b"chunk" * 9
    answers = [Answer(body=body, has_length=False) for body in (HALF, png, WHOLE, b"no image")]
    answers.append(Answer(body=HALF))  # all of its length has come
    with LocalServer(lambda asked: answers.pop(0)) as server:
        files = LabelStudioFiles(rules=LOOPBACK)
        for _ in range(2):
            with pytest.raises(ImageRefused, match="broke off"):
                files.download(f"{server.url}/a.jpg")
        for whole in (WHOLE, b"no image", HALF):
            assert files.download(f"{server.url}/a.jpg") == whole


def test_slow_hosts() -> None:
    given_up = threading.Event()

    def slow(asked: Asked) -> Answer:
        given_up.wait(60)  # who waited for all of it would have its answer
        return Answer(body=b"late")

    with LocalServer(slow) as server:
        with pytest.raises(ImageRefused):
            LabelStudioFiles(rules=LOOPBACK, timeout_s=0.2).download(f"{server.url}/a.png")
        given_up.set()


def test_redirects_end(file_server: LocalServer, file_studio: FileStudio) -> None:
    file_studio.answers["/data/loop"] = Answer(302, headers={"Location": "/data/loop"})
    with pytest.raises(ImageRefused, match="too many redirects"):
        LabelStudioFiles(file_server.url, LEGACY).download(f"{file_server.url}/data/loop")
    assert len(file_server.asked) == 6


def test_passwords_in_a_netrc_are_not_sent(
    stranger: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    LabelStudioFiles(rules=LOOPBACK).download(f"{stranger.url}/a.png")
    assert stranger.asked[0].authorization is None
