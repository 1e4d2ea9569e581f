"""What all checks of `doctor` use: the result of a check, and requests to both servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
import requests

from backend.errors import AnswerTooLarge, StudioRefused
from backend.label_studio.connection import Connection, NoAnswerError, RefusalError
from backend.label_studio.label_config import LabelConfig
from backend.settings import Settings
from backend.web.middleware.auth import BasicAuth

_T = TypeVar("_T")

#: Longest wait for an answer of Label Studio or of the backend, in seconds.
TIMEOUT_S: Final = 10.0


class MlBackend(msgspec.Struct):
    """A connection of a project to an ML backend, with what Label Studio says of it."""

    id: int
    url: str = ""
    state: str | None = None
    error_message: str | None = None
    is_interactive: bool | None = None


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    Attributes:
        name: name of the check.
        well: whether it has passed; None: it was not made.
        text: the observation, in a sentence.
        advice: what to do, where it has failed or warns.
        warns: whether it has passed, but something later will not go well.

    >>> print(CheckResult("token", False, "It is refused.", "Make a new one."))
    FAIL  token            It is refused. Make a new one.
    """

    name: str
    well: bool | None
    text: str
    advice: str = ""
    warns: bool = False

    def __str__(self) -> str:
        mark = "warn" if self.warns else {True: "ok", False: "FAIL", None: "-"}[self.well]
        return f"{mark:<4}  {self.name:<15}  {self.text} {self.advice}".rstrip()


class CheckFailed(Exception):  # noqa: N818 -- a result, no error of the program
    """A check that fails, with the observation and the advice of its `CheckResult`."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.finding = text, advice


class CheckWarned(CheckFailed):
    """A check that passes, with what will not go well later and the advice of its `CheckResult`."""


@dataclass
class CheckContext:
    """The arguments of the checks, and what earlier checks have read for later ones.

    Attributes:
        settings: those of the backend.
        project_id: the project in Label Studio.
        backend_url: address of the backend from here; None until Label Studio has told it.
        xml: the project's labeling config.
        shows: whose predictions the project shows, if any; empty until somebody chooses.
        config: the parsed labeling config.
        ml: the connection of Label Studio to the backend.
        task: the first task of the project.
    """

    settings: Settings
    project_id: int
    backend_url: str | None
    xml: str = ""
    shows: str = ""
    config: LabelConfig | None = None
    ml: MlBackend = field(default_factory=lambda: MlBackend(0))
    task: dict[str, Any] = field(default_factory=dict)

    @property
    def studio_url(self) -> str:
        """The address of Label Studio; empty: not set."""
        return self.settings.label_studio_url or ""

    @property
    def auth(self) -> BasicAuth | None:
        """The user name and password of the backend."""
        return BasicAuth.from_settings(self.settings)

    @property
    def connection(self) -> Connection:
        """A connection to Label Studio, with the token of the settings."""
        key = self.settings.label_studio_api_key
        token = key.get_secret_value() if key else ""
        return Connection(self.studio_url, token, retry_for_s=0, timeout_s=TIMEOUT_S)

    def ask(self, call: Callable[[Connection], _T], what: str, advice: str) -> _T:
        """Ask Label Studio's API.

        Raises:
            CheckFailed: Label Studio refuses it or does not answer.
        """
        try:
            return call(self.connection)
        except RefusalError as error:
            refusal = f"Label Studio answered HTTP {error.status} for {what}."
            raise CheckFailed(refusal, advice) from None
        except StudioRefused as error:
            raise CheckFailed(str(error), "Do what that says, and run this again.") from None
        except (NoAnswerError, AnswerTooLarge) as error:
            is_answer = isinstance(error, AnswerTooLarge)
            raise CheckFailed(
                str(error) if is_answer else f"What should be Label Studio {error}.",
                f"Open {self.studio_url} in a browser and see what answers there.",
            ) from None

    def ask_backend(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request to the backend, with the password.

        The request for /health comes without: only its response shows that the server there is
        this backend.

        Raises:
            CheckFailed: the backend cannot be reached.
        """
        url = str(self.backend_url).rstrip("/") + path
        headers = {"Authorization": self.auth.header} if self.auth and path != "/health" else {}
        headers |= options.pop("headers", {})
        try:
            return requests.request(
                method,
                url,
                headers=headers,
                allow_redirects=False,
                **{"timeout": TIMEOUT_S, **options},
            )
        except (requests.RequestException, ValueError) as error:
            raise CheckFailed(
                f"{url} cannot be reached from here ({type(error).__name__}).",
                "Start the backend with `clearclip-backend serve`; if only Label Studio can reach "
                "that address, give another one with --backend-url.",
            ) from None


def json_object(response: requests.Response) -> dict[str, Any]:
    """Return the JSON object of a response; empty: it is none."""
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}
