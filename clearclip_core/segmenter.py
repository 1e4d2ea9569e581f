"""Segmenter: encode a picture, score it against words, segment it. Composition only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from clearclip_core.encoder import DenseEncoder
from clearclip_core.masks import BoolMask, label_masks
from clearclip_core.methods import Method, resolve_method
from clearclip_core.models import LoadedModel, load_model
from clearclip_core.pictures import Preprocessing, to_rgb
from clearclip_core.scores import DenseFeatures, Scores
from clearclip_core.text import Label, TextEncoder, Vocabulary
from clearclip_core.windows import WindowPlan

Picture = Image.Image | npt.NDArray[Any]
Labels = Vocabulary | Iterable[str | Label]

#: A contrast word whose embedding is at least this near to a label's means the same.
_SAME_MEANING = 0.95


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The labels of a picture's pixels.

    Attributes:
        label_map: (H, W) int16, index into `labels`, -1 for none.
        confidence: (H, W) float16 in [0, 1], probability of the winning query.
        labels: names of the labels.
    """

    label_map: npt.NDArray[np.int16]
    confidence: npt.NDArray[np.float16]
    labels: tuple[str, ...]

    def masks(self, min_island_px: int = 0, min_hole_px: int = 0) -> dict[str, BoolMask]:
        """Name of the label -> (H, W) bool; labels without a pixel are left out.

        Args:
            min_island_px: connected parts of fewer pixels are dropped.
            min_hole_px: holes of fewer pixels are filled.
        """
        masks = label_masks(self.label_map, min_island_px, min_hole_px)
        return {self.labels[index]: mask for index, mask in masks.items()}

    def score(self, mask: BoolMask) -> float:
        """Mean probability inside a mask, in [0, 1]; 0 for an empty one."""
        return float(self.confidence[mask].mean(dtype=np.float64)) if mask.any() else 0.0


class Segmenter:
    """Open-vocabulary segmentation with a CLIP model (Sec. 3.3 of the paper).

    Keeps no state between calls but the text embeddings it has computed; may be shared by
    threads.

    Args:
        model: a loaded model.
        method: a preset's name, or a `Method`.
        preprocessing: sizes, mean and std; by default the paper's sizes and the model's own mean
            and std.
        windows_at_once: how many windows are encoded as one batch; 4 on a CPU, 32 on a GPU by
            default.

    >>> segmenter = Segmenter.load("demo", device="cpu")
    >>> from clearclip_core import render_scene
    >>> image = render_scene(seed=1, size_hw=(96, 128)).image
    >>> segmenter.segment(image, ["sky", "grass"]).label_map.shape
    (96, 128)
    """

    def __init__(
        self,
        model: LoadedModel,
        method: str | Method = "clearclip",
        preprocessing: Preprocessing | None = None,
        windows_at_once: int | None = None,
    ) -> None:
        self.model = model
        self.method = resolve_method(method)
        self.encoder = DenseEncoder(model.clip, self.method)
        self.embed = TextEncoder(model.embed)
        self.preprocessing = preprocessing or Preprocessing(model.mean, model.std)
        default = 4 if self.encoder.device.type == "cpu" else 32
        self.windows_at_once = windows_at_once or default

    @classmethod
    def load(
        cls,
        name: str,
        method: str | Method = "clearclip",
        device: str = "auto",
        precision: str = "auto",
        short_side_px: int = 448,
        folder: Path | None = None,
        download: bool = True,
    ) -> Segmenter:
        """Load a model by name; see `load_model` for the arguments and errors.

        Args:
            short_side_px: pictures are resized to this short side; more sees smaller things and
                takes longer. The long side is limited to 2048 px at 448, and in proportion.
        """
        method = resolve_method(method)
        model = load_model(name, device, precision, folder, download)
        long_side_px = max(2048, round(2048 * short_side_px / 448))
        sizes = Preprocessing(model.mean, model.std, short_side_px, long_side_px)
        return cls(model, method, sizes)

    @torch.inference_mode()
    def encode(self, image: Picture) -> DenseFeatures:
        """Encode a picture: the expensive half, the same for all words.

        Args:
            image: see `to_rgb`.

        Returns:
            Features in the model's dtype, on its device.
        """
        rgb = to_rgb(image)
        resized = self.preprocessing.resize(rgb)
        plan = WindowPlan(
            image_hw=(rgb.shape[0], rgb.shape[1]),
            resized_hw=(resized.shape[0], resized.shape[1]),
            window_px=self.preprocessing.window_px,
            stride_px=self.preprocessing.stride_px,
            patch_hw=self.encoder.patch_size_hw,
        )
        pixels = self.preprocessing.normalize(resized)
        pixels = pixels.to(self.encoder.device, self.encoder.dtype)  # (3, H, W)
        windows = list(plan.cut(pixels))
        batches = [
            self.encoder.encode(torch.stack(windows[start : start + self.windows_at_once]))
            for start in range(0, len(windows), self.windows_at_once)
        ]
        return DenseFeatures(torch.cat(batches), plan)

    def vocabulary(self, labels: Labels, contrast: bool = False) -> Vocabulary:
        """Labels as a vocabulary, on request with the model's own contrast words.

        Contrast words that a label uses, or that mean the same to the model (cosine of the
        embeddings 0.95 or more), are left out.
        """
        made = Vocabulary.of(labels)
        if not contrast or made.contrast:
            return made
        prompts = [prompt for label in made.labels for prompt in label.prompts]
        likeness = self.embed(self.model.contrast) @ self.embed(prompts).T  # (words, prompts)
        other = (likeness.amax(dim=1) < _SAME_MEANING).tolist()
        words = (word for word, kept in zip(self.model.contrast, other, strict=True) if kept)
        return Vocabulary(made.labels, tuple(words))

    @torch.inference_mode()
    def score(self, features: DenseFeatures, labels: Labels, contrast: bool = False) -> Scores:
        """Score features against words: the cheap half.

        Args:
            features: from `encode` with the same model.
            labels: names, `Label` values or a `Vocabulary`.
            contrast: let the model's contrast words compete; pixels where they win get no label.
        """
        vocabulary = self.vocabulary(labels, contrast)
        return Scores.of(features, self.embed(vocabulary.queries), vocabulary)

    @torch.inference_mode()
    def segment(
        self,
        image: Picture,
        labels: Labels,
        contrast: bool = False,
        threshold: float | Sequence[float] = 0.0,
    ) -> Segmentation:
        """Encode, score and decide at once.

        Args:
            image: see `to_rgb`.
            labels: names, `Label` values or a `Vocabulary`.
            contrast: see `score`.
            threshold: probability below which a pixel gets no label; one for all or one for each
                label.
        """
        return self.decide(self.score(self.encode(image), labels, contrast), threshold)

    @torch.inference_mode()
    def decide(self, scores: Scores, threshold: float | Sequence[float] = 0.0) -> Segmentation:
        """Scores -> the best label of each pixel of the original picture."""
        label_map, confidence = scores.decide(threshold)
        names = tuple(label.name for label in scores.vocabulary.labels)
        return Segmentation(label_map, confidence, names)
