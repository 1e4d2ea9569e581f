"""The RLE against Label Studio's own converter, and streams built bit by bit."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from label_studio_sdk.converter import brush

from backend.label_studio.brush_rle import decode_rle, encode_runs
from clearclip_core import RunMask

Mask = npt.NDArray[np.bool_]


def _random(height: int, width: int, share: float, seed: int = 0) -> Mask:
    return np.random.default_rng(seed).random((height, width)) < share


def _stripes(height: int, width: int, period: int) -> Mask:
    return np.broadcast_to(np.arange(width) // period % 2 == 1, (height, width)).copy()


MASKS = {
    "one pixel on": np.ones((1, 1), dtype=bool),
    "empty": np.zeros((17, 23), dtype=bool),
    "random": _random(37, 41, 0.5),
    "stripes of 1": _stripes(3, 50, 1),
    "stripes of 64": _stripes(1, 512, 64),
    "stripes of 65": _stripes(1, 520, 65),
    "exactly the longest run": np.ones((128, 128), dtype=bool),
    "one pixel over it": np.ones((1, 128 * 128 + 1), dtype=bool),
    "twice the longest run": np.arange(3 * 128 * 128).reshape(3 * 128, 128) < 2 * 128 * 128,
    "long runs": np.repeat([[True], [False], [True]], 60_000, axis=1),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_writes_the_bytes_of_label_studio_and_reads_them(mask: Mask) -> None:
    rle = encode_runs(RunMask.of(mask))
    assert rle == brush.mask2rle(mask.astype(np.uint8) * 255)
    assert all(type(byte) is int for byte in rle)
    alpha = decode_rle(rle, *mask.shape)
    assert alpha.dtype == np.uint8
    np.testing.assert_array_equal(alpha, mask * np.uint8(255))


@pytest.mark.parametrize("step", [2, 3, 8])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_every_so_many_rows_and_columns_are_those_of_the_whole_mask(mask: Mask, step: int) -> None:
    rle = brush.mask2rle(mask.astype(np.uint8) * 255)
    small = decode_rle(rle, *mask.shape, step)
    np.testing.assert_array_equal(small > 0, mask[::step, ::step])


def stream(bits: str) -> list[int]:
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


@pytest.mark.parametrize("sizes", [(1, 2, 3, 4), (16, 16, 16, 16)])
@pytest.mark.parametrize("word_bits", [1, 5, 11, 32])
def test_decodes_other_word_and_length_sizes(word_bits: int, sizes: tuple[int, ...]) -> None:
    """Streams written out bit by bit: literals and runs in turn, of 1 up to 16 values.

    Values beyond a byte are opaque.
    """
    rng = np.random.default_rng(word_bits)
    bits, values = "", []
    while len(values) < 4 * 6 * 7:
        count = int(min(rng.integers(1, 17), 4 * 6 * 7 - len(values)))
        index = next(i for i, size in enumerate(sizes) if count <= 1 << size)
        is_run = rng.random() < 0.5
        words = rng.integers(0, 1 << min(word_bits, 9), 1 if is_run else count).tolist()
        bits += f"{int(is_run)}{index:02b}" + format(count - 1, f"0{sizes[index]}b")
        bits += "".join(format(word, f"0{word_bits}b") for word in words)
        values += words * count if is_run else words
    header = f"{len(values):032b}{word_bits - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    expected = np.minimum(values[3::4], 255).reshape(6, 7)
    for step in (1, 2, 4):
        alpha = decode_rle(stream(header + bits), 6, 7, step)
        np.testing.assert_array_equal(alpha, expected[::step, ::step])


def test_cut_streams_and_other_sizes_are_refused() -> None:
    rle = encode_runs(RunMask.of(_random(20, 20, 0.5)))
    for cut in (0, 1, 6, 7, 8, 20, len(rle) - 2):
        with pytest.raises(ValueError, match="Expected argument `rle`"):
            decode_rle(rle[:cut], 20, 20)
    with pytest.raises(ValueError, match="19 x 20 pixels"):
        decode_rle(rle, 19, 20)


def test_bytes_without_sense_are_refused() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        rle = [0, 0, 4, 0, *rng.integers(0, 256, 60).tolist()]  # 256 pixels
        with pytest.raises(ValueError, match="end elsewhere"):
            decode_rle(rle, 16, 16)
    with pytest.raises(ValueError, match="Expected argument `mask`"):
        encode_runs(RunMask.of(np.zeros((0, 3), np.bool_)))


def test_a_hostile_stream_takes_little_memory() -> None:
    """A million literals of one bit, and runs for the rest of 4096 x 4096 pixels."""
    count, side = 1 << 20, 4096
    literal = "011" + "1" * 16 + "10" * (1 << 15)
    bits = f"{side * side * 4:032b}" + "00000" + "0010" + "0011" + "0111" + "1111"
    bits += literal * (count >> 16) + ("111" + "1" * 16 + "1") * ((side * side * 4 - count) >> 16)
    rle = stream(bits)
    tracemalloc.start()
    decoded = decode_rle(rle, side, side)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoded.sum() == side * side - count // 4
    assert peak < 5 * decoded.nbytes
