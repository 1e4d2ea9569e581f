"""What is known of layouts that are not read: a sentence each."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.dataset.formats.layouts import find_masks
from backend.errors import DatasetError
from tests.backend.dataset.formats.published_sets import TOLD, Writer


@pytest.mark.parametrize(("files", "sentence"), TOLD, ids=[told[:30] for _, told in TOLD])
def test_what_is_not_read_is_told_in_a_sentence(
    tmp_path: Path, files: dict[str, Any], sentence: str
) -> None:
    to = Writer(tmp_path)
    for name, content in files.items():
        to.text(name, content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=f"looks like {sentence}"):
        find_masks(tmp_path)
