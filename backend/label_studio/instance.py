"""The Label Studio instance that this backend belongs to: its addresses and its token.

A token goes to the host of the Label Studio that it is for, never to another that a task or a
redirect names, and there only with a request for a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from urllib3.util import parse_url

from backend.label_studio.tokens import Access
from backend.network.host_rules import HostRules, origin

#: Where Label Studio has a file from: an upload, its local storages, or its other storages.
FileKind = Literal["upload", "local", "storage"]

_FILE_PATHS = ("/data/", "/tasks/", "/projects/", "/storage-data/")


@dataclass(frozen=True)
class _Setup:
    """What Label Studio has said of itself when it connected.

    Attributes:
        url: its address; empty before it has connected.
        access: its token, with the host that it is for; None where none is needed.
        is_trusted: whether the request had the backend's password.
    """

    url: str
    access: Access | None = field(repr=False)
    is_trusted: bool


class LabelStudioInstance:
    """Holds the address and the token of one Label Studio, as configured or as it announced them.

    Any number of threads may share it.

    Args:
        api_key: configured token; counts only together with `url`.
        rules: which other hosts may be asked, and which addresses may be connected to.
        browser_url: configured address for people, where it is another one.
    """

    def __init__(
        self,
        url: str | None,
        api_key: str | None,
        rules: HostRules,
        browser_url: str | None = None,
    ) -> None:
        self.url = url
        self.rules = rules
        self._browser_url = browser_url
        self._access = Access(url, api_key) if url and api_key else None
        self._setup = _Setup("", None, False)  # replaced as a whole, so that no lock is needed

    def use_setup(self, hostname: str, access_token: str, trusted: bool) -> None:
        """Keep the address and the token that Label Studio sends when it connects.

        The token is used only where none is configured, and only for the host that it came with.
        The address is used where none is configured. One that came with the backend's password
        also serves to recognize links to Label Studio.

        Args:
            hostname: address of Label Studio; a user's name and password in it are left out.
            access_token: its token; may be empty.
            trusted: whether the request had the backend's password. Without it anybody may have
                sent the request, so that only a public address is connected to.
        """
        url = hostname.strip().rstrip("/")
        if origin(url) is None:
            return
        parts = urlsplit(url)
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        is_wanted = self._access is None and (self.url is None or self.is_configured(url))
        access = None
        if is_wanted and access_token:
            rules = None if self.is_configured(url) or trusted else self.rules
            access = Access(url, access_token, rules)
        self._setup = _Setup(url, access, trusted)

    @property
    def base_url(self) -> str | None:
        """The address at which this backend reaches Label Studio: as configured, else announced."""
        return self.url or self._setup.url or None

    @property
    def browser_url(self) -> str | None:
        """The address for people: as configured, else announced.

        Without a password anybody can announce one, so that it never replaces a configured one.
        """
        return self._browser_url or self.base_url

    def is_configured(self, url: str) -> bool:
        """Return whether a URL is on the host of the configured address."""
        return self.url is not None and origin(self.url) == origin(url)

    def is_own(self, url: str) -> bool:
        """Return whether a URL is on the host of `base_url`."""
        base = self.base_url
        return base is not None and origin(base) == origin(url)

    def is_trusted(self, url: str) -> bool:
        """Return whether an administrator vouches for the host of a URL.

        An administrator configures hosts, and has the backend's password.
        """
        setup = self._setup
        is_announced = setup.is_trusted and origin(setup.url) == origin(url)
        return self.is_configured(url) or is_announced or self.rules.is_allowed_host(url)

    def is_file(self, url: str) -> bool:
        """Return whether a URL of this Label Studio is one of a file.

        A token opens all other URLs as well, and must not be sent there. Where Label Studio is
        under a path of its host, another application may be beside it.
        """
        path = path_below(parse_url(url).request_uri, self.base_url)
        return path is not None and is_file_path(path)

    def file_path(self, path: str) -> str:
        """Return a path in a task without the prefix that Label Studio writes before it.

        Behind a reverse proxy, Label Studio writes the path of its address for people, which the
        address that is configured may lack. Other paths are returned as they are.
        """
        for name in (self.url, self._browser_url, self._setup.url):
            below = path_below(path, name)
            if below is not None and below != path and is_file_path(below):
                return below
        return path

    def kind_of(self, url: str) -> FileKind | None:
        """Return where this Label Studio has a file from; None where a URL is none of its files."""
        path = path_below(parse_url(url).request_uri, self.base_url)
        if path is None or not self.is_own(url) or not is_file_path(path):
            return None
        if path.startswith("/data/local-files"):
            return "local"
        if path.startswith("/data/"):
            return "upload"
        return "storage"

    def access_for(self, url: str) -> Access | None:
        """Return the token to send with a request for a URL; None for a request without one."""
        access = self._access or self._setup.access
        if access is None or not access.is_for(url) or not self.is_file(url):
            return None
        return access

    def configured_address(self, url: str) -> str:
        """Return the configured address of a link to Label Studio by another of its names.

        Inside containers the name for people and the announced one differ from the configured
        one. Other URLs are returned as they are.
        """
        setup = self._setup
        announced = setup.url if setup.is_trusted else None
        for name in (self._browser_url, announced):
            if not self.url or not name or origin(url) != origin(name):
                continue
            parts = urlsplit(url)
            path = path_below(parts.path, name)
            if path is not None:
                return self.url + (f"{path}?{parts.query}" if parts.query else path)
        return url


def path_below(path: str, base_url: str | None) -> str | None:
    """Return a path without that of a base URL; None where it is not below that.

    >>> path_below("/label/data/a.png", "https://host/label"), path_below("/a.png", "https://host")
    ('/data/a.png', '/a.png')
    >>> path_below("/labels/a.png", "https://host/label") is None
    True
    """
    prefix = urlsplit(base_url or "").path
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else None


def is_file_path(path: str) -> bool:
    """Return whether Label Studio hands out a file at a path.

    >>> is_file_path("/data/upload/1/a.png"), is_file_path("/data/../api/users/")
    (True, False)
    """
    return path.startswith(_FILE_PATHS) and not _has_parent_step(path)


def _has_parent_step(path: str) -> bool:
    """Return whether a path has a step upwards, in any of its encodings.

    >>> _has_parent_step("/data/%252e%252E%5Capi"), _has_parent_step("/data/a..b")
    (True, False)
    """
    for _ in range(3):
        path = unquote(path)
    return ".." in re.split(r"[/\\?&=]", path)
