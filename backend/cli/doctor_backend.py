"""The checks of the running backend: health, setup and one prediction."""

from __future__ import annotations

from typing import Any, Final

from label_studio_sdk.label_interface import LabelInterface, control_tags

from backend.cli.doctor_context import CheckContext, CheckFailed, json_object
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
        reason = context.ask_backend("POST", "/setup", json={"schema": context.xml})
        raise CheckFailed(
            f"The model {body['model']} cannot be loaded.",
            str(json_object(reason).get("error", "Look into the backend's log.")),
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
    known = _known_to_the_sdk(entry)
    errors = LabelInterface(context.xml).validate_prediction(known, return_errors=True)
    if errors:
        raise CheckFailed(
            f"Label Studio would refuse the prediction: {str(errors[0])[:300]}",
            "Please report that, with the label config.",
        )
    regions = quantity(len(entry["result"]), "region")
    return f"Task {context.task['id']} has a valid prediction of {regions}."


def _known_to_the_sdk(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out bitmask regions, where the SDK is older than 2.1 and refuses all of them."""
    if hasattr(control_tags, "BitmaskLabelsTag"):
        return entry
    return entry | {
        "result": [region for region in entry["result"] if not region["type"].startswith("bitmask")]
    }
