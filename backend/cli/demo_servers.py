"""Start the servers of the demo: Label Studio and the backend."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests
from label_studio_sdk.client import LabelStudio

from backend.cli.server_process import DemoError, running

INSTALL_LABEL_STUDIO: Final = (
    "python3 -m venv .venv-label-studio && .venv-label-studio/bin/pip install label-studio==1.23.2"
)


@dataclass(frozen=True)
class LabelStudioProcess:
    """A running Label Studio and the login of its user.

    Args:
        url: its address, without a slash at the end.
        username: e-mail address of its user.
        password: that user's password.
        token: that user's legacy token, 40 hex digits.
    """

    url: str
    username: str = "demo@example.com"
    password: str = "clearclip-demo"
    token: str = "c1ea4c11" * 5

    @property
    def client(self) -> LabelStudio:
        """A client of the SDK."""
        return LabelStudio(base_url=self.url, api_key=self.token)

    @property
    def authorization(self) -> str:
        """The value of the header ``Authorization``."""
        return f"Token {self.token}"

    def post(self, path: str, **request: Any) -> Any:
        """Send a POST request that the SDK has no call for, and return the JSON of the response.

        Raises:
            DemoError: the response is an error.
        """
        response = requests.post(
            self.url + path,
            headers={"Authorization": self.authorization},
            timeout=3600,
            **request,
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
        # The data manager sorts by the scores of the backend's present version.
        "ff_front_dev_1682_model_version_dropdown_070622_short": "true",
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
    """Serve the backend for a Label Studio, in a process of its own.

    Args:
        studio: the Label Studio that it works for.
        model: the model that it serves.
        port: where it listens, on 127.0.0.1.
        log: file that its output is written to; its database lies beside it.
        variables: further settings, which win.

    Yields:
        The address of the backend.
    """
    url = f"http://127.0.0.1:{port}"
    serve = ["serve", "--host", "127.0.0.1", "--port", str(port), "--model", model]
    reach = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    unset = {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""}  # even where the shell sets them
    # A database of its own: projects of another Label Studio have the same numbers.
    own = {"DATABASE_URL": f"sqlite:///{log.absolute().with_suffix('.db')}", "POLL_INTERVAL_S": "2"}
    with running(
        [sys.executable, "-m", "backend", *serve],
        variables={**reach, **unset, **own, **(variables or {})},
        health=f"{url}/",  # /health answers before the rest does
        log=log,
        timeout_s=120,
    ):
        yield url
