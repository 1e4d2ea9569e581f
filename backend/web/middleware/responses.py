"""Make JSON responses."""

from __future__ import annotations

import json
from typing import Any

from flask import Response


def json_response(value: Any) -> Response:
    # flask.jsonify sorts keys, which takes long on answers of hundreds of thousands of numbers.
    return Response(json.dumps(value, separators=(",", ":")), mimetype="application/json")


def json_answer(value: Any) -> Response:
    """A value as JSON, as short as it can be."""
    return Response(json.dumps(value, separators=(",", ":")), mimetype="application/json")
