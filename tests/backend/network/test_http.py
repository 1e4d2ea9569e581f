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
from backend.network.host_rules import HostRules, origin
from backend.network.http import TimeLimit, request
from tests.backend.fakes.local_server import Answer, LocalServer

#: RFC 6890, its successors, and what clouds answer their own machines at.
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.9.9"),
    *("192.168.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200"),
    *("192.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.7"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fd20:ce::254"),
    *("fec0::1", "ff02::1", "2001:db8::1", "100::1", "64:ff9b:1::1"),
    # IPv4 inside: mapped, compatible, 6to4, NAT64, and Teredo with the client's bits turned over
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "2002:7f00:1::1", "2002:a9fe:a9fe::"),
    *("64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
PUBLIC += ["64:ff9b::8.8.8.8", "2002:808:808::1"]


@pytest.mark.parametrize(
    ("address", "is_public"), [(a, False) for a in NOT_PUBLIC] + [(a, True) for a in PUBLIC]
)
def test_only_public_addresses_are_allowed(address: str, is_public: bool) -> None:
    assert HostRules().is_allowed_address(address) == is_public


def test_a_star_stands_for_subdomains_and_for_nothing_that_only_ends_so() -> None:
    rules = HostRules.parse("*.lab.example")
    assert rules.is_allowed_host("https://a.b.lab.example/x")
    others = ["lab.example", "evillab.example", "a.lab.example.evil.org", "a.lab.example@evil.org"]
    assert not any(rules.is_allowed_host(f"https://{other}/x") for other in others)
    assert not rules.is_allowed_host("ftp://a.lab.example/x")


@pytest.mark.parametrize(
    "text",
    ["*", "10.0.0.1/8", "http://minio", "minio:port", "minio:0", "minio:70000", "a b", "a/b"],
)
def test_wrong_entries_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected names, addresses and networks"):
        HostRules.parse(f"good.example, {text}")


def test_origins() -> None:
    assert origin("http://a") == origin("http://A:80/x") != origin("http://a:8080")
    assert origin("https://a") == origin("https://a:443") != origin("http://a")
    assert origin("http://[::1]:8080/") == origin("http://[::1]:8080/x")


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
