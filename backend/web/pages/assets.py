"""Serve the style sheet and the script of all pages, which browsers keep until they change."""

import hashlib
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, url_for

#: Name of a file beside this one -> what it is.
_TYPES: Final = {"page.css": "text/css", "page.js": "text/javascript"}

_TEXTS: Final = {
    name: Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _TYPES
}
_DIGESTS: Final = {
    name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in _TEXTS.items()
}

#: A year: the address has the digest of what is there.
_KEPT: Final = "public, max-age=31536000, immutable"


def asset_url(name: str) -> str:
    """Return the address of a file of `_TYPES`, which a changed one does not have."""
    return url_for("assets.file", name=name, v=_DIGESTS[name])


def assets_blueprint() -> Blueprint:
    """Make the routes of the files: they are open, as error pages need them, too."""
    routes = Blueprint("assets", __name__)
    routes.add_url_rule(f"/<any({', '.join(map(repr, _TYPES))}):name>", "file", _file)
    return routes


def _file(name: str) -> Response:
    return Response(_TEXTS[name], mimetype=_TYPES[name], headers={"Cache-Control": _KEPT})
