"""Download Label Studio's files within limits of size and time, each with the right token or none.

A token goes to the host of the Label Studio that it is for, never to another that a task or a
redirect names, and there only with a request for a file.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.util import parse_url

from backend.errors import ImageNotFound, ImageRefused, ImageTooLarge
from backend.label_studio.tokens import CANNOT_REACH, Access, TokenRefusedError
from backend.network.host_rules import HostRules, origin
from backend.network.http import Header, TimeLimit, read_body, request
from backend.settings import Settings

#: Where Label Studio has a file from: an upload, its local storages, or its other storages.
FileKind = Literal["upload", "local", "storage"]

_FILE_PATHS = ("/data/", "/tasks/", "/projects/", "/storage-data/")
_MAX_REDIRECTS = 5
_LONGEST_NAME = 200  # letters of a file's name in an error

#: Where Label Studio has a file from, and the status of its answer -> what to do.
_HINTS: Final[Mapping[tuple[FileKind | None, int], str]] = {
    ("storage", 404): "connect the bucket to the task's project, under Settings, Cloud Storage",
    ("local", 404): "the file is gone, or no local storage of the task's project has its folder "
    "(Settings, Cloud Storage)",
    ("local", 403): "start Label Studio with LOCAL_FILES_SERVING_ENABLED=true",
    ("upload", 500): "its uploaded file may be gone",
}


@dataclass(frozen=True)
class _Setup:
    """What Label Studio has said of itself when it connected."""

    url: str  # its address; empty before it has connected
    access: Access | None = field(
        repr=False
    )  # its token, with its host; None where it needs no token
    is_trusted: bool  # whether the request had the backend's password


class LabelStudioFiles:
    """Builds the addresses of files and downloads them, those of Label Studio with its token.

    Any number of threads may share it. Without a configured address, the one counts that Label
    Studio announced.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        browser_url: str | None = None,  # for people, where it is another one
        rules: HostRules | None = None,
        timeout_s: float = 30.0,
        max_file_mb: int = 100,
    ) -> None:
        self.url = url
        self._rules = rules or HostRules()
        self._browser_url = browser_url
        self._timeout_s = timeout_s
        self._max_file_mb = max_file_mb
        self._access = Access(url, api_key) if url and api_key else None
        self._setup = _Setup("", None, False)  # replaced as a whole, so that no lock is needed

    @classmethod
    def from_settings(cls, settings: Settings) -> "LabelStudioFiles":
        key = settings.label_studio_api_key
        return cls(
            settings.label_studio_url,
            key.get_secret_value() if key else None,
            browser_url=settings.label_studio_browser_url,
            rules=HostRules.parse(settings.allowed_hosts),
            timeout_s=settings.download_timeout_s,
            max_file_mb=settings.max_image_mb,
        )

    # ---- which Label Studio it is ----------------------------------------------------------------

    def use_setup(self, hostname: str, access_token: str, trusted: bool = False) -> None:
        """Keep the address and the token that Label Studio sends when it connects.

        Each is used where it is not configured: the token only for the host that it came with, the
        address without a user's name and password. If `trusted`, the request had the backend's
        password, and the address also serves to recognize links to Label Studio. Else anybody may
        have sent it, so that only a public address is connected to.
        """
        url = hostname.strip().rstrip("/")
        if origin(url) is None:
            return
        parts = urlsplit(url)
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        is_wanted = self._access is None and (self.url is None or self.is_configured(url))
        access = None
        if is_wanted and access_token:
            rules = None if self.is_configured(url) or trusted else self._rules
            access = Access(url, access_token, rules)
        self._setup = _Setup(url, access, trusted)

    @property
    def base_url(self) -> str | None:
        """The address at which this backend reaches Label Studio: as configured, else announced."""
        return self.url or self._setup.url or None

    @property
    def browser_url(self) -> str | None:
        """The address for people: as configured, else announced; anybody may announce one."""
        return self._browser_url or self.base_url

    def is_configured(self, url: str) -> bool:
        """Return whether a URL is on the host of the configured address."""
        return self.url is not None and origin(self.url) == origin(url)

    def is_own(self, url: str) -> bool:
        """Return whether a URL is on the host of `base_url`."""
        base = self.base_url
        return base is not None and origin(base) == origin(url)

    def is_trusted(self, url: str) -> bool:
        """Return whether an administrator vouches for a URL's host, by settings or a password."""
        setup = self._setup
        is_announced = setup.is_trusted and origin(setup.url) == origin(url)
        return self.is_configured(url) or is_announced or self._rules.is_allowed_host(url)

    def _file_path(self, path: str) -> str:
        """Return a path in a task without the prefix that Label Studio writes before it.

        Behind a reverse proxy, that is the path of its address for people, which the configured
        address may lack. Other paths are returned as they are.
        """
        for name in (self.url, self._browser_url, self._setup.url):
            below = path_below(path, name)
            if below is not None and below != path and is_file_path(below):
                return below
        return path

    def kind_of(self, url: str) -> FileKind | None:
        """Return where this Label Studio has a file from; None where a URL is none of its files.

        A token opens all other URLs as well, and must not be sent there. Where Label Studio is
        under a path of its host, another application may be beside it.
        """
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
        if access is None or origin(access.url) != origin(url) or self.kind_of(url) is None:
            return None
        return access

    def configured_address(self, url: str) -> str:
        """Return the configured address of a link to Label Studio by another of its names.

        Inside containers the name for people and the announced one differ from the configured one.
        Other URLs are returned as they are.
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

    # ---- its files -------------------------------------------------------------------------------

    def download(self, url: str, called: str = "") -> bytes:
        """Return the content of a file on an http or https host, following redirects.

        A link to Label Studio by another name goes to its configured address. `called` is the
        file's name in errors; by default its URL without secrets.
        """
        called = called[:_LONGEST_NAME] or _without_secrets(url)
        url = self.configured_address(url)
        with TimeLimit(self._timeout_s) as limit:
            for _ in range(_MAX_REDIRECTS + 1):
                with self._get(url, called, limit) as response:
                    if not response.is_redirect:
                        return self._content(response, called, limit)
                    url = _redirect_target(url, response.headers["location"])
        raise ImageRefused(f"{called} leads to too many redirects.")

    def file_url(self, path: str) -> str:
        """Return the URL of a file on the server, such as ``/data/upload/1/a.png``.

        Raises:
            ImageNotFound: the server has no files at such a path, or no server is known.

        >>> LabelStudioFiles("http://studio:8080").file_url("/data/upload/1/a.png")
        'http://studio:8080/data/upload/1/a.png'
        """
        base, path = self.base_url, self._file_path(path)
        if not is_file_path(path):
            raise ImageNotFound(
                f"{path[:200]!r} is no address of an image: expected http://, https://, s3://, "
                "gs://, azure-blob://, data: or a path of Label Studio's, such as /data/upload/, "
                "without steps upwards."
            )
        if base is None:
            raise ImageNotFound(
                f"The image {path[:200]!r} is on Label Studio, but its address is not known: set "
                "LABEL_STUDIO_URL."
            )
        return base + path

    def storage_url(self, uri: str, task_id: int | str | None, project_id: int | None) -> str:
        """Return the URL at which the server hands out a file of its cloud storages.

        Raises:
            ImageNotFound: no server is known, or the task has no number by which to ask.

        >>> LabelStudioFiles("http://studio:8080").storage_url("s3://b/a.png", 3, 1)
        'http://studio:8080/tasks/3/presign/?fileuri=czM6Ly9iL2EucG5n'
        """
        if isinstance(task_id, int):
            owner = f"tasks/{task_id}"
        elif project_id is not None:
            owner = f"projects/{project_id}"
        else:
            raise ImageNotFound(
                f"The image {uri!r} is in a cloud storage, but its task has no number by which "
                "Label Studio could be asked for it."
            )
        fileuri = base64.urlsafe_b64encode(uri.encode()).decode()
        return self.file_url(f"/{owner}/presign/?fileuri={quote(fileuri)}")

    def task_url(self, project_id: int | None, task_id: int | str | None = None) -> str | None:
        """Return the address of a task or a project for people; None where it is not known.

        >>> LabelStudioFiles("http://studio:8080").task_url(7, 3)
        'http://studio:8080/projects/7/data?task=3'
        """
        base = self.browser_url
        if base is None or project_id is None:
            return None
        task = f"?task={task_id}" if isinstance(task_id, int) else ""
        return f"{base}/projects/{project_id}/data{task}"

    # ---- inside ----------------------------------------------------------------------------------

    def _get(self, url: str, called: str, limit: TimeLimit) -> requests.Response:
        """Send one GET request, with the token of Label Studio for a file of its own."""
        if origin(url) is None:
            raise ImageNotFound(
                f"{called} leads to {_without_secrets(url)!r}, which is no http or https address."
            )
        access = self.access_for(url)
        if access is None:
            user, _, password = (parse_url(url).auth or "").partition(":")
            basic = HTTPBasicAuth(unquote(user), unquote(password)) if user else Header(None)
            return self._send(url, called, limit, auth=basic)
        try:
            return access.send(partial(self._send, url, called, limit), limit)
        except CANNOT_REACH:
            raise ImageRefused(f"Label Studio at {access.url} cannot be reached.") from None
        except TokenRefusedError as error:
            raise ImageRefused(
                f"Label Studio at {access.url} refused the personal access token of this backend "
                f"({error}): make a new one and set LABEL_STUDIO_API_KEY."
            ) from None

    def _send(self, url: str, called: str, limit: TimeLimit, auth: AuthBase) -> requests.Response:
        try:
            return request(
                "GET",
                url,
                rules=None if self.is_trusted(url) else self._rules,
                limit=limit,
                auth=auth,
                headers={"Accept-Encoding": "identity"},
                stream=True,
            )
        except (*CANNOT_REACH, ValueError):
            if limit.is_over:
                raise self._too_slow(called) from None
            raise ImageRefused(f"The host of {called} cannot be reached.") from None

    def _content(self, response: requests.Response, called: str, limit: TimeLimit) -> bytes:
        status = response.status_code
        if status != 200:
            reason = f"{called} is not handed out (HTTP {status}){self._hint(response)}."
            raise (ImageNotFound if status in (404, 410) else ImageRefused)(reason)
        content: bytes | None = b""
        try:
            content = read_body(response, self._max_file_mb << 20)
        except CANNOT_REACH:
            if not limit.is_over:
                raise ImageRefused(f"The download of {called} broke off.") from None
        if limit.is_over:  # a body without a length that was cut off looks complete
            raise self._too_slow(called)
        if content is None:
            raise ImageTooLarge(f"{called} is larger than the limit of {self._max_file_mb} MB.")
        if not content:  # one without a length that was cut off at its start looks empty
            raise ImageRefused(f"{called} is empty, or its download broke off.")
        return content

    def _too_slow(self, called: str) -> ImageRefused:
        return ImageRefused(f"{called} took longer than {self._timeout_s:g} s to arrive.")

    def _hint(self, response: requests.Response) -> str:
        """Return what to do where Label Studio does not hand out a file; it names no reason."""
        status, kind = response.status_code, self.kind_of(response.url)
        hint = _HINTS.get((kind, status), "")
        if status in (401, 403) and not hint and self.is_own(response.url):
            hint = "check LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
            if kind is None:
                hint = "it is no file of Label Studio's, and is asked for without the token"
        return hint and f": {hint}"


def _redirect_target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise ImageRefused(f"{_without_secrets(url)} redirects to a malformed address.") from None


def _without_secrets(url: str) -> str:
    """Return a URL without a password or signature; the query of a local file names it, and stays.

    >>> _without_secrets("https://ann:secret@host/a.png?X-Amz-Signature=secret")
    'https://host/a.png'
    """
    url = re.sub("([?#](?!d=)|&).*", "", url, flags=re.DOTALL)
    return re.sub("//[^/]*@", "//", url)[:_LONGEST_NAME]


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
