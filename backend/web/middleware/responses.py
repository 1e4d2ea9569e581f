"""Make the responses that several routes share."""

from __future__ import annotations

import json
from typing import Any

from flask import Response


def json_response(value: Any, status: int = 200, location: str | None = None) -> Response:
    """Make a response of JSON without white space.

    ``flask.jsonify`` sorts keys, which takes long on answers of hundreds of thousands of numbers.

    Args:
        value: what is answered.
        status: the HTTP status.
        location: the address of what the request has made; None: it has made nothing.
    """
    body = json.dumps(value, separators=(",", ":"))
    response = Response(body, status=status, mimetype="application/json")
    if location is not None:
        response.headers["Location"] = location
    return response


def see_other(url: str) -> Response:
    """Send a browser that has posted a form to a page, which it asks for with GET (303)."""
    return Response(status=303, headers={"Location": url})


def attachment(data: str | bytes, mimetype: str, file_name: str) -> Response:
    """Make a response that a browser saves as a file."""
    response = Response(data, mimetype=mimetype)
    response.headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return response
