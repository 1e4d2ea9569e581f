"""Generic words that compete with a project's labels and are never predicted."""

from __future__ import annotations

#: Generic words for what no label names; where they win, nothing is predicted.
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
