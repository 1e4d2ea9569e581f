"""``clearclip-backend doctor``: check Label Studio and the backend in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import click
from label_studio_sdk.label_interface import LabelInterface

from backend.cli.doctor_context import (
    CheckContext,
    CheckFailed,
    CheckResult,
    CheckWarned,
    json_object,
)
from backend.cli.doctor_label_studio import (
    check_connection,
    check_exports,
    check_images,
    check_label_config,
    check_label_studio,
    check_labels,
    check_project,
    check_projects,
    check_settings,
    check_smart_tools,
    check_token_works,
)
from backend.cli.options import NUMBER, configure, settings_options
from backend.settings import Settings
from clearclip_core.quantities import quantity

#: Longest wait for a prediction, in seconds.
_PREDICT_TIMEOUT_S: Final = 120.0


def check_backend(context: CheckContext) -> str:
    """Check that this backend answers from here, and that its model loads."""
    context.backend_url = context.backend_url or f"http://127.0.0.1:{context.settings.port}"
    response = context.ask_backend("GET", "/health")
    body = json_object(response)
    if response.status_code != 200 or "model" not in body:
        raise CheckFailed(
            f"{context.backend_url} answers HTTP {response.status_code}, but not as this backend.",
            "Connect the address of `clearclip-backend serve`, or give it with --backend-url.",
        )
    state = body.get("state")
    if state == "failed":
        ready = json_object(context.ask_backend("GET", "/ready"))
        raise CheckFailed(
            f"The model {body['model']} cannot be loaded.",
            str(ready.get("reason") or "Look into the backend's log."),
        )
    return f"{context.backend_url} serves {body['model']}, {state}."


def check_setup_route(context: CheckContext) -> str:
    """Check that the backend accepts the labeling config."""
    body = {"project": str(context.project_id), "schema": context.xml}
    response = context.ask_backend("POST", "/setup", json=body)
    answer = json_object(response)
    if response.status_code == 401:
        raise CheckFailed(
            "The backend has another user name and password than these settings.",
            "Set BASIC_AUTH_USER and BASIC_AUTH_PASS as the backend has them.",
        )
    version = answer.get("model_version")
    if response.status_code != 200 or not isinstance(version, str):
        raise CheckFailed(
            f"/setup answers HTTP {response.status_code}: {answer.get('error', response.reason)}",
            "Do what that says, and look into the backend's log.",
        )
    return f"The model version is {version!r}."


def check_backend_token(context: CheckContext) -> str:
    """Check that Label Studio accepts the token with which the backend was started."""
    answer = json_object(context.ask_backend("GET", "/status"))
    connection = answer.get("connection")
    trouble = connection.get("trouble") if isinstance(connection, dict) else None
    if trouble:
        raise CheckFailed(
            f"The running backend says: {trouble}",
            "These settings may be newer than those that it was started with: start it again.",
        )
    return "Label Studio accepts the token of the running backend."


def check_prediction(context: CheckContext) -> str:
    """Check one prediction of the backend with Label Studio's own SDK."""
    body = {
        "tasks": [context.task],
        "label_config": context.xml,
        "project": str(context.project_id),
    }
    response = context.ask_backend("POST", "/predict", json=body, timeout=_PREDICT_TIMEOUT_S)
    answer = json_object(response)
    entries = answer.get("results")
    if response.status_code != 200 or not isinstance(entries, list) or len(entries) != 1:
        raise CheckFailed(
            f"/predict answers HTTP {response.status_code}: {answer.get('error', response.reason)}",
            "Do what that says, and look into the backend's log.",
        )
    (entry,) = entries
    if not entry:
        raise CheckFailed(
            f"Task {context.task['id']} has no prediction.",
            "The backend's log says why, with the task's number.",
        )
    errors = LabelInterface(context.xml).validate_prediction(entry, return_errors=True)
    if errors:
        raise CheckFailed(
            f"Label Studio would refuse the prediction: {str(errors[0])[:300]}",
            "Please report that, with the label config.",
        )
    regions = quantity(len(entry["result"]), "region")
    return f"Task {context.task['id']} has a valid prediction of {regions}."


#: Name of a check, checks that it needs, function.
_Check = tuple[str, tuple[str, ...], Callable[[CheckContext], str]]

#: The checks of a project in their order.
_CHECKS: Final[tuple[_Check, ...]] = (
    ("settings", (), check_settings),
    ("label studio", ("settings",), check_label_studio),
    ("token", ("label studio",), check_token_works),
    ("project", ("token",), check_project),
    ("label config", ("project",), check_label_config),
    ("labels", ("label config",), check_labels),
    ("exports", ("label config",), check_exports),
    ("connection", ("project",), check_connection),
    ("smart tools", ("connection", "label config"), check_smart_tools),
    ("backend", ("project",), check_backend),
    ("setup", ("backend", "label config"), check_setup_route),
    ("backend token", ("setup",), check_backend_token),
    ("picture", ("label config",), check_images),
    ("prediction", ("setup", "picture"), check_prediction),
)


#: The checks where no project is given.
_CHECKS_WITHOUT_PROJECT: Final[tuple[_Check, ...]] = (
    *_CHECKS[:3],
    ("projects", ("token",), check_projects),
    ("backend", (), check_backend),
    ("backend token", ("backend",), check_backend_token),
)


@click.command()
@click.option(
    "--project",
    type=NUMBER,
    help="Number of the project; by default only both servers are checked.",
)
@click.option(
    "--backend-url",
    help="Address of the backend from here, if it is not the one that Label Studio has.",
)
@settings_options(
    "label_studio_url",
    "label_studio_api_key",
    "allowed_hosts",
    "basic_auth_user",
    "basic_auth_pass",
    "port",
)
def doctor(project: int | None, backend_url: str | None, **given: str | None) -> None:
    """Check Label Studio, a project and the running backend, in both directions.

    Give it the settings of the backend. The exit status is 0 if all is well, else 1.
    """
    settings = configure(given, "ERROR")
    failed = 0
    for finding in check_setup(settings, project, backend_url=backend_url):
        click.echo(finding)
        failed += finding.well is False
    if failed:
        raise SystemExit(1)


def check_setup(
    settings: Settings, project_id: int | None, *, backend_url: str | None = None
) -> Iterator[CheckResult]:
    """Make all checks of a set-up, in the order of `_CHECKS`.

    A check that needs one that failed is left out.

    Args:
        settings: those of the backend.
        project_id: the project in Label Studio; None: what needs no project is checked.
        backend_url: address of the backend from here; by default the one that Label Studio has.

    Yields:
        One finding for each check.

    >>> from backend.settings import load_settings
    >>> print(next(check_setup(load_settings(), 7)))  # doctest: +ELLIPSIS
    FAIL  settings         LABEL_STUDIO_URL is not set. Set it to the address at which ...
    """
    context = CheckContext(settings, project_id or 0, backend_url)
    passed: set[str] = set()
    for name, needs, check in _CHECKS if project_id else _CHECKS_WITHOUT_PROJECT:
        missing = [need for need in needs if need not in passed]
        if missing:
            yield CheckResult(
                name, None, f"Not checked: {' and '.join(missing)} must be well first."
            )
            continue
        try:
            yield CheckResult(name, True, check(context))
            passed.add(name)
        except CheckWarned as warned:
            yield CheckResult(name, True, *warned.finding, warns=True)
            passed.add(name)
        except CheckFailed as failed:
            yield CheckResult(name, False, *failed.finding)
