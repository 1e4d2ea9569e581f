"""Files and addresses of the Label Studio that this backend belongs to."""

from __future__ import annotations

import base64
from urllib.parse import quote

from backend.errors import ImageNotFound
from backend.label_studio.download import Downloader
from backend.label_studio.instance import LabelStudioInstance, is_file_path
from backend.network.host_rules import HostRules
from backend.settings import Settings


class LabelStudioFiles:
    """Builds the addresses of files, and downloads them.

    Any number of threads may share it.

    Args:
        url: address of Label Studio, if configured.
        api_key: a token for it, if configured; needs `url`.
        browser_url: address of Label Studio for people, if another one is configured.
        rules: which other hosts may be asked, and which addresses may be connected to.
        timeout_s: longest time that one file may take, in seconds.
        max_file_mb: largest file, in MiB.
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
        self._downloader = Downloader(self._instance, timeout_s, max_file_mb)

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
        """Return the content of a file; see `Downloader.download`."""
        return self._downloader.download(url, called)

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
