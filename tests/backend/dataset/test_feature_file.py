"""A sequence on disk is the list that it was made of."""

from __future__ import annotations

import pytest

from backend.dataset.feature_file import FeatureFile


def test_it_is_the_list_that_it_was_made_of() -> None:
    features = [None, b"abcd", b"efgh", None, b"ijkl"]
    with FeatureFile(iter(features)) as file:
        assert list(file) == features
        assert [file[index] for index in (4, 0, 2)] == [b"ijkl", None, b"efgh"]
        assert file[1:4] == features[1:4]
        with pytest.raises(IndexError):
            file[5]
