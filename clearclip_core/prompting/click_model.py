"""SAM and its kin behind the same door: promptable models in transformers' format.

A promptable model reads a picture once and turns clicks or a box into masks: SAM 2 (Ravi et al.,
"SAM 2: Segment Anything in Images and Videos", 2024), the tracker of SAM 3, EdgeTAM. After a single
click it offers three masks, such as a wheel, a car and a row of cars, and does not know which one
is meant. The words know more: of the three, that one is taken with which the label's probability
agrees, which follows what a project has learned.

Pictures and prompts are prepared, and masks enlarged, by transformers' own processors.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, overload

import numpy as np
import torch
import torch.nn.functional as F

from clearclip_core.clip.loading import check_finite, read_errors
from clearclip_core.clip.snapshots import read_snapshot
from clearclip_core.clip.weights import ModelName, snapshot_folder
from clearclip_core.devices import choose_device, choose_precision
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.prompting.prompted_image import FloatMap
from clearclip_core.prompting.prompts import Point, PromptedMask, label_index, points_of
from clearclip_core.segmentation.scores import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

#: Type of a model in its config -> transformers' classes of the model and of its processor. Weights
#: that are published for videos hold those for images.
_CLASSES: Final = {
    "sam2": ("Sam2Model", "Sam2Processor"),
    "sam2_video": ("Sam2Model", "Sam2Processor"),
    "sam3_video": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
    "sam3_tracker": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
    "edgetam": ("EdgeTamModel", "Sam2Processor"),
    "edgetam_video": ("EdgeTamModel", "Sam2Processor"),
}

#: Side of the square grid on which masks are compared with the words.
_GRID: Final = 64

_LEAST: Final = 1e-3  # what counts as an IoU of 0: products of two stay comparable


@dataclass(frozen=True, eq=False, repr=False)
class ClickFeatures:
    """What a click model has seen in an image; the expensive half, the same for all clicks."""

    maps: tuple[torch.Tensor, ...]  #: (C, h, w) each, the finest first

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.maps)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ClickFeatures:
        """Return the same features elsewhere.

        Args:
            device: where they shall lie.
            dtype: their own by default.
        """
        return ClickFeatures(tuple(each.to(device, dtype) for each in self.maps))


@dataclass(frozen=True, eq=False)
class ClickModel:
    """A frozen promptable model with transformers' processor for it.

    It keeps no state between calls, and may be shared by threads. Its image encoder has the
    precision that was asked for; the rest, a hundredth of the work, computes in fp32, since bf16
    cannot tell neighbouring pixels' places apart.
    """

    name: str
    model: PreTrainedModel
    processor: ProcessorMixin

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        device: torch.device = next(self.model.vision_encoder.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of its image encoder."""
        dtype: torch.dtype = next(self.model.vision_encoder.parameters()).dtype
        return dtype

    def prepare(self, rgb: RGBArray) -> torch.Tensor:
        """Resize and normalise an image on the CPU, in any thread.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            (3, S, S) float32; S is the side in px that the model was trained at.
        """
        own = rgb if rgb.flags.writeable else rgb.copy()  # torch warns of what it cannot write to
        made = self.processor.image_processor(
            own, input_data_format="channels_last", return_tensors="pt"
        )
        pixels: torch.Tensor = made.pixel_values[0]
        return pixels

    @torch.inference_mode()
    def encode(self, images: Sequence[torch.Tensor]) -> list[ClickFeatures]:
        """Encode images, one or more, as one batch.

        Args:
            images: from `prepare`.

        Returns:
            The features of each image, on the model's device.

        Raises:
            ValueError: features that are not finite, as where fp16 overflows.
        """
        pixels = torch.stack(list(images)).to(self.device, self.dtype)
        maps = self.model.get_image_embeddings(pixels)  # (B, C, h, w) each
        if not all(bool(each.isfinite().all()) for each in maps):
            raise ValueError(
                f"{self.name} overflows {str(self.dtype).removeprefix('torch.')} on a picture: "
                "take the precision bf16 or fp32."
            )
        # Copies, so that dropping the features of one image frees its memory.
        return [
            ClickFeatures(tuple(each[index].clone() for each in maps))
            for index in range(len(images))
        ]

    @torch.inference_mode()
    def masks(
        self,
        features: ClickFeatures,
        size_hw: tuple[int, int],
        points: Sequence[Point] = (),
        box_xyxy: tuple[float, float, float, float] | None = None,
        *,
        several: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the masks that answer points or a box, the small ones that the model makes.

        Args:
            features: of the image, from `encode`; on any device, in any dtype.
            size_hw: size of the image in px.
            points: none beside a box.
            box_xyxy: left, top, right and bottom in px of the image.
            several: whether to return three masks rather than one.

        Returns:
            (n, h, w) float32 log-odds of the whole image, and (n,) float32 of the IoU that the
            model expects of each.
        """
        given: dict[str, object]
        if box_xyxy is None:
            places = [[point.x_px, point.y_px] for point in points]
            kinds = [int(point.positive) for point in points]
            given = {"input_points": [[places]], "input_labels": [[kinds]]}
        else:
            given = {"input_boxes": [[[float(side) for side in box_xyxy]]]}
        log_odds, expected_iou = self._ask(features, size_hw, given, several)
        return log_odds[0], expected_iou[0]

    @torch.inference_mode()
    def masks_at(
        self, features: ClickFeatures, size_hw: tuple[int, int], points: Sequence[Point]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute three masks for each of some points; each point is a prompt of its own.

        Args:
            features: of the image, from `encode`; on any device, in any dtype.
            size_hw: size of the image in px.
            points: one or more.

        Returns:
            (points, 3, h, w) float32 log-odds of the whole image, and (points, 3) float32 of the
            IoU that the model expects of each.
        """
        given = {
            "input_points": [[[[point.x_px, point.y_px]] for point in points]],
            "input_labels": [[[int(point.positive)] for point in points]],
        }
        return self._ask(features, size_hw, given, several=True)

    def _ask(
        self,
        features: ClickFeatures,
        size_hw: tuple[int, int],
        given: Mapping[str, object],
        several: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (prompts, n, h, w) log-odds and (prompts, n) expected IoU of prompts."""
        prompt = self.processor(original_sizes=[list(size_hw)], return_tensors="pt", **given)
        seen = [each[None].to(self.device, torch.float32) for each in features]
        asked = {name: prompt[name].to(self.device) for name in given}
        out = self.model(image_embeddings=seen, multimask_output=several, **asked)
        return out.pred_masks[0], out.iou_scores[0]

    def enlarge(self, log_odds: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
        """Enlarge a mask of `masks` to the size of the image.

        Args:
            log_odds: (h, w) float32.
            size_hw: size of the image in px.

        Returns:
            (H, W) float32 log-odds, on the CPU.
        """
        enlarged = self.processor.post_process_masks(
            log_odds[None, None, None], [list(size_hw)], binarize=False
        )
        made: torch.Tensor = enlarged[0][0, 0].cpu()
        return made


def load_click_model(
    name: str,
    device: str = "auto",
    precision: str = "auto",
    folder: Path | None = None,
    download: bool = True,
) -> ClickModel:
    """Load a promptable model in transformers' format: safetensors alone, and no code beside them.

    Args:
        name: a folder, or a repository such as ``facebook/sam2.1-hiera-tiny``.
        device: see `clearclip_core.Segmenter.load`, as for the other arguments.
        precision: of the image encoder; on CUDA ``auto`` is bf16, in which such models are trained,
            and fp32 on cards without its arithmetic.

    Raises:
        ValueError: unknown name, device or precision, weights of another model, or transformers is
            not installed.
        WeightsNotFoundError: no weights; the message says how to bring them.
    """
    parsed = ModelName.parse_click(name)
    torch_device = choose_device(device)
    dtype = _precision(precision, torch_device)
    path = snapshot_folder(parsed, folder, download)

    with read_errors(name):
        model, processor = _read(path)
        check_finite(model)
    model.eval().requires_grad_(False).to(torch_device, torch.float32)
    decoder = model.mask_decoder
    for part in (model.vision_encoder, decoder.conv_s0, decoder.conv_s1):  # what images pass
        part.to(dtype)
    return ClickModel(parsed.name, model, processor)


def _precision(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto" and device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device)[0] >= 8
        return torch.bfloat16 if has_bf16 else torch.float32
    return choose_precision(precision, device)


def _read(path: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Read a folder of transformers' format with the classes that its config names."""
    kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind not in _CLASSES:
        known = ", ".join(_CLASSES)
        raise ValueError(f"its config names the type {kind!r}, and these are served: {known}.")
    if importlib.util.find_spec("transformers") is None:
        raise ValueError("transformers is needed: pip install 'clearclip-label-studio[sam]'.")
    import transformers

    model_class, processor_class = (getattr(transformers, each) for each in _CLASSES[kind])
    model = read_snapshot(model_class, path)
    return model, processor_class.from_pretrained(path, local_files_only=True)


@dataclass(frozen=True, eq=False, repr=False)
class ClickModelPredictor:
    """An image that a click model answers clicks and boxes on, as `PromptPredictor` does.

    ``Segmenter.set_image`` makes it where the segmenter has a click model.
    """

    model: ClickModel
    features: ClickFeatures  #: of the image, by `model`
    scores: Scores  #: of the same image; they choose between masks, and name the labels

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image in px."""
        return self.scores.plan.image_hw

    @overload
    def click(
        self,
        *points: Point | tuple[float, float],
        label: str | None = None,
        several: Literal[False] = False,
    ) -> PromptedMask: ...

    @overload
    def click(
        self,
        *points: Point | tuple[float, float],
        label: str | None = None,
        several: Literal[True],
    ) -> list[PromptedMask]: ...

    def click(
        self,
        *points: Point | tuple[float, float],
        label: str | None = None,
        several: bool = False,
    ) -> PromptedMask | list[PromptedMask]:
        """Segment the object that clicks point at.

        After a single click the model offers three masks; the likeliest is that which it expects
        to be right and that the label's probability agrees with. Without a positive point the mask
        is empty. Unlike `PromptPredictor`, a model may leave a click out of its mask.

        Args:
            points: one or more, (x, y) in px for a positive one; a point outside the image counts
                at its border.
            label: name of the label that is meant. Without one, the model chooses alone.
            several: whether to return all three masks, however many points there are.

        Returns:
            The likeliest mask; with `several` three, the likeliest first.

        Raises:
            ValueError: no points, or an unknown label.
            TypeError: a point that is none, as in ``click(60, 40)``.
        """
        index, size_hw = label_index(self.scores, label), self.size_hw
        clicks = [_inside(point, size_hw) for point in points_of(points)]
        first = next((point for point in clicks if point.positive), None)
        if first is None:
            empty = PromptedMask.of(np.zeros(size_hw, bool), np.zeros((1, 1), np.float32))
            return [empty] if several else empty

        offers = several or len(clicks) == 1
        masks, expected_iou = self.model.masks(self.features, size_hw, clicks, several=offers)
        order = self._by_likelihood(masks, expected_iou, index, first) if offers else [0]
        if several:
            return [self._answer(masks[number]) for number in order]
        return self._answer(masks[order[0]])

    def box(
        self, box_xyxy: tuple[float, float, float, float], label: str | None = None
    ) -> PromptedMask:
        """Segment what a box is drawn around.

        Args:
            box_xyxy: left, top, right, bottom in px of the image; a part beyond the image is cut
                off.
            label: name of the label that is meant, which changes nothing: in a box, the model
                offers one mask.

        Raises:
            ValueError: a box that covers no pixel of the image, or an unknown label.
        """
        label_index(self.scores, label)
        (height, width), (left, top, right, bottom) = self.size_hw, box_xyxy
        inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if not (inside[0] < inside[2] and inside[1] < inside[3]):
            raise ValueError(
                "Expected argument `box_xyxy` to be left, top, right, bottom in px around pixels "
                f"of an image of {width} x {height} px, but got {box_xyxy}."
            )
        masks, _ = self.model.masks(self.features, self.size_hw, box_xyxy=inside)
        return self._answer(masks[0])

    def _answer(self, log_odds: torch.Tensor) -> PromptedMask:
        full = self.model.enlarge(log_odds, self.size_hw)
        return PromptedMask.of((full > 0).numpy(), full.sigmoid().numpy())

    def _by_likelihood(
        self, masks: torch.Tensor, expected_iou: torch.Tensor, label: int | None, click: Point
    ) -> list[int]:
        """Return the numbers of masks, that first which the model and the label favour."""
        iou = expected_iou.cpu().numpy().clip(_LEAST, 1)
        if label is None:
            return _descending(iou)
        shares = F.adaptive_avg_pool2d((masks > 0).float(), _GRID).cpu().numpy()
        probability = label_probability(self.scores, label, _GRID)
        height, width = self.size_hw
        row, column = (
            min(int(at * _GRID / side), _GRID - 1)
            for at, side in ((click.y_px, height), (click.x_px, width))
        )
        # Where the words do not see the label at all, they know nothing of its extent.
        trust = min(1.0, 2 * float(probability[row, column]))
        by_words = agreement(shares, probability).clip(_LEAST, 1) ** trust
        return _descending((iou * by_words).astype(np.float32))


def _descending(values: FloatMap) -> list[int]:
    """Return the places of values, the largest first; of equal ones the first."""
    order: list[int] = np.argsort(-values, kind="stable").tolist()
    return order


def label_probability(scores: Scores, label: int, side: int) -> FloatMap:
    """Compute a label's probability, that of its best query, on a grid over the whole image.

    Args:
        scores: of the image.
        label: index of the label.
        side: number of rows and of columns of the grid.

    Returns:
        (side, side) float32 at the middles of the grid's cells.
    """
    y_px, x_px = ((np.arange(side) + 0.5) * length / side - 0.5 for length in scores.plan.image_hw)
    own = np.asarray(scores.vocabulary.query_labels) == label
    probability = np.empty((side, side), np.float32)
    for rows, logits in scores.logits_at(y_px, x_px):
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        probability[rows] = shares[..., own].max(axis=-1)
    return probability


def agreement(shares: FloatMap, probability: FloatMap) -> FloatMap:
    """Compute the IoU of masks that a label's probability lets expect.

    Only what one of the masks covers counts: other things of the label lie elsewhere.

    Args:
        shares: (n, h, w) how much of each cell a mask covers.
        probability: (h, w) of the label.

    Returns:
        (n,) expected intersection over expected union, see `best_level`.

    >>> small, large = np.array([[1.0, 0, 0, 0]]), np.array([[1.0, 1, 1, 0]])
    >>> agreement(np.stack([small, large]), np.array([[1.0, 0.5, 0, 1]])).round(2).tolist()
    [0.67, 0.5]
    """
    union = shares.max(axis=0)
    taken = (shares * probability).sum(axis=(1, 2))
    left = ((union - shares) * probability).sum(axis=(1, 2))
    size = shares.sum(axis=(1, 2))
    return np.asarray(taken / np.maximum(size + left, _LEAST))


def _inside(point: Point, size_hw: tuple[int, int]) -> Point:
    """Return a point, moved to the border of the image where it lies outside."""
    height, width = size_hw
    x_px, y_px = min(max(point.x_px, 0.0), width), min(max(point.y_px, 0.0), height)
    return Point(float(x_px), float(y_px), point.positive)
