"""Texts in parts are what `json.loads` makes of the whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.label_studio.json_texts import (
    PartialText,
    end_of_whole_texts,
    replace_lone_surrogates,
)

SLOW = settings(max_examples=300, deadline=None, derandomize=True, database=None)
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('\\\\\\""é😀\n'), max_size=30)


def taken(content: bytes, cuts: list[int], is_kept: bool = True) -> tuple[str, int | None]:
    """The value of a text that arrives in parts, and where it ended in the last of them."""
    text, end, last = PartialText(is_kept), None, 0
    for cut in [*sorted(cut % (len(content) + 1) for cut in cuts), len(content)]:
        assert end is None
        end = text.take(content[last:cut])
        last, before = cut, last
    return text.value, None if end is None else before + end


@SLOW
@given(text=TEXTS, is_ascii=st.booleans(), cuts=st.lists(st.integers(0, 400), max_size=9))
def test_any_text_in_any_parts(text: str, is_ascii: bool, cuts: list[int]) -> None:
    written = json.dumps(text, ensure_ascii=is_ascii).encode()
    content = written[1:]  # with the quotation mark at its end
    inside = [cut % len(content) for cut in cuts]
    assert taken(content, inside) == (text, len(content) - 1)
    assert taken(content, inside, is_kept=False) == ("", len(content) - 1)


@SLOW
@given(
    codes=st.lists(st.sampled_from(["d83d", "de00", "0041", "00e9"]), max_size=8),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
def test_surrogates_in_any_parts(codes: list[str], cuts: list[int]) -> None:
    content = "".join(rf"\u{code}" for code in codes).encode() + b'"'
    units = b"".join(int(code, 16).to_bytes(2, "big") for code in codes)
    inside = [cut % len(content) for cut in cuts]
    assert taken(content, inside)[0] == units.decode("utf-16-be", "replace").replace("\ufffd", "?")
    whole = json.loads(replace_lone_surrogates(b'"' + content))
    assert whole == units.decode("utf-16-be", "replace").replace("\ufffd", "?")


@pytest.mark.parametrize("content", [b'\\u12"', b"\\u12345\\uxxxxxx", b"\\x", b"\xff", b"a\nb"])
def test_what_is_no_text_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        PartialText(is_kept=True).take(content + b'      "')


def test_memory_is_counted_while_it_arrives() -> None:
    text = PartialText(is_kept=True)
    assert text.take(b"a" * 100) is None
    assert text.bytes_taken == 200
    assert text.take("é".encode()) is None
    assert text.bytes_taken == 208


@SLOW
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), missing=st.integers(1, 9))
def test_where_the_last_text_begins(texts: list[str], missing: int) -> None:
    written = [json.dumps(text).encode() for text in texts]
    whole = b"[" + b", ".join(written) + b"]"
    assert end_of_whole_texts(whole, 0) == len(whole)
    begun = len(whole) - 1 - len(written[-1])
    cut = max(begun + 1, len(whole) - 1 - missing)
    assert end_of_whole_texts(whole[:cut], 0) == begun
