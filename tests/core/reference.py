"""The paper's methods written out plainly: what the library is compared with, and timed against.

One window at a time, the stock model with the last blocks' softmax spelled out, and scores of all
queries at full resolution. Nothing here is shared with the library but its values' fields.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core import METHODS, Method
from clearclip_core.images.preprocessing import Preprocessing
from tests.core.reference_readouts import (
    neighbour_map,
    procrustes_map,
    proxy_map,
    read_out,
)


class Window(NamedTuple):
    """Patch features (h, w, D) of a window, its CLS feature (D,), and the box that it covers."""

    features: torch.Tensor
    cls: torch.Tensor | None
    box_xyxy: tuple[int, int, int, int]


class Reference:
    """ClearCLIP on open_clip's model in eval mode, whose dtype and device it computes in.

    Of the sizes only mean, std, sides and stride are used; `sink_channels` are for RF-CLIP.
    """

    def __init__(
        self,
        clip: Any,
        sizes: Preprocessing,
        method: Method = METHODS["clearclip"],
        sink_channels: Sequence[int] = (),
    ) -> None:
        self.visual = clip.visual
        self.sizes = sizes
        self.method = method
        self.sink_channels = sink_channels
        self.weight = clip.visual.conv1.weight
        self.patch_px = self.weight.shape[-1]

    @torch.inference_mode()
    def encode(
        self, rgb: npt.NDArray[np.uint8], seconds: Sequence[torch.Tensor] = ()
    ) -> list[Window]:
        """Resize, cut into windows, and encode one after the other.

        `seconds` are the second encoder's features (h, w, S) of each window, for ProxyCLIP.
        """
        height, width = rgb.shape[:2]
        sizes = self.sizes
        short, long = sorted(rgb.shape[:2])
        scale = min(sizes.short_side_px / short, sizes.long_side_px / long)
        resized_hw = int(height * scale + 0.5), int(width * scale + 0.5)
        resized = cv2.resize(rgb, resized_hw[::-1], interpolation=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(resized).to(self.weight).permute(2, 0, 1)
        mean, std = torch.tensor([sizes.mean, sizes.std]).to(self.weight)[..., None, None]
        pixels = (pixels - mean) / std
        windows = []
        for top in starts(resized_hw[0], sizes.window_px, sizes.stride_px):
            for left in starts(resized_hw[1], sizes.window_px, sizes.stride_px):
                bottom = min(top + sizes.window_px, resized_hw[0])
                right = min(left + sizes.window_px, resized_hw[1])
                window = pixels[:, top:bottom, left:right]
                second = seconds[len(windows)] if seconds else None
                features, cls = self.encode_window(window, second)
                windows.append(Window(features, cls, (left, top, right, bottom)))
        return windows

    def encode_window(
        self, window: torch.Tensor, beside: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(3, rows, columns) -> (h, w, D) unit features, zero-padded to whole patches, and CLS."""
        missing = [-side % self.patch_px for side in window.shape[1:]]
        above, left = missing[0] // 2, missing[1] // 2
        padded = F.pad(window, (left, missing[1] - left, above, missing[0] - above))
        visual, blocks = self.visual, self.visual.transformer.resblocks
        grid = visual.conv1(padded[None])  # (1, width, h, w)
        height, width = grid.shape[2:]
        x = torch.cat([visual.class_embedding[None, None], grid.flatten(2).transpose(1, 2)], dim=1)
        x = visual.ln_pre(x + self.positions(height, width))
        if self.method.affinity:
            (name,) = (name for name, preset in METHODS.items() if preset == self.method)
            dense = read_out(name, blocks, x[0], (height, width), self.sink_channels)
            features = F.normalize(visual.ln_post(dense) @ visual.proj, dim=-1)
            return features.reshape(height, width, -1), None
        method, count = self.method, min(self.method.blocks, len(blocks))
        for block in blocks[:-count]:
            x = block(x)
        second = x if method.residual else torch.zeros_like(x)
        for block in blocks[-count:]:
            second = second + method.alpha * attention(
                block, x, method.attention, (height, width), method.key_weight, beside
            )
            if block is not blocks[-1] or method.remove_redundancy:
                x = block(x)
        if method.ffn:
            second = second + blocks[-1].ls_2(blocks[-1].mlp(blocks[-1].ln_2(second)))
        features = F.normalize(visual.ln_post(second[0, 1:]) @ visual.proj, dim=-1)
        cls = F.normalize(visual.ln_post(x[0, 0]) @ visual.proj, dim=-1)
        return features.reshape(height, width, -1), cls if method.remove_redundancy else None

    def positions(self, height: int, width: int) -> torch.Tensor:
        """Position embeddings for another grid, as DINO, GEM or CLIP Surgery resizes them."""
        embedding = self.visual.positional_embedding
        rows, columns = self.visual.grid_size
        grid = embedding[1:].T.reshape(1, -1, rows, columns)
        if self.method.positions == "bilinear":
            if (height, width) == (rows, columns):
                return embedding
            resized = F.interpolate(grid, size=(height, width), mode="bilinear")
        elif self.method.positions == "size":
            if (height, width) == (rows, columns):
                return embedding
            resized = F.interpolate(
                grid, size=(height, width), mode="bicubic", align_corners=False, antialias=True
            )
        else:
            if height * width == rows * columns:
                return embedding
            scale = (height + 0.1) / rows, (width + 0.1) / columns
            resized = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([embedding[:1], resized.flatten(2)[0].T])

    @torch.inference_mode()
    def label_map(
        self,
        windows: Sequence[Window],
        embeddings: torch.Tensor,
        owners: Sequence[int],
        image_hw: tuple[int, int],
        thresholds: Sequence[float],
    ) -> npt.NDArray[np.int64]:
        """Scores of all queries in all pixels, then the decision: (H, W) labels, -1 for none.

        The embeddings are (Q, D) of unit length; the owner of each is its label, or -1 for contrast
        words. Each label has a threshold.
        """
        best, winner = classes(self.probabilities(windows, embeddings, image_hw), owners)
        limits = torch.tensor([*thresholds, 0.0], dtype=best.dtype, device=best.device)
        winner[best < limits[winner]] = -1
        return winner.cpu().numpy()

    def probabilities(
        self, windows: Sequence[Window], embeddings: torch.Tensor, image_hw: tuple[int, int]
    ) -> torch.Tensor:
        """(Q, H, W): softmax over all queries of 50 times the cosines."""
        boxes = [window.box_xyxy for window in windows]
        rows, columns = max(box[3] for box in boxes), max(box[2] for box in boxes)
        embeddings = embeddings.to(self.weight)
        total = self.weight.new_zeros(len(embeddings), rows, columns)
        count = self.weight.new_zeros(rows, columns)
        for features, _, (left, top, right, bottom) in windows:
            cosines = torch.einsum("hwd,qd->qhw", features, embeddings)
            padded_hw = [side * self.patch_px for side in features.shape[:2]]
            pixels = F.interpolate(cosines[None], padded_hw, mode="bilinear")[0]
            y, x = (padded_hw[0] - (bottom - top)) // 2, (padded_hw[1] - (right - left)) // 2
            inside = pixels[:, y : y + bottom - top, x : x + right - left]
            total[:, top:bottom, left:right] += inside
            count[top:bottom, left:right] += 1
        full = F.interpolate((total / count)[None], image_hw, mode="bilinear")[0]
        return (50 * full).softmax(dim=0)


def starts(side_px: int, window_px: int, stride_px: int) -> list[int]:
    """Beginnings of windows: step by step, and the last one ends where the side ends."""
    found = [0]
    while found[-1] + window_px < side_px:
        found.append(min(found[-1] + stride_px, side_px - window_px))
    return found


def attention(
    block: Any,
    x: torch.Tensor,
    name: str,
    grid_hw: tuple[int, int] = (0, 0),
    key_weight: float = 0.08,
    beside: torch.Tensor | None = None,
) -> torch.Tensor:
    """A block's attention output by explicit maps: a sum such as qq+kk, identity, or GEM's."""
    attn = block.attn
    normed = block.ln_1(x)
    qkv = F.linear(normed, attn.in_proj_weight, attn.in_proj_bias)
    query, key, value = (
        part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1)
    )
    root = query.shape[-1] ** 0.5
    sides = {"q": query, "k": key, "v": value}
    out = torch.zeros_like(value)
    for term in name.split("+"):
        if term == "identity":
            out = out + value
        elif term == "proxy":
            assert beside is not None
            out = out + proxy_map(beside).to(value) @ value
        elif term == "neighbour":
            out = out + torch.stack([neighbour_map(each, grid_hw) for each in key]) @ value
        elif term == "procrustes":
            both = zip(query, key, strict=True)
            out = out + torch.stack([procrustes_map(*each, key_weight) for each in both]) @ value
        elif term == "ensemble":
            tau = normed.square().sum(dim=-1).sqrt().mean() / root
            for z in sides.values():
                z = z / z.square().sum(dim=-1, keepdim=True).sqrt()
                z = (tau * z @ z.transpose(-1, -2)).softmax(dim=-1) @ z
                z = z / z.square().sum(dim=-1, keepdim=True).sqrt()
                out = out + (tau * z @ z.transpose(-1, -2)).softmax(dim=-1) @ value / 3
        else:
            left, right = (sides[side] for side in term)
            out = out + (left @ right.transpose(-1, -2) / root).softmax(dim=-1) @ value
    return block.ls_1(attn.out_proj(out.transpose(1, 2).flatten(2)))


def classes(
    probabilities: torch.Tensor, owners: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Q, H, W) -> the largest of a label's queries, (H, W), and which label it is."""
    indices = torch.tensor(owners, device=probabilities.device)
    labels = [*range(max(owners) + 1), *([-1] if min(owners) < 0 else [])]
    if len(labels) == len(owners):  # a query each
        best, winner = probabilities.max(dim=0)
    else:
        each = [probabilities[indices == label].amax(dim=0) for label in labels]
        best, winner = torch.stack(each).max(dim=0)
    winner[winner == max(owners) + 1] = -1
    return best, winner
