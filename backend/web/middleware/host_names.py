"""Answer only under names that this backend has (DNS rebinding).

Another site can point a name of its own at this backend, and its page then counts as the backend's
own to a browser, which reaches what the site itself may not. Nobody elsewhere decides who has an
address, ``localhost``, a name without a dot, or one of the private top-level domains.
"""

from __future__ import annotations

import re
import socket
from functools import cache
from typing import Final

from flask import Flask, request
from werkzeug.wrappers import Request

from backend.errors import UnknownName
from backend.network.host_rules import HostRules
from backend.settings import Settings
from backend.web.middleware.csrf import is_number_or_localhost

#: Top-level domains that no public DNS server knows.
_PRIVATE_DOMAINS: Final = (".localhost", ".local", ".internal", ".home.arpa", ".lan")

#: What names and addresses consist of. A browser writes other letters, and other dots, in these.
_LETTERS: Final = re.compile(r"[a-z0-9._:%-]+")


class HostNames:
    """The names under which this backend answers.

    With a password and no names in the settings every name is allowed: a browser has the password
    for names only under which a person has typed it.

    Args:
        settings: the password, and the names that were configured.
    """

    def __init__(self, settings: Settings) -> None:
        self._is_any_allowed = settings.basic_auth_user is not None and not settings.server_names
        self._rules = HostRules.parse(settings.server_names)

    def check(self, request: Request) -> None:
        """Refuse a request under another name.

        Raises:
            UnknownName: the backend does not answer under the name of its host.
        """
        host = request.host
        if self.is_private(host) or _has_certificate(request) or _is_ours(host, self._rules):
            return
        raise UnknownName(
            f"This backend does not know the name {host[:100]}: name it in SERVER_NAMES, or "
            "use an address."
        )

    def is_private(self, host: str) -> bool:
        """Tell whether a host is allowed whatever else its request says.

        Args:
            host: value of the header ``Host``.
        """
        return self._is_any_allowed or _is_private(host)


def add_host_check(app: Flask, settings: Settings) -> None:
    """Check the name of each request."""
    names = HostNames(settings)

    @app.before_request
    def check_name() -> None:
        names.check(request)


def _is_private(host: str) -> bool:
    """Tell whether nobody elsewhere can point the name anywhere.

    >>> [_is_private(host) for host in ("backend:9090", "[::1]:9090", "a.internal", "a.example")]
    [True, True, True, False]
    """
    name = _name(host)
    if _LETTERS.fullmatch(name) is None:
        return False
    return is_number_or_localhost(name) or "." not in name or name.endswith(_PRIVATE_DOMAINS)


def _has_certificate(request: Request) -> bool:
    """Tell whether a browser has found a certificate for the name, or knows it for its own machine.

    Only then it sends this header, or an origin of https, and no page can set them.
    """
    origin = request.headers.get("Origin", "")
    return "Sec-Fetch-Site" in request.headers or origin == f"https://{request.host}"


def _is_ours(host: str, rules: HostRules) -> bool:
    return rules.is_allowed_host(f"http://{host}") or _name(host) in _own_names()


def _name(host: str) -> str:
    """Return the host without its port, in lower case and without the dot of a full name."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


@cache
def _own_names() -> frozenset[str]:
    """Return the names of this machine; looking them up may take a while, once."""
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()))
