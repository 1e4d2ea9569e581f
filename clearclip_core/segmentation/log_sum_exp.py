"""Log of the softmax's denominator at full resolution, interpolated from few samples."""

from __future__ import annotations

import numpy as np

from clearclip_core.segmentation.candidates import BATCH_ELEMENTS
from clearclip_core.segmentation.upsampling import (
    AxisSamples,
    AxisUpsampling,
    Matrix,
    Values,
    dense_blocks,
    upsample,
)

#: Logits by which the slopes of two queries may differ from one sample to the next. The fourth
#: derivative of a log-sum-exp of linear functions is a fourth cumulant of their slopes: at most
#: range^4 / 8 in size. A cubic is off by at most 1 / 24 of it, and in two directions by
#: (1 + 1.64) as much. So this keeps the relative error of the denominators below 2^-11, a step of
#: float16.
SAMPLE_LOGITS = 0.43

#: Largest range of logits whose exponentials neither overflow nor vanish in float32.
_FLOAT32_RANGE = 160


class LogSumExp:
    """Log-sum-exp of all queries' logits at any pixel; relative error of the sum below 2^-11.

    A log-sum-exp is smooth where its logits are linear. So it is computed at samples whose spacing
    follows from the slopes of the logits (see `SAMPLE_LOGITS`), and cubics interpolate the pixels.
    Where slopes are steep, or samples would save nothing, every pixel is a sample.

    Args:
        logits: (h, w, Q), the windows' patch maps side by side.
        rows: upsampling of the rows.
        columns: upsampling of the columns.
    """

    def __init__(self, logits: Values, rows: AxisUpsampling, columns: AxisUpsampling) -> None:
        self._middle = (logits.max() + logits.min()) / 2
        dtype = logits.dtype if np.ptp(logits) < _FLOAT32_RANGE else np.float64
        logits = (logits - self._middle).astype(dtype)
        vertical, horizontal = _spacings_px(logits, rows, columns)
        self._rows, self._columns = rows.samples(vertical), columns.samples(horizontal)
        logs = _log_sum_exp(logits, self._rows, self._columns)
        self._logs = np.ascontiguousarray(self._columns.interpolate(logs.T).T)

    def at_rows(self, rows: slice) -> Values:
        """Return (r, W) logs of the sum over all queries of exp(logit), in rows of the image."""
        logs: Values = self._rows.interpolate(self._logs, rows) + self._middle
        return logs


def _log_sum_exp(logits: Values, rows: AxisSamples, columns: AxisSamples) -> Values:
    """(h, w, Q) -> (m, n) at the samples."""
    height, width, queries = logits.shape
    by_row = logits.transpose(0, 2, 1).reshape(height, -1)  # (h, Q*w)
    down, along = rows.matrix.astype(logits.dtype), columns.matrix.astype(logits.dtype)
    blocks = list(dense_blocks(along))
    logs = np.empty((len(down), len(along)), logits.dtype)
    step = max(1, BATCH_ELEMENTS // (queries * width))
    for start in range(0, len(down), step):
        some = slice(start, start + step)
        band = (down[some] @ by_row).reshape(-1, queries, width)
        for points, patches, weights in blocks:
            exponents = band[..., patches] @ weights.T  # (r, Q, points)
            logs[some, points] = np.exp(exponents, out=exponents).sum(axis=1)
    return np.log(logs, out=logs)


def _spacings_px(
    logits: Values, rows: AxisUpsampling, columns: AxisUpsampling
) -> tuple[Matrix, Matrix]:
    """Return how far samples may be apart, in px, between two breakpoints of each axis."""
    down, along = (axis.at(axis.breakpoints).astype(logits.dtype) for axis in (rows, columns))
    spread = np.zeros(len(down) - 1), np.zeros(len(along) - 1)
    above = upsample(logits, down[:1], along)[0]  # (n, Q)
    for piece in range(len(down) - 1):
        np.maximum(spread[1], np.ptp(np.diff(above, axis=0), axis=1), out=spread[1])
        below = upsample(logits, down[piece + 1 : piece + 2], along)[0]
        spread[0][piece] = np.ptp(below - above, axis=1).max()
        above = below
    np.maximum(spread[1], np.ptp(np.diff(above, axis=0), axis=1), out=spread[1])
    lengths = (np.diff(axis.breakpoints) / axis.scale for axis in (rows, columns))
    with np.errstate(divide="ignore"):
        vertical, horizontal = (
            SAMPLE_LOGITS * px / logit for px, logit in zip(lengths, spread, strict=True)
        )
    return vertical, horizontal
