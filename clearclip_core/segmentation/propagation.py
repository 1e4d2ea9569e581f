"""Propagation of scores along an image's edges: PEARL's smoothing, on a coarse grid.

Scores of neighbouring places are drawn together, the more alike their colours are and the surer
both are of the same labels; sure places hold on to their own. With logits z of one query in the
cells of a grid, confidences C (diagonal) and the Laplacian L of the weighted grid, the new ones are
the solution F of ``(C + L) F = C z`` (text-aware Laplacian propagation of PEARL, arXiv 2603.21528).

The result are scores of a single window whose patches are the cells. So all that is exact about
label maps stays exact, and a guided filter may follow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray, to_device
from clearclip_core.segmentation.scores import Scores, check_image_size
from clearclip_core.segmentation.upsampling import Indices, Matrix, Values, upsample
from clearclip_core.segmentation.windows import WindowPlan

_BRIGHTNESS = (0.299, 0.587, 0.114)  # shares of red, green and blue in the brightness
_LEAST_CONFIDENCE = 0.05  # least probability of the best query that counts as confidence

#: Temperature of the softmax over the words' similarities, and what a word adds to its own.
_WORD_TEMPERATURE, _OWN_WORD = 0.5, 10.0

_EPSILON = 1e-6

#: A residual below this many rounding errors of the first one is solved: further steps would divide
#: rounding errors by each other.
_SOLVED = 8

#: Queries that are computed together: few enough that 3,000 labels take little more memory than
#: their scores, and that a step's arrays stay in the processor's cache.
_QUERIES_AT_ONCE = 32


@dataclass(frozen=True)
class Propagation:
    """Parameters of the propagation; the defaults are PEARL's.

    Raises:
        ValueError: a value is not positive.
    """

    cells: int = 80  # cells of the grid along each side of an image, about
    steps: int = 25  # steps of the conjugate gradient method, which begins at the scores themselves
    sharpness: float = 5.0  # how fast a difference of brightness, over the mean one, parts cells

    def __post_init__(self) -> None:
        for name in ("cells", "steps", "sharpness"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"Expected argument `{name}` to be positive, but got {getattr(self, name)}."
                )


PROPAGATION = Propagation()  # default parameters


def propagate(
    scores: Scores,
    image: RGBArray,
    embeddings: torch.Tensor,
    std: Sequence[float] = (1.0, 1.0, 1.0),
    propagation: Propagation = PROPAGATION,
) -> Scores:
    """Propagate the scores of an image along its edges.

    Args:
        image: (H, W, 3) uint8 RGB, the image itself.
        embeddings: (Q, D) unit text embeddings of the scores' queries.
        std: standard deviation of each RGB channel, by which the model's input is divided; only the
            ratios of the three matter.

    Raises:
        ValueError: `image` is not of the size that was scored.

    Returns:
        Scores of the same words, of one window whose patches are the cells of the grid.
    """
    check_image_size(scores, image)
    starts = [_cell_starts(side, propagation.cells) for side in scores.plan.image_hw]
    logits = _pool_scores(scores, *starts)
    colours = _pool_image(image, *starts) / np.asarray(std)
    own = _own_similarity(embeddings.to("cpu", torch.float64)).numpy()
    solved = solve(logits, (colours @ np.array(_BRIGHTNESS)).astype(logits.dtype), own, propagation)
    plan = WindowPlan(
        image_hw=scores.plan.image_hw,
        resized_hw=(len(starts[0]), len(starts[1])),
        window_px=max(map(len, starts)),
        stride_px=max(map(len, starts)),
        patch_hw=(1, 1),
    )
    cosines = torch.from_numpy(solved).to(scores.cosines.dtype)
    return replace(scores, cosines=to_device(cosines, scores.cosines.device), plan=plan)


def solve(
    logits: Values, brightness: Values, own: Matrix, propagation: Propagation = PROPAGATION
) -> Values:
    """Solve for the propagated logits by the conjugate gradient method, each query by itself.

    Args:
        logits: (Q, h, w).
        brightness: (h, w), in any unit.
        own: (Q,) similarity of each query's word with itself, beside those with the other words.

    Returns:
        (Q, h, w).
    """
    net = _weigh(logits, brightness, own.astype(logits.dtype), propagation.sharpness)
    solution = np.empty_like(logits)
    for some in _groups(len(logits)):
        solution[some] = net.solve(logits[some], propagation.steps)
    return solution


class _Net(NamedTuple):
    """The weights that all queries share."""

    confidence: Values  # (h, w), of the cells
    down: Values  # (h - 1, w), between each cell and the one below
    along: Values  # (h, w - 1), between each cell and the one to its right

    def product(self, values: Values) -> Values:
        """Multiply (Q, h, w) maps with C + L."""
        made: Values = self.confidence * values
        steps = (values[:, 1:] - values[:, :-1]) * self.down
        made[:, 1:] += steps
        made[:, :-1] -= steps
        steps = (values[:, :, 1:] - values[:, :, :-1]) * self.along
        made[:, :, 1:] += steps
        made[:, :, :-1] -= steps
        return made

    def solve(self, logits: Values, most_steps: int) -> Values:
        """Solve for the propagated logits of some queries, (Q, h, w)."""
        solution = logits.copy()
        residual = self.confidence * logits - self.product(solution)
        direction = residual.copy()
        square = _squares(residual)
        limit = (_SOLVED * np.finfo(logits.dtype).eps) ** 2 * square

        for _ in range(most_steps):
            image = self.product(direction)
            curvature = (direction * image).sum(axis=(1, 2), keepdims=True)
            going = (square > limit) & (curvature > 0)
            if not going.any():
                break

            step = np.where(going, square / np.where(going, curvature, 1), 0)
            solution += step * direction
            residual -= step * image
            before, square = square, _squares(residual)
            kept = np.where(going, square / np.where(going, before, 1), 0)
            direction = residual + kept * direction
        return solution


def _groups(queries: int) -> Iterator[slice]:
    """Yield the queries in groups that are pooled, weighed and solved together."""
    for first in range(0, queries, _QUERIES_AT_ONCE):
        yield slice(first, first + _QUERIES_AT_ONCE)


def _squares(maps: Values) -> Values:
    squares: Values = (maps * maps).sum(axis=(1, 2), keepdims=True)
    return squares


def _weigh(logits: Values, brightness: Values, own: Values, sharpness: float) -> _Net:
    """Weigh cells and their neighbours; see `solve` for the arguments."""
    top = logits.max(axis=0)
    total = np.zeros_like(top)
    for some in _groups(len(logits)):
        total += np.exp(logits[some] - top).sum(axis=0)

    agreement = np.zeros_like(top)
    agreement_down, agreement_along = np.zeros_like(top[1:]), np.zeros_like(top[:, 1:])
    for some in _groups(len(logits)):
        shares = np.exp(logits[some] - top) / total
        weighted = own[some, None, None] * shares
        agreement += (weighted * shares).sum(axis=0)
        agreement_down += (weighted[:, :-1] * shares[:, 1:]).sum(axis=0)
        agreement_along += (weighted[:, :, :-1] * shares[:, :, 1:]).sum(axis=0)

    surest = 1 / total  # probability of the best query
    return _Net(
        confidence=surest.clip(_LEAST_CONFIDENCE) ** 2 * (1 + agreement.clip(0, 1)),
        down=_edge_weights(brightness, agreement_down, 0, sharpness),
        along=_edge_weights(brightness, agreement_along, 1, sharpness),
    )


def _edge_weights(brightness: Values, agreement: Values, axis: int, sharpness: float) -> Values:
    """Return the weights between each cell and the next one along an axis, in (0, 1]."""
    steps = np.abs(np.diff(brightness, axis=axis))
    mean = steps.mean() if steps.size else 0.0
    alike = np.exp(-sharpness * steps / (mean + _EPSILON))
    weights: Values = np.minimum(1, alike * (1 + agreement)).astype(brightness.dtype)
    return weights


def _own_similarity(embeddings: torch.Tensor) -> torch.Tensor:
    """Return (Q,) similarity of each word with itself, in rows that sum to 1 over all words."""
    alike = (embeddings @ embeddings.T / _WORD_TEMPERATURE).softmax(dim=1).diagonal()
    return (alike + _OWN_WORD) / (1 + _OWN_WORD)


def _cell_starts(side_px: int, cells: int) -> Indices:
    """Return the first pixel of each cell along a side.

    >>> _cell_starts(240, 80)[:3].tolist(), _cell_starts(3, 80).tolist()
    ([0, 3, 6], [0, 1, 2])
    """
    stride_px = max(1, round(side_px / cells))
    count = max(1, round(side_px / stride_px))
    return np.rint(np.arange(count) * side_px / count).astype(np.intp)


def _pool_scores(scores: Scores, rows: Indices, columns: Indices) -> npt.NDArray[np.floating]:
    """Return (Q, h, w) mean cosines of the cells' pixels."""
    cosines = scores.cosines.transpose(0, 1).contiguous().cpu().numpy()  # (patches, Q, patches)
    down, along = (
        _means(axis.matrix, starts).astype(cosines.dtype)
        for axis, starts in ((scores.plan.rows, rows), (scores.plan.columns, columns))
    )
    pooled = np.empty((cosines.shape[1], len(rows), len(columns)), cosines.dtype)
    for some in _groups(len(pooled)):
        pooled[some] = upsample(cosines[:, some], down, along).swapaxes(0, 1)
    return pooled


def _pool_image(image: RGBArray, rows: Indices, columns: Indices) -> Matrix:
    """Return (h, w, 3) mean colours of the cells' pixels."""
    bands = np.add.reduceat(image, rows, axis=0, dtype=np.uint32)
    sums = np.add.reduceat(bands, columns, axis=1, dtype=np.uint64)
    heights, widths = (
        np.diff(starts, append=side)
        for starts, side in zip((rows, columns), image.shape[:2], strict=True)
    )
    means: Matrix = sums / (heights[:, None] * widths)[..., None]
    return means


def _means(matrix: Matrix, starts: Indices) -> Matrix:
    """Average rows of a matrix: (pixels, n) -> (cells, n)."""
    counts = np.diff(starts, append=len(matrix))
    means: Matrix = np.add.reduceat(matrix, starts, axis=0) / counts[:, None]
    return means
