"""Believe what reverse proxies say of a request: address, host, scheme and path prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from backend.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def add_proxy_headers(app: Flask, settings: Settings) -> None:
    """Read the headers of trusted proxies before all else of an application."""
    fixed = read_proxy_headers(app.wsgi_app, settings)
    app.wsgi_app = fixed  # type: ignore[method-assign,assignment]


def read_proxy_headers(app: WSGIApplication, settings: Settings) -> WSGIApplication:
    """Return an application that reads ``X-Forwarded-For``, ``-Host``, ``-Proto`` and ``-Prefix``.

    The prefix stands before all links, forms and redirects of the pages; the proxy has taken it
    away from the path of the request. Without trusted proxies the headers may come from anybody,
    and none is read. Reading them twice is as reading them once.
    """
    count = settings.trusted_proxies
    if not count:
        return app
    return ProxyFix(app, x_for=count, x_proto=count, x_host=count, x_port=0, x_prefix=count)
