"""Make the labeling config of the commands `demo` and `export` from names of labels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Final

from clearclip_core import palette

#: The attributes of a tool that only asks the backend. An ordinary tool beside it, which asks
#: nothing, would confuse.
_ASKS: Final = {"smart": "true", "smartOnly": "true"}


def label_config(labels: Sequence[str]) -> str:
    """Return a labeling config with one brush for each label, each in a colour of its own.

    It also has the prompts of an annotator: clicks, boxes and words.

    >>> label_config(["sky"])  # doctest: +ELLIPSIS
    '<View><Image name="image" value="$image" zoom="true" /><BrushLabels name="mask" ...'
    """
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image", zoom="true")
    controls = [
        ET.SubElement(view, "BrushLabels", name="mask", toName="image"),
        ET.SubElement(view, "KeyPointLabels", _ASKS, name="click", toName="image"),
        ET.SubElement(view, "RectangleLabels", _ASKS, name="box", toName="image"),
    ]
    for control in controls:
        for label, rgb in zip(labels, palette(len(labels)), strict=True):
            ET.SubElement(control, "Label", value=label, background=f"#{bytes(rgb).hex()}")
    ET.SubElement(view, "TextArea", name="words", toName="image", placeholder="words, or: all")
    return ET.tostring(view, encoding="unicode")


def split_names(labels: str) -> tuple[str, ...]:
    """Split names of labels at their commas.

    >>> split_names("sky, tree,")
    ('sky', 'tree')
    """
    return tuple(name.strip() for name in labels.split(",") if name.strip())
