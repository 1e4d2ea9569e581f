"""Start programs and wait until they answer: Label Studio and the backend, for the demo."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import requests

from backend.label_studio.client import LabelStudioClient

STOP_TIMEOUT_S: Final = 10  # after this time, in seconds, a server that does not end is killed


class DemoError(click.ClickException):
    """Something that the demo needs is missing or has failed; the message is a sentence."""


def free_port(preferred: int) -> int:
    """Return the preferred port where it is free on 127.0.0.1, else any free one.

    Label Studio itself would move to the next port and not say so.
    """
    for port in (preferred, 0):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("There is no free port on 127.0.0.1.")


@contextmanager
def running(
    command: Sequence[str],
    *,
    variables: Mapping[str, str],
    only_these: bool = False,
    health: str,
    log: Path,
    timeout_s: float,
    loading: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block, and end the processes that it has started too.

    Args:
        command: program and arguments; it gets a process group of its own.
        only_these: the variables of this process are not handed on.
        health: the URL that answers 200 once the server is up, or 401 for want of a password.
        log: file that its output is written to.
        timeout_s: how long it may take to be up, in seconds.
        loading: URL of a JSON object; while its ``state`` is "loading", it may take longer.

    Raises:
        DemoError: it ends or is not up in time; the message has the last lines of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_parent_death_signal(), *_environment(variables, only_these), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, health=health, log=log, timeout_s=timeout_s, loading=loading)
        yield process
    finally:
        _stop(process)


def _parent_death_signal() -> list[str]:
    """Return the prefix that ends a process with this one, even if this one is killed (Linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv and sys.platform == "linux" else []


def _environment(variables: Mapping[str, str], only_these: bool) -> list[str]:
    """Return the prefix that sets variables for a child and keeps them out of `ps`.

    `env` does so without reading the environment here, which only `backend.settings` does.
    """
    return ["env", *(["-i"] if only_these else []), *(f"{k}={v}" for k, v in variables.items())]


def _wait_until_up(
    process: subprocess.Popen[bytes],
    *,
    health: str,
    log: Path,
    timeout_s: float,
    loading: str | None,
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline or (loading is not None and _is_loading(loading)):
        if process.poll() is not None:
            raise DemoError(
                f"The server for {health} ended with status {process.returncode}. "
                f"Its last lines:\n{last_lines(log)}"
            )
        try:
            answer = requests.get(health, timeout=2)
            if answer.ok or answer.status_code == requests.codes.unauthorized:
                return
        except requests.RequestException:
            pass  # not up yet
        time.sleep(0.3)
    raise DemoError(
        f"{health} did not answer within {timeout_s:.0f} s. "
        f"Its server's last lines:\n{last_lines(log)}"
    )


def _is_loading(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=2).json()["state"] == "loading")
    except (requests.RequestException, ValueError, TypeError, KeyError):
        return False


def last_lines(log: Path, count: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: by SIGTERM, then by SIGKILL."""
    for signal_ in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


INSTALL_LABEL_STUDIO: Final = (
    "python3 -m venv .venv-label-studio && .venv-label-studio/bin/pip install label-studio==1.23.2"
)


@dataclass(frozen=True)
class LabelStudioProcess:
    """A running Label Studio and the login of its user."""

    url: str
    username: str = "demo@example.com"
    password: str = "clearclip-demo"
    token: str = "c1ea4c11" * 5

    @property
    def client(self) -> LabelStudioClient:
        return LabelStudioClient(self.url, self.token, retry_for_s=0)

    @property
    def authorization(self) -> str:
        return f"Token {self.token}"

    def post(self, path: str, **request: Any) -> Any:
        """POST what the client has no call for and return the JSON, or raise `DemoError`."""
        response = requests.post(
            self.url + path, headers={"Authorization": self.authorization}, timeout=3600, **request
        )
        if not response.ok:
            raise DemoError(f"Label Studio answered {response.status_code}: {response.text[:300]}")
        return response.json()


def find_label_studio(command: str | None = None) -> str:
    """Return the label-studio command: the given one, else `.venv-label-studio`'s, else the PATH's.

    Raises:
        DemoError: there is none; the message says how to install it.
    """
    for candidate in (
        [command] if command else [".venv-label-studio/bin/label-studio", "label-studio"]
    ):
        found = shutil.which(candidate)
        if found:
            return str(Path(found).absolute())
    missing = f"`{command}` is no command." if command else "Label Studio is not installed here."
    raise DemoError(f"{missing} Install it with: {INSTALL_LABEL_STUDIO}")


@contextmanager
def label_studio(command: str, *, data_dir: Path, port: int) -> Iterator[LabelStudioProcess]:
    """Run Label Studio on SQLite in `data_dir`.

    The first start there takes about 40 s. A copy of a folder in which it has run before starts in
    3 s, users and projects included.
    """
    studio = LabelStudioProcess(f"http://127.0.0.1:{port}")
    data_dir.mkdir(parents=True, exist_ok=True)
    variables = {
        "PATH": f"{Path(command).parent}:{os.defpath}",
        "HOME": str(data_dir),
        "LANG": "C.UTF-8",
        "DJANGO_DB": "sqlite",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
        "LABEL_STUDIO_HOST": studio.url,
        "LABEL_STUDIO_USERNAME": studio.username,
        "LABEL_STUDIO_PASSWORD": studio.password,
        "LABEL_STUDIO_USER_TOKEN": studio.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "ML_BLOCK_LOCAL_IP": "false",  # the backend is on 127.0.0.1
        "ML_TIMEOUT_PREDICT": "3600",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "LOG_LEVEL": "WARNING",
    }

    with running(
        [command, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)],
        variables=variables,
        only_these=True,
        health=f"{studio.url}/health",
        log=data_dir / "label-studio.log",
        timeout_s=300,
    ):
        yield studio


@contextmanager
def served_backend(
    studio: LabelStudioProcess,
    *,
    model: str,
    port: int,
    log: Path,
    variables: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Serve the backend for a Label Studio in a process of its own, and yield its address.

    It listens on 127.0.0.1; its database lies beside `log`, to which its output is written. Of
    settings, `variables` win.
    """
    url = f"http://127.0.0.1:{port}"
    reach = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    unset = {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""}  # even where the shell sets them
    # A database of its own: projects of another Label Studio have the same numbers.
    own = {"DATABASE_URL": f"sqlite:///{log.absolute().with_suffix('.db')}", "POLL_INTERVAL_S": "2"}
    serve = [sys.executable, "-m", "backend", "serve", "--model", model]
    serve += ["--host", "127.0.0.1", "--port", str(port)]
    with running(
        serve,
        variables={**reach, **unset, **own, **(variables or {})},
        health=f"{url}/",  # /health answers before the rest does
        loading=f"{url}/health",
        log=log,
        timeout_s=120,
    ):
        yield url
