"""Parse the XML of a labeling config into images, controls, labels and their prompts.

Tags and attributes are explained in ``docs/guides/labeling-config.md``; they are
found in any letter case, as the editor does. Controls for masks come first, else the order is that
of the config. A label is known by its ``value``: written in several controls, it is one query.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast, get_args
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
from backend.settings import Adapt, ScoreKind, Settings
from clearclip_core import BACKGROUND_NAMES, Label

#: Letters of a labeling config; ten thousand labels with their words fit.
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
    """Parse the XML of a labeling config.

    Args:
        xml: the text.

    Raises:
        LabelConfigError: it is not well-formed, or is longer or deeper than anybody writes.
    """
    if len(xml) > MAX_CONFIG_LENGTH:
        raise LabelConfigError(
            f"Expected a labeling config of at most {MAX_CONFIG_LENGTH} letters, but got "
            f"{len(xml)}."
        )

    try:
        # A document type may set defaults of attributes, which multiply like entities.
        root: Element = fromstring(xml.strip(), forbid_dtd=True)
    except DTDForbidden:
        raise LabelConfigError(
            "Expected a labeling config without <!DOCTYPE>, but got one."
        ) from None
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LabelConfigError(f"The labeling config is not well-formed XML: {error}.") from None

    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
    if level:
        raise LabelConfigError(f"The labeling config is nested more than {MAX_DEPTH} tags deep.")
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
    """Yield the images of a labeling config; one without a name or a value shows none."""
    for element in find(root, "image"):
        value = (attribute_of(element, "valuelist") or attribute_of(element, "value")).strip()
        if attribute_of(element, "name") and value:
            yield ImageTag(attribute_of(element, "name"), value)


def find_repeated(root: Element) -> set[Element]:
    """Return the elements in a ``<Repeater>``, whose names are those of no region."""
    return {element for repeater in find(root, "repeater") for element in repeater.iter()}


def without_prompt_tools(found: list[FoundControl]) -> list[FoundControl]:
    """Return the controls that are drawn; boxes for prompts only where there is no other."""
    return [each for each in found if not is_prompt_tool(each)] or found


def find_controls(root: Element, images: Mapping[str, ImageTag]) -> list[FoundControl]:
    """Return the controls with labels on an image, by kind: those for masks first."""
    repeated = find_repeated(root)
    found = _find_controls(root, images)
    return [each for each in found if not {each.labels, each.tool} & repeated]


def _find_controls(root: Element, images: Mapping[str, ImageTag]) -> Iterator[FoundControl]:
    pairs = list(_find_pairs(root, images))
    for kind in CONTROL_KINDS:
        for element in find(root, kind):
            if label_elements(element) and set(to_names(element)) & images.keys():
                yield FoundControl(kind, element)
        yield from (pair for pair in pairs if pair.kind == kind)


def _find_pairs(root: Element, images: Mapping[str, ImageTag]) -> Iterator[FoundControl]:
    """Yield each ``<Labels>`` with the tool beside it that draws for it."""
    tools = [
        FoundControl(kind, tool) for tag, kind in _PAIRED_TOOLS.items() for tool in find(root, tag)
    ]
    # A tool for prompts, and one that is not to be predicted, draws where there is no other.
    tools.sort(key=lambda each: (is_prompt_tool(each), prelabel_of(each.labels) == "no"))

    for labels in filter(label_elements, find(root, "labels")):
        names = {*to_names(labels)} & images.keys()
        tool = next((each for each in tools if names & {*to_names(each.labels)}), None)
        if tool is not None:
            yield FoundControl(tool.kind, labels, tool.labels)


def to_names(element: Element) -> list[str]:
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
    return control.kind == "rectanglelabels" and any(map(_asks, control.elements))


def _asks(element: Element) -> bool:
    return any(has_word(element, attribute, "true") for attribute in ("smart", "smartonly"))


def prelabel_of(control: Element) -> str:
    """Return when a control is predicted: yes, no or auto."""
    return _word((control,), "prelabel", ("yes", "no", "auto")) or "yes"


#: Words of all labels of a labeling config, which are embedded before the first prediction. A text
#: of CLIP takes some milliseconds.
_MAX_WORDS: Final = 3000
#: Letters of one prompt. CLIP reads 77 tokens of it, but its tokenizer reads all letters first.
_MAX_WORD_LENGTH: Final = 1000

_TOOL_KINDS = ("keypointlabels", "keypoint", "rectanglelabels", "rectangle", "textarea")


_DEFAULTS: Final = Settings.model_construct()


@lru_cache(64)  # Label Studio sends the labeling config with each request
def parse_label_config(
    xml: str, settings: Settings | None, *, must_draw: bool = True
) -> LabelConfig:
    """Parse a project's labeling config; what it does not say is as in the settings.

    With `must_draw`, one is refused that has only controls that people alone draw, as ellipses.

    >>> config = parse_label_config('''<View>
    ...   <Image name="img" value="$image"/>
    ...   <BrushLabels name="tag" toName="img"><Label value="trafficLight"/></BrushLabels>
    ... </View>''', None)
    >>> config.labels
    (Label(name='trafficLight', prompts=('traffic light',), background=False),)
    """
    root = parse_xml(xml)
    images = {tag.name: tag for tag in image_tags(root)}
    repeated = find_repeated(root)
    found = _FoundControls.of(root, images, repeated)
    if not (found.predicted if must_draw else found.all):
        raise LabelConfigError(_why_nothing(root, images, bool(repeated)))

    labels, box_labels = _read_labels(found)
    controls = _controls(found.drawn, images)
    others = _controls(found.undrawn, images)
    elements = [element for each in found.drawn for element in each.elements]
    score, adapt = _choices(elements, settings or _DEFAULTS)
    return LabelConfig(
        images=_images_of(controls, images),
        controls=controls,
        labels=labels,
        tools=tuple(_tools(root, images)),
        boxes=_controls(found.boxes, images),
        box_labels=box_labels,
        undrawn=others,
        annotated=_images_of(controls + others, images),
        names=_names(root, [*found.drawn, *found.undrawn], found.boxes),
        tag_names=None if repeated else _tag_names(root),
        required=tuple(_required(root, {each.name for each in controls})),
        prelabel=any(prelabel_of(element) == "auto" for element in elements),
        score=score,
        adapt=adapt,
    )


def _read_labels(found: _FoundControls) -> tuple[tuple[Label, ...], tuple[Label, ...]]:
    """Read the labels of what is drawn, and those that only boxes for prompts have."""
    labels = tuple(_labels(each.labels for each in found.drawn))
    known = {label.name for label in labels}
    box_labels = tuple(_labels((each.labels for each in found.boxes), known=known))
    _check_words(labels + box_labels)
    return labels, box_labels


def _tag_names(root: Element) -> frozenset[str]:
    return frozenset(attribute_of(element, "name") for element in root.iter())


def _choices(elements: Sequence[Element], settings: Settings) -> tuple[ScoreKind, Adapt]:
    """Return how a config wants scores and learning, else how the settings do."""
    score = _word(elements, "score", get_args(ScoreKind)) or settings.score
    adapt = _word(elements, "adapt", get_args(Adapt)) or settings.adapt
    return cast("ScoreKind", score), cast("Adapt", adapt)


def _controls(found: Iterable[FoundControl], images: Mapping[str, ImageTag]) -> tuple[Control, ...]:
    return tuple(_control(each, images) for each in found)


@dataclass(frozen=True, eq=False)
class _FoundControls:
    """The controls of a labeling config, by what is done with them."""

    drawn: list[FoundControl]  #: those that masks are drawn for
    boxes: list[FoundControl]  #: an annotator's boxes for prompts, beside those that are drawn
    undrawn: list[FoundControl]  #: those that only people draw with

    @classmethod
    def of(
        cls, root: Element, images: Mapping[str, ImageTag], repeated: set[Element]
    ) -> _FoundControls:
        found = find_controls(root, images)
        drawn = without_prompt_tools(found)
        left_out = repeated | {each.labels for each in found}
        return cls(
            drawn=drawn,
            boxes=[each for each in found if each not in drawn],
            undrawn=list(_undrawn(root, images, left_out)),
        )

    @property
    def predicted(self) -> list[FoundControl]:
        """Those that get an answer: all but what only people draw with."""
        return self.drawn + self.boxes

    @property
    def all(self) -> list[FoundControl]:
        """Those that get an answer, and what only people draw with."""
        return self.predicted + self.undrawn


def _images_of(controls: Iterable[Control], images: Mapping[str, ImageTag]) -> tuple[ImageTag, ...]:
    """Return the images that some controls are for, in the order of the config."""
    used = {name for control in controls for name in control.to_names}
    return tuple(tag for tag in images.values() if tag.name in used)


def _check_words(labels: Sequence[Label]) -> None:
    words = sum(len(label.prompts) for label in labels)
    if words > _MAX_WORDS:
        raise LabelConfigError(
            f"The {len(labels)} labels have {words} words, more than {_MAX_WORDS}: "
            "give each label fewer, or split the project."
        )


def _required(root: Element, drawn: Collection[str]) -> Iterator[str]:
    """Yield the names of the controls that need an answer, but those that are drawn."""
    for element in root.iter():
        name = attribute_of(element, "name")
        if name and name not in drawn and has_word(element, "required", "true"):
            yield name


def _undrawn(
    root: Element, images: Mapping[str, ImageTag], left_out: Collection[Element]
) -> Iterator[FoundControl]:
    """Yield the controls that only people draw with: ellipses, and other tools of ``<Labels>``."""
    for element in root.iter():
        if (
            element.tag.lower() in ("ellipselabels", "labels")
            and element not in left_out
            and label_elements(element)
            and set(to_names(element)) & images.keys()
        ):
            yield FoundControl("ellipselabels", element)


def _names(
    root: Element, drawn: Iterable[FoundControl], boxes: Iterable[FoundControl]
) -> tuple[str, ...]:
    """Return the names of all labels in the order of the config, those of boxes last."""
    rank = {each.labels: int(is_box) for is_box, some in enumerate((drawn, boxes)) for each in some}
    ordered = sorted((each for each in root.iter() if each in rank), key=lambda each: rank[each])
    return tuple(dict.fromkeys(label_name(x) for each in ordered for x in label_elements(each)))


def words_of_name(name: str) -> str:
    """Return a name as the words of a caption.

    >>> words_of_name("trafficLight"), words_of_name("traffic_light"), words_of_name("TV")
    ('traffic light', 'traffic light', 'tv')
    """
    spaced = re.sub(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name)
    return " ".join(spaced.replace("_", " ").split()).lower()


def _control(found: FoundControl, images: Mapping[str, ImageTag]) -> Control:
    names = [set(to_names(element)) for element in found.elements]
    of_all = images.keys() & set.intersection(*names)
    forbids_overlap = any(has_word(element, "overlap", "false") for element in found.elements)
    return Control(
        kind=found.kind,
        name=attribute_of(found.labels, "name"),
        to_names=tuple(name for name in to_names(found.labels) if name in of_all),
        labels=_control_labels(found.labels),
        overlap=not forbids_overlap,
        is_predicted=all(prelabel_of(element) != "no" for element in found.elements),
        tool="" if found.tool is None else attribute_of(found.tool, "name"),
        has_instances=any(has_word(each, "prelabel_instances", "yes") for each in found.elements),
    )


def _tools(root: Element, images: Mapping[str, ImageTag]) -> Iterator[Tool]:
    for kind in _TOOL_KINDS:
        for element in find(root, kind):
            only_smart = has_word(element, "smartonly", "true")
            yield Tool(
                name=attribute_of(element, "name"),
                to_names=tuple(name for name in to_names(element) if name in images),
                labels=_control_labels(element),
                prompt_label=attribute_of(element, "prompt_label").strip(),
                is_smart=only_smart or not has_word(element, "smart", "false"),
                only_asks=kind == "rectangle" and _asks(element),
            )


def _control_labels(element: Element) -> tuple[ControlLabel, ...]:
    of_all = _number((element,), "model_score_threshold")

    def read(label: Element) -> ControlLabel:
        own = _number((label,), "model_score_threshold")
        threshold = of_all if own is None else own
        return ControlLabel(
            name=label_name(label),
            written=attribute_of(label, "alias") or label_name(label),
            threshold=threshold or 0.0,
            colour=attribute_of(label, "background").strip(),
        )

    return tuple(map(read, label_elements(element)))


def _number(elements: Iterable[Element], attribute: str) -> float | None:
    """Read a number from 0 to 1; the first that an element has counts."""
    text = _first(elements, attribute)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 1:
        raise LabelConfigError(
            f"Expected {attribute} to be a number from 0 to 1, but got {text!r}."
        )
    return number


def _word(elements: Iterable[Element], attribute: str, words: Sequence[str]) -> str | None:
    """Read one of some words; the first that an element has counts."""
    text = _first(elements, attribute)
    if text and text.lower() not in words:
        known = f"{', '.join(words[:-1])} or {words[-1]}"
        raise LabelConfigError(f"Expected {attribute} to be {known}, but got {text!r}.")
    return text.lower() or None


def _first(elements: Iterable[Element], attribute: str) -> str:
    """Return an attribute of the first element that has it; "" without one."""
    given = (attribute_of(element, attribute).strip() for element in elements)
    return next(filter(None, given), "")


def _labels(controls: Iterable[Element], known: Collection[str] = ()) -> Iterator[Label]:
    """Merge the labels of controls by name, with all their prompts; leave the known ones out."""
    elements: dict[str, list[Element]] = {}
    for control in controls:
        for element in label_elements(control):
            elements.setdefault(label_name(element), []).append(element)
    background = None if known else _background(elements)
    for name, same in elements.items():
        if name in known:
            continue
        prompts = dict.fromkeys(prompt for element in same for prompt in _prompts(element))
        yield Label(name, tuple(prompts), background=name == background)


def _background(elements: Mapping[str, list[Element]]) -> str | None:
    """Find the background label: one that is marked as such, else one that is named so."""
    for name, same in elements.items():
        if any(has_word(element, "background", "true") for element in same):
            return name
    for name, same in elements.items():
        called = (name, *(attribute_of(element, "alias") for element in same))
        if any(words_of_name(text) in BACKGROUND_NAMES for text in called):
            return name
    return None


def _prompts(label: Element) -> list[str]:
    given = [prompt.strip() for prompt in attribute_of(label, "predicted_values").split(",")]
    alias = words_of_name(attribute_of(label, "alias"))
    name = label_name(label)
    prompts = [prompt for prompt in given if prompt] or [
        alias if _reads_as_words(alias) else words_of_name(name) or name
    ]
    return [prompt[:_MAX_WORD_LENGTH] for prompt in prompts]


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
        return (
            'Expected the labeling config to have an <Image name="..." value="$...">, but got none.'
        )
    controls = (element for kind in (*CONTROL_KINDS, "labels") for element in find(root, kind))
    if any(attribute_of(element, "value") for element in controls):
        return (
            'Labels that come from the task (value="$...") are not supported: write them as '
            "<Label> tags in the labeling config."
        )
    return (
        "Expected the labeling config to have <BrushLabels>, <BitmaskLabels>, <PolygonLabels> or "
        "<RectangleLabels>, or <Labels> beside a <Brush>, <Bitmask>, <Polygon> or <Rectangle>, "
        "with one or more <Label> tags and toName of an <Image>"
        f"{' outside of a <Repeater>' if has_repeater else ''}, but got none."
    )
