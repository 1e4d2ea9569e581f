"""Put together the parts that reach Label Studio; none of them needs the model or torch."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

from backend.label_studio.client import RETRY_FOR_S, LabelStudioClient
from backend.label_studio.connection import PAGE_WAIT_S
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.settings import Settings


@dataclass(frozen=True, eq=False)
class LabelStudioServices:
    """The parts of a process that only reads and writes what Label Studio has.

    To make a part starts no thread. Ask from one thread.

    Args:
        stopping: once it is set, no call of Label Studio's API is tried again.
    """

    settings: Settings
    stopping: threading.Event = field(default_factory=threading.Event, kw_only=True)

    @cached_property
    def files(self) -> LabelStudioFiles:
        """Access to files of Label Studio and of other hosts."""
        return LabelStudioFiles.from_settings(self.settings)

    @cached_property
    def images(self) -> ImageReader:
        """The image loader, with its cache for images that annotators have open."""
        return ImageReader(self.files, self.settings)

    @cached_property
    def client(self) -> LabelStudioClient | None:
        """The client for work in the background; None without a token."""
        return self._make_client(retry_for_s=RETRY_FOR_S)

    @cached_property
    def page_client(self) -> LabelStudioClient | None:
        """The client for whoever waits: it asks once, for `PAGE_WAIT_S`; None without a token."""
        return self._make_client(retry_for_s=0.0, timeout_s=PAGE_WAIT_S)

    def required_client(self, use: str) -> LabelStudioClient:
        """Return the client for work in the background.

        Args:
            use: the purpose, as it stands in the error: "annotations are read".
        """
        check_token(self.settings, use)
        assert self.client is not None
        return self.client

    def _make_client(self, **more: float) -> LabelStudioClient | None:
        return LabelStudioClient.from_settings(self.settings, stopping=self.stopping, **more)


def check_token(settings: Settings, use: str) -> None:
    """Refuse settings without a token for Label Studio, before anything is loaded.

    Args:
        use: the purpose, as it stands in the error: "annotations are read".

    Raises:
        ValueError: the settings hold no token.
    """
    if settings.label_studio_url is None or settings.label_studio_api_key is None:
        raise ValueError(
            f"Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: {use} through the API of Label Studio."
        )
