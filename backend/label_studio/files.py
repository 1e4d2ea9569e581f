"""What we ask of the Label Studio server: files, with the token that opens them.

A token goes to one host only, that of the Label Studio it is for: never to another that a task or
a redirect names; and there only with a request for a file. Which hosts are asked at all: `hosts`.
"""

from __future__ import annotations

import base64
import re
import threading
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from requests.auth import HTTPBasicAuth
from urllib3.util import parse_url

from backend.errors import ImageNotFound, ImageRefused, ImageTooLarge
from backend.label_studio.tokens import CANNOT_REACH, Access, Header
from backend.network.host_rules import HostRules, origin
from backend.network.http import request
from backend.network.time_limit import Clock, TimeLimit
from backend.settings import Settings

_FILE_PATHS = ("/data/", "/tasks/", "/projects/", "/storage-data/")
_MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16


class LabelStudioFiles:
    """The Label Studio that this backend belongs to, as configured or as it introduced itself.

    Args:
        url: its address, if configured.
        api_key: a token for it, if configured; needs `url`.
        rules: which other hosts may be asked, and which addresses connected to.
        timeout_s: longest time that one file may take.
        max_file_mb: largest file.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        rules: HostRules | None = None,
        timeout_s: float = 30.0,
        max_file_mb: int = 100,
    ) -> None:
        self._url = url
        self._rules = rules or HostRules()
        self._clock = Clock()
        self._access = Access(url, api_key) if url and api_key else None
        self._learned_url: str | None = None
        self._learned_access: Access | None = None
        self._learned_is_vouched = False
        self._lock = threading.Lock()
        self._timeout_s = timeout_s
        self._max_file_mb = max_file_mb

    @classmethod
    def from_settings(cls, settings: Settings) -> LabelStudioFiles:
        """The Label Studio that settings describe."""
        key = settings.label_studio_api_key
        return cls(
            settings.label_studio_url,
            key.get_secret_value() if key else None,
            rules=HostRules.parse(settings.allowed_hosts),
            timeout_s=settings.download_timeout_s,
            max_file_mb=settings.max_image_mb,
        )

    def learn(self, hostname: str, access_token: str, vouched: bool = False) -> None:
        """Take note of what Label Studio says of itself when it connects.

        Its token is used only where none is configured, and only for the host that it came with;
        its address where none is configured, or to recognise links to itself.

        Args:
            hostname: its address, as it says.
            access_token: its token; may be empty.
            vouched: whether who says so has the backend's password. Else anybody may, and so
                nothing but a public address is believed.
        """
        url = hostname.strip().rstrip("/")
        if origin(url) is None:
            return
        wanted = self._access is None and (self._url is None or origin(self._url) == origin(url))
        access = None
        if wanted and access_token:
            rules = None if self._is_configured(url) or vouched else self._rules
            access = Access(url, access_token, rules)
        with self._lock:
            self._learned_url, self._learned_access = url, access
            self._learned_is_vouched = vouched

    def file_url(self, path: str) -> str:
        """The URL of a file on the server, such as ``/data/upload/1/a.png``.

        Raises:
            ImageNotFound: the server has no files at such a path, or no server is known.

        >>> LabelStudioFiles("http://studio:8080").file_url("/data/upload/1/a.png")
        'http://studio:8080/data/upload/1/a.png'
        """
        base = self._url or self._learned()[0]
        if base is not None:  # a server under a path of its host writes that into its links
            path = _without(urlsplit(base).path, path)
        if not path.startswith(_FILE_PATHS) or _climbs(path):
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

    @property
    def browser_url(self) -> str | None:
        """Its address for people: as it calls itself, else as configured.

        Inside containers the two differ, and only the first is one that a browser can open.
        """
        return self._learned()[0] or self._url

    def task_url(self, project_id: int | None, task_id: int | str | None = None) -> str | None:
        """Where a person opens a task, or a project; None where nobody knows.

        >>> LabelStudioFiles("http://studio:8080").task_url(7, 3)
        'http://studio:8080/projects/7/data?task=3'
        """
        base = self.browser_url
        if base is None or project_id is None:
            return None
        task = f"?task={task_id}" if isinstance(task_id, int) else ""
        return f"{base}/projects/{project_id}/data{task}"

    def storage_url(self, uri: str, task_id: int | str | None, project_id: int | None) -> str:
        """The URL under which the server hands out a file of its cloud storages.

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

    def download(self, url: str, called: str = "") -> bytes:
        """Fetch a file from any http(s) host; with the token where it is the server's own.

        Links to the server by the name that it calls itself go to its configured address: inside
        containers the two differ.

        Args:
            url: where the file is.
            called: how errors name it; by default its URL without secrets.

        Raises:
            ImageNotFound: there is no such file.
            ImageRefused: the host cannot be reached, or refuses it, or takes too long.
            HostRefused: the host, or one that it redirects to, has no address that may be
                connected to.
            ImageTooLarge: it is larger than the limit.
        """
        called = called[:200] or _shown(url)
        url = self._own_url(url)
        with TimeLimit(self._timeout_s, self._clock) as limit:
            for _ in range(_MAX_REDIRECTS + 1):
                with self._get(url, called, limit) as response:
                    if not response.is_redirect:
                        return self._read(response, called, limit)
                    url = _target(url, response.headers["location"])
        raise ImageRefused(f"{called} leads to too many redirects.")

    def _learned(self) -> tuple[str | None, Access | None]:
        with self._lock:
            return self._learned_url, self._learned_access

    def _own_url(self, url: str) -> str:
        learned = self._learned()[0]
        if not self._url or not learned or origin(url) != origin(learned):
            return url
        parts = urlsplit(url)
        path = _without(urlsplit(learned).path, parts.path)
        return self._url + (f"{path}?{parts.query}" if parts.query else path)

    def _is_configured(self, url: str) -> bool:
        return self._url is not None and origin(self._url) == origin(url)

    def _is_trusted(self, url: str) -> bool:
        """Whether the administrator, or who has the backend's password, vouches for the host."""
        with self._lock:
            learned = self._learned_url if self._learned_is_vouched else None
        is_learned = learned is not None and origin(learned) == origin(url)
        return self._is_configured(url) or is_learned or self._rules.vouch_for(url)

    def _is_file(self, url: str) -> bool:
        """Whether a URL of the server is one of its files: a token opens all else there too."""
        base = self._url or self._learned()[0] or ""
        path = parse_url(url).request_uri
        return _without(urlsplit(base).path, path).startswith(_FILE_PATHS) and not _climbs(path)

    def _get(self, url: str, called: str, limit: TimeLimit) -> requests.Response:
        """One GET, tried a second time where an exchanged token has ended early."""
        if origin(url) is None:
            raise ImageNotFound(
                f"{called} leads to {_shown(url)!r}, which is no http or https address."
            )
        access = self._access or self._learned()[1]
        if access is None or not access.is_for(url) or not self._is_file(url):
            return self._ask(url, None, called, limit)
        header = access.header(limit)
        response = self._ask(url, header, called, limit)
        if response.status_code == 401:
            renewed = access.header(limit, refused=header)
            if renewed != header:
                response.close()
                return self._ask(url, renewed, called, limit)
        return response

    def _ask(
        self, url: str, header: str | None, called: str, limit: TimeLimit
    ) -> requests.Response:
        user, _, password = (parse_url(url).auth or "").partition(":")
        basic = HTTPBasicAuth(unquote(user), unquote(password)) if user and not header else None
        try:
            return request(
                "GET",
                url,
                rules=self._rules,
                trusted=self._is_trusted(url),
                limit=limit,
                auth=basic or Header(header),
                headers={"Accept-Encoding": "identity"},
                stream=True,
            )
        except (*CANNOT_REACH, ValueError):
            if limit.is_over:
                raise self._too_slow(called) from None
            raise ImageRefused(f"The host of {called} cannot be reached.") from None

    def _too_slow(self, called: str) -> ImageRefused:
        return ImageRefused(f"{called} took longer than {self._timeout_s:g} s to arrive.")

    def _read(self, response: requests.Response, called: str, limit: TimeLimit) -> bytes:
        if response.status_code in (404, 410):
            raise ImageNotFound(f"There is no file at {called}.")
        if response.status_code in (401, 403):
            raise ImageRefused(self._refusal(response, called))
        if response.status_code != 200:
            raise ImageRefused(f"{called} answered HTTP {response.status_code}.")
        max_bytes = self._max_file_mb << 20
        length = response.headers.get("content-length", "")
        too_large = length.isdecimal() and int(length[:18]) > max_bytes
        content = bytearray()
        try:
            while not too_large and (
                chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True)
            ):
                content += chunk
                too_large = len(content) > max_bytes
        except CANNOT_REACH:
            if not limit.is_over:
                raise ImageRefused(f"The download of {called} broke off.") from None
        if limit.is_over:  # what was cut off may look like the end of a file without a length
            raise self._too_slow(called)
        if too_large:
            raise ImageTooLarge(f"{called} is larger than the limit of {self._max_file_mb} MB.")
        return bytes(content)

    def _refusal(self, response: requests.Response, called: str) -> str:
        own, status = self._url or self._learned()[0], response.status_code
        if own is None or origin(own) != origin(response.url):
            return f"{called} is not for everyone (HTTP {status})."
        if "Authorization" in response.request.headers:
            return (
                f"Label Studio refused {called} to the token of this backend (HTTP {status}): "
                "check LABEL_STUDIO_API_KEY."
            )
        if not self._is_file(response.url):
            return f"{called} is no file of Label Studio's: it is asked for without the token."
        return (
            f"Label Studio wants a token for {called} (HTTP {status}): set LABEL_STUDIO_URL and "
            "LABEL_STUDIO_API_KEY."
        )


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise ImageRefused(f"{_shown(url)} redirects to an address that is none.") from None


def _without(prefix: str, path: str) -> str:
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def _climbs(path: str) -> bool:
    """Whether a path has a step upwards, however it is written.

    >>> _climbs("/data/upload/../../api"), _climbs("/data/%252e%252E%5Capi"), _climbs("/data/a..b")
    (True, True, False)
    """
    for _ in range(3):
        path = unquote(path)
    return ".." in re.split(r"[/\\?&=]", path)


def _shown(url: str) -> str:
    """A URL for a message: without a password, and without what may be a signature.

    The query of Label Studio's local files stays, since it names the file.

    >>> _shown("https://ann:secret@host/a.png?X-Amz-Signature=secret")
    'https://host/a.png'
    """
    return re.sub("//[^/]*@", "//", re.sub("([?#](?!d=)|&).*", "", url, flags=re.DOTALL))[:200]
