"""The real Label Studio, the real backend with the demo model, and the real Chromium.

Most tests share the servers of one `clearclip-backend demo`. Those that stop servers, or make them
slow, have some of their own, and no `demo_run` (`tests.e2e.servers`).
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Page, expect, sync_playwright

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from tests.backend.fakes.local_server import free_port
from tests.backend.fakes.waiting import wait_for
from tests.e2e.servers import OwnLabelStudio, copy_first_start, sdk

MODEL = "demo"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@dataclass(frozen=True)
class DemoRun:
    """A demo that stays up: what it has said, its folder and its ports."""

    output: str
    data_dir: Path
    studio_port: int
    backend_port: int


def is_listening(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Function) -> None:
    """Leave the editor before its project is deleted.

    Label Studio gives the numbers of deleted tasks to new ones, and an editor that is left open
    saves its draft into the next test's task. A page that has crashed saves nothing, and an error
    here would keep the fixtures from being torn down.
    """
    if "page" in item.funcargs:
        with suppress(Error):
            item.funcargs["page"].goto("about:blank")


@pytest.fixture(scope="session")
def studio_command() -> str:
    return demo_servers.find_label_studio(os.environ.get("LABEL_STUDIO_COMMAND"))


@pytest.fixture(scope="session")
def demo_run(studio_command: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """Run the demo; a signal ends it, with both of its servers."""
    data_dir = tmp_path_factory.mktemp("label-studio")
    copy_first_start(studio_command, data_dir)
    ports = free_port(), free_port()
    command = f"{sys.executable} -m backend demo --model {MODEL}".split()
    command += ["--label-studio", studio_command, "--data-dir", str(data_dir)]
    command += ["--studio-port", str(ports[0]), "--backend-port", str(ports[1])]
    log = data_dir / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def has_reported() -> bool:
        return process.poll() is not None or "Ctrl-C stops" in log.read_text()

    try:
        wait_for(has_reported, "the demo's report", within_s=600)
        yield DemoRun(log.read_text(), data_dir, *ports)
    finally:
        process.terminate()
        status = process.wait(60)
    ended = 128 + signal.SIGTERM
    assert (status, list(filter(is_listening, ports))) == (ended, []), log.read_text()


@pytest.fixture(scope="module")
def own_studio(
    studio_command: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnLabelStudio]:
    """A Label Studio of the module, started as the demo does; a test may stop it and start it."""
    own = OwnLabelStudio.copied(studio_command, tmp_path_factory.mktemp("own") / "label-studio")
    own.start()
    yield own
    own.stop()


@pytest.fixture(scope="session")
def studio(demo_run: DemoRun) -> LabelStudioProcess:
    return LabelStudioProcess(f"http://127.0.0.1:{demo_run.studio_port}")


@pytest.fixture(scope="session")
def backend_url(demo_run: DemoRun) -> str:
    return f"http://127.0.0.1:{demo_run.backend_port}"


@pytest.fixture(scope="session")
def demo_project(studio: LabelStudioProcess, demo_run: DemoRun) -> int:
    found = re.search(r"/projects/(\d+)/data", demo_run.output)
    assert found, demo_run.output
    return int(found[1])


@pytest.fixture
def new_project(studio: LabelStudioProcess) -> Iterator[Callable[..., int]]:
    """Make projects with uploaded scenes, `new_project(labels, seeds=...)`; removed at the end."""
    made = []

    def make(labels: list[str], *, seeds: list[int], studio: LabelStudioProcess = studio) -> int:
        made.append(demo.create_project(studio, labels, title="Scenes"))
        demo.upload(studio, made[-1], (demo.scene_file(seed) for seed in seeds))
        return made[-1]

    yield make
    for project in made:
        sdk(studio).projects.delete(id=project)


@dataclass(frozen=True)
class WithPersonalToken(LabelStudioProcess):
    """Label Studio through a personal access token, and an access token made from it."""

    access: str = ""

    @property
    def authorization(self) -> str:
        return f"Bearer {self.access}"


@pytest.fixture(scope="session")
def personal(studio: LabelStudioProcess) -> WithPersonalToken:
    """Make a personal access token; a user has at most one."""
    token = studio.post("/api/token/")["token"]
    return WithPersonalToken(studio.url, token=token)


@pytest.fixture
def without_legacy_tokens(
    studio: LabelStudioProcess, personal: WithPersonalToken, new_project: Any
) -> Iterator[WithPersonalToken]:
    """Turn legacy tokens off during a test; `new_project` is cleaned up after it."""
    access = studio.post("/api/token/refresh/", json={"refresh": personal.token})["access"]
    renewed = replace(personal, access=access)  # it lives for five minutes
    allowed = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": False}
    renewed.post("/api/jwt/settings", json=allowed)
    yield renewed
    renewed.post("/api/jwt/settings", json={**allowed, "legacy_api_tokens_enabled": True})


@pytest.fixture(scope="session")
def page(studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of Chromium, logged in: the system's, else Playwright's own."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"),
            executable_path=shutil.which("chromium"),
            headless=True,
            args=CHROMIUM,
            viewport={"width": 1440, "height": 900},
        )
        expect.set_options(timeout=60_000)  # a busy machine takes its time
        context.set_default_timeout(60_000)
        (page,) = context.pages
        page.goto(f"{studio.url}/user/login/")
        page.fill("input[name=email]", studio.username)
        page.fill("input[name=password]", studio.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url)
        yield page
        context.close()
