"""Scores of an image against words: cosines, label maps and probabilities."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.segmentation.argmax import ArgmaxBands
from clearclip_core.segmentation.candidates import BATCH_ELEMENTS
from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.log_sum_exp import LogSumExp
from clearclip_core.segmentation.redundancy import without_redundancy
from clearclip_core.segmentation.sliding_windows import WindowPlan
from clearclip_core.segmentation.upsampling import AxisUpsampling, Matrix, upsample
from clearclip_core.thread_pools import one_blas_thread
from clearclip_core.vocabulary import Vocabulary

#: Cosines are multiplied by this before the softmax (the paper's released settings).
TEMPERATURE = 50.0

#: The cosines of queries that shall win nowhere lie this far below the least of all: their
#: probability is below that of any other query by a factor of 10^-11.
_OUT_OF_REACH = 0.5

#: On a GPU a band of rows holds about this many cosines: 64 MiB in float32.
GPU_BATCH_ELEMENTS = 1 << 24


@dataclass(frozen=True, eq=False)
class Scores:
    """Cosines of patches and queries; full resolution is computed only band by band.

    Attributes:
        cosines: (Q, I*h, J*w) float32 or float64, the windows' patch maps side by side. For a
            method that removes redundancy these are its similarities. An `Adaptation` adds its
            bias to them.
        plan: positions of the windows.
        vocabulary: the vocabulary with these Q queries.
        temperature: factor on the cosines before the softmax; no unit.

    Raises:
        ValueError: Q is not the number of the vocabulary's queries.
    """

    cosines: torch.Tensor
    plan: WindowPlan
    vocabulary: Vocabulary
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        if len(self.cosines) != len(self.vocabulary.queries):
            raise ValueError(
                f"Expected argument `cosines` to hold {len(self.vocabulary.queries)} queries, "
                f"but got {len(self.cosines)}."
            )

    @classmethod
    def of(
        cls,
        features: DenseFeatures,
        embeddings: torch.Tensor,
        vocabulary: Vocabulary,
        bias: torch.Tensor | None = None,
    ) -> Scores:
        """Compute the cosine of each patch with each query (Eq. 4 of the paper).

        Where the features' method removes redundancy, `without_redundancy` is applied to the
        cosines.

        Args:
            features: unit patch features.
            embeddings: (Q, D) unit text embeddings of ``vocabulary.queries``, or the result of
                ``Adaptation.apply`` for them.
            vocabulary: the words.
            bias: (Q,), added to the cosines of each query.

        Raises:
            ValueError: a bias for a method that removes redundancy, whose class weights it would
                leave as they are.
        """
        patches = features.patches
        dtype = torch.promote_types(patches.dtype, torch.float32)
        queries = embeddings.to(patches.device, dtype)
        flat = patches.to(dtype) @ queries.T  # (windows, h, w, Q)
        if bias is not None:
            if features.remove_redundancy:
                raise ValueError(
                    "Expected argument `bias` to be None for a method that weighs classes by the "
                    "windows' CLS features: it can neither learn from corrections nor have a "
                    "presence prior."
                )
            flat = flat + bias.to(flat)
        if features.remove_redundancy:
            assert features.cls is not None
            flat = without_redundancy(flat, features.cls.to(dtype) @ queries.T)
        mosaic = features.plan.mosaic(flat.permute(0, 3, 1, 2))
        return cls(mosaic.contiguous(), features.plan, vocabulary)

    @property
    def is_on_device(self) -> bool:
        """Whether the cosines lie on a CUDA device; what MPS can do of this was never tried."""
        return self.cosines.is_cuda

    def without(self, labels: Collection[int]) -> Scores:
        """Return scores in which some labels win nowhere, and take no probability from others.

        Args:
            labels: indices of the labels; not all that compete.
        """
        if not labels:
            return self
        out = torch.isin(self._query_labels, torch.tensor(sorted(labels)).to(self._query_labels))
        cosines = self.cosines.clone()
        cosines[out] = cosines.amin(dim=0) - _OUT_OF_REACH
        return replace(self, cosines=cosines)

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
        if self.is_on_device or np.any(np.asarray(threshold) > 0):
            return self.decide(threshold)[0]
        self.thresholds(threshold)
        labels = np.empty(self.plan.image_hw, np.int16)
        for band in self._argmax.bands(with_cosines=False):
            labels[band.rows] = band.labels
        return labels

    @one_blas_thread()
    def decide(
        self, threshold: float | Sequence[float] = 0.0
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float16]]:
        """Compute the label map and the winner's probability, see `label_map`.

        Labels are exact. The relative error of probabilities is below 2^-11, a step of float16.

        Returns:
            (H, W) int16 labels, and (H, W) float16 probabilities in [0, 1] of the winning query,
            contrast words included.
        """
        thresholds = self.thresholds(threshold)
        if self.is_on_device:
            return self._decide_everywhere(thresholds)
        labels = np.empty(self.plan.image_hw, np.int16)
        confidence = np.empty(self.plan.image_hw, np.float16)
        log_sum_exp = LogSumExp(self._by_pixel * self.temperature, *self._upsamplings)
        for band in self._argmax.bands(with_cosines=True):
            logarithm = band.cosines * self.temperature - log_sum_exp.at_rows(band.rows)
            probability = np.exp(np.minimum(logarithm, 0, out=logarithm), out=logarithm)
            low = probability < thresholds[band.labels]
            labels[band.rows] = np.where(low, np.int16(-1), band.labels)
            confidence[band.rows] = probability
        return labels, confidence

    def probabilities(self, rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        """Compute the probabilities of the labels in a band of rows of the original image.

        They are the softmax over all queries, contrast words included. The largest of a label's
        queries counts (the paper's released settings), so they need not add up to 1.

        Args:
            rows: rows of the image; all by default.

        Returns:
            (labels, rows, W) float32 in [0, 1].
        """
        softmax = (self._upsample(rows) * self.temperature).softmax(dim=0)
        labels = range(len(self.vocabulary.labels))
        best = [softmax[self._query_labels == label].amax(dim=0) for label in labels]
        return torch.stack(best).cpu().numpy()

    def logits_at(
        self, y_px: Matrix, x_px: Matrix
    ) -> Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]:
        """Compute temperature times cosines at positions of the original image, in bands of rows.

        Args:
            y_px: (m,) rows, pixel 0 has its centre at 0.
            x_px: (n,) columns.

        Yields:
            The slice of `y_px`, and (r, n, Q) logits.
        """
        rows, columns = self._upsamplings
        yield from self._logits(rows.at(rows.positions(y_px)), columns.at(columns.positions(x_px)))

    def logits_at_knots(
        self, y_px: Matrix, x_px: Matrix
    ) -> Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]:
        """Compute logits as `logits_at`, but such that bilinear interpolation comes nearest to all.

        Args:
            y_px: (m,) rows, see ``AxisUpsampling.at_knots``.
            x_px: (n,) columns.

        Yields:
            The slice of `y_px`, and (r, n, Q) logits.
        """
        rows, columns = self._upsamplings
        yield from self._logits(rows.at_knots(y_px), columns.at_knots(x_px))

    def _logits(
        self, down: Matrix, along: Matrix
    ) -> Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]:
        """Yield logits in bands of rows, of (m, h) and (n, w) weights of the patches."""
        step = max(1, BATCH_ELEMENTS // (len(self.cosines) * len(along)))
        for start in range(0, len(down), step):
            some = slice(start, start + step)
            yield some, upsample(self._by_pixel, down[some], along) * self.temperature

    def thresholds(self, threshold: float | Sequence[float]) -> npt.NDArray[np.float32]:
        """Return each label's threshold, and at index -1 the contrast words', which is 0.

        Returns:
            (labels + 1,) float32.

        Raises:
            ValueError: neither one threshold nor one for each label.
        """
        count = len(self.vocabulary.labels)
        if np.shape(threshold) not in ((), (count,)):
            raise ValueError(
                f"Expected argument `threshold` to be one number or {count}, one for each label, "
                f"but got {threshold!r}."
            )
        return np.append(np.broadcast_to(threshold, count), 0.0).astype(np.float32)

    def _decide_everywhere(
        self, thresholds: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float16]]:
        """Compute all queries at all pixels: on a GPU faster than finding those that can win."""
        limits = torch.from_numpy(thresholds).to(self.cosines.device)
        labels = np.empty(self.plan.image_hw, np.int16)
        confidence = np.empty(self.plan.image_hw, np.float16)
        for rows, cosines in self._bands():
            best, query = cosines.max(dim=0)  # (r, W) each
            logits = cosines.sub_(best).mul_(self.temperature)
            probability = logits.exp_().sum(dim=0).reciprocal_()  # the winner's own logit is 0
            label = self._query_labels[query]
            low = probability < limits[label]
            labels[rows] = label.masked_fill(low, -1).cpu().numpy()
            confidence[rows] = probability.cpu().numpy()
        return labels, confidence

    @property
    def _upsamplings(self) -> tuple[AxisUpsampling, AxisUpsampling]:
        return self.plan.rows.upsampling, self.plan.columns.upsampling

    @cached_property
    def _by_pixel(self) -> npt.NDArray[np.floating[Any]]:
        """(I*h, J*w, Q) on the CPU."""
        return self.cosines.permute(1, 2, 0).contiguous().cpu().numpy()

    @cached_property
    def _argmax(self) -> ArgmaxBands:
        query_labels = np.asarray(self.vocabulary.query_labels, np.int16)
        return ArgmaxBands(self._by_pixel, query_labels, *self._upsamplings)

    @cached_property
    def _query_labels(self) -> torch.Tensor:
        return torch.tensor(self.vocabulary.query_labels, device=self.cosines.device)

    @cached_property
    def _matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        axes = (self.plan.rows.matrix, self.plan.columns.matrix)
        rows, columns = (
            torch.from_numpy(axis).to(self.cosines.dtype).to(self.cosines) for axis in axes
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
