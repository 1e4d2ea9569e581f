"""What all pages share: headers, and numbers as people read them."""

from __future__ import annotations

import secrets
import time
from typing import Any

from flask import Response, render_template, request

#: Nothing but what the page brings along, and what it asks of this server.
_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def duration(seconds: float | None) -> str:
    """Seconds for people.

    >>> duration(0.04), duration(7.6), duration(100), duration(7300), duration(200000)
    ('40 ms', '8 s', '2 min', '2 h', '2 d')
    >>> duration(None)
    '–'
    """
    if seconds is None:
        return "–"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def ago(at: float) -> str:
    """A time, seen from now."""
    return f"{duration(max(0.0, time.time() - at))} ago"


def count(number: float) -> str:
    """A number of things, with thin spaces between the thousands.

    >>> count(1234567).split("\N{NARROW NO-BREAK SPACE}"), count(12)
    (['1', '234', '567'], '12')
    """
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(count: float) -> str:
    """Bytes for people.

    >>> size(0), size(3 << 20), size(80 << 30)
    ('0 MB', '3 MB', '80.0 GB')
    """
    return f"{count / (1 << 30):.1f} GB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MB"


def is_for_people() -> bool:
    """Whether a browser asks; Label Studio and other programs take any kind of answer."""
    return "text/html" in request.headers.get("Accept", "")


def html_page(template: str, **values: Any) -> Response:
    """A page of ours, with nothing on it that comes from elsewhere."""
    nonce = secrets.token_urlsafe(16)
    response = Response(render_template(template, nonce=nonce, **values), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
