"""Segmenter: encode a picture, score it against words, segment it. Composition only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.clip.batching import (
    batches,
    check_windows_at_once,
    choose_windows_at_once,
    join_windows,
    split_windows,
)
from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.embedding_cache import EmbeddingStore
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.methods import Method, resolve_method
from clearclip_core.clip.text_encoder import TextEncoder
from clearclip_core.images.preprocessing import Preprocessing, RGBArray, to_rgb
from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.masks import BoolMask, label_masks
from clearclip_core.segmentation.refined_argmax import decide_refined
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.sliding_windows import WindowPlan
from clearclip_core.vocabulary import Label, Vocabulary

ImageLike = Image.Image | npt.NDArray[Any]
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


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A picture resized and its windows planned: all that the encoder asks of it.

    Made by `Segmenter.prepare` on the CPU, in any thread.

    Attributes:
        resized: (h, w, 3) uint8, what the encoder will see.
        plan: where the windows lie; ``plan.image_hw`` is the picture's own size.
    """

    resized: RGBArray
    plan: WindowPlan

    @cached_property
    def digest(self) -> str:
        """Hex digest of the bytes and the geometry: equal ones have equal features."""
        digest = hashlib.sha256(self.plan.key.encode())
        digest.update(self.resized.tobytes())
        return digest.hexdigest()


class Segmenter:
    """Open-vocabulary segmentation with a CLIP model (Sec. 3.3 of the paper).

    Keeps no state between calls but the text embeddings it has computed; may be shared by
    threads.

    Args:
        model: a loaded model.
        method: a preset's name, or a `Method`.
        preprocessing: sizes, mean and std; by default the paper's sizes and the model's own mean
            and std.
        windows_at_once: how many windows are encoded as one batch; by default see
            `choose_windows_at_once`.
        store: where text embeddings outlive the process; nowhere by default.
        compile: compile the encoder with ``torch.compile`` when the first picture comes, which
            takes up to minutes; meant for CUDA (on a CPU it needs a C++ compiler).

    Raises:
        ValueError: unknown method, or `windows_at_once` is below 1.

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
        store: EmbeddingStore | None = None,
        compile: bool = False,
    ) -> None:
        self.model = model
        self.method = resolve_method(method)
        self.encoder = DenseEncoder(model.clip, self.method)
        self.embed = TextEncoder(model.embed, store=store)
        self.preprocessing = preprocessing or Preprocessing(model.mean, model.std)
        if compile:
            self.encoder.compile(dynamic=True)  # the last batch of a picture is a smaller one
        if windows_at_once is None:
            windows_at_once = choose_windows_at_once(self.encoder, self.preprocessing.window_px)
        check_windows_at_once(windows_at_once)
        self.windows_at_once = windows_at_once

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
        compile: bool = False,
    ) -> Segmenter:
        """Load a model by name; see `load_model` for the arguments and errors.

        Args:
            short_side_px: pictures are resized to this short side; more sees smaller things and
                takes longer. The long side is limited to 2048 px at 448, and in proportion.
            folder: beside weights, text embeddings are kept there (``embeddings/``), so that a
                vocabulary is embedded once, not once a process. Without a folder nothing is
                written.
            compile: see the class.
        """
        method = resolve_method(method)
        model = load_model(name, device, precision, folder, download)
        sizes = Preprocessing.of_short_side(model.mean, model.std, short_side_px)
        return cls(model, method, sizes, store=EmbeddingStore.of(model, folder), compile=compile)

    @cached_property
    def features_id(self) -> str:
        """What features depend on beside the picture, as a hex digest to key caches with.

        Covers every number of the image tower, the precision, the method, mean and std. With
        ``PreparedImage.digest`` it names the features of one picture.
        """
        mean, std = self.preprocessing.mean, self.preprocessing.std
        digest = hashlib.sha256(f"({self.method.key}, {mean!r}, {std!r})".encode())
        for name, tensor in self.encoder.visual.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()

    def prepare(self, image: ImageLike) -> PreparedImage:
        """Resize a picture and plan its windows: the part that needs no model.

        Args:
            image: see `to_rgb`.
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
        return PreparedImage(resized, plan)

    def encode(self, image: ImageLike) -> DenseFeatures:
        """Encode a picture: the expensive half, the same for all words.

        Args:
            image: see `to_rgb`.

        Returns:
            Features in the model's dtype, on its device.
        """
        return self.encode_batch([self.prepare(image)])[0]

    @torch.inference_mode()
    def encode_batch(
        self, pictures: Sequence[PreparedImage], windows_at_once: int | None = None
    ) -> list[DenseFeatures]:
        """Encode pictures together: windows of one size share batches, whosever they are.

        Args:
            pictures: from `prepare`, of any sizes.
            windows_at_once: windows of a batch at most; the segmenter's own by default.

        Returns:
            The features of each picture in the order given, in the model's dtype, on its device;
            each in memory of its own, so that dropping it frees it.

        Raises:
            ValueError: `windows_at_once` is below 1.
        """
        at_once = self.windows_at_once if windows_at_once is None else windows_at_once
        check_windows_at_once(at_once)
        same_size: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            same_size.setdefault(picture.plan.grid_hw, []).append(index)
        found: dict[int, DenseFeatures] = {}
        for indices in same_size.values():
            plans = [pictures[index].plan for index in indices]
            windows = self._windows(pictures[index] for index in indices)
            encoded = join_windows([self.encoder(batch) for batch in batches(windows, at_once)])
            parts = split_windows(encoded, [plan.count for plan in plans])
            for index, plan, part in zip(indices, plans, parts, strict=True):
                found[index] = DenseFeatures(part.patches, plan, part.cls)
        return [found[index] for index in range(len(pictures))]

    def _windows(self, pictures: Iterable[PreparedImage]) -> Iterator[torch.Tensor]:
        """All windows, one after the other; a picture is normalised when its turn comes."""
        device, dtype = self.encoder.device, self.encoder.dtype
        precise = torch.promote_types(dtype, torch.float32)
        for picture in pictures:
            pixels = self.preprocessing.normalize(picture.resized, device, precise)
            yield from picture.plan.cut(pixels.to(dtype))  # (3, H, W)

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
    def score(
        self,
        features: DenseFeatures,
        labels: Labels,
        contrast: bool = False,
        adaptation: Adaptation | None = None,
    ) -> Scores:
        """Score features against words: the cheap half.

        Args:
            features: from `encode` with the same model.
            labels: names, `Label` values or a `Vocabulary`.
            contrast: let the model's contrast words compete; pixels where they win get no label.
            adaptation: what corrections have taught, see `adapt`; by default the words alone
                decide.

        Raises:
            ValueError: an adaptation of another model, or for a method that cannot learn.
        """
        vocabulary = self.vocabulary(labels, contrast)
        embeddings = self.embed(vocabulary.queries)
        if adaptation is None:
            return Scores.of(features, embeddings, vocabulary)
        embeddings, bias = adaptation.apply(embeddings, vocabulary)
        return Scores.of(features, embeddings, vocabulary, bias)

    @torch.inference_mode()
    def segment(
        self,
        image: ImageLike,
        labels: Labels,
        contrast: bool = False,
        threshold: float | Sequence[float] = 0.0,
        refine: bool = False,
        adaptation: Adaptation | None = None,
    ) -> Segmentation:
        """Encode, score and decide at once.

        Args:
            image: see `to_rgb`.
            labels: names, `Label` values or a `Vocabulary`.
            contrast: see `score`.
            threshold: probability below which a pixel gets no label; one for all or one for each
                label.
            refine: see `decide`.
            adaptation: see `score`.
        """
        rgb = to_rgb(image)
        scores = self.score(self.encode(rgb), labels, contrast, adaptation)
        return self.decide(scores, threshold, rgb, refine)

    @torch.inference_mode()
    def decide(
        self,
        scores: Scores,
        threshold: float | Sequence[float] = 0.0,
        image: ImageLike | None = None,
        refine: bool = False,
    ) -> Segmentation:
        """Scores -> the best label of each pixel of the original picture.

        Args:
            scores: from `score`.
            threshold: see `segment`.
            image: the picture, which only `refine` needs; see `to_rgb`.
            refine: let labels, probabilities and thresholds follow the picture's edges, see
                `decide_refined`. Without it the result is the paper's.

        Raises:
            ValueError: to be refined without `image`, or with one of another size.
        """
        if not refine:
            label_map, confidence = scores.decide(threshold)
        elif image is None:
            raise ValueError("Expected argument `image` to be a picture with `refine`, got None.")
        else:
            label_map, confidence = decide_refined(scores, to_rgb(image), threshold)
        names = tuple(label.name for label in scores.vocabulary.labels)
        return Segmentation(label_map, confidence, names)
