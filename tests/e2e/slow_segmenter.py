"""The backend with a slow model: ``python -m tests.e2e.slow_segmenter SECONDS serve ...``."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from backend.cli.main import main
from clearclip_core import Segmenter


def slow_down(seconds_a_picture: float) -> None:
    encode = Segmenter.encode_batch

    def slowly(self: Segmenter, pictures: Sequence[Any], windows_at_once: int) -> Any:
        time.sleep(seconds_a_picture * len(pictures))
        return encode(self, pictures, windows_at_once)

    Segmenter.encode_batch = slowly  # type: ignore[method-assign]


if __name__ == "__main__":
    slow_down(float(sys.argv.pop(1)))
    main()
