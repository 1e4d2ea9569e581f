"""Encode and decode brush masks in Label Studio's run-length encoding.

The format is that of ``rle-pack`` from thi.ng/umbrella over a mask flattened as RGBA, so each pixel
stands four times. A stream of bits, padded to bytes:

    number of values (32) · word size - 1 (5) · four length sizes - 1 (4 each) · tokens
    run:      1 · index of the length size (2) · length - 1 · one value
    literal:  0 · index of the length size (2) · length - 1 · that many values
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clearclip_core import RunMask

_WORD_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST_RUN = 1 << _LENGTH_BITS[-1]
_HEADER_BITS = 32 + 5 + 4 * 4
_SIZES = 7 << 16 | 2 << 12 | 3 << 8 | 7 << 4 | 15  # of a word and of lengths, less one each
_CHANNELS = 4

#: Bytes of a stream that are decoded at once; each takes up to six hundred of memory.
_PART_BYTES = 1 << 16

#: Mean pixels of a run from which on runs are written one by one, and those of 0 not at all.
_LONG_RUN = 500


def encode_runs(mask: RunMask) -> list[int]:
    """Encode a mask, painted pixels as 255; the same integers as Label Studio's own converter.

    Raises:
        ValueError: a mask of no pixel, or of more than 2^30 pixels.

    >>> encode_runs(RunMask.of(np.array([[True, False]])))
    [0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0]
    """
    size = mask.size_hw[0] * mask.size_hw[1]
    if not 0 < size < 1 << 30:
        raise ValueError(f"Expected argument `mask` to have 1 to 2^30 pixels, but got {size}.")
    edges = np.stack([mask.starts, mask.ends], axis=1).ravel()
    lengths = np.diff(edges, prepend=0, append=size) * _CHANNELS  # painted are the odd ones
    values = np.arange(lengths.size) % 2 == 1
    some = lengths > 0  # not those before a run at the first pixel and behind one at the last
    tokens, used = _run_tokens(lengths[some], values[some])
    return list(_pack(size * _CHANNELS, tokens, used).tobytes())


def decode_rle(rle: Sequence[int], height: int, width: int, step: int = 1) -> npt.NDArray[np.uint8]:
    """Decode any stream of the format, such as the editor's with their soft edges.

    Args:
        rle: the bytes of the stream, 0 to 255.
        height: of the mask in px.
        width: of the mask in px.
        step: every how many rows and columns are returned, from the first: a small picture needs
            no others, and the mask of all pixels is never made.

    Returns:
        (⌈H / step⌉, ⌈W / step⌉) uint8, the alpha channel: a pixel over 127 counts as painted.

    Raises:
        ValueError: values that are no bytes, a stream that is cut off, or another number of pixels.

    >>> decode_rle([0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0], 1, 2)
    array([[255,   0]], dtype=uint8)
    >>> decode_rle([0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0], 1, 2, step=2)
    array([[255]], dtype=uint8)
    """
    try:
        iter(rle)  # of a number, `bytes` would make that many zeros
        data = bytes(rle)
    except (TypeError, ValueError):
        raise ValueError("Expected argument `rle` to hold integers from 0 to 255.") from None

    n_values, word_bits, length_bits = _read_header(data)
    if len(data) < 7 or n_values != height * width * _CHANNELS:
        raise ValueError(
            f"Expected argument `rle` to hold {height} x {width} pixels of {_CHANNELS} values, "
            f"but got {n_values if len(data) >= 7 else 'no'} values."
        )

    source = np.frombuffer(data + b"\0" * 5, dtype=np.uint8)
    small_hw = -(-height // step), -(-width // step)
    alpha = np.zeros(small_hw, dtype=np.uint8).ravel()
    before = 0

    for tokens in _read_tokens(data, n_values, word_bits, length_bits):
        values, ends = _values(source, tokens, word_bits, before)
        # How many alphas lie before each edge, then how many of those that are returned.
        edges = np.concatenate([[before], ends]) // _CHANNELS
        _fill(alpha, values, edges if step == 1 else _kept_before(edges, width, step))
        before = int(ends[-1])
    return alpha.reshape(small_hw)


def _kept_before(pixels: npt.NDArray[np.int64], width: int, step: int) -> npt.NDArray[np.int64]:
    """Return how many pixels of every `step`-th row and column lie before each pixel, (N,)."""
    rows, columns = np.divmod(pixels, width)
    in_row = np.where(rows % step == 0, -(-columns // step), 0)
    return np.asarray(-(-rows // step) * -(-width // step) + in_row)


class _Tokens(NamedTuple):
    """Successive tokens, each array (N,)."""

    is_run: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]  # its length in values
    positions: npt.NDArray[np.int64]  # the bit of the stream at which its values begin


def _read_header(data: bytes) -> tuple[int, int, list[int]]:
    """Return the number of values, the bits of a value, and the bits of the four length sizes."""
    header = int.from_bytes(data[:7].ljust(7, b"\0"), "big") >> (7 * 8 - _HEADER_BITS)
    length_bits = [((header >> shift) & 0b1111) + 1 for shift in (12, 8, 4, 0)]
    return header >> 21, ((header >> 16) & 0b11111) + 1, length_bits


def _values(
    source: npt.NDArray[np.uint8], tokens: _Tokens, word_bits: int, before: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the value of each run or literal, (N,), at most 255, and where each ends, (N,)."""
    is_run, counts, positions = tokens
    if is_run.all():  # as in masks that nobody has painted softly
        values = _read_words(source, positions, word_bits)
        return np.minimum(values, 255).astype(np.uint8), before + np.cumsum(counts)
    words = np.where(is_run, 1, counts)  # (N,) values to read for each token
    nth = np.arange(words.sum()) - np.repeat(np.cumsum(words) - words, words)
    values = _read_words(source, np.repeat(positions, words) + nth * word_bits, word_bits)
    ends = before + np.cumsum(np.repeat(np.where(is_run, counts, 1), words))
    return np.minimum(values, 255).astype(np.uint8), ends


def _fill(
    alpha: npt.NDArray[np.uint8],
    values: npt.NDArray[np.uint8],
    edges: npt.NDArray[np.int64],
) -> None:
    """Write each value, (N,), from its edge up to the next, (N + 1,), into pixels that are 0."""
    starts, ends = edges[:-1], edges[1:]
    if int(ends[-1] - starts[0]) < _LONG_RUN * len(ends):
        alpha[starts[0] : ends[-1]] = np.repeat(values, ends - starts)
        return
    painted = np.flatnonzero(values)
    runs = (each[painted].tolist() for each in (starts, ends, values))
    for first, end, value in zip(*runs, strict=True):
        alpha[first:end] = value


def _pack(
    n_values: int, tokens: npt.NDArray[np.uint64], used: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint8]:
    """Write the header and tokens (M,), each of `used` bits, at most 32, behind each other.

    Return bytes, the last one padded; a whole byte where nothing is missing, as in the converter.
    """
    header = n_values << 21 | _SIZES
    ends = np.uint64(_HEADER_BITS) + np.cumsum(used)
    starts = ends - used
    # A token lies in one or two words of 32 bits. No two share a bit, so sums join them; float64
    # holds them exactly.
    word, place = (starts >> 5).astype(np.intp), np.uint64(64) - (starts & 31) - used
    both = tokens << place
    n_bytes = int(ends[-1]) // 8 + 1
    count = n_bytes // 4 + 2
    words = np.bincount(word, both >> 32, count) + np.bincount(word + 1, both & 0xFFFFFFFF, count)
    header <<= 64 - _HEADER_BITS
    words[:2] += header >> 32, header & 0xFFFFFFFF
    return words.astype(">u4").view(np.uint8)[:n_bytes]


def _run_tokens(
    lengths: npt.NDArray[np.int64], values: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Make one token for each run, several for a run over 2^16 values.

    Return (M,) uint64, each token at the lower end, and (M,) uint64 the bits of each.
    """
    # The length size fits the whole run, so that the rest of a long one has 16 bits as well.
    index = np.searchsorted(1 << np.array(_LENGTH_BITS[:3]), lengths)
    word = np.where(values, 255, 0)
    pieces = -(-lengths // _LONGEST_RUN)
    rest = lengths
    if pieces.max() > 1:
        last = np.cumsum(pieces) - 1
        index, word = np.repeat(index, pieces), np.repeat(word, pieces)
        rest = np.full(last[-1] + 1, _LONGEST_RUN)
        rest[last] = lengths - (pieces - 1) * _LONGEST_RUN
    bits = np.array(_LENGTH_BITS)[index]
    tokens = ((0b100 | index) << bits | rest - 1) << _WORD_BITS | word
    return tokens.astype(np.uint64), (3 + bits + _WORD_BITS).astype(np.uint64)


def _read_tokens(
    data: bytes, n_values: int, word_bits: int, length_bits: Sequence[int]
) -> Iterator[_Tokens]:
    """Find the tokens up to the last value, a part of the stream at a time."""
    before = 0
    for first, heads, starts in _token_starts(data, word_bits, length_bits):
        tokens = heads[(starts >> 3) - first].astype(np.int64) << (starts & 7)
        is_run = tokens >> 31 & 1 == 1  # bits above the 32nd are not read
        bits = np.array(length_bits)[tokens >> 29 & 0b11]
        counts = (tokens >> (29 - bits) & (1 << bits) - 1) + 1
        positions = starts + 3 + bits

        totals = before + np.cumsum(counts)
        # Behind the last token there is padding, which reads as more tokens.
        last = min(int(np.searchsorted(totals, n_values)), starts.size - 1)
        if last < 0:
            continue  # a literal covers this whole part

        words = 1 if is_run[last] else int(counts[last])
        before = int(totals[last])
        if before > n_values or positions[last] + word_bits * words > len(data) * 8:
            break
        yield _Tokens(is_run[: last + 1], counts[: last + 1], positions[: last + 1])
        if before == n_values:
            return
    raise ValueError(
        f"Expected argument `rle` to hold {n_values} values, but its tokens end elsewhere."
    )


def _token_starts(
    data: bytes, word_bits: int, length_bits: Sequence[int]
) -> Iterator[tuple[int, npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
    """Find the bit at which each token begins, one after the other.

    Each token tells where the next one begins. The first three bits of a run's token tell its
    length, which is looked up beforehand for every bit at which a token could begin.

    Yield the first byte of a part of the stream; the 32 bits that begin at each byte of the part;
    and the bits of the whole stream at which the tokens of the part begin, (N,).
    """
    steps_by_code = bytes([0] * 4 + [3 + bits + word_bits for bits in length_bits]).ljust(256)

    start = _HEADER_BITS
    for first in range(0, len(data), _PART_BYTES):
        part = data[first : first + _PART_BYTES + 1] + b"\0"
        bits = np.unpackbits(np.frombuffer(part, np.uint8))
        codes = bits[:-2] << 2 | bits[1:-1] << 1 | bits[2:]
        steps = codes.tobytes().translate(steps_by_code)
        heads = _heads(data[first : first + _PART_BYTES + 3])
        head_at = heads.data  # looks up single numbers faster than an array

        at, end = start - 8 * first, 8 * min(_PART_BYTES, len(data) - first)
        starts: list[int] = []
        keep = starts.append
        while at < end:
            keep(at)
            step = steps[at]
            if not step:  # a literal, whose length depends on its count
                token = head_at[at >> 3] << (at & 7)
                size = length_bits[token >> 29 & 0b11]
                step = 3 + size + word_bits * ((token >> (29 - size) & (1 << size) - 1) + 1)
            at += step
        start = 8 * first + at
        yield first, heads, np.array(starts, dtype=np.int64) + 8 * first


def _heads(data: bytes) -> npt.NDArray[np.uint32]:
    """Return the 32 bits that begin at each byte, (len(data),) uint32."""
    source = np.frombuffer(data + b"\0" * 3, dtype=np.uint8)
    heads = np.empty((len(data), 4), np.uint8)
    for byte in range(4):
        heads[:, byte] = source[byte : byte + len(data)]
    return heads.view(">u4")[:, 0].astype(np.uint32)


def _read_words(
    source: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64], word_bits: int
) -> npt.NDArray[np.int64]:
    """Read words of up to 32 bits at any bit: (N,) positions -> (N,) values."""
    first = positions >> 3
    window, n_bytes = np.zeros(positions.shape, dtype=np.int64), (word_bits + 14) // 8
    for byte in range(n_bytes):  # all of a word that begins with the last bit of a byte
        window = window << 8 | source[first + byte]
    return window >> (8 * n_bytes - word_bits - (positions & 7)) & ((1 << word_bits) - 1)
