"""Add the headers of security that every answer has, those of errors included."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response

#: The type that is declared is what a browser takes an answer for. No page of another site frames
#: an answer. No browser or proxy keeps one: all are private, those of errors too, which name tasks.
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def add_security_headers(app: Flask) -> None:
    """Add the headers to each answer of the application."""

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers[name] = value
        return response
