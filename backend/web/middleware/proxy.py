"""Believe what reverse proxies say of a request: address, host, scheme and path prefix."""

from __future__ import annotations

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from backend.settings import Settings


def add_proxy_headers(app: Flask, settings: Settings) -> None:
    """Read ``X-Forwarded-For``, ``-Host``, ``-Proto`` and ``-Prefix`` of trusted proxies.

    The prefix stands before all links, forms and redirects of the pages; the proxy has taken it
    away from the path of the request. Without trusted proxies the headers may come from anybody,
    and none is read.
    """
    count = settings.trusted_proxies
    if count:
        fixed = ProxyFix(
            app.wsgi_app, x_for=count, x_proto=count, x_host=count, x_port=0, x_prefix=count
        )
        app.wsgi_app = fixed  # type: ignore[method-assign]
