"""A stand-in for the model whose answers a person can foresee: labels are the names of colours."""

from __future__ import annotations

import base64
import io
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from backend.engine import Engine
from clearclip_core import Label, RGBArray, Segmentation

RGB = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class ColourSegmenter:
    """Each pixel gets the label that is called like its colour; its share of 255 is certain."""

    def __init__(self, notice: str | None = None) -> None:
        self.model = SimpleNamespace(name="colours", notice=notice, contrast=("grey",))
        self.encoder = SimpleNamespace(device="cpu")
        self.embedded: list[tuple[str, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.running = 0
        self.most_at_once = 0

    def embed(self, prompts: tuple[str, ...]) -> None:
        self.embedded.append(prompts)

    def segment(self, image: RGBArray, labels: tuple[Label, ...], contrast: bool) -> Segmentation:
        assert contrast, "the backend asks for contrast words"
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.gate.wait(20)
        label_map = np.full(image.shape[:2], -1, np.int16)
        confidence = np.full(image.shape[:2], 0.75, np.float16)
        for index, label in enumerate(labels):
            for prompt in label.prompts:
                if prompt == "crash":
                    raise ZeroDivisionError("a secret of the model")
                label_map[(image == RGB.get(prompt, (1, 2, 3))).all(axis=-1)] = index
        confidence[:, image.shape[1] // 2 :] = 0.5
        self.running -= 1
        return Segmentation(label_map, confidence, tuple(label.name for label in labels))


def colour_engine(segmenter: ColourSegmenter | None = None) -> Engine:
    """An engine that has loaded the stand-in."""
    stand_in: Any = segmenter or ColourSegmenter()
    engine = Engine(lambda: stand_in, lambda: "colours-1")
    engine.start()
    engine.segmenter()
    return engine


def flag(*columns: str, size_hw: tuple[int, int] = (40, 60)) -> RGBArray:
    """Upright stripes of equal width, one for each colour."""
    image = np.zeros((*size_hw, 3), np.uint8)
    edges = np.linspace(0, size_hw[1], len(columns) + 1).astype(int)
    for colour, left, right in zip(columns, edges, edges[1:], strict=False):
        image[:, left:right] = RGB[colour]
    return image


def data_url(image: RGBArray) -> str:
    """An image as Label Studio's tasks may hold it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def brush_config(*labels: str, attributes: str = "") -> str:
    """A label config with one brush control."""
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="mask" toName="image" {attributes}>{tags}</BrushLabels></View>'
    )
