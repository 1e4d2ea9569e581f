"""The checks of Label Studio: its address, token and project, and its connection to the backend."""

from __future__ import annotations

from typing import Final

import requests

from backend.cli.doctor_context import (
    TIMEOUT_S,
    CheckContext,
    CheckFailed,
    CheckWarned,
    json_object,
)
from backend.errors import BackendError
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.tokens import token_kind
from clearclip_core.quantities import quantity

#: States of a connection, as Label Studio's API has them.
_CONNECTED: Final = "CO"
_DISCONNECTED: Final = "DI"


def check_settings(context: CheckContext) -> str:
    """Check that the settings name Label Studio and a token."""
    if not context.settings.label_studio_url:
        raise CheckFailed(
            "LABEL_STUDIO_URL is not set.",
            "Set it to the address at which this machine reaches Label Studio.",
        )
    if not context.settings.label_studio_api_key:
        raise CheckFailed(
            "LABEL_STUDIO_API_KEY is not set.",
            "Make a token in Label Studio under Account & Settings and set it.",
        )
    locked = "basic auth is on" if context.auth else "no basic auth, anybody may ask the backend"
    return f"LABEL_STUDIO_URL is {context.studio_url}; {locked}."


def check_label_studio(context: CheckContext) -> str:
    """Check that Label Studio answers at its address."""
    url = f"{context.studio_url}/api/version/"
    try:
        response = requests.get(url, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise CheckFailed(
            f"{context.studio_url} cannot be reached from here ({type(error).__name__}).",
            "Start Label Studio, or correct LABEL_STUDIO_URL; inside of containers localhost is "
            "the container itself.",
        ) from None
    release = json_object(response).get("release")
    if not isinstance(release, str):
        raise CheckFailed(
            f"{url} answers HTTP {response.status_code}, but not as Label Studio does.",
            "Correct LABEL_STUDIO_URL: another server is there, or it lacks a path.",
        )
    return f"{context.studio_url} is Label Studio {release}."


def check_token(context: CheckContext) -> str:
    """Check that Label Studio accepts the token, and that it lasts."""
    key = context.settings.label_studio_api_key
    kind = token_kind(key.get_secret_value() if key else "")
    advice = {
        "legacy": "Copy it again from Account & Settings: Reset there makes a new one, and the old "
        "one is refused. Or legacy tokens are off, as in new organizations: switch them on under "
        "Organization, API Tokens Settings, or set LABEL_STUDIO_API_KEY to a personal access "
        "token.",
        "personal": "Make a new personal access token and set LABEL_STUDIO_API_KEY.",
        "access": "That is a token which lives for minutes: set LABEL_STUDIO_API_KEY to the "
        "personal access token that it was made from.",
    }[kind]
    user = context.ask(lambda studio: studio.users.whoami(), f"its {kind} token", advice)
    if kind == "access":
        raise CheckFailed("The token ends within minutes.", advice)
    return f"The {kind} token is of {user.email}."


def check_project(context: CheckContext) -> str:
    """Check that the project exists, and read its labeling config."""
    project = context.ask(
        lambda studio: studio.projects.get(id=context.project_id),
        f"project {context.project_id}",
        "Give the number that stands in the project's address, and a token of one of its members.",
    )
    context.xml = project.label_config or ""
    context.shows = project.model_version or ""
    return f"Project {context.project_id} is {project.title!r}."


def check_label_config(context: CheckContext) -> str:
    """Check that the labeling config can be predicted."""
    try:
        context.config = config = parse_label_config(context.xml)
    except BackendError as error:
        raise CheckFailed(
            str(error), "Change it in the project's settings, under Labeling Interface."
        ) from None
    names = ", ".join(f"“{label.name}”" for label in config.labels[:5])
    more = ", ..." if len(config.labels) > 5 else ""
    controls = quantity(len(config.controls), "control")
    return f"{controls}, {quantity(len(config.labels), 'label')}: {names}{more}."


def check_connection(context: CheckContext) -> str:
    """Check that Label Studio reaches the backend.

    When Label Studio lists backends, it asks each of them for health and setup.
    """
    connected = context.ask(
        lambda studio: studio.ml.list(project=context.project_id),
        "the project's backends",
        "The token's user must be a member of the project.",
    )
    if not connected:
        raise CheckFailed(
            "No backend is connected to the project.",
            "Connect this one in the project's settings, under Model, at an address that Label "
            "Studio reaches, such as http://localhost:9090.",
        )
    first = min(connected, key=lambda backend: backend.id or 0)
    context.ml = first
    context.backend_url = context.backend_url or first.url
    if first.state == _CONNECTED and not context.shows:
        raise CheckWarned(
            f"Label Studio reaches {first.url}, but the project shows nobody's predictions.",
            "Choose the model in the project's settings, under Annotation, Prelabeling.",
        )
    if first.state == _CONNECTED:
        others = f", the first of {len(connected)}: only it is used" if len(connected) > 1 else ""
        return f"Label Studio reaches {first.url}{others}."
    if first.state == _DISCONNECTED:
        raise CheckFailed(
            f"Label Studio cannot reach {first.url} within a second.",
            "Start the backend there, or correct the address under Model: it is Label Studio that "
            "must reach it. For private addresses Label Studio needs ML_BLOCK_LOCAL_IP=false.",
        )
    message = str(first.error_message or "")
    if "401" in message:
        raise CheckFailed(
            f"{first.url} refuses what Label Studio sends as user name and password.",
            "Type BASIC_AUTH_USER and BASIC_AUTH_PASS into the Model dialog.",
        )
    raise CheckFailed(
        f"{first.url} refuses the project: {message[:300]}",
        "Do what that says, and run this again.",
    )
