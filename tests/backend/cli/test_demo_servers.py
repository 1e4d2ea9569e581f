"""The servers of the demo."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.cli.demo import upload
from backend.cli.demo_servers import DemoError, LabelStudioProcess, find_label_studio


def test_label_studio_is_looked_for_in_three_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(path: Path) -> str:
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return str(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DemoError, match=r"not installed here. Install it with: .*label-studio=="):
        find_label_studio()
    on_path = install(tmp_path / "bin" / "label-studio")
    assert find_label_studio() == on_path
    own = install(tmp_path / ".venv-label-studio" / "bin" / "label-studio")
    assert find_label_studio() == own
    assert find_label_studio(on_path) == on_path
    with pytest.raises(DemoError, match="`nowhere/label-studio` is no command"):
        find_label_studio("nowhere/label-studio")


@pytest.fixture
def refusing_studio() -> Iterator[LabelStudioProcess]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(403)
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield LabelStudioProcess(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_what_label_studio_refuses_is_said(
    refusing_studio: LabelStudioProcess,
) -> None:
    with pytest.raises(DemoError, match="Label Studio answered 403: no"):
        upload(refusing_studio, 1, [("a.png", b"")])
