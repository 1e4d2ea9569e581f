"""Read folders of transformers' format: weights in safetensors, and no code that lies beside them.

What reads one is a class of transformers itself; no hub is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def read_snapshot(model_class: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """Read a model with all its weights.

    Args:
        model_class: of transformers.
        folder: ``config.json`` and ``*.safetensors``.

    Raises:
        ValueError: weights are missing.
        OSError: files are missing; safetensors and torch raise errors of their own.
    """
    with _no_progress_bar():
        model, loaded = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            use_kernels=False,  # which would be fetched from a hub
            output_loading_info=True,
        )
    if loaded["missing_keys"]:
        lacking = sorted(loaded["missing_keys"])
        raise ValueError(f"{len(lacking)} weights are missing, such as {lacking[0]}.")
    return model


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing into the log of a server."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
