"""Is everything set up? Checks Label Studio and the backend in both directions.

What is checked, in this order: the settings, Label Studio and its token, the project and its label
config; the backend as Label Studio sees it and as it is seen from here, its webhook; one picture,
and one prediction made by the running backend and validated by Label Studio's own SDK. A check that
needs one that failed is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import requests
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.label_interface import LabelInterface, control_tags

from backend.errors import BackendError, StudioRefused
from backend.label_studio.connection import connect
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.label_studio.tokens import token_kind
from backend.services import Services
from backend.settings import Settings
from backend.web.middleware.auth import BasicAuth

_SHORT_S = 10.0
_PREDICT_S = 120.0
_CONNECTED = "CO"
_DISCONNECTED = "DI"


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        name: of the check.
        well: whether all is well; None where it could not be checked.
        text: what is there, in a sentence.
        advice: what to do, where it is not well.

    >>> print(Finding("token", False, "It is refused.", "Make a new one."))
    FAIL  token            It is refused. Make a new one.
    """

    name: str
    well: bool | None
    text: str
    advice: str = ""

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAIL", None: "-"}[self.well]
        return f"{mark:<4}  {self.name:<15}  {self.text} {self.advice}".rstrip()


class _Trouble(Exception):  # noqa: N818 -- what a doctor finds
    """A check that fails: what is there, and what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.finding = text, advice


def check_setup(
    settings: Settings, project_id: int, *, backend_url: str | None = None, fix: bool = False
) -> Iterator[Finding]:
    """Check a set-up.

    Args:
        settings: those that the backend is served with.
        project_id: the project in Label Studio.
        backend_url: where the backend is reached from here; by default as Label Studio reaches it.
        fix: set up the webhook where it is not, instead of saying how.

    Yields:
        One finding for each check.

    >>> from backend.settings import load_settings
    >>> print(next(check_setup(load_settings(), 7)))  # doctest: +ELLIPSIS
    FAIL  settings         LABEL_STUDIO_URL is not set. Set it to the address at which ...
    """
    patient = _Checks(settings, project_id, backend_url, fix)
    well: set[str] = set()
    for name, needs, check in _CHECKS:
        missing = [need for need in needs if need not in well]
        if missing:
            yield Finding(name, None, f"Not checked: {' and '.join(missing)} must be well first.")
            continue
        try:
            yield Finding(name, True, check(patient))
            well.add(name)
        except _Trouble as trouble:
            yield Finding(name, False, *trouble.finding)


@dataclass
class _Checks:
    """What the checks have learned so far."""

    settings: Settings
    project_id: int
    backend_url: str | None
    fix: bool
    xml: str = ""
    config: LabelConfig | None = None
    ml: Any = None
    task: dict[str, Any] = field(default_factory=dict)

    @property
    def studio_url(self) -> str:
        return self.settings.label_studio_url or ""

    @property
    def lock(self) -> BasicAuth | None:
        return BasicAuth.from_settings(self.settings)

    @property
    def client(self) -> LabelStudio:
        key = self.settings.label_studio_api_key
        token = key.get_secret_value() if key else ""
        return connect(self.studio_url, token, _SHORT_S)

    def ask(self, call: Callable[[LabelStudio], Any], what: str, advice: str) -> Any:
        """What Label Studio's API answers.

        Raises:
            _Trouble: it does not, with the advice.
        """
        try:
            return call(self.client)
        except ApiError as error:
            raise _Trouble(
                f"Label Studio answered HTTP {error.status_code} for {what}.", advice
            ) from None
        except StudioRefused as error:
            raise _Trouble(str(error), "Do what that says, and look again.") from None
        except (httpx.HTTPError, ValueError) as error:
            raise _Trouble(
                f"Label Studio gave no answer for {what} ({type(error).__name__}).",
                f"Look into the log of Label Studio at {self.studio_url}.",
            ) from None

    def ask_backend(self, method: str, path: str, **options: Any) -> requests.Response:
        """What the backend answers from here, to whoever has the password.

        For its health nobody needs one: only then is it known to be this backend.

        Raises:
            _Trouble: it cannot be reached.
        """
        url = str(self.backend_url).rstrip("/") + path
        headers = {"Authorization": self.lock.header} if self.lock and path != "/health" else {}
        headers |= options.pop("headers", {})
        try:
            return requests.request(
                method,
                url,
                headers=headers,
                allow_redirects=False,
                **{"timeout": _SHORT_S, **options},
            )
        except (requests.RequestException, ValueError) as error:
            raise _Trouble(
                f"{url} cannot be reached from here ({type(error).__name__}).",
                "Start the backend with `clearclip-backend serve`; if only Label Studio can reach "
                "that address, say another one with --backend-url.",
            ) from None


def _settings(patient: _Checks) -> str:
    if not patient.settings.label_studio_url:
        raise _Trouble(
            "LABEL_STUDIO_URL is not set.",
            "Set it to the address at which this machine reaches Label Studio.",
        )
    if not patient.settings.label_studio_api_key:
        raise _Trouble(
            "LABEL_STUDIO_API_KEY is not set.",
            "Make a token in Label Studio under Account & Settings and set it.",
        )
    locked = "basic auth is on" if patient.lock else "no basic auth, anybody may ask the backend"
    return f"LABEL_STUDIO_URL is {patient.studio_url}; {locked}."


def _studio(patient: _Checks) -> str:
    url = f"{patient.studio_url}/api/version/"
    try:
        response = requests.get(url, timeout=_SHORT_S)
    except requests.RequestException as error:
        raise _Trouble(
            f"{patient.studio_url} cannot be reached from here ({type(error).__name__}).",
            "Start Label Studio, or correct LABEL_STUDIO_URL; inside of containers localhost is "
            "the container itself.",
        ) from None
    release = _json(response).get("release")
    if not isinstance(release, str):
        raise _Trouble(
            f"{url} answers HTTP {response.status_code}, but not as Label Studio does.",
            "Correct LABEL_STUDIO_URL: another server is there, or it lacks a path.",
        )
    return f"{patient.studio_url} is Label Studio {release}."


def _token(patient: _Checks) -> str:
    key = patient.settings.label_studio_api_key
    kind = token_kind(key.get_secret_value() if key else "")
    advice = {
        "legacy": "Legacy tokens are off in new organizations: switch them on under Organization, "
        "API Tokens Settings, or set LABEL_STUDIO_API_KEY to a personal access token.",
        "personal": "Make a new personal access token and set LABEL_STUDIO_API_KEY.",
        "access": "That is a token which lives for minutes: set LABEL_STUDIO_API_KEY to the "
        "personal access token that it was made from.",
    }[kind]
    user = patient.ask(lambda studio: studio.users.whoami(), f"its {kind} token", advice)
    if kind == "access":
        raise _Trouble("The token ends within minutes.", advice)
    return f"The {kind} token is of {user.email}."


def _project(patient: _Checks) -> str:
    project = patient.ask(
        lambda studio: studio.projects.get(id=patient.project_id),
        f"project {patient.project_id}",
        "Give the number that stands in the project's address, and a token of one of its members.",
    )
    patient.xml = project.label_config or ""
    return f"Project {patient.project_id} is {project.title!r}."


def _label_config(patient: _Checks) -> str:
    try:
        patient.config = config = parse_label_config(patient.xml)
    except BackendError as error:
        raise _Trouble(
            str(error), "Change it in the project's settings, under Labeling Interface."
        ) from None
    names = ", ".join(label.name for label in config.labels[:5])
    more = ", ..." if len(config.labels) > 5 else ""
    return f"{len(config.controls)} controls, {len(config.labels)} labels: {names}{more}."


def _connection(patient: _Checks) -> str:
    """Asking for the list makes Label Studio ask each backend for health and setup."""
    connected = patient.ask(
        lambda studio: studio.ml.list(project=patient.project_id),
        "the project's backends",
        "The token's user must be a member of the project.",
    )
    if not connected:
        raise _Trouble(
            "No backend is connected to the project.",
            "Connect this one in the project's settings, under Model, at an address that Label "
            "Studio reaches, such as http://localhost:9090.",
        )
    first = min(connected, key=lambda backend: backend.id or 0)
    patient.ml = first
    patient.backend_url = patient.backend_url or first.url
    if first.state == _CONNECTED:
        others = f", the first of {len(connected)}: only it is used" if len(connected) > 1 else ""
        return f"Label Studio reaches {first.url}{others}."
    if first.state == _DISCONNECTED:
        raise _Trouble(
            f"Label Studio cannot reach {first.url} within a second.",
            "Start the backend there, or correct the address under Model: it is Label Studio that "
            "must reach it. For private addresses Label Studio needs ML_BLOCK_LOCAL_IP=false and "
            "SSRF_PROTECTION_ENABLED=false.",
        )
    message = str(first.error_message or "")
    if "401" in message:
        raise _Trouble(
            f"{first.url} refuses what Label Studio sends as user name and password.",
            "Type BASIC_AUTH_USER and BASIC_AUTH_PASS into the Model dialog.",
        )
    raise _Trouble(
        f"{first.url} refuses the project: {message[:300]}", "Do what that says, and look again."
    )


def _backend(patient: _Checks) -> str:
    patient.backend_url = patient.backend_url or f"http://127.0.0.1:{patient.settings.port}"
    response = patient.ask_backend("GET", "/health")
    body = _json(response)
    if response.status_code != 200 or "model" not in body:
        raise _Trouble(
            f"{patient.backend_url} answers HTTP {response.status_code}, but not as this backend.",
            "Connect the address of `clearclip-backend serve`, or say it with --backend-url.",
        )
    state = body.get("state")
    if state == "failed":
        reason = patient.ask_backend("POST", "/setup", json={"schema": patient.xml})
        raise _Trouble(
            f"The model {body['model']} cannot be loaded.",
            str(_json(reason).get("error", "Look into the backend's log.")),
        )
    return f"{patient.backend_url} serves {body['model']}, {state}."


def _setup(patient: _Checks) -> str:
    body = {"project": str(patient.project_id), "schema": patient.xml}
    response = patient.ask_backend("POST", "/setup", json=body)
    answer = _json(response)
    if response.status_code == 401:
        raise _Trouble(
            "The backend has another user name and password than these settings.",
            "Set BASIC_AUTH_USER and BASIC_AUTH_PASS as the backend has them.",
        )
    version = answer.get("model_version")
    if response.status_code != 200 or not isinstance(version, str):
        raise _Trouble(
            f"/setup answers HTTP {response.status_code}: {answer.get('error', response.reason)}",
            "Do what that says, and look into the backend's log.",
        )
    return f"The model version is {version!r}."


def _webhook(patient: _Checks) -> str:
    hooks = patient.ask(
        lambda studio: studio.webhooks.list(project=str(patient.project_id)),
        "the project's webhooks",
        "The token's user must be a manager of the project.",
    )
    place = f"{str(patient.ml.url).rstrip('/')}/webhook"
    ours = [hook for hook in hooks if hook.url.partition("?")[0] == place]
    hook = next(iter(sorted(ours, key=lambda hook: _lacks(hook, patient.lock) or "")), None)
    lack = f"There is none to {place}" if hook is None else _lacks(hook, patient.lock)
    if lack and patient.fix:
        headers = {"Authorization": f"Bearer {patient.lock.webhook_token}"} if patient.lock else {}
        _set_up_webhook(patient, place, hook, headers)
        return f"{lack}; that is set up now."
    if lack:
        raise _Trouble(f"{lack}.", "Run this again with --fix, which sets it up.")
    return f"Label Studio tells {place} what happens" + (
        ", with its token." if patient.lock else "."
    )


def _lacks(hook: Any, lock: BasicAuth | None) -> str | None:
    """What a webhook lacks, if anything."""
    if not hook.is_active:
        return f"The webhook to {hook.url.partition('?')[0]} is switched off"
    if not (hook.send_payload and hook.send_for_all_actions):
        return "The webhook does not send all that happens, with what it is"
    headers = hook.headers if isinstance(hook.headers, dict) else {}
    given = next((str(v) for name, v in headers.items() if name.lower() == "authorization"), "")
    _, _, token = hook.url.partition("?token=")
    if lock is None or lock.accepts(given):
        return None
    if lock.accepts_webhook(given.removeprefix("Bearer ")) or lock.accepts_webhook(token):
        return None
    return "The webhook comes without the token that the backend asks for"


def _set_up_webhook(patient: _Checks, place: str, hook: Any, headers: dict[str, str]) -> None:
    wanted = {
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": True,
        "actions": [],
    }

    def set_up(studio: LabelStudio) -> None:
        if hook is None:
            studio.webhooks.create(url=place, project=patient.project_id, headers=headers, **wanted)
        else:
            studio.webhooks.update(id=hook.id, headers=(hook.headers or {}) | headers, **wanted)

    patient.ask(set_up, "the webhook", "The token's user must be a manager of the project.")


def _picture(patient: _Checks) -> str:
    page = patient.ask(
        lambda studio: (
            studio.tasks.list(project=patient.project_id, page_size=1, fields="all").items
        ),
        "a task",
        "The token's user must be a member of the project.",
    )
    if not page:
        raise _Trouble("The project has no task yet.", "Import pictures, and look again.")
    patient.task = {"id": page[0].id, "project": patient.project_id, "data": page[0].data}
    task = Task(page[0].id, patient.project_id, page[0].data or {})
    assert patient.config is not None
    try:
        sources = [s for tag in patient.config.images for s in tag.sources(task.data)]
        rgb = Services(patient.settings).images.read(sources[0], task)
    except BackendError as error:
        raise _Trouble(f"Task {task.id}: {error}", "The backend has no way to it either.") from None
    return f"The picture of task {task.id} has {rgb.shape[1]} x {rgb.shape[0]} px."


def _prediction(patient: _Checks) -> str:
    body = {
        "tasks": [patient.task],
        "label_config": patient.xml,
        "project": str(patient.project_id),
    }
    response = patient.ask_backend("POST", "/predict", json=body, timeout=_PREDICT_S)
    answer = _json(response)
    entries = answer.get("results")
    if response.status_code != 200 or not isinstance(entries, list) or len(entries) != 1:
        raise _Trouble(
            f"/predict answers HTTP {response.status_code}: {answer.get('error', response.reason)}",
            "Do what that says, and look into the backend's log.",
        )
    (entry,) = entries
    if not entry:
        raise _Trouble(
            f"Task {patient.task['id']} has no prediction.",
            "The backend's log says why, with the task's number.",
        )
    known = _known_to_the_sdk(entry)
    errors = LabelInterface(patient.xml).validate_prediction(known, return_errors=True)
    if errors:
        raise _Trouble(
            f"Label Studio would refuse the prediction: {str(errors[0])[:300]}",
            "Please report that, with the label config.",
        )
    return f"Task {patient.task['id']} has a valid prediction of {len(entry['result'])} regions."


def _known_to_the_sdk(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out bitmask regions, where the SDK is older than 2.1 and refuses all of them."""
    if hasattr(control_tags, "BitmaskLabelsTag"):
        return entry
    return entry | {
        "result": [region for region in entry["result"] if not region["type"].startswith("bitmask")]
    }


def _json(response: requests.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


_CHECKS: tuple[tuple[str, tuple[str, ...], Callable[[_Checks], str]], ...] = (
    ("settings", (), _settings),
    ("label studio", ("settings",), _studio),
    ("token", ("label studio",), _token),
    ("project", ("token",), _project),
    ("label config", ("project",), _label_config),
    ("connection", ("project",), _connection),
    ("backend", ("project",), _backend),
    ("setup", ("backend", "label config"), _setup),
    ("webhook", ("connection", "backend"), _webhook),
    ("picture", ("label config",), _picture),
    ("prediction", ("setup", "picture"), _prediction),
)
