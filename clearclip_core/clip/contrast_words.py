"""Generic words that compete with a project's labels and are never predicted."""

from __future__ import annotations

#: Contrast words of models for photographs: where they win, nothing is predicted.
STUFF_WORDS: tuple[str, ...] = (
    "sky",
    "cloud",
    "wall",
    "floor",
    "ceiling",
    "ground",
    "soil",
    "road",
    "pavement",
    "grass",
    "plant",
    "tree",
    "building",
    "water",
    "sea",
    "mountain",
    "rock",
    "sand",
    "snow",
    "fence",
    "window",
    "door",
    "curtain",
    "furniture",
    "cloth",
    "paper",
    "metal",
    "wood",
    "shadow",
    "background",
)

#: Contrast words of the demo model, which are all that it knows: the 18 labels of the drawn
#: scenes, in the order of their label maps.
DEMO_WORDS: tuple[str, ...] = (
    "sky",
    "cloud",
    "sun",
    "mountain",
    "grass",
    "tree",
    "house",
    "road",
    "car",
    "water",
    "boat",
    "person",
    "dog",
    "flower",
    "fence",
    "rock",
    "sand",
    "snow",
)
