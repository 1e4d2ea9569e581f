"""Servers that commands and tests start, and end."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.cli import demo_servers
from backend.cli.demo_servers import DemoError, find_label_studio, running
from tests.backend.fakes.local_server import Answer, Asked, LocalServer, free_port
from tests.backend.fakes.waiting import wait_for

#: A server with a child of its own, as Label Studio has; `--deaf` ignores SIGTERM.
SERVER = """
import http.server, os, signal, subprocess, sys
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{os.getpid()} {child.pid} {os.environ.get('COLOUR')}".encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def serve(tmp_path: Path, port: int, *arguments: str, **options: Any) -> Any:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    defaults = {"variables": {"COLOUR": "green"}, "log": tmp_path / "log", "timeout_s": 60}
    return running(
        [sys.executable, str(script), str(port), *arguments],
        health=f"http://127.0.0.1:{port}/health",
        **{**defaults, **options},
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(*pids: int) -> None:
    wait_for(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("arguments", [[], ["--deaf"]])
def test_a_server_ends_with_its_block_and_its_children_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(demo_servers, "STOP_TIMEOUT_S", 1)
    port = free_port()
    with serve(tmp_path, port, *arguments):
        server, child, colour = requests.get(f"http://127.0.0.1:{port}/", timeout=60).text.split()
        assert colour == "green"
        assert is_alive(int(server))
        assert is_alive(int(child))
    wait_until_gone(int(server), int(child))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_server_ends_when_we_are_killed(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "server.py").write_text(SERVER)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                import sys, time
                from pathlib import Path
                from backend.cli.demo_servers import running
                with running([sys.executable, {str(tmp_path / "server.py")!r}, "{port}"],
                             variables={{}}, log=Path({str(tmp_path / "log")!r}), timeout_s=60,
                             health="http://127.0.0.1:{port}/health"):
                    print("up", flush=True)
                    time.sleep(600)
            """),
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == b"up\n"
        server, child, _ = requests.get(f"http://127.0.0.1:{port}/", timeout=60).text.split()
        parent.kill()
    try:
        wait_until_gone(int(server))
    finally:
        os.kill(int(child), signal.SIGKILL)  # the fake server does not look after its own


def test_only_the_given_variables_reach_a_server_that_is_to_have_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR", "red")
    port = free_port()
    with serve(tmp_path, port, variables={}, only_these=True):
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=60).text.endswith("None")


@pytest.mark.parametrize(
    ("code", "sentence", "timeout_s"),
    [
        ("int('not a port')", r"ended with status 1(?s:.*)invalid literal for int", 60),
        ("import time; time.sleep(600)", "did not answer within 2 s", 2),
    ],
)
def test_a_server_that_never_answers_is_given_up(
    tmp_path: Path, code: str, sentence: str, timeout_s: float
) -> None:
    with (
        pytest.raises(DemoError, match=sentence),
        running(
            [sys.executable, "-c", code],
            variables={},
            health=f"http://127.0.0.1:{free_port()}/health",
            log=tmp_path / "log",
            timeout_s=timeout_s,
        ) as process,
    ):
        raise AssertionError(process)


def test_a_server_that_says_it_loads_is_waited_for(tmp_path: Path) -> None:
    states = iter(["loading"] * 3)

    def answer(asked: Asked) -> Answer:
        if asked.path == "/health":
            return Answer(body=json.dumps({"state": next(states, "ready")}).encode())
        return Answer(503 if loads() else 200)

    def loads() -> bool:
        return len([each for each in server.asked if each.path == "/health"]) < 3

    with (
        LocalServer(answer) as server,
        running(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            variables={},
            health=f"{server.url}/",
            loading=f"{server.url}/health",
            log=tmp_path / "log",
            timeout_s=0,
        ),
    ):
        assert not loads()


def test_a_taken_port_is_not_used() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port := free_port()))
        taken.listen()
        assert demo_servers.free_port(port) != port
    assert demo_servers.free_port(port) == port


def test_label_studio_is_looked_for_in_three_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DemoError, match=r"not installed here. Install it with: .*label-studio=="):
        find_label_studio()
    for folder in ("bin", ".venv-label-studio/bin"):  # the second wins
        command = tmp_path / folder / "label-studio"
        command.parent.mkdir(parents=True)
        command.touch(0o755)
        assert find_label_studio() == str(command)
    assert find_label_studio("bin/label-studio") == str(tmp_path / "bin" / "label-studio")
    with pytest.raises(DemoError, match="`nowhere/label-studio` is no command"):
        find_label_studio("nowhere/label-studio")
