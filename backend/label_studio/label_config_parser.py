"""Labeling config XML -> images, controls, labels with their prompts and thresholds.

Tags and attributes are found in any letter case, as the editor does. What is drawn:

- ``<BrushLabels>``, ``<BitmaskLabels>``, ``<PolygonLabels>``, ``<RectangleLabels>`` whose
  ``toName`` is one or more ``<Image>``; those for masks first, else in the order of the config.
  ``<RectangleLabels>`` with ``smart="true"`` or ``smartOnly="true"`` beside another control is an
  annotator's tool for prompts and is left alone, as are all other tags.
- A label is known by its ``value``: written in several controls, it is one query. Results carry
  its ``alias`` where it has one, as the editor does.
- Words for the model: ``predicted_values="tabby cat, kitten"``; else the alias where that reads
  as words; else the value. Underscores and CamelCase are read as words.
- ``model_score_threshold="0.4"`` on a control, or on one label of it.
- ``overlap="false"`` on several controls, or on one: a mask that an annotator asks for there leaves
  out what regions of these controls cover already. Polygons and boxes, drawn around what is left,
  may close over what lies inside.
- A label called "background" or "other", or marked ``background="true"``, is what no other label
  names. A colour in that attribute is the editor's own use of it.
- ``prelabel="auto"`` on a control: new tasks of the project are predicted at once.
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
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import fromstring

from backend.errors import DataKeyError, LabelConfigError
from backend.settings import Adapt, ScoreKind, Settings
from clearclip_core import Label

ControlKind = Literal["brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels"]

#: Kinds of controls that are drawn, in the order in which they are.
CONTROL_KINDS: tuple[ControlKind, ...] = (
    "brushlabels",
    "bitmasklabels",
    "polygonlabels",
    "rectanglelabels",
)
#: Letters of a label config; ten thousand labels with their words fit.
MAX_CONFIG_LENGTH = 2_000_000
#: Tags within tags. Every control is searched for labels, so that nested ones add up.
MAX_DEPTH = 100
#: Letters of one prompt: more than the 77 tokens hold that CLIP reads, which it cuts off after
#: having looked at all of them.
MAX_PROMPT_LENGTH = 1000

_SUPPORTED = "<BrushLabels>, <BitmaskLabels>, <PolygonLabels> or <RectangleLabels>"
_TOOL_KINDS = ("keypointlabels", "keypoint", "rectanglelabels", "rectangle", "textarea")
_BACKGROUND_NAMES = ("background", "other")
_VARIABLE = re.compile(r"\$[\w[\].{}]+")  # as the editor reads them


@dataclass(frozen=True)
class ImageTag:
    """An ``<Image>``: its name, and where in a task's data its picture or pictures are."""

    name: str
    value: str

    def is_list(self, data: Mapping[str, Any]) -> bool:
        """Whether a task has a list of pictures there; their regions then carry its index.

        >>> ImageTag("img", "$pages").is_list({"pages": ["/data/1.png"]})
        True
        """
        return bool(_VARIABLE.fullmatch(self.value)) and isinstance(
            _look_up(data, self.value), list
        )

    def sources(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """The addresses of its pictures in a task: one, or all of a list in their order.

        Raises:
            DataKeyError: the data has no such key, or something else than addresses there.

        >>> ImageTag("img", "$shots[1].url").sources({"shots": [{}, {"url": "/data/b.png"}]})
        ('/data/b.png',)
        >>> ImageTag("img", "https://pictures.org/$name").sources({"name": "a.png"})
        ('https://pictures.org/a.png',)
        """
        if _VARIABLE.fullmatch(self.value):
            found = _look_up(data, self.value)
        else:
            found = _VARIABLE.sub(lambda variable: str(_look_up(data, variable[0])), self.value)
        sources = tuple(found) if isinstance(found, list) else (found,)
        if not sources or not all(isinstance(item, str) and item for item in sources):
            raise DataKeyError(
                f'Expected the task\'s data to hold an image address under "{self.value}" '
                f'(<Image name="{self.name}">), but it holds something else.'
            )
        return sources


@dataclass(frozen=True)
class ControlLabel:
    """A label as one control has it.

    Attributes:
        name: the name of its `clearclip_core.Label`.
        written: how results of this control call it: its alias where it has one.
        threshold: pixels, and so regions, less likely than this are not wanted, in [0, 1].
    """

    name: str
    written: str
    threshold: float = 0.0

    @property
    def spellings(self) -> frozenset[str]:
        """How requests may call it."""
        return frozenset((self.name, self.written))


@dataclass(frozen=True)
class Control:
    """A control whose regions we draw.

    Attributes:
        kind: both the type of its regions and their label key.
        name: its own.
        to_names: names of the images that it is for.
        labels: in the order of the config.
        overlap: whether its regions may cover others that are drawn already.
    """

    kind: ControlKind
    name: str
    to_names: tuple[str, ...]
    labels: tuple[ControlLabel, ...]
    overlap: bool = True


@dataclass(frozen=True)
class Tool:
    """A control that an annotator asks with.

    Attributes:
        name: its own.
        to_names: names of the images that it is for.
        labels: none, where it has none.
        prompt_label: how the label of words that name none is written; may be empty.
        asks: whether the editor asks for an answer to it.
    """

    name: str
    to_names: tuple[str, ...]
    labels: tuple[ControlLabel, ...] = ()
    prompt_label: str = ""
    asks: bool = True


@dataclass(frozen=True)
class LabelConfig:
    """What a project wants drawn.

    Attributes:
        images: those that a control is for, in the order of the config.
        controls: those for masks first.
        labels: all labels of all controls, each once, in the order of the controls; at most one is
            the background.
        tools: what an annotator may ask with; changes nothing of what is predicted.
        boxes: ``<RectangleLabels>`` that are tools beside other controls, which draw only the
            answers for labels that no other control has.
        box_labels: labels that only `boxes` have.
        prelabel: whether new tasks are to be predicted at once.
        score: what predictions are sorted by, where the project says so.
        adapt: what follows corrections; None where the config does not say.
    """

    images: tuple[ImageTag, ...]
    controls: tuple[Control, ...]
    labels: tuple[Label, ...]
    tools: tuple[Tool, ...] = ()
    boxes: tuple[Control, ...] = ()
    box_labels: tuple[Label, ...] = ()
    prelabel: bool = False
    score: ScoreKind | None = None
    adapt: Adapt | None = None

    def controls_of(self, image: str) -> tuple[Control, ...]:
        """The controls for the image of that name."""
        return tuple(control for control in self.controls if image in control.to_names)

    def labels_of(self, image: str) -> tuple[Label, ...]:
        """The labels that compete on the image of that name."""
        names = {label.name for control in self.controls_of(image) for label in control.labels}
        return tuple(label for label in self.labels if label.name in names)

    def tool(self, name: str) -> Tool | None:
        """The tool of that name."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def label_written(self, written: str, image: str, tool_name: str = "") -> Label | None:
        """The label on an image that a request calls so, by alias or, after that, by value.

        A tool's labels need only share one of the two with the label that they ask for; that of
        the same value comes first.

        >>> xml = '''<View><Image name="img" value="$image"/>
        ...   <BrushLabels name="mask" toName="img"><Label value="Car" alias="c"/></BrushLabels>
        ...   <KeyPointLabels name="click" toName="img"><Label value="Car" alias="k"/>
        ...   </KeyPointLabels></View>'''
        >>> parse_label_config(xml).label_written("k", "img", tool_name="click").name
        'Car'
        """
        tool = self.tool(tool_name)
        called = sorted(
            (own for own in (tool.labels if tool else ()) if written in own.spellings),
            key=lambda own: own.written != written,
        )
        value = called[0].name if called else None
        spellings = called[0].spellings if called else {written}

        def fit(label: ControlLabel) -> tuple[bool, bool, bool]:
            return label.name == value, label.written in spellings, label.name in spellings

        for controls in (self.controls, self.boxes):
            there = (own for each in controls if image in each.to_names for own in each.labels)
            best = max(there, key=fit, default=None)
            if best is not None and any(fit(best)):
                return self._label(best.name)
        return None

    def answering(self, image: str, name: str) -> tuple[tuple[Control, ControlLabel], ...]:
        """The controls that draw a label on an image, each with the label as it has it."""
        for controls in (self.controls, self.boxes):
            found = tuple(
                (control, label)
                for control in controls
                for label in control.labels
                if image in control.to_names and label.name == name
            )
            if found:
                return found
        return ()

    def with_thresholds(self, thresholds: Mapping[str, float]) -> LabelConfig:
        """The same with thresholds for labels, by name, where it sets none itself."""

        def changed(controls: tuple[Control, ...]) -> tuple[Control, ...]:
            return tuple(
                replace(
                    control,
                    labels=tuple(
                        replace(label, threshold=label.threshold or thresholds.get(label.name, 0.0))
                        for label in control.labels
                    ),
                )
                for control in controls
            )

        return replace(self, controls=changed(self.controls), boxes=changed(self.boxes))

    def _label(self, name: str) -> Label:
        return next(label for label in (*self.labels, *self.box_labels) if label.name == name)


def parse_label_config(xml: str) -> LabelConfig:
    """Read a project's labeling config.

    Raises:
        LabelConfigError: the XML does not parse, or has no control on an image that we can draw
            with, or a threshold that is no number in [0, 1], or an unknown score.

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
    used = {name for control in controls for name in control.to_names}
    return LabelConfig(
        images=tuple(tag for tag in images.values() if tag.name in used),
        controls=controls,
        labels=labels,
        tools=tuple(_tools(root, images)),
        boxes=tuple(_control(element, images) for element in boxes),
        box_labels=tuple(_labels(boxes, known={label.name for label in labels})),
        prelabel=any(_is(element, "prelabel", "auto") for element in drawn),
        score=next(filter(None, map(_score, drawn)), None),
        adapt=_adapt(drawn),
    )


def adapts(settings: Settings, config: LabelConfig) -> Adapt:
    """What of a project follows its corrections: as its config says, else as the settings do."""
    return config.adapt or settings.adapt


def words(name: str) -> str:
    """A name as words, the way a caption would have them.

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
        # Without a document type: the defaults that one gives to attributes multiply like entities.
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
    """An attribute in any letter case, as it is written; empty where there is none but spaces."""
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
    """The labels of a control, each value once."""
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
                asks=_is(element, "smartonly", "true") or not _is(element, "smart", "false"),
            )


def _control_labels(element: Element) -> tuple[ControlLabel, ...]:
    threshold = _threshold(element, 0.0)
    return tuple(
        ControlLabel(
            name=_name(label),
            written=_get(label, "alias") or _name(label),
            threshold=_threshold(label, threshold),
        )
        for label in _label_elements(element)
    )


def _threshold(element: Element, default: float) -> float:
    text = _get(element, "model_score_threshold")
    try:
        threshold = float(text) if text else default
    except ValueError:
        threshold = -1
    if not 0 <= threshold <= 1:
        raise LabelConfigError(
            f"Expected model_score_threshold to be a number from 0 to 1, but got {text!r}."
        )
    return threshold


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
    """One label for each name but the known, with the prompts that all controls give it."""
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
    """The one label that stands for the rest: one that is marked, before one that is called so."""
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
    """Whether a caption could say it: letters alone, and not just an abbreviation or a code.

    >>> [_reads_as_words(alias) for alias in ("traffic light", "sky", "tl", "cls 3", "c1", "")]
    [True, True, False, False, False, False]
    """
    parts = alias.split()
    return all(part.isalpha() for part in parts) and any(
        len(part) > 2 and re.search("[aeiouy]", part) for part in parts
    )


def _look_up(data: Mapping[str, Any], variable: str) -> Any:
    """The value of a variable such as ``$image``, ``$shot.url`` or ``$pages[0]``."""
    path = variable[1:]
    if path in data:
        return data[path]
    found: Any = data
    for key in re.findall(r"[^.[\]]+", path):
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            known = ", ".join(map(str, data)) or "nothing"
            raise DataKeyError(
                f'The label config asks for "{variable}", but the task\'s data has only: {known}.'
            )
    return found


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
