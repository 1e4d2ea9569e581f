"""Ask Label Studio and the backend, and wait for what they do in their own time.

Tests that stop servers have some of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from click.testing import CliRunner
from label_studio_sdk.client import LabelStudio

from backend.cli import demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from backend.cli.main import main
from tests.backend.fakes.local_server import free_port
from tests.backend.fakes.waiting import wait_for


def sdk(studio: LabelStudioProcess) -> LabelStudio:
    return LabelStudio(base_url=studio.url, api_key=studio.token)


def get(studio: LabelStudioProcess, path: str) -> requests.Response:
    headers = {"Authorization": studio.authorization}
    answer = requests.get(studio.url + path, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer


def run_command(studio: LabelStudioProcess, *arguments: object) -> str:
    reach = ["--label-studio-url", studio.url, "--label-studio-api-key", studio.token]
    done = CliRunner().invoke(main, [*map(str, arguments), *reach])
    assert done.exit_code == 0, done.output
    return done.output


def wait_for_json(url: str, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    told: dict[str, Any] = {}

    def asked() -> bool:
        told.clear()
        answer = requests.get(url, timeout=60)
        told.update(answer.json())
        return answer.ok and is_there(told)

    wait_for(asked, f"what {url} is to say")
    return told


def finished_run(url: str) -> Any:
    told = wait_for_json(url, lambda told: told["run"]["state"] in ("done", "failed"))
    assert told["run"]["state"] == "done", told["run"]["reason"]
    return told["report"]


def copy_first_start(command: str, data_dir: Path) -> None:
    """Fill a folder with what Label Studio's first start leaves, since that takes 40 s.

    It is kept in Label Studio's own environment, and made there where nobody has done so.
    """
    environment = Path(command).parents[1]
    kept = environment / "first-start"
    if not (environment / "pyvenv.cfg").exists():
        return  # a folder of the system's: this is a first start then
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=environment) as folder:
            made = Path(folder, "data")
            with demo_servers.label_studio(command, data_dir=made, port=free_port()):
                pass
            with suppress(OSError):  # another process has been faster
                made.rename(kept)
    shutil.copytree(kept, data_dir, dirs_exist_ok=True)


@dataclass
class OwnLabelStudio:
    """A Label Studio that a test may stop and start again."""

    command: str
    data_dir: Path
    port: int
    stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def copied(cls, command: str, data_dir: Path) -> OwnLabelStudio:
        """Prepare one that has been started before: it has its user, and is up in 3 s."""
        copy_first_start(command, data_dir)
        return cls(command, data_dir, free_port())

    def start(self) -> LabelStudioProcess:
        """Start it as the demo does."""
        started = demo_servers.label_studio(self.command, data_dir=self.data_dir, port=self.port)
        return self.stack.enter_context(started)

    def start_as_readme_says(self) -> LabelStudioProcess:
        """Start it with the one variable of README, besides its folder and no statistics of use."""
        variables = {
            "ML_BLOCK_LOCAL_IP": "false",
            "PATH": f"{Path(self.command).parent}:{os.defpath}",
            "HOME": str(self.data_dir),
            "LANG": "C.UTF-8",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "false",
        }
        command = [self.command, "start", "--no-browser", "--internal-host", "127.0.0.1"]
        running = demo_servers.running(
            [*command, "--port", str(self.port)],
            variables=variables,
            only_these=True,
            health=f"{self.studio.url}/health",
            log=self.data_dir / "label-studio.log",
            timeout_s=300,
        )
        self.stack.enter_context(running)
        return self.studio

    def stop(self) -> None:
        """Stop it; its folder stays."""
        self.stack.close()

    @property
    def studio(self) -> LabelStudioProcess:
        """It and its login, which is that of the demo."""
        return LabelStudioProcess(f"http://127.0.0.1:{self.port}")


@dataclass
class OwnBackend:
    """A backend with the demo model that a test may kill and start again."""

    folder: Path
    variables: Mapping[str, str]
    port: int = field(default_factory=free_port)
    before: str = ""  # Python that is run before the backend, such as one that shortens its times
    process: subprocess.Popen[bytes] | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """Its address, which stays."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        """Its database, which stays, too."""
        return f"sqlite:///{self.folder}/backend.db"

    def start(self) -> None:
        """Start it, and wait until it can predict."""
        unset = {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""}  # even where the shell sets them
        own = {"DATABASE_URL": self.database_url, "POLL_INTERVAL_S": "2"}
        program = f"{self.before}\nfrom backend.__main__ import main\nmain()"
        command = [sys.executable, "-c", program, "serve", "--port", str(self.port)]
        running = demo_servers.running(
            [*command, "--model", "demo"],
            variables={**unset, **own, **self.variables},
            health=f"{self.url}/ready",
            log=self.folder / "backend.log",
            timeout_s=120,
        )
        self.process = self.stack.enter_context(running)

    def kill(self) -> None:
        """End it as ``kill -9`` does, in the middle of whatever it is at."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.stop()

    def stop(self) -> None:
        """Have it end by itself; its database stays."""
        self.stack.close()
