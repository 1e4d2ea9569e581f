"""Tokens over real HTTP: how each kind is sent, exchanged and renewed."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from backend.errors import ImageRefused
from backend.label_studio.download import LabelStudioFiles
from tests.backend.fakes.file_studio import (
    LEGACY,
    PERSONAL,
    FileStudio,
    fetch_file,
    make_jwt,
)
from tests.backend.fakes.local_server import Answer, LocalServer


def test_personal_tokens_are_exchanged_once(
    file_server: LocalServer, file_studio: FileStudio
) -> None:
    files = LabelStudioFiles(file_server.url, PERSONAL)
    assert [fetch_file(files) for _ in range(3)] == [b"picture"] * 3
    assert file_studio.exchanges == 1
    assert all(PERSONAL not in (asked.authorization or "") for asked in file_server.asked)


def test_a_personal_token_is_exchanged_once_by_many_threads(
    file_server: LocalServer, file_studio: FileStudio
) -> None:
    files = LabelStudioFiles(file_server.url, PERSONAL)
    threads = [threading.Thread(target=fetch_file, args=(files,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file_studio.exchanges == 1
    assert len(file_server.asked) == 9


def test_an_exchanged_token_is_renewed_before_it_ends(
    file_server: LocalServer, file_studio: FileStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LabelStudioFiles(file_server.url, PERSONAL)
    fetch_file(files)
    now = time.monotonic()
    monkeypatch.setattr(
        "backend.label_studio.tokens.time", SimpleNamespace(monotonic=lambda: now + 200)
    )
    fetch_file(files)
    assert file_studio.exchanges == 2
    assert len(file_server.asked) == 4


def test_an_exchanged_token_is_renewed_when_refused(
    file_server: LocalServer, file_studio: FileStudio
) -> None:
    files = LabelStudioFiles(file_server.url, PERSONAL)
    fetch_file(files)
    file_studio.valid = set()  # the file_server has restarted with other keys
    assert fetch_file(files) == b"picture"
    assert file_studio.exchanges == 2


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
