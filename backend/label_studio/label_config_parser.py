"""Parse the XML of a labeling config into images, controls, labels and their prompts.

Tags and attributes are found in any letter case, as the editor does. What is drawn:

- ``<BrushLabels>``, ``<BitmaskLabels>``, ``<PolygonLabels>``, ``<RectangleLabels>`` whose
  ``toName`` is one or more ``<Image>``; those for masks first, else in the order of the config.
  ``<RectangleLabels>`` with ``smart="true"`` or ``smartOnly="true"`` beside another control is an
  annotator's tool for prompts and is left alone, as are all other tags.
- A label is known by its ``value``: written in several controls, it is one query. Results carry
  its ``alias`` where it has one, as the editor does.
- Words for the model: ``predicted_values="tabby cat, kitten"``; else the alias where that reads
  as words; else the value. Underscores and CamelCase are read as words.
- ``model_score_threshold="0.4"`` on a control, or on one label of it; 1 means never, and 0 that no
  learned threshold applies.
- ``overlap="false"`` on several controls, or on one: a mask that an annotator asks for there leaves
  out what regions of these controls cover already. Polygons and boxes, drawn around what is left,
  may close over what lies inside.
- A label called "background" or "other", or marked ``background="true"``, is what no other label
  names. A colour in that attribute is the editor's own use of it.
- ``prelabel`` on a control: with ``no`` it is left out of predictions, and answers prompts only;
  ``yes`` is the default; with ``auto`` new tasks of the project are predicted at once.
- ``score="effort"`` on a control: what the project's predictions are sorted by. The first counts.
- ``adapt="thresholds"`` on a control: what of the project follows its corrections; scores,
  thresholds, all or off.
- An annotator asks with ``<KeyPointLabels>``, ``<KeyPoint>``, ``<RectangleLabels>``,
  ``<Rectangle>`` and ``<TextArea>``, unless it has ``smart="false"``. ``prompt_label="Car"`` on a
  text area is the label of words that name none.

Labels that come from the task (``<BrushLabels value="$labels">``) and controls in a
``<Repeater>`` are not drawn; where a config has nothing else, the error says so.

Entities, external references and document types are refused, as is what no person writes: a config
over `MAX_CONFIG_LENGTH`, or nested more than `MAX_DEPTH` deep.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import cast, get_args
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import fromstring

from backend.errors import LabelConfigError
from backend.label_studio.label_config import (
    CONTROL_KINDS,
    Control,
    ControlKind,
    ControlLabel,
    ImageTag,
    LabelConfig,
    Tool,
)
from backend.settings import Adapt, ScoreKind
from clearclip_core import Label

#: Letters of a label config.
MAX_CONFIG_LENGTH = 2_000_000
#: Labels of a label config; the words of each are embedded before the first prediction.
MAX_LABELS = 3000
#: Tags within tags. Every control is searched for labels, so that nested ones add up.
MAX_DEPTH = 100
#: Letters of one prompt. CLIP reads 77 tokens of it, but its tokenizer reads all letters first.
MAX_PROMPT_LENGTH = 1000

_SUPPORTED = "<BrushLabels>, <BitmaskLabels>, <PolygonLabels> or <RectangleLabels>"
_TOOL_KINDS = ("keypointlabels", "keypoint", "rectanglelabels", "rectangle", "textarea")
_BACKGROUND_NAMES = ("background", "other")


def parse_label_config(xml: str) -> LabelConfig:
    """Parse a project's labeling config.

    Raises:
        LabelConfigError: the XML does not parse, or has no control on an image that the backend
            draws, or a threshold that is no number in [0, 1], or an unknown value of another
            attribute.

    >>> config = parse_label_config('''<View>
    ...   <Image name="img" value="$image"/>
    ...   <BrushLabels name="tag" toName="img"><Label value="trafficLight"/></BrushLabels>
    ... </View>''')
    >>> config.labels
    (Label(name='trafficLight', prompts=('traffic light',), background=False),)
    """
    root = _parse(xml)
    images = {tag.name: tag for tag in _image_tags(root)}
    repeated = {element for repeater in _find(root, "repeater") for element in repeater.iter()}
    elements = [
        element
        for kind in CONTROL_KINDS
        for element in _find(root, kind)
        if element not in repeated and set(_to_names(element)) & images.keys()
    ]
    elements = [element for element in elements if _label_elements(element)]
    if not elements:
        raise LabelConfigError(_why_nothing(root, images, bool(repeated)))
    drawn = [element for element in elements if not _is_prompt_tool(element)] or elements
    boxes = [element for element in elements if element not in drawn]
    controls = tuple(_control(element, images) for element in drawn)
    labels = tuple(_labels(drawn))
    if len(labels) > MAX_LABELS:
        raise LabelConfigError(
            f"The label config has {len(labels)} labels, more than {MAX_LABELS}: split the project."
        )
    used = {name for control in controls for name in control.to_names}
    return LabelConfig(
        images=tuple(tag for tag in images.values() if tag.name in used),
        controls=controls,
        labels=labels,
        tools=tuple(_tools(root, images)),
        boxes=tuple(_control(element, images) for element in boxes),
        box_labels=tuple(_labels(boxes, known={label.name for label in labels})),
        prelabel=any(_prelabel(element) == "auto" for element in drawn),
        score=next(filter(None, map(_score, drawn)), None),
        adapt=_adapt(drawn),
    )


def words(name: str) -> str:
    """Return a name as the words of a caption.

    >>> words("trafficLight"), words("traffic_light"), words("TrafficLight"), words("TV")
    ('traffic light', 'traffic light', 'traffic light', 'tv')
    """
    spaced = re.sub(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name)
    return " ".join(spaced.replace("_", " ").split()).lower()


def _parse(xml: str) -> Element:
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


def _find(root: Element, tag: str) -> Iterator[Element]:
    return (element for element in root.iter() if element.tag.lower() == tag)


def _get(element: Element, attribute: str) -> str:
    """Return an attribute, its name in any letter case; empty where it is missing or blank."""
    found = (text for key, text in element.attrib.items() if key.lower() == attribute)
    text = next(found, "")
    return text if text.strip() else ""


def _is(element: Element, attribute: str, word: str) -> bool:
    return _get(element, attribute).strip().lower() == word


def _image_tags(root: Element) -> Iterator[ImageTag]:
    for element in _find(root, "image"):
        value = (_get(element, "valuelist") or _get(element, "value")).strip()
        if _get(element, "name") and value:
            yield ImageTag(_get(element, "name"), value)


def _to_names(element: Element) -> list[str]:
    return [name.strip() for name in _get(element, "toname").split(",")]


def _label_elements(control: Element) -> list[Element]:
    """List the labels of a control, each value once."""
    by_name: dict[str, Element] = {}
    for element in _find(control, "label"):
        by_name.setdefault(_name(element), element)
    by_name.pop("", None)
    return list(by_name.values())


def _name(label: Element) -> str:
    return _get(label, "value") or _get(label, "alias")


def _is_prompt_tool(control: Element) -> bool:
    return control.tag.lower() == "rectanglelabels" and (
        _is(control, "smart", "true") or _is(control, "smartonly", "true")
    )


def _control(element: Element, images: Mapping[str, ImageTag]) -> Control:
    return Control(
        kind=cast(ControlKind, element.tag.lower()),
        name=_get(element, "name"),
        to_names=tuple(name for name in _to_names(element) if name in images),
        labels=_control_labels(element),
        overlap=not _is(element, "overlap", "false"),
        is_predicted=_prelabel(element) != "no",
    )


def _tools(root: Element, images: Mapping[str, ImageTag]) -> Iterator[Tool]:
    for kind in _TOOL_KINDS:
        for element in _find(root, kind):
            to_names = tuple(name for name in _to_names(element) if name in images)
            yield Tool(
                name=_get(element, "name"),
                to_names=to_names,
                labels=_control_labels(element),
                prompt_label=_get(element, "prompt_label").strip(),
                is_smart=_is(element, "smartonly", "true") or not _is(element, "smart", "false"),
            )


def _control_labels(element: Element) -> tuple[ControlLabel, ...]:
    of_all = _threshold(element)

    def read(label: Element) -> ControlLabel:
        own = _threshold(label)
        threshold = of_all if own is None else own
        return ControlLabel(
            name=_name(label),
            written=_get(label, "alias") or _name(label),
            threshold=threshold or 0.0,
            has_threshold=threshold is not None,
        )

    return tuple(map(read, _label_elements(element)))


def _threshold(element: Element) -> float | None:
    """Read the threshold of a control or a label; None where it sets none."""
    text = _get(element, "model_score_threshold")
    if not text:
        return None
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1
    if not 0 <= threshold <= 1:
        raise LabelConfigError(
            f"Expected model_score_threshold to be a number from 0 to 1, but got {text!r}."
        )
    return threshold


def _prelabel(control: Element) -> str:
    text = _get(control, "prelabel")
    word = text.strip().lower() or "yes"
    if word not in ("yes", "no", "auto"):
        raise LabelConfigError(f"Expected prelabel to be yes, no or auto, but got {text!r}.")
    return word


def _score(control: Element) -> ScoreKind | None:
    text = _get(control, "score")
    kind = text.strip().lower() or None
    if kind is not None and kind not in get_args(ScoreKind):
        known = ", ".join(get_args(ScoreKind))
        raise LabelConfigError(f"Expected score to be one of {known}, but got {text!r}.")
    return cast("ScoreKind | None", kind)


def _adapt(controls: Iterable[Element]) -> Adapt | None:
    given = [text for element in controls if (text := _get(element, "adapt").strip().lower())]
    if given and given[0] not in get_args(Adapt):
        raise LabelConfigError(
            f"Expected adapt to be scores, thresholds, all or off, but got {given[0]!r}."
        )
    return cast(Adapt, given[0]) if given else None


def _labels(controls: Iterable[Element], known: Collection[str] = ()) -> Iterator[Label]:
    """Merge the labels of controls by name, with all their prompts; leave the known ones out."""
    elements: dict[str, list[Element]] = {}
    for control in controls:
        for element in _label_elements(control):
            elements.setdefault(_name(element), []).append(element)
    background = None if known else _background(elements)
    for name, same in elements.items():
        if name in known:
            continue
        prompts = dict.fromkeys(prompt for element in same for prompt in _prompts(element))
        yield Label(name, tuple(prompts), background=name == background)


def _background(elements: Mapping[str, list[Element]]) -> str | None:
    """Find the background label: one that is marked as such, else one that is named so."""
    for name, same in elements.items():
        if any(_is(element, "background", "true") for element in same):
            return name
    for name, same in elements.items():
        called = {words(text) for element in same for text in (name, _get(element, "alias"))}
        if called & set(_BACKGROUND_NAMES):
            return name
    return None


def _prompts(label: Element) -> list[str]:
    given = [prompt.strip() for prompt in _get(label, "predicted_values").split(",")]
    alias = words(_get(label, "alias"))
    name = _name(label)
    prompts = [prompt for prompt in given if prompt] or [
        alias if _reads_as_words(alias) else words(name) or name
    ]
    return [prompt[:MAX_PROMPT_LENGTH] for prompt in prompts]


def _reads_as_words(alias: str) -> bool:
    """Return whether an alias reads as words: letters, and not only an abbreviation or a code.

    >>> [_reads_as_words(alias) for alias in ("traffic light", "sky", "tl", "cls 3", "c1", "")]
    [True, True, False, False, False, False]
    """
    parts = alias.split()
    return all(part.isalpha() for part in parts) and any(
        len(part) > 2 and re.search("[aeiouy]", part) for part in parts
    )


def _why_nothing(root: Element, images: Mapping[str, ImageTag], has_repeater: bool) -> str:
    if not images:
        return 'Expected the label config to have an <Image name="..." value="$...">, but got none.'
    if any(_get(element, "value") for kind in CONTROL_KINDS for element in _find(root, kind)):
        return (
            'Labels that come from the task (value="$...") are not supported: write them as '
            "<Label> tags in the label config."
        )
    if has_repeater:
        return f"Controls in a <Repeater> are not supported: put {_SUPPORTED} outside of it."
    return (
        f"Expected the label config to have {_SUPPORTED} with one or more <Label> tags and toName "
        "of an <Image>, but got none."
    )
