"""The benchmarks' protocol once more, in plain loops: what the real command is held to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image

from clearclip_core.images.preprocessing import Preprocessing
from tests.core.evaluation.miniatures import MINIATURES
from tests.core.reference import Reference

#: Mean, std, short side, long side: the paper's released settings.
PAPER = ((122.771, 116.746, 104.094), (68.501, 66.632, 70.323), 448, 2048)
WINDOWS = {"cityscapes": 224}
THRESHOLDS = {"voc21": 0.5, "context60": 0.15, "coco_object": 0.4}


class PlainText:
    """The 80 templates through stock open_clip, each word once."""

    def __init__(self, clip: Any) -> None:
        self.clip = clip
        self.tokenize = open_clip.get_tokenizer("ViT-B-32", context_length=clip.context_length)
        self.known: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def __call__(self, words: Sequence[str]) -> torch.Tensor:
        for word in words:
            if word not in self.known:
                sentences = [template(word) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
                each = F.normalize(self.clip.encode_text(self.tokenize(sentences)), dim=-1)
                self.known[word] = F.normalize(each.mean(dim=0), dim=-1)
        return torch.stack([self.known[word] for word in words])


def label_maps(
    benchmark: str, clip: Any, embeddings: torch.Tensor, pictures: Sequence[Path]
) -> list[np.ndarray]:
    """ClearCLIP's label map of each picture, read and resized by OpenCV."""
    mean, std, short, long = PAPER
    window = WINDOWS.get(benchmark, 448)
    sizes = Preprocessing(mean, std, short, long, window, 224)
    reference = Reference(clip, sizes)
    owners = range(len(embeddings))
    limits = [THRESHOLDS.get(benchmark, 0.0)] * len(owners)
    found = []
    for path in pictures:
        rgb = cv2.imread(str(path))[:, :, ::-1].copy()
        windows = reference.encode(rgb)
        found.append(reference.label_map(windows, embeddings, owners, rgb.shape[:2], limits))
    return [np.where(found_map < 0, 0, found_map) for found_map in found]


def confusion(
    benchmark: str, maps: Sequence[Path], predicted: Sequence[np.ndarray]
) -> list[list[int]]:
    """Count pixel by pixel."""
    first, classes = int(MINIATURES[benchmark].zero_is_left_out), MINIATURES[benchmark].classes
    counts = [[0] * classes for _ in range(classes)]
    for path, label_map in zip(maps, predicted, strict=True):
        with Image.open(path) as picture:
            values = np.array(picture)
        for value, guess in zip(values.ravel().tolist(), label_map.ravel().tolist(), strict=True):
            if first <= value < 255:
                counts[value - first][guess] += 1
    return counts


def mean_iou(counts: Sequence[Sequence[int]]) -> float:
    """Intersections over unions of all pictures, classes without a union left out."""
    ious = []
    for label in range(len(counts)):
        union = sum(counts[label]) + sum(row[label] for row in counts) - counts[label][label]
        if union:
            ious.append(counts[label][label] / union)
    return sum(ious) / len(ious)
