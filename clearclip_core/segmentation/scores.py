"""Features and words -> cosines -> label maps and probabilities, in bands of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.segmentation.argmax import BAND_ELEMENTS as CPU_BAND_ELEMENTS
from clearclip_core.segmentation.argmax import ArgmaxBands, LogSumExp, upsample
from clearclip_core.segmentation.sliding_windows import WindowPlan
from clearclip_core.segmentation.upsampling import AxisUpsampling, Matrix
from clearclip_core.vocabulary import Vocabulary

#: Cosines are multiplied by this before the softmax (the paper's released settings).
TEMPERATURE = 50.0

#: CLIP Surgery multiplies the CLS token's cosines by this before its softmax over classes.
CLASS_TEMPERATURE = 2.0

#: On a GPU a band of rows holds about this many cosines at once: 64 MiB in float32.
BAND_ELEMENTS = 1 << 24


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """Patch features of one picture, window by window, with the geometry to put them back.

    A value: keep it, hand it to another thread, score it against any words.

    Attributes:
        patches: (windows, h, w, D), each feature of length 1.
        plan: where the windows lie; ``plan.image_hw`` is the picture's own size.
        cls: (windows, D), the windows' CLS features of length 1, where the method weighs classes
            by them (see `without_redundancy`); None otherwise.

    Raises:
        ValueError: `patches` or `cls` does not fit `plan`.
    """

    patches: torch.Tensor
    plan: WindowPlan
    cls: torch.Tensor | None = None

    def __post_init__(self) -> None:
        wanted = (self.plan.count, *self.plan.grid_hw)
        if self.patches.ndim != 4 or tuple(self.patches.shape[:3]) != wanted:
            raise ValueError(
                f"Expected argument `patches` to be of shape {wanted} + (D,), but got "
                f"{tuple(self.patches.shape)}."
            )
        one_each = (self.plan.count, self.patches.shape[3])
        if self.cls is not None and tuple(self.cls.shape) != one_each:
            raise ValueError(
                f"Expected argument `cls` to be of shape {one_each}, but got "
                f"{tuple(self.cls.shape)}."
            )


@dataclass(frozen=True, eq=False)
class Scores:
    """Cosines of patches and queries; full resolution exists only band by band.

    Attributes:
        cosines: (Q, I*h, J*w) float32 or float64, the windows' patch maps side by side; for a
            method that removes redundancy its similarities; with what an `Adaptation` adds to
            them, where there is one.
        plan: the geometry.
        vocabulary: whose queries the Q are.
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
        """Cosine of each patch with each query (Eq. 4 of the paper).

        Features with a CLS feature of each window get what `without_redundancy` makes of them.

        Args:
            features: unit patch features.
            embeddings: (Q, D) unit text embeddings of ``vocabulary.queries``, or what
                ``Adaptation.apply`` has made of them.
            vocabulary: the words.
            bias: (Q,), added to the cosines of each query.

        Raises:
            ValueError: a bias for features with CLS features: what weighs the classes has not
                learned.
        """
        patches = features.patches
        dtype = torch.promote_types(patches.dtype, torch.float32)
        queries = embeddings.to(patches.device, dtype)
        flat = patches.to(dtype) @ queries.T  # (windows, h, w, Q)
        if bias is not None:
            if features.cls is not None:
                raise ValueError(
                    "Expected argument `bias` to be None for a method that weighs classes by the "
                    "windows' CLS features: it cannot learn from corrections."
                )
            flat = flat + bias.to(flat)
        if features.cls is not None:
            flat = without_redundancy(flat, features.cls.to(dtype) @ queries.T)
        mosaic = features.plan.mosaic(flat.permute(0, 3, 1, 2))
        return cls(mosaic.contiguous(), features.plan, vocabulary)

    def label_map(self, threshold: float | Sequence[float] = 0.0) -> npt.NDArray[np.int16]:
        """The best label of each pixel of the original picture.

        Args:
            threshold: probability below which a pixel gets no label; one for all labels or one
                for each.

        Raises:
            ValueError: neither one threshold nor one for each label.

        Returns:
            (H, W) int16: index of the label, -1 where a contrast word wins or the probability is
            below the threshold.
        """
        if self.cosines.is_cuda or np.any(np.asarray(threshold) > 0):
            return self.decide(threshold)[0]
        self.thresholds(threshold)
        labels = np.empty(self.plan.image_hw, np.int16)
        for band in self._winners.bands(with_cosines=False):
            labels[band.rows] = band.labels
        return labels

    def decide(
        self, threshold: float | Sequence[float] = 0.0
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float16]]:
        """Label map and the winner's probability, see `label_map`.

        Labels are exact. Probabilities, which take all queries, are within a step of float16: a
        share of 2^-11 of their value.

        Returns:
            (H, W) int16 labels, and (H, W) float16 probabilities in [0, 1] of the winning query,
            contrast words included.
        """
        thresholds = self.thresholds(threshold)
        if self.cosines.is_cuda:
            return self._decide_everywhere(thresholds)
        labels = np.empty(self.plan.image_hw, np.int16)
        confidence = np.empty(self.plan.image_hw, np.float16)
        denominators = LogSumExp(self._by_pixel * self.temperature, *self._courses)
        for band in self._winners.bands(with_cosines=True):
            logarithm = band.cosines * self.temperature - denominators.log(band.rows)
            probability = np.exp(np.minimum(logarithm, 0, out=logarithm), out=logarithm)
            low = probability < thresholds[band.labels]
            labels[band.rows] = np.where(low, np.int16(-1), band.labels)
            confidence[band.rows] = probability
        return labels, confidence

    def _decide_everywhere(
        self, thresholds: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float16]]:
        """All queries at all pixels, in bands of rows: what a GPU does sooner than think."""
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

    def probabilities(self, rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        """Probabilities of the labels in a band of rows of the original picture.

        Softmax over all queries, contrast words included; of a label's queries the largest
        counts (the paper's released settings). So they need not add up to 1.

        Args:
            rows: which rows; all of them by default.

        Returns:
            (labels, rows, W) float32 in [0, 1].
        """
        softmax = (self._upsample(rows) * self.temperature).softmax(dim=0)
        owners = self._query_labels
        each = [softmax[owners == i].amax(dim=0) for i in range(len(self.vocabulary.labels))]
        return torch.stack(each).cpu().numpy()

    def logits_at(
        self, y_px: Matrix, x_px: Matrix
    ) -> Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]:
        """Temperature times cosines at some places of the original picture, in bands of rows.

        Args:
            y_px: (m,) rows, pixel 0 has its centre at 0.
            x_px: (n,) columns.

        Yields:
            Which of the rows, and (r, n, Q) logits.
        """
        rows, columns = self._courses
        down, along = rows.at(rows.positions(y_px)), columns.at(columns.positions(x_px))
        step = max(1, CPU_BAND_ELEMENTS // (len(self.cosines) * len(along)))
        for start in range(0, len(down), step):
            some = slice(start, start + step)
            yield some, upsample(self._by_pixel, down[some], along) * self.temperature

    @property
    def _courses(self) -> tuple[AxisUpsampling, AxisUpsampling]:
        return self.plan.rows.course, self.plan.columns.course

    @cached_property
    def _by_pixel(self) -> npt.NDArray[np.floating[Any]]:
        """(I*h, J*w, Q) on the CPU."""
        return self.cosines.permute(1, 2, 0).contiguous().cpu().numpy()

    @cached_property
    def _winners(self) -> ArgmaxBands:
        owners = np.asarray(self.vocabulary.query_labels, np.int16)
        return ArgmaxBands(self._by_pixel, owners, *self._courses)

    @cached_property
    def _query_labels(self) -> torch.Tensor:
        return torch.tensor(self.vocabulary.query_labels, device=self.cosines.device)

    @cached_property
    def _matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        axes = (self.plan.rows.matrix, self.plan.columns.matrix)
        rows, columns = (torch.from_numpy(axis).to(self.cosines) for axis in axes)
        return rows, columns

    def thresholds(self, threshold: float | Sequence[float]) -> npt.NDArray[np.float32]:
        """(labels + 1,) float32: each label's threshold, and at index -1 the contrast words' 0.

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

    def _bands(self) -> Iterator[tuple[slice, torch.Tensor]]:
        height, width = self.plan.image_hw
        step = max(1, BAND_ELEMENTS // (len(self.cosines) * width))
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            yield rows, self._upsample(rows)

    def _upsample(self, rows: slice) -> torch.Tensor:
        rows_matrix, columns_matrix = self._matrices
        bands = rows_matrix[rows] @ self.cosines  # (Q, r, J*w)
        return bands @ columns_matrix.T  # (Q, r, W)


def without_redundancy(cosines: torch.Tensor, cls_cosines: torch.Tensor) -> torch.Tensor:
    """Take away what the similarities of all classes have in common (CLIP Surgery).

    With ``s = softmax(2 · cls_cosines)`` over the classes and ``w = s / mean(s)``, the similarity
    of class c is ``w_c · cosine_c`` less the mean of that over all classes (Li et al., "CLIP
    Surgery for Better Explainability with Enhancement in Open-Vocabulary Tasks", 2023). What a
    window shows decides for that window alone. A single class keeps its plain cosine.

    Every query counts as a class: the synonyms of a label one by one, contrast words too.

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
