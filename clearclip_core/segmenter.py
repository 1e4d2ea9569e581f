"""Segmenter: encode an image, score it against words, decide the label of each pixel."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import torch
from PIL import Image
from tqdm import tqdm

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.clip.dense_encoder import (
    WindowFeatures,
    batches,
    check_windows_at_once,
    choose_windows_at_once,
    join_windows,
    split_windows,
)
from clearclip_core.clip.encoders import make_encoder
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.methods import Method
from clearclip_core.clip.second_encoder import SecondEncoder, load_second_encoder
from clearclip_core.clip.text_encoder import BEST_TEMPLATES, TEMPLATES, Template, TextEncoder
from clearclip_core.devices import choose_device
from clearclip_core.images.files import is_hidden, is_image
from clearclip_core.images.opening import ImageLike, read_rgb
from clearclip_core.images.preprocessing import Preprocessing, RGBArray
from clearclip_core.onnx_export import ImageToLabelMap, Words
from clearclip_core.onnx_export import write as write_onnx
from clearclip_core.prompting.click_model import (
    ClickModel,
    ClickModelPredictor,
    load_click_model,
)
from clearclip_core.prompting.prompts import PromptPredictor
from clearclip_core.segmentation.guided_filter import REFINEMENT
from clearclip_core.segmentation.propagation import propagate as propagate_scores
from clearclip_core.segmentation.refined_argmax import (
    DeviceSegmentation,
    decide_refined,
    decide_refined_on_device,
)
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.segmentation import Segmentation
from clearclip_core.segmentation.segmentation import decide as decide_plain
from clearclip_core.segmentation.windows import DenseFeatures, WindowPlan
from clearclip_core.thread_pools import read_ahead
from clearclip_core.vocabulary import TEMPERATURE, Labels, Vocabulary

log = logging.getLogger(__name__)

#: A contrast word means the same as a label if the cosine of their embeddings is at least this.
_SAME_MEANING = 0.95


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A resized image and the positions of its windows: the input of the encoder.

    Made by `Segmenter.prepare` on the CPU, in any thread.
    """

    resized: RGBArray  #: (h, w, 3) uint8 RGB
    plan: WindowPlan  #: positions of windows; ``plan.image_hw`` is the original image's size
    #: (h, w, 3) uint8 RGB, resized for the second encoder; None without one
    for_second: RGBArray | None = None

    @cached_property
    def digest(self) -> str:
        """Hex digest of the pixels and the geometry; equal digests mean equal features."""
        digest = hashlib.sha256(self.plan.key.encode())
        digest.update(self.resized.tobytes())
        if self.for_second is not None:
            digest.update(repr(self.for_second.shape).encode())
            digest.update(self.for_second.tobytes())
        return digest.hexdigest()


class SegmentedImage(NamedTuple):
    """An image of `Segmenter.segment_all`, and what was found on it."""

    source: Path | int  #: path of its file, or its position, from 0 on
    image: RGBArray  #: (H, W, 3) uint8 RGB
    result: Segmentation


class _Read(NamedTuple):
    """An image that waits for its batch."""

    source: Path | int
    image: RGBArray
    prepared: PreparedImage


#: Images of a batch at most: of 12 megapixels, eight take 0.3 GB.
_IMAGES_TOGETHER: Final = 8


def images_of(images: Path | str | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """Return the image files of a folder, in the order of their paths; or the images given.

    Raises:
        ValueError: a path that is no folder.
    """
    if not isinstance(images, Path | str):
        return images
    folder = Path(images).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"Expected argument `images` to be a folder or several images, but got {str(images)!r}."
        )
    found = (path for path in folder.rglob("*") if is_image(path))
    return sorted(path for path in found if not is_hidden(path, folder))


def _sources(images: Iterable[ImageLike]) -> Iterator[tuple[Path | int, ImageLike]]:
    for index, image in enumerate(images):
        yield (Path(image) if isinstance(image, Path | str) else index), image


def _log_unreadable(source: Path | int, error: Exception) -> None:
    log.warning("%s cannot be read and is left out: %s", source, error)


class Segmenter:
    """Open-vocabulary segmentation with a CLIP model (Sec. 3.3 of the paper).

    It keeps no state between calls except for text embeddings, and may be shared by threads.

    Args:
        model: CLIP with its words, from `load_model`; `Segmenter.load` makes both.
        method: name of a preset, or a `Method`.
        preprocessing: sizes, mean and std; by default the sizes of the method's authors, see
            `Method.sizes_px`, and the model's own mean and std.
        windows_at_once: windows that are encoded as one batch, at most. By default on a CPU 2 of
            448 px or as many smaller ones as have their pixels, 8 at most; on CUDA as many as fit
            into half of the free memory, 64 at most; 8 on other devices.
        templates: functions such as ``"a photo of a {}.".format``; by default CLIP's 80.
        second: an encoder whose features stand beside the model's, for what corrections teach;
            words are not compared with them.
        second_short_side_px: short side of the pictures that the second encoder gets, see
            `Segmenter.load`.
        click_model: answers clicks and boxes in place of the features, see `set_image`.

    Raises:
        ValueError: an unknown method, a method that needs sink channels where those of the weights
            are not known, or `windows_at_once` below 1.

    >>> from clearclip_core import render_scene
    >>> segmenter = Segmenter.load("demo", device="cpu")
    >>> image = render_scene(seed=1, size_hw=(96, 128)).image
    >>> segmenter.segment(image, {"sky": ["sky", "cloud"], "grass": "grass"}).mask("sky").shape
    (96, 128)
    """

    def __init__(
        self,
        model: LoadedModel,
        method: str | Method = "clearclip",
        preprocessing: Preprocessing | None = None,
        windows_at_once: int | None = None,
        *,
        templates: Sequence[Template] = TEMPLATES,
        second: SecondEncoder | None = None,
        second_short_side_px: int | None = None,
        click_model: ClickModel | None = None,
    ) -> None:
        self.model = model
        self._loaded_by: dict[str, Any] | None = None  # arguments of `load`, for other processes
        self.method = Method.of(method)
        self.method.check_second_encoder(second is not None)
        self.encoder = make_encoder(model.clip, self.method, model.sink_channels)
        self.embed = TextEncoder(model.embed, templates)
        self.preprocessing = preprocessing or Preprocessing.of_short_side(
            model.mean, model.std, *self.method.sizes_px
        )
        self.second = second
        self.click_model = click_model
        self.second_short_side_px = second_short_side_px
        if second is not None and second_short_side_px is None:
            words_px = self.preprocessing.short_side_px
            self.second_short_side_px = second.default_short_side_px(words_px)
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
        short_side_px: int | None = None,
        *,
        folder: Path | str | None = None,
        download: bool = True,
        templates: Sequence[Template] = TEMPLATES,
        second: str | None = None,
        second_short_side_px: int | None = None,
        click_model: str | None = None,
    ) -> Segmenter:
        """Load a model by name.

        Args:
            name: such as ``ViT-B-16/openai``, ``ViT-B-16@FILE`` or ``demo``.
            method: name of a preset, or a `Method`.
            device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            precision: ``fp32``, ``fp16``, ``bf16``, or ``auto``: what the device is fast at.
            short_side_px: images are resized to this short side, and read in the paper's windows of
                448 px; by default both are as the method's authors chose them. A larger one finds
                smaller objects and takes longer. The long side is limited to 2048 px at 448, and
                in proportion otherwise.
            folder: where weights are looked up first, and kept when they are downloaded; by default
                ``~/.cache/clearclip``, and open_clip's own cache.
            download: whether weights that are not on disk may be fetched.
            templates: functions such as ``"a photo of a {}.".format``; by default CLIP's 80.
            second: name of a second encoder in timm, or ``name@file``.
            second_short_side_px: short side of the pictures that the second encoder gets: by
                default twice the model's for a network of a stride of 32 px, and for others the
                model's, or the side that they were trained on where it is larger. A larger one
                tells finer parts apart and takes longer.
            click_model: SAM 2, SAM 3's tracker or EdgeTAM in transformers' format, which answers
                clicks and boxes: a folder, or a repository such as ``facebook/sam2.1-hiera-tiny``.

        Raises:
            ValueError: an unknown name, method, device or precision, or an unfit architecture.
            WeightsNotFoundError: no weights; the message says how to bring them.
        """
        method = Method.of(method)
        path = Path(folder).expanduser() if folder else None
        model = load_model(name, device, precision, path, download)
        beside = clicks = None
        if second:
            beside = load_second_encoder(second, device, precision, path, download)
        if click_model:
            clicks = load_click_model(click_model, device, precision, path, download)

        sides = method.sizes_px if short_side_px is None else (short_side_px,)
        sizes = Preprocessing.of_short_side(model.mean, model.std, *sides)
        made = cls(
            model,
            method,
            sizes,
            templates=templates,
            second=beside,
            second_short_side_px=second_short_side_px,
            click_model=clicks,
        )

        made._loaded_by = {
            "name": name,
            "method": method,
            "short_side_px": short_side_px,
            "folder": folder,
            "download": download,
            "second": second,
            "second_short_side_px": second_short_side_px,
            "click_model": click_model,
        }
        return made

    def __repr__(self) -> str:
        parts = [f"{self.model.name}, {self.method}"]
        if self.second is not None:
            parts.append(f"beside {self.second.name}")
        if self.click_model is not None:
            parts.append(f"clicks by {self.click_model.name}")
        parts.append(f"{self.encoder.precision} on {self.device}")
        parts.append(f"pictures of {self.preprocessing.short_side_px} px")
        return f"<Segmenter {', '.join(parts)}>"

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.encoder.device

    def to(self, device: torch.device | str) -> Segmenter:
        """Return a copy on another device, or this one where it lies there.

        It computes in the same precision. This one stays as it is.

        Args:
            device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``, or ``auto``: CUDA where there is one.

        Raises:
            ValueError: an unknown device, or one that is not there.

        >>> segmenter = Segmenter.load("demo", device="cpu")
        >>> segmenter.to("cpu") is segmenter
        True
        """
        target = choose_device(str(device))
        return self if target == self.device else self._copied(target)

    def _copied(self, device: torch.device) -> Segmenter:
        """Copy the segmenter and its weights to a device."""
        second, clicks = self.second, self.click_model
        if second is not None:
            second = replace(second, model=deepcopy(second.model).to(device))
        if clicks is not None:
            clicks = replace(clicks, model=deepcopy(clicks.model).to(device))

        made = Segmenter(
            replace(self.model, clip=deepcopy(self.model.clip).to(device)),
            self.method,
            self.preprocessing,
            templates=self.embed.templates,
            second=second,
            second_short_side_px=self.second_short_side_px,
            click_model=clicks,
        )
        made._loaded_by = self._loaded_by
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Segmenter:
        made = self._copied(self.device)
        made.windows_at_once = self.windows_at_once
        return made

    def __copy__(self) -> Segmenter:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name of the weights, which the other process loads for itself.

        Raises:
            TypeError: a segmenter that `load` has not made.
        """
        if self._loaded_by is None:
            raise TypeError(
                "Expected a segmenter of Segmenter.load, whose weights have a name, but got one "
                f"that was made of a model: {self!r}. Make it anew in the other process."
            )
        where = {"device": str(self.device), "precision": self.encoder.precision}
        own = self.embed.templates
        named = next((name for name, each in _TEMPLATES.items() if each == own), own)
        return _load_again, (self._loaded_by | where, named, self.windows_at_once)

    def variant(
        self,
        method: str | Method,
        short_side_px: int | None = None,
        second: str | None = None,
        *,
        second_short_side_px: int | None = None,
        folder: Path | str | None = None,
    ) -> Segmenter:
        """Make a segmenter of the same weights of CLIP and the same embedded words.

        Args:
            method: name of a preset, or a `Method`.
            short_side_px: as in `load`.
            second: name of a second encoder, which is loaded unless it is this segmenter's; its
                weights have to be on disk. None: without one.
            second_short_side_px: as in `load`.
            folder: folder of weights.

        Raises:
            ValueError: a method that the weights or the second encoder do not allow, or an unknown
                name.
            WeightsNotFoundError: the second encoder's weights are not on disk.
        """
        method = Method.of(method)

        beside = self.second if self.second is not None and self.second.name == second else None
        if second is not None and beside is None:
            beside = load_second_encoder(
                second,
                str(self.encoder.device),
                self.encoder.precision,
                None if folder is None else Path(folder).expanduser(),
                download=False,
            )

        sides = method.sizes_px if short_side_px is None else (short_side_px,)
        made = Segmenter(
            self.model,
            method,
            Preprocessing.of_short_side(self.model.mean, self.model.std, *sides),
            templates=self.embed.templates,
            second=beside,
            second_short_side_px=second_short_side_px,
            click_model=self.click_model,
        )
        made.embed = self.embed
        return made

    @property
    def weights_bytes(self) -> int:
        """Bytes of the numbers of all its networks, in the memory of the model's device."""
        networks = [self.model.clip, *([] if self.second is None else [self.second.model])]
        tensors = itertools.chain(*(each.state_dict().values() for each in networks))
        return sum(each.numel() * each.element_size() for each in tensors)

    @cached_property
    def features_id(self) -> str:
        """Hex digest of all that features depend on beside the image, as a key of caches.

        It covers every number of the image towers, the precision, the method, mean and std.
        Together with ``PreparedImage.digest`` it identifies the features of one image.
        """
        mean, std = self.preprocessing.mean, self.preprocessing.std
        digest = hashlib.sha256(f"({self.method.key}, {mean!r}, {std!r})".encode())
        if self.method.repair == "sinks":
            digest.update(f"sinks {self.model.sink_channels}".encode())
        weights = dict(self.encoder.visual.state_dict())
        if self.second is not None:
            digest.update(repr((self.second.facts, self.second_short_side_px)).encode())
            weights |= {
                f"second {key}": each for key, each in self.second.model.state_dict().items()
            }
        for name, tensor in weights.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()

    def prepare(self, image: ImageLike) -> PreparedImage:
        """Resize an image and plan its windows, without the model; see `segment` for `image`.

        Args:
            image: as `segment` takes it.
        """
        rgb = read_rgb(image)
        resized = self.preprocessing.resize(rgb)
        plan = WindowPlan(
            image_hw=(rgb.shape[0], rgb.shape[1]),
            resized_hw=(resized.shape[0], resized.shape[1]),
            window_px=self.preprocessing.window_px,
            stride_px=self.preprocessing.stride_px,
            patch_hw=self.encoder.patch_size_hw,
        )
        if self.second is None or self.second_short_side_px is None:
            return PreparedImage(resized, plan)
        return PreparedImage(resized, plan, self.second.resize(rgb, self.second_short_side_px))

    def encode(self, image: ImageLike) -> DenseFeatures:
        """Encode an image: the expensive half, which does not depend on the words.

        Args:
            image: as `segment` takes it.

        Returns:
            Features in the model's dtype, on its device.
        """
        return self.encode_batch([self.prepare(image)])[0]

    @torch.inference_mode()
    def encode_batch(
        self, images: Sequence[PreparedImage], windows_at_once: int | None = None
    ) -> list[DenseFeatures]:
        """Encode several images together: windows of one size share batches.

        Args:
            images: from `prepare`, of any sizes.
            windows_at_once: windows of a batch at most; the segmenter's own by default.

        Returns:
            The features of each image in the order given, in the model's dtype, on its device.
            They share no memory, so that dropping one frees its memory. An image that overflows
            fp16 is encoded in fp32.

        Raises:
            ValueError: `windows_at_once` is below 1.
            TypeError: an image that `prepare` has not returned.
        """
        batch_size = self.windows_at_once if windows_at_once is None else windows_at_once
        check_windows_at_once(batch_size)
        if not all(isinstance(image, PreparedImage) for image in images):
            raise TypeError("Expected argument `images` to hold what `prepare` returns.")

        features = self._encode_all(images, batch_size)
        if self.encoder.dtype is torch.float16:
            for index in _overflowing(features):
                log.warning("A picture overflows fp16 and is encoded again in fp32.")
                features[index] = self._encode_in_fp32(images[index], batch_size)
        return features

    def _encode_all(self, images: Sequence[PreparedImage], batch_size: int) -> list[DenseFeatures]:
        """Encode images in the model's precision, those of one size together, in their order."""
        seconds = self._encode_seconds(images, batch_size)
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image.plan.grid_hw, []).append(index)

        encoded: dict[int, DenseFeatures] = {}
        for indices in by_size.values():
            same_size = [images[index] for index in indices]
            beside = [seconds.get(index) for index in indices]
            features = self._encode_same_size(same_size, beside, batch_size)
            encoded |= zip(indices, features, strict=True)
        return [encoded[index] for index in range(len(images))]

    def _encode_seconds(
        self, images: Sequence[PreparedImage], batch_size: int
    ) -> dict[int, torch.Tensor]:
        """Return the second encoder's features by the image's position; empty without one."""
        seconds: dict[int, torch.Tensor] = {}
        if self.second is not None:
            for some in self._passes(images, batch_size):
                added = self._encode_second(self.second, [images[index] for index in some])
                seconds |= zip(some, added, strict=True)
        return seconds

    def _encode_in_fp32(self, image: PreparedImage, batch_size: int) -> DenseFeatures:
        """Encode in fp32, by half as many windows in the same memory; the features are fp16."""
        precise = self._in_fp32.encode_batch([image], max(1, batch_size // 2))[0]
        windows = WindowFeatures(precise.patches, precise.cls, precise.second)
        return replace(precise, **windows.to(self.encoder.device, torch.float16)._asdict())

    @cached_property
    def _in_fp32(self) -> Segmenter:
        precise = copy(self)
        precise.encoder = deepcopy(self.encoder).float()
        if self.second is not None:
            precise.second = self.second.in_fp32()
        return precise

    def _passes(self, images: Sequence[PreparedImage], batch_size: int) -> Iterator[list[int]]:
        """Group images of one size for the second encoder, of `batch_size` windows at most.

        A picture counts as its windows, or as the windows that its pixels would fill.
        """
        by_size: dict[tuple[tuple[int, int], tuple[int, ...]], list[int]] = {}
        for index, image in enumerate(images):
            size = image.plan.resized_hw, _second_of(image).shape
            by_size.setdefault(size, []).append(index)
        for (_, shape), indices in by_size.items():
            windows = math.ceil(shape[0] * shape[1] / self.preprocessing.window_px**2)
            step = max(1, batch_size // max(windows, images[indices[0]].plan.count))
            yield from (indices[start : start + step] for start in range(0, len(indices), step))

    def _encode_second(
        self, second: SecondEncoder, images: Sequence[PreparedImage]
    ) -> Iterator[torch.Tensor]:
        """Yield the second encoder's features (windows, h, w, S) of images of one size."""
        plan, device = images[0].plan, self.encoder.device
        sizes = replace(self.preprocessing, mean=second.mean, std=second.std)
        pixels = torch.stack([sizes.normalize(_second_of(image), device) for image in images])
        for mosaic in second(pixels, plan.rows.patch_centres, plan.columns.patch_centres):
            yield plan.cut_mosaic(mosaic).contiguous()

    def _encode_same_size(
        self,
        images: Sequence[PreparedImage],
        seconds: Sequence[torch.Tensor | None],
        batch_size: int,
    ) -> Iterator[DenseFeatures]:
        """Encode images whose windows have one size, in their order.

        Args:
            images: the images.
            seconds: (windows, h, w, S) of each, the second encoder's features.
            batch_size: windows that are encoded as one batch, at most.
        """
        windows = batches(self.windows(images), batch_size)
        counts = [image.plan.count for image in images]
        if self.method.needs_second_encoder:
            all_beside = torch.cat([each for each in seconds if each is not None])
            some_beside = torch.split(all_beside, batch_size)
            made = [self.encoder(*both) for both in zip(windows, some_beside, strict=True)]
        else:
            made = [self.encoder(batch) for batch in windows]
        parts = split_windows(join_windows(made), counts)
        for image, part, second in zip(images, parts, seconds, strict=True):
            yield DenseFeatures(
                part.patches, image.plan, part.cls, self.method.remove_redundancy, second
            )

    def windows(self, images: Iterable[PreparedImage]) -> Iterator[torch.Tensor]:
        """Yield the windows (3, h, w) of images, normalised, in the model's dtype on its device.

        Args:
            images: from `prepare`; each is normalised as it is reached.
        """
        device, dtype = self.encoder.device, self.encoder.dtype
        precise = torch.promote_types(dtype, torch.float32)
        for image in images:
            pixels = self.preprocessing.normalize(image.resized, device, precise)
            yield from image.plan.cut(pixels.to(dtype))  # (3, H, W)

    def vocabulary(self, labels: Labels, contrast: bool = False) -> Vocabulary:
        """Build a vocabulary of labels, on request with the model's own contrast words.

        A contrast word is left out that a label uses, or whose embedding has a cosine of 0.95 or
        more with that of a label's prompt.

        Args:
            labels: as `segment` takes them.
            contrast: add the model's contrast words, unless the vocabulary has its own.
        """
        vocabulary = Vocabulary.of(labels)
        if not contrast or vocabulary.contrast:
            return vocabulary
        prompts = [prompt for label in vocabulary.labels for prompt in label.prompts]
        words, own = (self.embed(each) for each in (self.model.contrast, prompts))
        cosines = words @ own.T  # (words, prompts)
        different = (cosines.amax(dim=1) < _SAME_MEANING).tolist()
        kept = (
            word for word, is_kept in zip(self.model.contrast, different, strict=True) if is_kept
        )
        return replace(vocabulary, contrast=tuple(kept))

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
            labels: see `segment`.
            contrast: let the model's contrast words compete; pixels where they win get no label.
            adaptation: scores adapted to corrected images, see `adapt`; none by default.

        Raises:
            ValueError: an adaptation of another model, or a method that cannot be adapted.
        """
        vocabulary = self.vocabulary(labels, contrast)
        embeddings, bias = self._words(vocabulary, adaptation)
        temperature = self._temperature(adaptation)
        scores = Scores.of(features, embeddings, vocabulary, bias, temperature=temperature)
        return replace(scores, propagate=adaptation is not None and adaptation.propagate)

    def _words(
        self, vocabulary: Vocabulary, adaptation: Adaptation | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what features are compared with, and what is added: (Q, D), and (Q,) or None."""
        embeddings = self.embed(vocabulary.queries)
        if adaptation is None:
            return embeddings, None
        return adaptation.apply(embeddings, vocabulary)

    def _temperature(self, adaptation: Adaptation | None) -> float:
        # What corrections teach is fitted with the paper's temperature, whatever the model.
        return self.model.temperature if adaptation is None else TEMPERATURE

    @torch.inference_mode()
    def segment(
        self,
        image: ImageLike,
        labels: Labels,
        contrast: bool = False,
        threshold: float | Sequence[float] = 0.0,
        refine: bool = False,
        *,
        adaptation: Adaptation | None = None,
        propagate: bool = False,
    ) -> Segmentation:
        """Encode an image, score it against words and decide its labels.

        Args:
            image: path of a file, a Pillow image, or an array (H, W), (H, W, 3) or (H, W, 4) of
                uint8, uint16, bool, or float from 0 to 1 or to 255.
            labels: names, `Label` values or a `Vocabulary`, or words by name:
                ``{"sofa": ["sofa", "couch"], "sky": "sky"}``.
            contrast: let the model's contrast words compete; pixels where they win get no label.
            threshold: probability below which a pixel gets no label, 0-1; one for all or one for
                each label.
            refine: let masks follow the image's edges, see `decide`.
            adaptation: what `adapt` has learned; none by default.
            propagate: draw scores together where the image has no edge, see `decide`.

        Raises:
            ValueError: an image, labels or a threshold that are none, or an adaptation of another
                model.
        """
        rgb = read_rgb(image)
        scores = self.score(self.encode(rgb), labels, contrast, adaptation)
        return self.decide(scores, threshold, rgb, refine, propagate)

    def segment_all(
        self,
        images: Path | str | Iterable[ImageLike],
        labels: Labels,
        *,
        contrast: bool = False,
        threshold: float | Sequence[float] = 0.0,
        refine: bool = False,
        adaptation: Adaptation | None = None,
        propagate: bool = False,
        progress: bool = False,
        on_error: Callable[[Path | int, Exception], None] | None = None,
    ) -> Iterator[SegmentedImage]:
        """Segment many images in their order, a few in memory at a time.

        Images are read and resized ahead in another thread, and the windows of several share
        batches. One that cannot be read is left out.

        Args:
            images: a folder, whose image files are taken in the order of their paths; or paths,
                Pillow images and arrays.
            labels: as `segment` takes them.
            contrast: let the model's contrast words compete.
            threshold: probability below which a pixel gets no label, as in `segment`.
            refine: let masks follow the image's edges.
            adaptation: what `adapt` has learned.
            propagate: draw scores together where the image has no edge, see `decide`.
            progress: draw a bar.
            on_error: takes the path of an image that cannot be read, or its position, and why; by
                default the log names it.

        Yields:
            Each image with its result.

        Raises:
            ValueError: a path that is no folder.

        >>> from clearclip_core import render_scene
        >>> scenes = [render_scene(seed, size_hw=(48, 64)).image for seed in (1, 2)]
        >>> segmenter = Segmenter.load("demo", device="cpu")
        >>> [found.source for found in segmenter.segment_all(scenes, ["sky", "grass"])]
        [0, 1]
        """
        given = images_of(images)
        vocabulary = self.vocabulary(labels, contrast)
        tell = _log_unreadable if on_error is None else on_error

        def read(item: tuple[Path | int, ImageLike]) -> _Read | None:
            try:
                rgb = read_rgb(item[1])
                return _Read(item[0], rgb, self.prepare(rgb))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                tell(item[0], error)
                return None

        length = len(given) if isinstance(given, Sized) else None
        with tqdm(total=length, unit="picture", disable=not progress) as bar:
            for some in self._together(read_ahead(read, _sources(given)), bar):
                encoded = self.encode_batch([each.prepared for each in some])
                for each, features in zip(some, encoded, strict=True):
                    scores = self.score(features, vocabulary, adaptation=adaptation)
                    result = self.decide(scores, threshold, each.image, refine, propagate)
                    yield SegmentedImage(each.source, each.image, result)

    def _together(
        self, images: Iterable[_Read | None], bar: tqdm[NoReturn]
    ) -> Iterator[list[_Read]]:
        """Group images whose windows fill a batch, few enough for their pixels to be kept."""
        some: list[_Read] = []
        for image in images:
            bar.update()
            if image is None:
                continue
            some.append(image)
            windows = sum(each.prepared.plan.count for each in some)
            if windows >= self.windows_at_once or len(some) == _IMAGES_TOGETHER:
                yield some
                some = []
        if some:
            yield some

    def set_image(
        self, image: ImageLike, labels: Labels | None = None, adaptation: Adaptation | None = None
    ) -> PromptPredictor | ClickModelPredictor:
        """Encode an image once, for as many clicks and boxes as come.

        Where the segmenter has a click model, that answers them, and words choose between its
        masks.

        Args:
            image: as `segment` takes it.
            labels: what prompts may name, and what competes; by default the model's contrast words.
            adaptation: what `adapt` has learned; None: prompts follow the words alone.

        >>> from clearclip_core import render_scene
        >>> image = render_scene(seed=1, size_hw=(96, 128)).image
        >>> predictor = Segmenter.load("demo", device="cpu").set_image(image)
        >>> predictor.click((60, 40)).mask.shape
        (96, 128)
        """
        rgb = read_rgb(image)
        features = self.encode(rgb)
        words = self.model.contrast if labels is None else labels
        scores = self.score(features, words, adaptation=adaptation)
        if self.click_model is None:
            return PromptPredictor(features, scores, rgb)
        seen = self.click_model.encode([self.click_model.prepare(rgb)])[0]
        return ClickModelPredictor(self.click_model, seen, scores)

    @torch.inference_mode()
    def decide(
        self,
        scores: Scores,
        threshold: float | Sequence[float] = 0.0,
        image: ImageLike | None = None,
        refine: bool = False,
        propagate: bool = False,
    ) -> Segmentation:
        """Decide the best label of each pixel of the original image.

        Args:
            scores: what `score` has returned for the image.
            threshold: probability below which a pixel gets no label, 0-1; one for all or one for
                each label.
            image: the image, which only `refine` and `propagate` need; as `segment` takes it.
            refine: refine the probabilities along the image's edges by a guided filter before
                labels are decided. Without it the result is the paper's.
            propagate: draw the scores of neighbouring places together first, where the image has no
                edge between them (PEARL), see `clearclip_core.segmentation.propagation`. So it is
                too where the scores' adaptation says so.

        Raises:
            ValueError: `refine` or `propagate` without `image`, or with an image of another size.
        """
        propagate = propagate or scores.propagate
        if not refine and not propagate:
            return decide_plain(scores, threshold)
        if image is None:
            name = "refine" if refine else "propagate"
            raise ValueError(f"Expected argument `image` to be an image with `{name}`, got None.")

        rgb = read_rgb(image)
        patch_px = scores.plan.patch_image_px  # of the model: propagated scores lie more densely
        if propagate:
            words = self.embed(scores.vocabulary.queries)
            scores = propagate_scores(scores, rgb, words, self.preprocessing.std)
        if not refine:
            return decide_plain(scores, threshold)
        return _decide_along_edges(scores, rgb, threshold, patch_px)

    def export(
        self,
        path: Path | str,
        labels: Labels,
        adaptation: Adaptation | None = None,
        *,
        contrast: bool = False,
        threshold: float = 0.0,
        size_hw: tuple[int, int] | None = None,
    ) -> None:
        """Write an ONNX file that segments images into these labels, without Python or torch.

        Its input ``image`` is (H, W, 3) uint8 RGB, its output ``label_map`` (H, W) int16, see
        `Segmentation.label_map`. Words and what was learned are inside; its metadata has
        ``labels``, a JSON list. It computes in float32, what `segment` does without `refine` and
        `propagate`, and takes 4 bytes a query and pixel: give it pictures of a few megapixels.
        The file is run once on noise, and compared. Load the segmenter in ``fp32`` before: weights
        that were rounded to 16 bits stay so.

        Args:
            path: of the file, which is replaced. Weights of 2 GB and more are a file beside it.
            labels: as `segment` takes them.
            adaptation: what `adapt` has learned.
            contrast: let the model's contrast words compete.
            threshold: probability below which a pixel gets no label.
            size_hw: height and width in px of the only pictures that it takes, as runtimes of
                phones want it; None: pictures of any size, which torch's exporter writes from 2.11
                on. Then the short side is resized to the model's whatever the long side is.

        Raises:
            ModuleNotFoundError: the packages of the extra ``[onnx]`` are missing.
            ValueError: an adaptation or a method that needs a second encoder, or a network that
                torch's exporter cannot write.
        """
        vocabulary = self.vocabulary(labels, contrast)
        plain, _ = self._words(vocabulary, None)
        embeddings, bias = self._words(vocabulary, adaptation)
        if embeddings.shape != plain.shape or self.method.needs_second_encoder:
            raise ValueError(
                "Expected a method and an adaptation of the model alone, but got one that needs a "
                "second encoder, which no file holds: learn without it."
            )
        if bias is not None and self.method.remove_redundancy:
            raise ValueError(f"The method {self.method} cannot learn: give no adaptation.")

        words = Words(
            embeddings.float().cpu().clone(),
            torch.zeros(len(embeddings)) if bias is None else bias.float().cpu().clone(),
            vocabulary.query_labels,
            self._temperature(adaptation),
            threshold,
        )
        network = ImageToLabelMap(
            deepcopy(self.encoder).float().cpu(),
            self.preprocessing,
            words,
            patch_hw=self.encoder.patch_size_hw,
            remove_redundancy=self.method.remove_redundancy,
        )
        facts = {"labels": vocabulary.names, "model": self.model.name, "method": str(self.method)}
        write_onnx(path, network, facts, size_hw)


#: Templates that are functions without a name, which cannot be pickled.
_TEMPLATES: Final = {"all": TEMPLATES, "best": BEST_TEMPLATES}


def _load_again(
    arguments: dict[str, Any], templates: str | Sequence[Template], windows_at_once: int
) -> Segmenter:
    """Make the segmenter that was pickled, from its weights on this machine."""
    own = _TEMPLATES[templates] if isinstance(templates, str) else templates
    made = Segmenter.load(**arguments, templates=own)
    made.windows_at_once = windows_at_once
    return made


def _second_of(image: PreparedImage) -> RGBArray:
    """Return the picture for the second encoder, which `Segmenter.prepare` has made."""
    if image.for_second is None:
        raise TypeError(
            "Expected argument `images` to hold what `prepare` of this segmenter returns, but one "
            "was prepared without the second encoder."
        )
    return image.for_second


def _decide_along_edges(
    scores: Scores, rgb: RGBArray, threshold: float | Sequence[float], patch_px: float
) -> Segmentation:
    """Refine the probabilities along the image's edges and decide, on the device of the scores.

    `patch_px` is the side of the model's patches in the image.
    """
    names = scores.vocabulary.names
    if scores.is_on_device:
        decided = decide_refined_on_device(scores, rgb, threshold, REFINEMENT, patch_px)
        return DeviceSegmentation(*decided, names)
    return Segmentation(*decide_refined(scores, rgb, threshold, REFINEMENT, patch_px), names)


def _overflowing(features: Sequence[DenseFeatures]) -> list[int]:
    """Return the positions of features with infinite numbers or none; the host waits once."""
    if not features:
        return []
    finite = torch.stack([_is_finite(each) for each in features])  # (images,)
    return [index for index, fits in enumerate(finite.tolist()) if not fits]


def _is_finite(features: DenseFeatures) -> torch.Tensor:
    """Return () bool on the features' device."""
    parts = features.patches, features.cls, features.second
    return torch.stack([part.isfinite().all() for part in parts if part is not None]).all()
