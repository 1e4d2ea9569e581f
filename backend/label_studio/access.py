"""Put together what reads Label Studio and writes to it: files, images and clients."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.connection import PAGE_WAIT_S, QUEUE_WAIT_S
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.settings import Settings


@dataclass(frozen=True, eq=False)
class StudioAccess:
    """The parts that need neither a model nor a database, each made when it is first asked for.

    Args:
        settings: where Label Studio is, and by which token.
        stopping: ends what waits for Label Studio.
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
        return LabelStudioClient.from_settings(self.settings, stopping=self.stopping)

    @cached_property
    def brief_client(self) -> LabelStudioClient | None:
        """The client for a queue, which goes on with others; it asks once; None without a token."""
        return LabelStudioClient.from_settings(
            self.settings, stopping=self.stopping, retry_for_s=0.0, timeout_s=QUEUE_WAIT_S
        )

    @cached_property
    def page_client(self) -> LabelStudioClient | None:
        """The client for whoever waits: it asks once, for `PAGE_WAIT_S`; None without a token."""
        return LabelStudioClient.from_settings(
            self.settings, stopping=self.stopping, retry_for_s=0.0, timeout_s=PAGE_WAIT_S
        )
