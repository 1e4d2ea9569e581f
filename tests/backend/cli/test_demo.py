from __future__ import annotations

import http.server
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from label_studio_sdk.converter.brush import encode_rle
from PIL import Image

from backend.cli import demo, demo_scenes, demo_servers, label_studio_project, server_process
from backend.cli.label_config import label_config
from backend.cli.server_process import DemoError
from backend.label_studio.label_config_parser import parse_label_config
from clearclip_core import SCENE_LABELS, render_scene

#: A server with a child of its own, as Label Studio and gunicorn have; `--deaf` ignores SIGTERM.
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
    defaults = {"variables": {"COLOUR": "green"}, "log": tmp_path / "log", "timeout_s": 20}
    return server_process.running(
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
    for _ in range(300):
        if not any(map(is_alive, pids)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{pids} are still there")


# ---- processes ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--deaf"]])
def test_a_server_ends_with_its_block_and_its_children_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(server_process, "STOP_TIMEOUT_S", 1)
    port = server_process.free_port(0)
    with serve(tmp_path, port, *arguments):
        server, child, colour = requests.get(f"http://127.0.0.1:{port}/", timeout=20).text.split()
        assert colour == "green"
        assert is_alive(int(server))
        assert is_alive(int(child))
    wait_until_gone(int(server), int(child))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_server_ends_when_we_are_killed(tmp_path: Path) -> None:
    port = server_process.free_port(0)
    (tmp_path / "server.py").write_text(SERVER)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                import sys, time
                from pathlib import Path
                from backend.cli.server_process import running
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
        server, child, _ = requests.get(f"http://127.0.0.1:{port}/", timeout=20).text.split()
        parent.kill()
    try:
        wait_until_gone(int(server))
    finally:
        os.kill(int(child), signal.SIGKILL)  # the fake server does not look after its own


def test_only_the_given_variables_reach_a_server_that_is_to_have_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR", "red")
    port = server_process.free_port(0)
    with serve(tmp_path, port, variables={}, only_these=True):
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=20).text.endswith("None")


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    with (
        pytest.raises(DemoError, match=r"ended with status 1(?s:.*)invalid literal for int"),
        server_process.running(
            [sys.executable, "-c", "int('not a port')"],
            variables={},
            health="http://127.0.0.1:9/health",
            log=tmp_path / "log",
            timeout_s=60,
        ),
    ):
        pass


def test_a_server_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    with (
        pytest.raises(DemoError, match="did not answer within 1 s"),
        server_process.running(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            variables={},
            health=f"http://127.0.0.1:{server_process.free_port(0)}/health",
            log=tmp_path / "log",
            timeout_s=1,
        ) as process,
    ):
        raise AssertionError(process)


def test_a_taken_port_is_not_used() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert server_process.free_port(port) != port
    assert server_process.free_port(port) == port


# ---- Label Studio ---------------------------------------------------------------------------


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
        demo_servers.find_label_studio()
    on_path = install(tmp_path / "bin" / "label-studio")
    assert demo_servers.find_label_studio() == on_path
    own = install(tmp_path / ".venv-label-studio" / "bin" / "label-studio")
    assert demo_servers.find_label_studio() == own
    assert demo_servers.find_label_studio(on_path) == on_path
    with pytest.raises(DemoError, match="`nowhere/label-studio` is no command"):
        demo_servers.find_label_studio("nowhere/label-studio")


@pytest.fixture
def refusing_studio() -> Iterator[demo_servers.LabelStudioProcess]:
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
    yield demo_servers.LabelStudioProcess(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_what_label_studio_refuses_is_said(
    refusing_studio: demo_servers.LabelStudioProcess,
) -> None:
    with pytest.raises(DemoError, match="Label Studio answered 403: no"):
        label_studio_project.upload(refusing_studio, 1, [("a.png", b"")])


@pytest.mark.parametrize("options", [{"labels": ["sky"]}, {"images": Path()}])
def test_pictures_and_labels_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(DemoError, match="give both, or none"):
        demo.run_demo(**options)


def test_a_folder_without_pictures_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DemoError, match=r"There is no picture \(.*\.png.*\) in "):
        demo.run_demo(images=tmp_path, labels=["sky"], label_studio_command="nowhere")


# ---- what is stored -------------------------------------------------------------------------


def test_the_label_config_has_every_label_in_a_colour_of_its_own() -> None:
    view = ET.fromstring(label_config(["sky", 'a "quoted" <label>', "tree"]))
    labels = view.findall("BrushLabels/Label")
    assert [label.get("value") for label in labels] == ["sky", 'a "quoted" <label>', "tree"]
    assert len({label.get("background") for label in labels}) == 3


def test_the_label_config_has_tools_that_ask_for_every_label() -> None:
    config = parse_label_config(label_config(["sky", "tree"]))
    assert [control.kind for control in config.controls] == ["brushlabels"]
    for name in ("click", "box"):
        tool = config.tool(name)
        assert tool is not None
        assert [label.name for label in tool.labels] == ["sky", "tree"]
    assert config.tool("words") is not None


def test_scenes_are_named_after_their_seeds() -> None:
    name, content = demo_scenes.scene_file(7)
    assert demo_scenes.scene_seed(f"/data/upload/1/0a1b2c3d-{name}") == 7
    assert (np.asarray(Image.open(io.BytesIO(content))) == render_scene(7).image).all()
    with pytest.raises(ValueError, match="name a drawn scene"):
        demo_scenes.scene_seed("/data/upload/7/0a1b2c3d-holiday.png")


def test_a_stored_prediction_of_the_truth_is_the_truth() -> None:
    truth = render_scene(3, size_hw=(48, 64)).label_map
    result = [
        {
            "value": {
                "rle": encode_rle((np.repeat(truth.ravel() == index, 4) * 255).astype(np.uint8)),
                "brushlabels": [SCENE_LABELS[index]],
            },
        }
        for index in np.unique(truth)[:-1]  # the last label is predicted nowhere
    ]
    predicted = demo_scenes.predicted_label_map(result, truth.shape)
    last = np.unique(truth)[-1]
    assert (predicted == np.where(truth == last, -1, truth)).all()


def test_mean_iou_is_that_of_a_loop_over_the_pixels() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.integers(-1, 5, (6, 7)), random.integers(0, 7, (6, 7))) for _ in range(3)]
    ious = []
    for label in range(7):
        both = either = 0
        for predicted, true in pairs:
            for p, t in zip(predicted.flat, true.flat, strict=True):
                both += p == label and t == label
                either += p == label or t == label
        ious.append(both / either)
    assert demo_scenes.mean_iou(pairs) == pytest.approx(np.mean(ious))
