"""Find the elements of a labeling config: its images, and its controls with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import fromstring

from backend.errors import LabelConfigError
from backend.label_studio.label_config import CONTROL_KINDS, ControlKind, ImageTag

#: Letters of a label config; ten thousand labels with their words fit.
MAX_CONFIG_LENGTH = 2_000_000
#: Tags within tags. Every control is searched for labels, so that nested ones add up.
MAX_DEPTH = 100

#: The kind of control that a tool beside ``<Labels>`` stands for.
_PAIRED_TOOLS: Final[Mapping[str, ControlKind]] = {
    "brush": "brushlabels",
    "bitmask": "bitmasklabels",
    "polygon": "polygonlabels",
    "rectangle": "rectanglelabels",
}


#: Of a tool: whether it is for prompts, whether it is not to be predicted, its place among kinds.
_Rank = tuple[bool, bool, int]


@dataclass(frozen=True, eq=False)
class FoundControl:
    """A control in the XML: the element with its labels, and the tool that draws for them."""

    kind: ControlKind
    labels: Element
    tool: Element | None = None

    @property
    def elements(self) -> tuple[Element, ...]:
        """The elements that may have attributes of the control."""
        return (self.labels,) if self.tool is None else (self.labels, self.tool)


def parse_xml(xml: str) -> Element:
    """Parse the XML of a label config.

    Raises:
        LabelConfigError: it is not well-formed, or what no person writes.
    """
    if len(xml) > MAX_CONFIG_LENGTH:
        raise LabelConfigError(
            f"Expected a label config of at most {MAX_CONFIG_LENGTH} letters, but got {len(xml)}."
        )
    try:
        # A document type may set defaults of attributes, which multiply like entities.
        root: Element = fromstring(xml.strip(), forbid_dtd=True)
    except DTDForbidden:
        raise LabelConfigError("Expected a label config without <!DOCTYPE>, but got one.") from None
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LabelConfigError(f"The label config is not well-formed XML: {error}.") from None
    level, depth = [root], 0
    while level:
        level, depth = [child for element in level for child in element], depth + 1
        if depth > MAX_DEPTH:
            raise LabelConfigError(f"The label config is nested more than {MAX_DEPTH} tags deep.")
    return root


def find(root: Element, tag: str) -> Iterator[Element]:
    """Find the elements of a tag, given in lower case, in the order of the config."""
    return (element for element in root.iter() if element.tag.lower() == tag)


def attribute_of(element: Element, attribute: str) -> str:
    """Return an attribute, its name in any letter case; empty where it is missing or blank."""
    found = (text for key, text in element.attrib.items() if key.lower() == attribute)
    text = next(found, "")
    return text if text.strip() else ""


def has_word(element: Element, attribute: str, word: str) -> bool:
    """Return whether an attribute is a word, given in lower case."""
    return attribute_of(element, attribute).strip().lower() == word


def image_tags(root: Element) -> Iterator[ImageTag]:
    """Yield the images of a label config; one without a name or a value shows none."""
    for element in find(root, "image"):
        value = (attribute_of(element, "valuelist") or attribute_of(element, "value")).strip()
        if attribute_of(element, "name") and value:
            yield ImageTag(attribute_of(element, "name"), value)


def find_controls(root: Element, images: Mapping[str, ImageTag]) -> Iterator[FoundControl]:
    """Yield the controls with labels on an image, by kind: those for masks first."""
    tools = _tools_by_image(root, images)
    pairs = [
        pair
        for labels in find(root, "labels")
        if label_elements(labels) and (pair := _pair(labels, tools)) is not None
    ]
    for kind in CONTROL_KINDS:
        for element in find(root, kind):
            if label_elements(element) and set(to_names(element)) & images.keys():
                yield FoundControl(kind, element)
        yield from (pair for pair in pairs if pair.kind == kind)


def _tools_by_image(
    root: Element, images: Mapping[str, ImageTag]
) -> dict[str, tuple[_Rank, Element]]:
    """Return name of an image -> the tool that draws on it for a ``<Labels>``, with its rank.

    A tool for prompts, and one that is not to be predicted, draws only where there is no other.
    """
    found: dict[str, tuple[_Rank, Element]] = {}
    for order, (tag, kind) in enumerate(_PAIRED_TOOLS.items()):
        for tool in find(root, tag):
            asks = is_prompt_tool(FoundControl(kind, tool))
            rank = (asks, prelabel_of(tool) == "no", order)
            for name in to_names(tool):
                if name in images and (name not in found or rank < found[name][0]):
                    found[name] = rank, tool
    return found


def _pair(labels: Element, tools: Mapping[str, tuple[_Rank, Element]]) -> FoundControl | None:
    """Return a ``<Labels>`` with the tool that draws for it; None without such a tool."""
    there = [tools[name] for name in to_names(labels) if name in tools]
    if not there:
        return None
    _, tool = min(there, key=lambda each: each[0])
    return FoundControl(_PAIRED_TOOLS[tool.tag.lower()], labels, tool)


def to_names(element: Element) -> list[str]:
    """Return the names that a control is for."""
    return [name.strip() for name in attribute_of(element, "toname").split(",")]


def label_elements(control: Element) -> list[Element]:
    """List the labels of a control, each value once."""
    by_name: dict[str, Element] = {}
    for element in find(control, "label"):
        by_name.setdefault(label_name(element), element)
    by_name.pop("", None)
    return list(by_name.values())


def label_name(label: Element) -> str:
    """Return the name of a label: its value, else its alias."""
    return attribute_of(label, "value") or attribute_of(label, "alias")


def is_prompt_tool(control: FoundControl) -> bool:
    """Return whether a control is an annotator's box for prompts."""
    return control.kind == "rectanglelabels" and any(
        has_word(element, attribute, "true")
        for element in control.elements
        for attribute in ("smart", "smartonly")
    )


def prelabel_of(control: Element) -> str:
    """Return when a control is predicted: yes, no or auto.

    Raises:
        LabelConfigError: the attribute has another word.
    """
    text = attribute_of(control, "prelabel")
    word = text.strip().lower() or "yes"
    if word not in ("yes", "no", "auto"):
        raise LabelConfigError(f"Expected prelabel to be yes, no or auto, but got {text!r}.")
    return word
