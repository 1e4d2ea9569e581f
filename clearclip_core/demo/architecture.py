"""Architecture of the demo model and of those that are trained like it."""

from __future__ import annotations

from typing import Any

#: Mean and standard deviation of the model's input, for every channel; pixels are in [0, 1].
MEAN, STD = 0.55, 0.22

#: Config of an open_clip folder.
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 112,
            "layers": 5,
            "width": 192,
            "head_width": 64,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    },
    "preprocess_cfg": {"mean": [MEAN] * 3, "std": [STD] * 3},
}

#: Labels at most: their directions and that of unknown words are orthogonal.
MAX_LABELS: int = CONFIG["model_cfg"]["embed_dim"] - 1
