"""Answer while the application is being made: importing torch alone takes seconds."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Request

from backend.errors import BackendError, UnknownName
from backend.settings import Settings
from backend.web.middleware.errors import reason_phrase
from backend.web.middleware.headers import SECURITY_HEADERS
from backend.web.middleware.host_names import HostNames
from backend.web.middleware.proxy import read_proxy_headers
from backend.web.ml_backend.health import describe_health

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

#: Paths of whoever watches over the backend, who is answered at once.
_NOT_READY: Final = ("/ready", "/metrics")

#: Label Studio gives up on ``/setup`` after 3 s. Before, it gets a sentence that it shows.
_LONGEST_WAIT_S: Final = {"/setup": 2.5}

_WAIT: Final = "The backend is starting: try again in a moment."


class StartingApp:
    """A WSGI application that hands requests on to another one, once that is made.

    Until then ``/health`` says that the process is up, ``/ready`` and ``/metrics`` that it is not
    ready. All other requests wait in line for as long as a prediction may take, and ``/setup`` for
    as long as Label Studio waits for it. Under a name that is not the backend's nobody is told any
    of it.

    Args:
        make: makes the application; it may take long.
        settings: the model's name, the longest wait, and the names of the backend.

    Attributes:
        failure: why the application could not be made, in a sentence; empty until then.
    """

    def __init__(self, make: Callable[[], WSGIApplication], settings: Settings) -> None:
        self._make = make
        self._model = settings.model
        self._deadline_s = settings.predict_deadline_s
        self._names = HostNames(settings)
        self._starting = read_proxy_headers(self._answer_while_starting, settings)
        self._app: WSGIApplication | None = None
        self._is_over = threading.Event()
        self.failure = ""

    def start(self) -> None:
        """Make the application in a thread."""
        threading.Thread(target=self._run, name="start", daemon=True).start()

    @property
    def is_starting(self) -> bool:
        """Whether the application is being made."""
        return not self._is_over.is_set()

    def wait(self) -> None:
        """Wait until the application is made, or could not be."""
        self._is_over.wait()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        app = self._app or self._starting
        return app(environ, start_response)

    def _answer_while_starting(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            self._names.check(Request(environ))
        except UnknownName as error:
            return _refuse(start_response, error.http_status, str(error))
        path = environ.get("PATH_INFO", "")
        if path == "/health":
            return _answer(start_response, "200 OK", describe_health(self._model, "loading"))
        if path not in _NOT_READY:
            self._is_over.wait(min(self._deadline_s, _LONGEST_WAIT_S.get(path, self._deadline_s)))
        if self._app is None:
            return _refuse(start_response, 503, self.failure or _WAIT, retry_after_s=5)
        return self._app(environ, start_response)

    def _run(self) -> None:
        try:
            self._app = self._make()
        except (BackendError, SQLAlchemyError, ValueError) as error:
            self.failure = str(error)
        except Exception as error:
            log.exception("The backend cannot start")
            self.failure = f"Unexpected {type(error).__name__}: see the backend's log."
        finally:
            self._is_over.set()


def _refuse(
    start_response: StartResponse, status: int, sentence: str, retry_after_s: int = 0
) -> list[bytes]:
    line = f"{status} {reason_phrase(sentence)}"
    return _answer(start_response, line, {"error": sentence}, retry_after_s)


def _answer(
    start_response: StartResponse, status: str, value: dict[str, Any], retry_after_s: int = 0
) -> list[bytes]:
    body = json.dumps(value, separators=(",", ":")).encode()
    headers = {**SECURITY_HEADERS, "Content-Type": "application/json"}
    headers["Content-Length"] = str(len(body))
    if retry_after_s:
        headers["Retry-After"] = str(retry_after_s)
    start_response(status, list(headers.items()))
    return [body]
