"""Serve the style sheet of the pages, which browsers keep until another version has a new one."""

import hashlib
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, url_for

_STYLE: Final = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_DIGEST: Final = hashlib.sha256(_STYLE.encode()).hexdigest()[:12]

#: A year: the address has the digest of what is there.
_KEPT: Final = "public, max-age=31536000, immutable"


def style_url() -> str:
    """Return the address of the style sheet, which another one does not have."""
    return url_for("style.sheet", v=_DIGEST)


def style_blueprint() -> Blueprint:
    """Make the route of the style sheet: it is open, as error pages need it, too."""
    routes = Blueprint("style", __name__)
    routes.add_url_rule("/page.css", "sheet", _sheet, methods=["GET"])
    return routes


def _sheet() -> Response:
    return Response(_STYLE, mimetype="text/css", headers={"Cache-Control": _KEPT})
