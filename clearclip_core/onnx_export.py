"""A segmenter as an ONNX file: image in, label map out, its words and what it learned inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from clearclip_core.clip.dense_encoder import WindowFeatures
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmentation.scores import without_redundancy
from clearclip_core.segmentation.windows import WindowPlan

#: Version of ONNX's operators, which every runtime of 2023 and later has.
OPSET: Final = 18

#: Sides of the image that the graph is traced with, in px; other sizes follow from it.
_TRACED_HW: Final = (480, 640)

#: Size of the image with which a file of any size is checked: more rows of windows, fewer columns.
_CHECKED_HW: Final = (700, 460)

#: Share of pixels at which a file and its network agree at least: ties are rounded either way.
_LEAST_ALIKE: Final = 0.99


@dataclass(frozen=True, eq=False)
class Words:
    """What the features of a patch are compared with."""

    embeddings: torch.Tensor  #: (Q, D) of the queries, with what an adaptation adds
    bias: torch.Tensor  #: (Q,) added to the cosines
    query_labels: Sequence[int]  #: index of each query's label, -1 for a contrast word
    temperature: float  #: factor on the cosines before the softmax
    threshold: float = 0.0  #: probability below which a pixel gets no label, 0-1


class ImageToLabelMap(nn.Module):
    """All steps from an image to its label map as one network, for an exporter to trace.

    They are those of `Segmenter.segment` without `refine` and `propagate`. The exact argmax, which
    finds the queries that can win, is replaced by all queries at all pixels.

    Args:
        encoder: of the segmenter, in float32 on the CPU.
        sizes: sizes of the resized image and its windows, mean and std.
        words: queries, and what was learned.
        patch_hw: height and width of a patch in px.
        remove_redundancy: whether the method weighs classes by the windows' CLS features.
    """

    embeddings: torch.Tensor  # (Q, D)
    bias: torch.Tensor  # (Q,)
    query_labels: torch.Tensor  # (Q,) int64
    mean: torch.Tensor  # (3, 1, 1), as std
    std: torch.Tensor

    def __init__(
        self,
        encoder: nn.Module,
        sizes: Preprocessing,
        words: Words,
        *,
        patch_hw: tuple[int, int],
        remove_redundancy: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.sizes = sizes
        self.patch_hw = patch_hw
        self.remove_redundancy = remove_redundancy
        self.temperature = words.temperature
        self.threshold = words.threshold

        self.register_buffer("embeddings", words.embeddings)
        self.register_buffer("bias", words.bias)
        self.register_buffer("query_labels", torch.tensor(words.query_labels))
        self.register_buffer("mean", torch.tensor(sizes.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(sizes.std)[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment an image: (H, W, 3) uint8 RGB -> (H, W) int16 label map."""
        image_hw = (image.shape[0], image.shape[1])
        resized = self._resize(image)  # (3, h, w)
        resized_hw = (resized.shape[1], resized.shape[2])
        rows, columns = (
            _Side(image_hw[dim], resized_hw[dim], self.sizes, self.patch_hw[dim])
            for dim in range(2)
        )

        cosines = self._score(self._cut(resized, rows, columns))  # (windows, h, w, Q)
        grid = cosines.reshape(rows.count, columns.count, rows.patches, columns.patches, -1)
        mosaic = grid.permute(4, 0, 2, 1, 3).reshape(
            -1, rows.count * rows.patches, columns.count * columns.patches
        )
        upsampled = rows.matrix() @ mosaic @ columns.matrix().T  # (Q, H, W)
        return self._decide(upsampled)

    def _resize(self, image: torch.Tensor) -> torch.Tensor:
        """Resize bilinearly to whole numbers, as on bytes: (H, W, 3) -> (3, h, w) float32."""
        height, width = image.shape[0], image.shape[1]
        shorter: int = torch.sym_min(height, width)  # type: ignore[no-untyped-call]
        longer: int = torch.sym_max(height, width)  # type: ignore[no-untyped-call]
        short_px = self.sizes.short_side_px
        long_px = max(self.sizes.long_side_px, short_px)
        if isinstance(shorter, int) and longer * short_px > shorter * long_px:
            numerator, denominator = long_px, longer
        else:
            numerator, denominator = short_px, shorter
        size = [
            (2 * side * numerator + denominator) // (2 * denominator) for side in (height, width)
        ]
        pixels = image.permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        return torch.floor(resized[0] + 0.5)

    def _cut(self, resized: torch.Tensor, rows: _Side, columns: _Side) -> torch.Tensor:
        """Normalise, and cut windows, row by row: (windows, 3, h, w)."""
        pixels = (resized - self.mean) / self.std
        down, along = rows.window_pixels(), columns.window_pixels()
        cut = pixels[:, down.flatten()][:, :, along.flatten()]
        grid = cut.reshape(3, rows.count, rows.window_px, columns.count, columns.window_px)
        windows = grid.permute(1, 3, 0, 2, 4).reshape(
            rows.count * columns.count, 3, rows.window_px, columns.window_px
        )
        return F.pad(windows, (*columns.padding_px, *rows.padding_px))

    def _score(self, windows: torch.Tensor) -> torch.Tensor:
        """Compare windows with the words: (windows, 3, h, w) -> (windows, h, w, Q)."""
        features: WindowFeatures = self.encoder(windows)
        cosines = features.patches @ self.embeddings.T + self.bias
        if not self.remove_redundancy:
            return cosines
        assert features.cls is not None
        return without_redundancy(cosines, features.cls @ self.embeddings.T)

    def _decide(self, cosines: torch.Tensor) -> torch.Tensor:
        """Choose the best label of each pixel: (Q, H, W) -> (H, W) int16."""
        best, query = cosines.max(dim=0)
        labels = self.query_labels[query]
        if self.threshold:
            probability = 1 / ((cosines - best) * self.temperature).exp().sum(dim=0)
            labels = torch.where(probability < self.threshold, -1, labels)
        return labels.to(torch.int16)


class _Side:
    """One direction of `WindowPlan`, for sizes that may be a variable of the graph.

    Args:
        image_px: original side.
        resized_px: side after resizing, not below the window's where it is a variable.
        sizes: sizes of windows.
        patch_px: side of a patch.
    """

    def __init__(self, image_px: int, resized_px: int, sizes: Preprocessing, patch_px: int) -> None:
        self.image_px = image_px
        self.resized_px = resized_px
        self.stride_px = sizes.stride_px
        self.window_px = sizes.window_px
        if isinstance(resized_px, int):
            self.window_px = min(sizes.window_px, resized_px)

        self.count = (resized_px - self.window_px + self.stride_px - 1) // self.stride_px + 1
        one = WindowPlan(
            (self.window_px,) * 2, (self.window_px,) * 2, self.window_px, 1, (patch_px,) * 2
        ).rows
        self.patches = one.patches
        self.padding_px = one.padding_px
        self._upsampling = torch.from_numpy(one.matrix)  # (window_px, patches)

    def _starts(self) -> torch.Tensor:
        """(windows,) where windows begin, the last pushed back inside."""
        starts = torch.arange(self.count) * self.stride_px
        return torch.clamp(starts, max=self.resized_px - self.window_px)

    def window_pixels(self) -> torch.Tensor:
        """(windows, window_px) indices of each window's pixels."""
        return self._starts()[:, None] + torch.arange(self.window_px)

    def matrix(self) -> torch.Tensor:
        """(image_px, windows * patches) float32, see ``Axis.matrix``."""
        inside = torch.arange(self.resized_px)[:, None] - self._starts()  # (resized_px, windows)
        covered = (inside >= 0) & (inside < self.window_px)
        weights = self._upsampling[torch.clamp(inside, 0, self.window_px - 1)]
        weights = weights * covered[:, :, None]
        mosaic = weights.reshape(self.resized_px, self.count * self.patches)
        mosaic = mosaic / mosaic.sum(dim=1, keepdim=True)

        pixels = torch.arange(self.image_px, dtype=torch.float64)
        positions = (pixels + 0.5) * self.resized_px / self.image_px - 0.5
        positions = positions.clamp(min=0, max=self.resized_px - 1)
        low = torch.floor(positions).long()
        high = torch.clamp(low + 1, max=self.resized_px - 1)
        fraction = (positions - low)[:, None]
        return (mosaic[low] * (1 - fraction) + mosaic[high] * fraction).float()


def write(
    path: Path | str,
    network: ImageToLabelMap,
    facts: Mapping[str, object],
    size_hw: tuple[int, int] | None = None,
) -> None:
    """Write a network as an ONNX file.

    Args:
        path: of the file, which is replaced. Weights of more than 2 GB are a file beside it.
        network: what to write.
        facts: what the file says of itself, by name.
        size_hw: height and width in px of the only images that it takes; None: of any size.

    Raises:
        ModuleNotFoundError: the packages of the extra ``[onnx]`` are missing.
        ValueError: the exporter cannot write the network; the message says what helps.
    """
    _import_runtime()
    network = network.eval()
    image = torch.zeros(*(size_hw or _TRACED_HW), 3, dtype=torch.uint8)
    sides = {0: torch.export.Dim("height"), 1: torch.export.Dim("width")}
    try:
        # With gradients, encoders take torch's plain operators in place of a CPU's own.
        with torch.inference_mode(False), torch.enable_grad():
            program = torch.onnx.export(
                network,
                (image,),
                dynamo=True,
                dynamic_shapes=(None if size_hw else sides,),
                input_names=["image"],
                output_names=["label_map"],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise _why_not(size_hw) from error

    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in facts.items()})
    program.save(str(path))
    if not _agrees(path, network, size_hw or _CHECKED_HW):
        Path(path).unlink()
        raise _why_not(size_hw)


def _import_runtime() -> ModuleType:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # which torch's exporter needs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Export needs the packages of the extra [onnx]: "
            "pip install 'clearclip-label-studio[onnx]'."
        ) from error
    runtime: ModuleType = onnxruntime
    return runtime


def _why_not(size_hw: tuple[int, int] | None) -> ValueError:
    tip = "choose another method" if size_hw else "give `size_hw`, the only size it will take"
    return ValueError(f"torch's exporter cannot write this model and method: {tip}.")


def _agrees(path: Path | str, network: ImageToLabelMap, image_hw: tuple[int, int]) -> bool:
    """Return whether a file labels noise as its network does, rounding aside."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (*image_hw, 3), dtype=torch.uint8, generator=generator)
    onnxruntime = _import_runtime()
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (label_map,) = session.run(["label_map"], {"image": noise.numpy()})
    except Exception:  # noqa: BLE001  # its errors share no class
        return False
    with torch.inference_mode():
        wanted = network(noise)
    same = torch.from_numpy(label_map) == wanted
    return bool(same.float().mean() > _LEAST_ALIKE)
