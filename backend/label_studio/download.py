"""Download Label Studio's files within limits of size and time."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, unquote, urljoin

import requests
from requests.auth import HTTPBasicAuth
from urllib3.util import parse_url

from backend.errors import ImageNotFound, ImageRefused, ImageTooLarge
from backend.label_studio.instance import LabelStudioInstance, is_file_path
from backend.label_studio.tokens import CANNOT_REACH, Access, Header, TokenRefusedError
from backend.network.host_rules import HostRules, origin
from backend.network.http import TimeLimit, read_body, request
from backend.settings import Settings
from clearclip_core.images.jpeg import is_cut_off

_MAX_REDIRECTS = 5
_LONGEST_NAME = 200  # letters of a file's name in an error


class LabelStudioFiles:
    """Builds the addresses of files and downloads them, those of Label Studio with its token.

    Any number of threads may share it.

    Args:
        url: address of Label Studio, if configured.
        api_key: a token for it, if configured; needs `url`.
        browser_url: address of Label Studio for people, if another one is configured.
        rules: which other hosts may be asked, and which addresses may be connected to.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        browser_url: str | None = None,
        rules: HostRules | None = None,
        timeout_s: float = 30.0,
        max_file_mb: int = 100,
    ) -> None:
        self._instance = LabelStudioInstance(url, api_key, rules or HostRules(), browser_url)
        self._timeout_s = timeout_s
        self._max_file_mb = max_file_mb

    @classmethod
    def from_settings(cls, settings: Settings) -> LabelStudioFiles:
        """Make access to the files of the Label Studio that settings describe."""
        key = settings.label_studio_api_key
        return cls(
            settings.label_studio_url,
            key.get_secret_value() if key else None,
            browser_url=settings.label_studio_browser_url,
            rules=HostRules.parse(settings.allowed_hosts),
            timeout_s=settings.download_timeout_s,
            max_file_mb=settings.max_image_mb,
        )

    def use_setup(self, hostname: str, access_token: str, trusted: bool = False) -> None:
        """Keep what Label Studio says of itself; see `LabelStudioInstance.use_setup`."""
        self._instance.use_setup(hostname, access_token, trusted)

    def download(self, url: str, called: str = "") -> bytes:
        """Return the content of a file on an http or https host, following redirects.

        Args:
            url: where the file is. A link to Label Studio by the name that it announced itself
                with goes to its configured address.
            called: name of the file in errors; by default its URL without secrets.
        """
        called = called[:_LONGEST_NAME] or _without_secrets(url)
        url = self._instance.configured_address(url)
        with TimeLimit(self._timeout_s) as limit:
            for _ in range(_MAX_REDIRECTS + 1):
                with self._get(url, called, limit) as response:
                    if not response.is_redirect:
                        content = self._content(response, called, limit)
                        if not _has_length(response) and _is_truncated(content):
                            raise self._broken_off(called)
                        return content
                    url = _redirect_target(url, response.headers["location"])
        raise ImageRefused(f"{called} leads to too many redirects.")

    def file_url(self, path: str) -> str:
        """Return the URL of a file on the server, such as ``/data/upload/1/a.png``.

        Raises:
            ImageNotFound: the server has no files at such a path, or no server is known.

        >>> LabelStudioFiles("http://studio:8080").file_url("/data/upload/1/a.png")
        'http://studio:8080/data/upload/1/a.png'
        """
        base, path = self._instance.base_url, self._instance.file_path(path)
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

    @property
    def browser_url(self) -> str | None:
        """The address of Label Studio for people; see `LabelStudioInstance.browser_url`."""
        return self._instance.browser_url

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
        """Send one GET request; send it again where an exchanged token has ended early."""
        if origin(url) is None:
            raise ImageNotFound(
                f"{called} leads to {_without_secrets(url)!r}, which is no http or https address."
            )
        access = self._instance.access_for(url)
        if access is None:
            return self._send(url, None, called, limit)
        header = self._header(access, limit)
        response = self._send(url, header, called, limit)
        if response.status_code == 401:
            renewed = self._header(access, limit, refused=header)
            if renewed != header:
                response.close()
                return self._send(url, renewed, called, limit)
        return response

    def _header(self, access: Access, limit: TimeLimit, refused: str | None = None) -> str:
        try:
            return access.header(limit, refused)
        except CANNOT_REACH:
            raise ImageRefused(f"Label Studio at {access.url} cannot be reached.") from None
        except TokenRefusedError as error:
            raise ImageRefused(
                f"Label Studio at {access.url} refused the personal access token of this backend "
                f"({error}): make a new one and set LABEL_STUDIO_API_KEY."
            ) from None

    def _send(
        self, url: str, header: str | None, called: str, limit: TimeLimit
    ) -> requests.Response:
        user, _, password = (parse_url(url).auth or "").partition(":")
        basic = HTTPBasicAuth(unquote(user), unquote(password)) if user and not header else None
        try:
            return request(
                "GET",
                url,
                rules=None if self._instance.is_trusted(url) else self._instance.rules,
                limit=limit,
                auth=basic or Header(header),
                headers={"Accept-Encoding": "identity"},
                stream=True,
            )
        except (*CANNOT_REACH, ValueError):
            if limit.is_over:
                raise self._too_slow(called) from None
            raise ImageRefused(f"The host of {called} cannot be reached.") from None

    def _content(self, response: requests.Response, called: str, limit: TimeLimit) -> bytes:
        if response.status_code in (404, 410):
            raise ImageNotFound(self._absence(response, called))
        if response.status_code in (401, 403):
            raise ImageRefused(self._refusal(response, called))
        if response.status_code != 200:
            raise ImageRefused(self._failure(response, called))
        content: bytes | None = b""
        try:
            content = read_body(response, self._max_file_mb << 20)
        except CANNOT_REACH:
            if not limit.is_over:
                raise self._broken_off(called) from None
        if limit.is_over:  # a body without a length that was cut off looks complete
            raise self._too_slow(called)
        if content is None:
            raise ImageTooLarge(f"{called} is larger than the limit of {self._max_file_mb} MB.")
        if not content:  # one without a length that was cut off at its start looks empty
            raise ImageRefused(f"{called} is empty, or its download broke off.")
        return content

    def _broken_off(self, called: str) -> ImageRefused:
        return ImageRefused(f"The download of {called} broke off.")

    def _too_slow(self, called: str) -> ImageRefused:
        return ImageRefused(f"{called} took longer than {self._timeout_s:g} s to arrive.")

    def _absence(self, response: requests.Response, called: str) -> str:
        """Say that a file is missing, or that Label Studio knows no storage that has it.

        Label Studio answers both with HTTP 404, and names neither.
        """
        kind = self._instance.kind_of(response.url)
        if kind == "storage":
            return (
                f"Label Studio has no storage that hands out {called}: connect the bucket to the "
                "task's project, under Settings, Cloud Storage."
            )
        if kind == "local":
            return (
                f"Label Studio hands out no file at {called}: either the file is gone, or no local "
                "storage of the task's project (Settings, Cloud Storage) has its folder."
            )
        return f"There is no file at {called}."

    def _failure(self, response: requests.Response, called: str) -> str:
        status = response.status_code
        if status == 500 and self._instance.kind_of(response.url) == "upload":
            return f"Label Studio cannot read {called} (HTTP 500): its uploaded file may be gone."
        return f"{called} answered HTTP {status}."

    def _refusal(self, response: requests.Response, called: str) -> str:
        status = response.status_code
        if not self._instance.is_own(response.url):
            return f"{called} is not for everyone (HTTP {status})."
        if status == 403 and self._instance.kind_of(response.url) == "local":
            return (
                f"Label Studio serves no local files, such as {called} (HTTP 403): start it with "
                "LOCAL_FILES_SERVING_ENABLED=true."
            )
        if "Authorization" in response.request.headers:
            return (
                f"Label Studio refused {called} to the token of this backend (HTTP {status}): "
                "check LABEL_STUDIO_API_KEY."
            )
        if not self._instance.is_file(response.url):
            return f"{called} is no file of Label Studio's: it is asked for without the token."
        return (
            f"Label Studio wants a token for {called} (HTTP {status}): set LABEL_STUDIO_URL and "
            "LABEL_STUDIO_API_KEY."
        )


def _has_length(response: requests.Response) -> bool:
    """Return whether a body that is cut off can be told by its headers alone."""
    return "content-length" in response.headers or "transfer-encoding" in response.headers


def _is_truncated(content: bytes) -> bool:
    """Return whether a JPEG or PNG ends before the mark of its end, as where Label Studio stops."""
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content
    return content.startswith(b"\xff\xd8") and is_cut_off(content)


def _redirect_target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise ImageRefused(
            f"{_without_secrets(url)} redirects to an address that is none."
        ) from None


def _without_secrets(url: str) -> str:
    """Return a URL for a message: without a password, and without what may be a signature.

    The query of Label Studio's local files stays, since it names the file.

    >>> _without_secrets("https://ann:secret@host/a.png?X-Amz-Signature=secret")
    'https://host/a.png'
    """
    url = re.sub("([?#](?!d=)|&).*", "", url, flags=re.DOTALL)
    return re.sub("//[^/]*@", "//", url)[:_LONGEST_NAME]
