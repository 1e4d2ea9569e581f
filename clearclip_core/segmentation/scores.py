"""Scores of an image against words: cosines, label maps and probabilities."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray, to_device
from clearclip_core.segmentation.tiles import TileArgmax
from clearclip_core.segmentation.upsampling import (
    BATCH_ELEMENTS,
    AxisUpsampling,
    Indices,
    Matrix,
    Values,
    dense_blocks,
    upsample,
)
from clearclip_core.segmentation.windows import DenseFeatures, WindowPlan
from clearclip_core.thread_pools import one_blas_thread, one_thread
from clearclip_core.vocabulary import TEMPERATURE, Vocabulary

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
        logits: (h, Q, w), the windows' patch maps side by side.
    """

    def __init__(self, logits: Values, rows: AxisUpsampling, columns: AxisUpsampling) -> None:
        self._middle = (logits.max() + logits.min()) / 2
        dtype = logits.dtype if np.ptp(logits) < _FLOAT32_RANGE else np.float64
        logits = (logits - self._middle).astype(dtype)
        vertical, horizontal = _spacings_px(logits, rows, columns)
        down, along = rows.samples(vertical), columns.samples(horizontal)
        logs = _log_sum_exp(logits, down.matrix, along.matrix)
        # OpenCV transposes four times as fast as NumPy copies what is transposed.
        along_rows = along.cubics.astype(logs.dtype) @ cv2.transpose(logs)
        self._logs = np.asarray(cv2.transpose(along_rows)).astype(logs.dtype, copy=False)
        self._cubics = down.cubics.astype(logs.dtype)

    def at_rows(self, rows: slice) -> Values:
        """Return (r, W) logs of the sum over all queries of exp(logit), in rows of the image."""
        logs: Values = self._cubics[rows] @ self._logs
        logs += self._middle
        return logs


def _log_sum_exp(logits: Values, rows: Matrix, columns: Matrix) -> Values:
    """(h, Q, w) -> (m, n) at samples, of (m, h) and (n, w) weights."""
    height, queries, width = logits.shape
    by_row = logits.reshape(height, -1)
    down, along = rows.astype(logits.dtype), columns.astype(logits.dtype)
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
    above = upsample(logits, down[:1], along)[0]  # (Q, n)
    for piece in range(len(down) - 1):
        np.maximum(spread[1], np.ptp(np.diff(above, axis=1), axis=0), out=spread[1])
        below = upsample(logits, down[piece + 1 : piece + 2], along)[0]
        spread[0][piece] = np.ptp(below - above, axis=0).max()
        above = below
    np.maximum(spread[1], np.ptp(np.diff(above, axis=1), axis=0), out=spread[1])
    lengths = (np.diff(axis.breakpoints) / axis.scale for axis in (rows, columns))
    with np.errstate(divide="ignore"):
        vertical, horizontal = (
            SAMPLE_LOGITS * px / logit for px, logit in zip(lengths, spread, strict=True)
        )
    return vertical, horizontal


#: CLIP Surgery multiplies the CLS token's cosines by this before its softmax over classes.
CLASS_TEMPERATURE = 2.0


def without_redundancy(cosines: torch.Tensor, cls_cosines: torch.Tensor) -> torch.Tensor:
    """Subtract what the similarities of all classes have in common (CLIP Surgery).

    With ``s = softmax(2 · cls_cosines)`` over the classes and ``w = s / mean(s)``, the similarity
    of class c is ``w_c · cosine_c`` less the mean of that over all classes (Li et al., "CLIP
    Surgery for Better Explainability with Enhancement in Open-Vocabulary Tasks", 2023). Each
    window has weights of its own. A single class keeps its plain cosine.

    Every query counts as a class: each synonym of a label, and each contrast word.

    Args:
        cosines: (windows, h, w, Q), of patches and queries.
        cls_cosines: (windows, Q), of the windows' CLS features and queries.

    Returns:
        (windows, h, w, Q) similarities, whose mean over the queries is 0 where there are several.

    >>> two = torch.tensor([0.3, 0.1]).reshape(1, 1, 1, 2)
    >>> without_redundancy(two, torch.tensor([[0.2, 0.2]])).flatten()
    tensor([ 0.1000, -0.1000])
    """
    if cosines.shape[-1] == 1:
        return cosines
    shares = (CLASS_TEMPERATURE * cls_cosines).softmax(dim=-1)
    weights = shares / shares.mean(dim=-1, keepdim=True)  # (windows, Q)
    weighted = cosines * weights[:, None, None]
    return weighted - weighted.mean(dim=-1, keepdim=True)


#: Largest side of a cell in px. In larger cells more queries can win; smaller cells have more
#: corners to compute.
CELL_PX = 12.0

#: On a GPU a band of rows holds about this many cosines: 64 MiB in float32.
GPU_BATCH_ELEMENTS = 1 << 24


@dataclass(frozen=True, eq=False)
class Scores:
    """Cosines of patches and queries; full resolution is computed only band by band.

    Raises:
        ValueError: Q is not the number of the vocabulary's queries.
    """

    #: (Q, I*h, J*w) float32 or float64, the windows' patch maps side by side. For a method that
    #: removes redundancy these are its similarities. An `Adaptation` adds its bias to them.
    cosines: torch.Tensor
    plan: WindowPlan
    vocabulary: Vocabulary
    temperature: float = TEMPERATURE  #: factor on the cosines before the softmax; no unit
    propagate: bool = False  #: whether `Segmenter.decide` propagates them without being asked

    def __post_init__(self) -> None:
        if len(self.cosines) != len(self.vocabulary.queries):
            raise ValueError(
                f"Expected argument `cosines` to hold {len(self.vocabulary.queries)} queries, "
                f"but got {len(self.cosines)}."
            )

    def __repr__(self) -> str:
        queries, height, width = self.cosines.shape
        height_px, width_px = self.plan.image_hw
        return (
            f"<Scores of {width_px} × {height_px} px: {width} × {height} patches, {queries} "
            f"queries, labels {', '.join(self.vocabulary.names)}>"
        )

    @classmethod
    def of(
        cls,
        features: DenseFeatures,
        embeddings: torch.Tensor,
        vocabulary: Vocabulary,
        bias: torch.Tensor | None = None,
        *,
        temperature: float = TEMPERATURE,
    ) -> "Scores":
        """Compute the cosine of each patch with each query (Eq. 4 of the paper).

        Where the features' method removes redundancy, `without_redundancy` is applied to the
        cosines.

        Args:
            features: unit patch features.
            embeddings: (Q, D) unit text embeddings of ``vocabulary.queries``, or the result of
                ``Adaptation.apply`` for them, which may be (Q, D + S) and use a second encoder.
            vocabulary: labels and contrast words.
            bias: (Q,), added to the cosines of each query.
            temperature: factor on the cosines before the softmax over queries.

        Raises:
            ValueError: a bias for a method that removes redundancy, whose class weights it would
                leave as they are; or embeddings of another width.
        """
        patches = features.patches
        dtype = torch.promote_types(patches.dtype, torch.float32)
        queries = to_device(embeddings.to(dtype), patches.device)
        width, second = patches.shape[-1], features.second
        if queries.shape[1] not in (width, features.width):
            raise ValueError(
                f"Expected {width} numbers a word, and {features.width - width} of a second "
                f"encoder, but got {queries.shape[1]}: words or learned terms are another model's."
            )

        flat = patches.to(dtype) @ queries[:, :width].T  # (windows, h, w, Q)
        if second is not None and queries.shape[1] > width:
            flat = flat + second.to(dtype) @ queries[:, width:].T

        if bias is not None:
            if features.remove_redundancy:
                raise ValueError(
                    "Expected argument `bias` to be None for a method that weighs classes by the "
                    "windows' CLS features: it cannot learn from corrections."
                )
            flat = flat + to_device(bias.to(dtype), flat.device)
        if features.remove_redundancy:
            assert features.cls is not None
            flat = without_redundancy(flat, features.cls.to(dtype) @ queries.T)

        mosaic = features.plan.mosaic(flat.permute(0, 3, 1, 2))
        return cls(mosaic.contiguous(), features.plan, vocabulary, temperature)

    @property
    def is_on_device(self) -> bool:
        """Whether the cosines lie on a CUDA device; what MPS can do of this was never tried."""
        return self.cosines.is_cuda

    @one_blas_thread()
    def label_map(self, threshold: float | Sequence[float] = 0.0) -> npt.NDArray[np.int16]:
        """Compute the best label of each pixel of the original image.

        Args:
            threshold: probability below which a pixel gets no label; one for all labels or one
                for each.

        Raises:
            ValueError: neither one threshold nor one for each label.

        Returns:
            (H, W) int16: index of the label, -1 where a contrast word wins or the probability is
            below the threshold.
        """
        if self.thresholds(threshold).any() or self.is_on_device:
            return self.decide(threshold)[0]
        labels = np.empty(self.plan.image_hw, np.int16)
        for _ in self._argmax.decide(labels, with_values=False):
            pass
        return labels

    @one_thread()
    def decide(
        self, threshold: float | Sequence[float] = 0.0
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float16]]:
        """Compute the label map and the winner's probability, see `label_map`.

        Labels are exact. The relative error of probabilities is below 2^-11, a step of float16.

        Args:
            threshold: probability below which a pixel gets no label, 0-1; one for all or one for
                each label.

        Returns:
            (H, W) int16 labels, and (H, W) float16 probabilities in [0, 1] of the winning query,
            contrast words included.
        """
        thresholds = self.thresholds(threshold)
        if self.is_on_device:
            return self._decide_everywhere(thresholds)
        labels = np.empty(self.plan.image_hw, np.int16)
        confidence = np.empty(self.plan.image_hw, np.float16)
        has_threshold = bool(thresholds.any())
        log_sum_exp = LogSumExp(self._by_row * self.temperature, *self._upsamplings)
        for rows, values in self._argmax.decide(labels):
            logs = torch.from_numpy(log_sum_exp.at_rows(rows))
            logits = torch.from_numpy(values).mul_(self.temperature)
            probability = logits.sub_(logs).clamp_(max=0).exp_()
            torch.from_numpy(confidence[rows]).copy_(probability)
            if has_threshold:
                labels[rows][probability.numpy() < thresholds[labels[rows]]] = -1
        return labels, confidence

    def logits_at(
        self, y_px: Matrix, x_px: Matrix, queries: Indices | None = None
    ) -> Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]:
        """Compute temperature times cosines at positions of the original image, in bands of rows.

        Args:
            y_px: (m,) rows, pixel 0 has its centre at 0.
            x_px: (n,) columns.
            queries: indices of queries; all by default.

        Yields:
            The slice of `y_px`, and (r, n, Q) logits.
        """
        rows, columns = self._upsamplings
        cosines = self._by_row if queries is None else self._by_row[:, queries]
        down, along = (
            axis.at(axis.positions(px)).astype(cosines.dtype)
            for axis, px in ((rows, y_px), (columns, x_px))
        )
        step = max(1, BATCH_ELEMENTS // (cosines.shape[1] * len(along)))
        for start in range(0, len(down), step):
            some = slice(start, start + step)
            logits = upsample(cosines, down[some], along) * self.temperature
            yield some, logits.transpose(0, 2, 1)

    def thresholds(self, threshold: float | Sequence[float]) -> npt.NDArray[np.float32]:
        """Return each label's threshold, and at index -1 the contrast words', which is 0.

        Args:
            threshold: 0-1, one for all labels or one for each.

        Returns:
            (labels + 1,) float32.

        Raises:
            ValueError: neither one threshold nor one for each label, or one outside [0, 1].
        """
        count = len(self.vocabulary.labels)
        # NaN is in no range.
        given = np.asarray(np.nan if isinstance(threshold, Mapping) else threshold, np.float32)
        if given.shape not in ((), (count,)) or not ((given >= 0) & (given <= 1)).all():
            raise ValueError(
                f"Expected argument `threshold` to be one number or {count}, one for each label, "
                f"in [0, 1], but got {threshold!r}."
            )
        return np.append(np.broadcast_to(given, count), np.float32(0))

    def _decide_everywhere(
        self, thresholds: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float16]]:
        """Compute all queries at all pixels: on a GPU faster than finding those that can win."""
        device = self.cosines.device
        limits = to_device(torch.from_numpy(thresholds), device)
        labels = torch.empty(self.plan.image_hw, dtype=torch.int16, device=device)
        confidence = torch.empty(self.plan.image_hw, dtype=torch.float16, device=device)
        for rows, cosines in self._bands():
            best, query = cosines.max(dim=0)  # (r, W) each
            logits = cosines.sub_(best).mul_(self.temperature)
            probability = logits.exp_().sum(dim=0).reciprocal_()  # the winner's own logit is 0
            label = self._query_labels[query]
            labels[rows] = label.masked_fill(probability < limits[label], -1)
            confidence[rows] = probability
        return labels.cpu().numpy(), confidence.cpu().numpy()  # the host waits here alone

    @property
    def _upsamplings(self) -> tuple[AxisUpsampling, AxisUpsampling]:
        return self.plan.rows.upsampling, self.plan.columns.upsampling

    @cached_property
    def _by_row(self) -> npt.NDArray[np.floating[Any]]:
        """(I*h, Q, J*w) on the CPU."""
        return self.cosines.transpose(0, 1).contiguous().cpu().numpy()

    @cached_property
    def _argmax(self) -> TileArgmax:
        query_labels = np.asarray(self.vocabulary.query_labels, np.int16)
        rows, columns = (axis.cells(CELL_PX) for axis in self._upsamplings)
        return TileArgmax(self._by_row[:, None], query_labels, rows, columns)

    @cached_property
    def _query_labels(self) -> torch.Tensor:
        return to_device(torch.tensor(self.vocabulary.query_labels), self.cosines.device)

    @cached_property
    def _matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        axes = (self.plan.rows.matrix, self.plan.columns.matrix)
        rows, columns = (
            to_device(torch.from_numpy(axis).to(self.cosines.dtype), self.cosines.device)
            for axis in axes
        )
        return rows, columns

    def _bands(self) -> Iterator[tuple[slice, torch.Tensor]]:
        height, width = self.plan.image_hw
        step = max(1, GPU_BATCH_ELEMENTS // (len(self.cosines) * width))
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            yield rows, self._upsample(rows)

    def _upsample(self, rows: slice) -> torch.Tensor:
        rows_matrix, columns_matrix = self._matrices
        bands = rows_matrix[rows] @ self.cosines  # (Q, r, J*w)
        return bands @ columns_matrix.T  # (Q, r, W)


def check_image_size(scores: Scores, image: RGBArray) -> None:
    """Raise a `ValueError` unless an image has the size that was scored."""
    if image.shape[:2] != scores.plan.image_hw:
        raise ValueError(
            f"Expected argument `image` to be of size {scores.plan.image_hw}, but got "
            f"{image.shape[:2]}."
        )
