"""Set a project of Label Studio up for this backend: its connection, its switches, its config."""

from __future__ import annotations

import socket
from typing import Any, Final

from backend.errors import StudioRefused
from backend.label_studio.client import LabelStudioClient
from backend.settings import Settings

#: What Label Studio calls the connection, and with it whose predictions a project shows.
TITLE: Final = "ClearCLIP"

_RESERVED: Final = (
    "Label Studio says that the address is reserved: it may not call a webhook there. It is "
    "connected all the same, and the backend asks by itself what has changed."
)


def own_address(settings: Settings) -> str:
    """Return the address at which Label Studio most likely reaches the backend.

    >>> own_address(Settings(host="127.0.0.1", port=9090))
    'http://127.0.0.1:9090'
    """
    is_anywhere = settings.host in ("0.0.0.0", "::")
    return f"http://{socket.gethostname() if is_anywhere else settings.host}:{settings.port}"


def login(settings: Settings) -> dict[str, str]:
    """Return the user name and password that Label Studio is to send, as its API takes them."""
    if settings.basic_auth_user is None or settings.basic_auth_pass is None:
        return {}
    password = settings.basic_auth_pass.get_secret_value()
    user = settings.basic_auth_user
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}


def connect(
    client: LabelStudioClient, project: int, url: str, *, uniform: bool = False, **more: Any
) -> str:
    """Connect a backend to a project, with interactive preannotations, and show its predictions.

    A connection to the same address, or one that was made here before, is changed.

    Args:
        url: the address at which Label Studio reaches the backend.
        uniform: whether the project's tasks are to come at random.
        more: further fields of the connection, such as `login`.

    Returns:
        What people should know of it; empty where all is well.

    Raises:
        StudioRefused: Label Studio may not call that address, or the backend does not let it in.
    """
    found = client.backends(project)
    same = [each.id for each in found if each.url == url or each.title == TITLE]
    body = {"project": project, "url": url, "title": TITLE, "is_interactive": True} | more
    said = ""
    try:
        client.save_backend(min(same, default=None), body)
    except StudioRefused as error:
        if error.status != 403 or not client.backends(project):
            raise
        said = _RESERVED
    sampling = {"sampling": "Uniform sampling"} if uniform else {}
    shown = {"model_version": TITLE, "show_collab_predictions": True}
    client.change_project(project, shown | sampling)
    if found and not same:
        return (
            f"{said} Another backend is connected to the project, {found[0].url}, and Label Studio "
            "asks the first one only: delete it in the project's settings, under Model."
        ).lstrip()
    return said
