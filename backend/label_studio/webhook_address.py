"""The address of the webhook by which Label Studio tells a connected backend about changes."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def webhook_address(backend_url: str) -> str:
    """Return the address of the webhook that Label Studio makes when a backend is connected.

    >>> webhook_address("http://backend.internal:9090/")
    'http://backend.internal:9090/webhook'
    """
    return f"{backend_url.rstrip('/')}/webhook"


def is_address_of(url: str, backend_url: str) -> bool:
    """Return whether a webhook leads to a backend, with or without a token in its query.

    >>> is_address_of("http://localhost:9090/webhook?token=1", "http://localhost:9090")
    True
    """
    return url.partition("?")[0] == webhook_address(backend_url)


def has_webhook_host(backend_url: str) -> bool:
    """Return whether Label Studio can make a webhook for the host of a backend.

    Source: Django's URLValidator, which takes ``localhost``, IP addresses and names with a dot.

    >>> hosts = ("backend", "backend.internal", "localhost", "10.1.2.3", "[::1]")
    >>> [has_webhook_host(f"http://{host}:9090") for host in hosts]
    [False, True, True, True, True]
    """
    try:
        host = urlsplit(backend_url).hostname or ""
        return host == "localhost" or "." in host or bool(ipaddress.ip_address(host))
    except ValueError:  # no URL, or a host that is no IP address
        return False
