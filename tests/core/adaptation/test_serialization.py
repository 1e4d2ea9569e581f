"""Bytes that tell of damage."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clearclip_core.adaptation.serialization import (
    check_names,
    digest_of,
    from_safetensors,
    to_safetensors,
)

METADATA = {"names": ["sky", "Straße"], "pictures": 3}
ARRAYS = {"b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.array([0.1, -0.0])}


def test_what_was_packed_comes_out() -> None:
    metadata, arrays = from_safetensors(to_safetensors("example", METADATA, ARRAYS), "example")
    assert metadata == METADATA
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "a": [0.1, -0.0],
        "b": [[0, 1, 2], [3, 4, 5]],
    }
    assert arrays["b"].dtype == np.float16


@given(st.integers(0, 100_000), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
@example(181, ord(" ") ^ ord("\t"))
def test_damaged_bytes_are_refused_or_change_nothing(place: int, change: int) -> None:
    """A tab in place of a space between the fields of a header says the same."""
    data = bytearray(to_safetensors("example", METADATA, ARRAYS))
    data[place % len(data)] ^= change
    with suppress(ValueError):
        metadata, arrays = from_safetensors(bytes(data), "example")
        assert metadata == METADATA
        assert {name: (each.dtype, each.tolist()) for name, each in arrays.items()} == {
            name: (each.dtype, each.tolist()) for name, each in ARRAYS.items()
        }


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="Expected the bytes of an example"):
        from_safetensors(data, "example")


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="an adaptation in format 1, but got 'example'"):
        from_safetensors(to_safetensors("example", METADATA, ARRAYS), "adaptation")


def test_the_digest_is_of_content_not_of_order() -> None:
    turned = {name: ARRAYS[name] for name in ("a", "b")}
    assert digest_of(METADATA, ARRAYS) == digest_of(dict(reversed(METADATA.items())), turned)
    assert digest_of(METADATA, ARRAYS) != digest_of(METADATA, ARRAYS | {"a": np.array([0.1, 0.0])})
    assert digest_of(METADATA, ARRAYS) != digest_of({**METADATA, "pictures": 4}, ARRAYS)


def test_names_are_sorted_and_different() -> None:
    check_names(("", "a", "b"))
    for names in (("b", "a"), ("a", "a")):
        with pytest.raises(ValueError, match="sorted and all different"):
            check_names(names)
