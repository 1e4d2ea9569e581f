"""Which addresses are connected to, against lists of the registries' own special ones."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
import requests

from backend.errors import HostRefused
from backend.network.host_rules import HostRules
from backend.network.http import TimeLimit, request
from tests.backend.fakes.local_server import Answer, LocalServer


def get(
    url: str, rules: HostRules | None = None, trusted: bool = False, limit: TimeLimit | None = None
) -> requests.Response:
    rules = None if trusted else rules or HostRules()
    return request("GET", url, rules=rules, limit=limit or TimeLimit(20))


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(lambda _: Answer(body=b"inside")) as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make the resolver answer: each lookup takes the next list of addresses, the last for ever."""
    real = socket.getaddrinfo

    def answer(*answers: list[str]) -> list[str]:
        asked: list[str] = []

        def look_up(host: str, port: int, *_: Any, **options: Any) -> Any:
            addresses = answers[min(len(asked), len(answers) - 1)]
            asked.append(host)
            return [one for a in addresses for one in real(a, port, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return asked

    return answer


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "LOCALHOST", "127.1", "0", "0.0.0.0"),
        *("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]"),
    ],
)
def test_this_machine_in_every_spelling(server: LocalServer, host: str) -> None:
    with pytest.raises((HostRefused, requests.ConnectionError)):  # without IPv6 there is no ::1
        get(f"http://{host}:{server.port}/")
    assert server.asked == []


def test_a_name_is_looked_up_once_and_only_its_public_addresses_are_tried(
    names: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: public when it is checked, private when it is connected to."""
    connected: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    asked = names(["10.0.0.1", "8.8.8.8", "127.0.0.1", "1.1.1.1"], ["127.0.0.1"])
    with pytest.raises(requests.ConnectionError):
        get("http://rebind.example/")
    assert asked == ["rebind.example"]
    assert connected == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize(
    ("allowed", "host", "opens"),
    [
        *(("127.0.0.0/8", "localhost", True), ("localhost", "localhost", True)),
        *(("LocalHost:{port}", "localhost", True), ("localhost", "127.0.0.1", False)),
        ("*.localhost", "localhost", False),
        ("10.0.0.0/8, 127.0.0.0/30", "127.0.0.1", True),
        *(("127.0.0.1:{port}", "127.0.0.1", True), ("127.0.0.1:{port}", "2130706433", False)),
    ],
)
def test_allowed_hosts(server: LocalServer, allowed: str, host: str, opens: bool) -> None:
    rules = HostRules.parse(allowed.replace("{port}", str(server.port)))
    url = f"http://{host}:{server.port}/"
    trusted = rules.is_allowed_host(url)
    if opens:
        assert get(url, rules, trusted=trusted).content == b"inside"
    else:
        with pytest.raises(
            HostRefused, match=r":\d+ has no public.*LABEL_STUDIO_URL.*ALLOWED_HOSTS"
        ):
            get(url, rules, trusted=trusted)
        assert server.asked == []


def test_tls_names_the_host_although_an_address_is_used(names: Callable[..., list[str]]) -> None:
    heard: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def listen() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        names(["127.0.0.1"])
        with pytest.raises(requests.ConnectionError):
            get(f"https://files.example:{listener.getsockname()[1]}/", trusted=True)
        thread.join(60)
    assert b"files.example" in heard[0]


def test_a_proxy_is_for_vouched_hosts(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    assert get("http://studio.example/a.png", trusted=True).content == b"inside"
    assert [asked.path for asked in server.asked] == ["http://studio.example/a.png"]
    with pytest.raises(HostRefused):  # also where the address of the proxy would be allowed
        get("http://10.9.9.9/a.png", HostRules.parse("127.0.0.0/8"))
    assert len(server.asked) == 1


@contextmanager
def dripping(opening: bytes, drop: bytes) -> Iterator[int]:
    """Serve an answer with an opening, and then a drop every now and then for ever."""
    gone = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(opening)
                while not gone.wait(0.05):
                    connection.sendall(drop)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        gone.set()
        thread.join()


@pytest.mark.parametrize(
    ("opening", "drop"),
    [
        (b"HTTP/1.1 200 ", b"O"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"xyz"),
    ],
)
def test_the_limit_ends_what_comes_in_drops(opening: bytes, drop: bytes) -> None:
    """Each drop comes in time for a timeout of a single read."""
    started = time.monotonic()
    with dripping(opening, drop) as port, TimeLimit(0.4) as limit:
        try:
            content = get(f"http://127.0.0.1:{port}/", limit=limit, trusted=True).content
        except requests.RequestException:
            content = b""
        assert limit.is_over
    assert len(content) < 100
    assert time.monotonic() - started < 20  # not for ever
