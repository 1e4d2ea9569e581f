"""The checks of what Label Studio makes of the labeling config: its smart tools, its exports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from backend.cli.doctor_context import CheckContext, CheckFailed, CheckWarned
from backend.label_studio.label_config import ControlKind

#: Shapes whose labels Label Studio's exports lose beside ``<KeyPointLabels>``.
_SHAPES: Final[dict[ControlKind, str]] = {
    "polygonlabels": "PolygonLabels",
    "rectanglelabels": "RectangleLabels",
}


def check_smart_tools(context: CheckContext) -> str:
    """Check that Label Studio asks the backend where an annotator uses a smart tool."""
    tools = sorted({element.tag for element in _elements(context) if _is_smart(element)})
    if not tools:
        return "The label config has no smart tools."
    if context.ml.is_interactive is False:
        raise CheckFailed(
            f"Interactive preannotations are off, but the label config has smart tools "
            f"({', '.join(tools)}): they ask nothing.",
            "Switch them on in the project's settings, under Model, where you edit the connection.",
        )
    return f"Interactive preannotations are on, for {', '.join(tools)}."


def check_exports(context: CheckContext) -> str:
    """Warn of controls whose labels Label Studio's own exports lose (seen in 1.23.2)."""
    assert context.config is not None
    drawn = {control.kind for control in context.config.controls}
    has_points = any(element.tag.lower() == "keypointlabels" for element in _elements(context))
    warnings, advice = [], []
    shapes = [f"<{name}>" for kind, name in _SHAPES.items() if kind in drawn]
    if shapes and has_points:
        lost = ", and its YOLO export leaves polygons out" if "polygonlabels" in drawn else ""
        warnings.append(
            f"<KeyPointLabels> beside {' and '.join(shapes)}: Label Studio's COCO export names "
            f'every label "default"{lost}.'
        )
        advice.append(
            "Export JSON and convert it with a label config without <KeyPointLabels>, or ask with "
            '<RectangleLabels smart="true"> in its place.'
        )
    if "bitmasklabels" in drawn:
        warnings.append(
            "<BitmaskLabels>: Label Studio's COCO, YOLO, PNG and NumPy exports have none of its "
            "masks, only JSON and CSV have."
        )
        advice.append("Use <BrushLabels> where you need PNG or NumPy.")
    if warnings:
        raise CheckWarned(" ".join(warnings), " ".join(advice))
    return "Label Studio's exports keep the labels of all controls."


def _elements(context: CheckContext) -> Iterator[Element]:
    root: Element = fromstring(context.xml.strip(), forbid_dtd=True)
    return root.iter()


def _is_smart(element: Element) -> bool:
    smart = {
        text.strip().lower()
        for name, text in element.attrib.items()
        if name.lower() in ("smart", "smartonly")
    }
    return "true" in smart
