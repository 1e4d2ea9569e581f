"""What is built of a body is what `json.loads` makes of it, less what is not asked for."""

from __future__ import annotations

import io
import json
import tracemalloc
from types import SimpleNamespace
from typing import Any

import ijson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.errors import BackendError, BadRequest, PayloadTooLarge
from backend.label_studio import json_stream
from backend.label_studio.json_shapes import Items, Shape, Whole
from backend.label_studio.json_stream import parse_stream

#: Texts and numbers that look like lists of numbers, and lists that are skipped at once.
TRAPS = st.sampled_from(
    [
        "\\" * 9,
        '\\"' * 9,
        "😀é\n" * 9,
        "[" + "1, " * 40,
        "[[1,",
        ']"',
        "\\",
        "[" + "2," * 70 + "]",
        "é[" + "3," * 70,
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | TRAPS
)
LONG = st.lists(st.integers(0, 255) | st.floats(0, 1) | TRAPS, min_size=20, max_size=60)
KEYS = st.sampled_from(["tasks", "id", "data", "annotations", "[1,"]) | st.text("ab[", max_size=2)
JSON = st.recursive(
    SCALARS | LONG,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SHAPES = st.sampled_from(
    [
        Whole.KEPT,
        {"tasks": Items({"id": Whole.KEPT, "data": Whole.KEPT}, 2), "data": {}},
        {"tasks": {"id": Whole.KEPT}, "data": Items(Whole.KEPT), "a": Items({})},
        {},
    ]
)
SHAPES_OF_TASKS: list[Shape] = [
    Whole.KEPT,
    {"tasks": Items({"id": Whole.KEPT}, 1)},
    {"tasks": {"id": Whole.KEPT}, "x": {}},
]
SLOW = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def built(value: Any, shape: Shape) -> Any:
    """What a shape asks for of a value that is parsed already."""
    if shape is Whole.KEPT or not isinstance(value, list | dict):
        return value
    if isinstance(value, list):
        kept = value[: shape.at_most] if isinstance(shape, Items) else []
        return [built(item, shape.shape) for item in kept]  # type: ignore[union-attr]
    keys = shape if isinstance(shape, dict) else {}
    return {key: built(value[key], keys[key]) for key in value if key in keys}


@SLOW
@given(value=JSON, shape=SHAPES, chunk=st.integers(1, 90), spaces=st.booleans())
@example({"x": ["[" + "1, " * 40]}, {}, 7, True)
def test_what_is_built(value: Any, shape: Any, chunk: int, spaces: bool) -> None:
    body = json.dumps(value, ensure_ascii=spaces, indent=1 if spaces else None).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert parse_stream(io.BytesIO(body), shape).value == built(value, shape)


@SLOW
@given(body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()[:-1]))
def test_what_is_no_json_is_refused(body: bytes) -> None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        with pytest.raises(BadRequest):
            parse_stream(io.BytesIO(body), Whole.KEPT)
    else:
        assert parse_stream(io.BytesIO(body), Whole.KEPT).value == value


@pytest.mark.parametrize("number", ["1" * 30, "-" + "9" * 400, "1e400", "0.5", "Infinity"])
@pytest.mark.parametrize("shape", SHAPES_OF_TASKS)
def test_numbers_of_any_size(number: str, shape: Shape) -> None:
    old = ", ".join([number] * 3)
    body = f'{{"tasks": [{{"id": {number}, "old": [{old}]}}, {{"id": 4}}, 5], "x": [1]}}'.encode()
    parsed = parse_stream(io.BytesIO(body), shape)
    assert parsed.value == built(json.loads(body), shape)
    assert parsed.items_left_out == (2 if shape == SHAPES_OF_TASKS[1] else 0)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(BadRequest, match="a body of JSON"):
        parse_stream(io.BytesIO(b"9" * 5000), Whole.KEPT)


def test_only_small_bodies_may_have_what_is_no_json() -> None:
    with pytest.raises(BadRequest, match="a body of JSON"):
        parse_stream(io.BytesIO(b"[NaN" + b" " * (1 << 18) + b"]"), Whole.KEPT)


def test_the_length_of_a_text_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 10)
    monkeypatch.setattr(json_stream, "_LONGEST_TEXT", 100)
    for letters, is_refused in ((100, False), (101, True)):
        body = io.BytesIO(b'{"id": ["' + b"a" * letters + b'"], "old": ""}')
        if is_refused:
            with pytest.raises(PayloadTooLarge, match="a text of more than 100 letters"):
                parse_stream(body, Whole.KEPT)
        else:
            assert parse_stream(body, Whole.KEPT).value == {"id": ["a" * letters], "old": ""}
        assert parse_stream(body, {"old": Whole.KEPT}).value == {"old": ""}


def test_items_left_out_are_counted() -> None:
    body = json.dumps({"tasks": [{"id": n} for n in range(5)]}).encode()
    parsed = parse_stream(io.BytesIO(body), {"tasks": Items({"id": Whole.KEPT}, 2)})
    assert parsed.value == {"tasks": [{"id": 0}, {"id": 1}]}
    assert parsed.items_left_out == 3


@pytest.mark.parametrize("beginning", [b"[", b'{"a":', b'{"tasks":[{"annotations":' + b"["])
def test_what_is_nested_too_deeply_is_refused(beginning: bytes) -> None:
    body = beginning + b"[" * 200
    with pytest.raises(BadRequest, match="100 levels"):
        parse_stream(io.BytesIO(body), {"tasks": Items({"id": Whole.KEPT})})


TASKS: Shape = {"tasks": Items({"id": Whole.KEPT, "data": Whole.KEPT}, 10_000)}


@pytest.mark.parametrize(
    ("beginning", "item"),
    [
        (b'{"tasks":[', b"[],"),
        (b'{"tasks":[', b"{},"),
        (b'{"tasks":[{"data":[', b"[],"),
        (b'{"tasks":[{"data":[', b"{},"),
        (b'{"tasks":[{"data":[', b'{"a":0},'),
        (b'{"tasks":[{"data":[', b'"",'),
        (b'{"tasks":[{"data":[', b"999,"),
        (b'{"tasks":[{"annotations":[', b"[],"),
        (b'{"tasks":[{"annotations":[', b"{},"),
        (b'{"tasks":[{"annotations":[{},', b"1,[],"),
    ],
)
def test_hostile_bodies_take_little_memory_and_are_refused_early(
    beginning: bytes, item: bytes
) -> None:
    body = io.BytesIO(beginning + item * ((24 << 20) // len(item)))
    size = body.seek(0, io.SEEK_END)
    tracemalloc.start()
    try:
        with pytest.raises(BackendError) as refused:
            parse_stream(body, TASKS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(refused.value, PayloadTooLarge), refused.value
    assert peak <= (16 << 20) + 3 * size
    assert body.tell() < size


def test_a_long_list_that_is_skipped_takes_no_memory() -> None:
    rle = json.dumps([n % 251 for n in range(2_000_000)])
    body = f'{{"tasks": [{{"annotations": [{{"result": [{rle}]}}], "id": 3}}]}}'.encode()
    file = io.BytesIO(body)
    tracemalloc.start()
    parsed = parse_stream(file, TASKS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert parsed.value == {"tasks": [{"id": 3}]}
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'{"a": {"id": 1, "b": 2}}', {"id": 1}), (b'{"a": [{"id": 1, "b": 2}]}', [{"id": 1}])],
)
@pytest.mark.parametrize("odd", [b"", b', "n": NaN'], ids=["ijson", "json"])
def test_an_item_may_stand_without_a_list(body: bytes, expected: object, odd: bytes) -> None:
    shape: Shape = {"a": Items({"id": Whole.KEPT}, or_one=True)}
    parsed = parse_stream(io.BytesIO(body[:-1] + odd + b"}"), shape)
    assert parsed.value == {"a": expected}


@pytest.mark.parametrize("text", ['"' + "a" * (8 << 20) + '"', '"' + r"\u00e9" * (1 << 20) + '"'])
@pytest.mark.parametrize("shape", [{"tasks": Items(Whole.KEPT)}, {}], ids=["kept", "skipped"])
def test_the_parser_does_not_see_the_parts_of_a_long_text(
    text: str, shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would read the text from its beginning with each part, and hold the interpreter."""
    seen = []
    real = ijson.basic_parse_coro

    def counting(*arguments: Any, **options: Any) -> Any:
        parser = real(*arguments, **options)
        return SimpleNamespace(
            send=lambda part: (seen.append(len(part)), parser.send(part)), close=parser.close
        )

    monkeypatch.setattr(ijson, "basic_parse_coro", counting)
    body = f'{{"tasks": [{text}]}}'.encode()
    assert parse_stream(io.BytesIO(body), shape).value == built(json.loads(body), shape)
    assert sum(seen) < 1 << 17


@pytest.mark.parametrize("place", ['{"x": %s}', '{"tasks": [%s]}'])
def test_a_number_without_end_is_refused_early(place: str) -> None:
    body = io.BytesIO((place % ("9" * (8 << 20))).encode())
    with pytest.raises(BadRequest, match="a number of more than 65536 digits"):
        parse_stream(body, {"tasks": Items(Whole.KEPT)})
    assert body.tell() < 1 << 20


@pytest.mark.parametrize("text", [r"\ude00", r"\ud83d", r"a\ud83d\ude00\ude00b", r"\ud83d\u0041"])
@pytest.mark.parametrize("spaces", [0, 1 << 20])
@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 16])
def test_surrogates_that_are_no_pair_are_replaced(
    text: str, spaces: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's text that was cut in the middle of an emoji costs no other task its prediction."""
    monkeypatch.setattr(json_stream, "_CHUNK", chunk if not spaces else 1 << 16)
    body = f'{{"data": "{text}", "old": "{text}"{" " * spaces}}}'.encode()
    units = json.loads(f'"{text}"').encode("utf-16", "surrogatepass")
    expected = units.decode("utf-16", "replace").replace("\ufffd", "?")
    parsed = parse_stream(io.BytesIO(body), {"data": Whole.KEPT})
    assert parsed.value == {"data": expected}


class CountedBody(io.BytesIO):
    """A body that notes the most bytes that were asked for."""

    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        self.largest = max(self.largest, size or 0)
        return super().read(size)


def test_many_short_texts_are_read_in_small_parts() -> None:
    body = CountedBody(b'{"tasks": [%s]}' % b",".join([b'"abc"'] * 200_000))
    assert len(parse_stream(body, {"tasks": Items(Whole.KEPT)}).value["tasks"]) == 200_000
    assert body.largest == 1 << 16
