"""Say what cannot be done where the settings hold no token for Label Studio."""

from __future__ import annotations

from backend.errors import BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.settings import Settings


def token_sentence(use: str) -> str:
    """Return the sentence that asks for the address of Label Studio and a token for it.

    Args:
        use: what they are needed for, as a sentence without its end.

    >>> token_sentence("Tasks are read from Label Studio")
    'Tasks are read from Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.'
    """
    return f"{use}: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."


def required_client(client: LabelStudioClient | None, use: str) -> LabelStudioClient:
    """Return the client.

    Args:
        client: Label Studio; None without a token.
        use: what it is needed for, see `token_sentence`.

    Raises:
        BadRequest: there is no token.
    """
    if client is None:
        raise BadRequest(token_sentence(use))
    return client


def require_token(settings: Settings, use: str) -> None:
    """Refuse what is done later by a client of its own, in this process or in a worker.

    Args:
        settings: what is served.
        use: what the token is needed for, see `token_sentence`.

    Raises:
        BadRequest: there is no token.
    """
    if settings.label_studio_api_key is None:
        raise BadRequest(token_sentence(use))


def no_key(has_token: bool, use: str) -> str:
    """Return what a page tells people who cannot use it: empty where there is a token.

    Args:
        has_token: whether there is one.
        use: what it is needed for, see `token_sentence`.
    """
    return "" if has_token else token_sentence(use)
