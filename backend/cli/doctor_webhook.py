"""The check of the webhook, by which Label Studio tells the backend about changes."""

from __future__ import annotations

from typing import Any

from label_studio_sdk.client import LabelStudio

from backend.cli.doctor_context import CheckContext, CheckFailed
from backend.label_studio.webhook_address import (
    has_webhook_host,
    is_address_of,
    webhook_address,
)
from backend.web.middleware.auth import BasicAuth


def check_webhook(context: CheckContext) -> str:
    """Check the webhook of the project; with `fix`, set it up."""
    hooks = context.ask(
        lambda studio: studio.webhooks.list(project=str(context.project_id)),
        "the project's webhooks",
        "The token's user must be a manager of the project.",
    )
    place = webhook_address(context.ml.url)
    ours = [hook for hook in hooks if is_address_of(hook.url, context.ml.url)]
    hook = next(iter(sorted(ours, key=lambda hook: _defect(hook, context.auth) or "")), None)
    if hook is None:
        _check_host(context.ml.url)
    defect = f"There is none to {place}" if hook is None else _defect(hook, context.auth)
    if defect and context.fix:
        headers = {"Authorization": f"Bearer {context.auth.webhook_token}"} if context.auth else {}
        _set_up_webhook(context, place, hook, headers)
        return f"{defect}; that is set up now."
    if defect:
        raise CheckFailed(f"{defect}.", "Run this again with --fix, which sets it up.")
    return f"Label Studio tells {place} what happens" + (
        ", with its token." if context.auth else "."
    )


def _check_host(backend_url: str) -> None:
    """Check that Label Studio can make a webhook for the address of the backend."""
    if not has_webhook_host(backend_url):
        raise CheckFailed(
            f"The project is connected to {backend_url}, a host without a dot: Label Studio makes "
            "no webhook for it.",
            "In the project's settings, under Model, change the address to one with a dot, such as "
            "http://backend.internal:9090 with Docker Compose, then run this again with --fix.",
        )


def _defect(hook: Any, auth: BasicAuth | None) -> str | None:
    """Return what is wrong with a webhook, as the beginning of a sentence; None: nothing."""
    if not hook.is_active:
        return f"The webhook to {hook.url.partition('?')[0]} is switched off"
    if not (hook.send_payload and hook.send_for_all_actions):
        return "The webhook does not send all that happens, with what it is"
    headers = hook.headers if isinstance(hook.headers, dict) else {}
    given = next((str(v) for name, v in headers.items() if name.lower() == "authorization"), "")
    _, _, token = hook.url.partition("?token=")
    if auth is None or auth.accepts(given):
        return None
    if auth.accepts_webhook(given.removeprefix("Bearer ")) or auth.accepts_webhook(token):
        return None
    return "The webhook comes without the token that the backend asks for"


def _set_up_webhook(context: CheckContext, place: str, hook: Any, headers: dict[str, str]) -> None:
    wanted = {
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": True,
        "actions": [],
    }

    def set_up(studio: LabelStudio) -> None:
        if hook is None:
            studio.webhooks.create(url=place, project=context.project_id, headers=headers, **wanted)
        else:
            studio.webhooks.update(id=hook.id, headers=(hook.headers or {}) | headers, **wanted)

    context.ask(set_up, "the webhook", "The token's user must be a manager of the project.")
