"""A labeling config as values: images, controls, labels, tools, options of scores."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import ImageColor

from backend.errors import DataKeyError, TaskError
from backend.settings import Adapt, ScoreKind, Settings
from clearclip_core import Label

if TYPE_CHECKING:
    from clearclip_core import RGBArray
    from clearclip_core.evaluation.comparison import PredictionRule

ControlKind = Literal[
    "brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels", "ellipselabels"
]

#: Kinds of controls that the backend draws, in the order in which they are drawn.
CONTROL_KINDS: tuple[ControlKind, ...] = get_args(ControlKind)[:-1]

#: Difference of two colours, summed over channels (0 to 765), that is seen in a small picture.
_FAR_APART = 90

_VARIABLE = re.compile(r"\$[\w[\].{}]+")  # as the editor reads them


@dataclass(frozen=True)
class ImageTag:
    """An ``<Image>``: its name, and the variable that its address or addresses come from."""

    name: str
    value: str

    def indices(self, data: Mapping[str, Any]) -> list[int | None]:
        """Return the indices of its images in a task: None where the tag shows no list.

        >>> ImageTag("img", "$pages").indices({"pages": ["/data/1.png", "/data/2.png"]})
        [0, 1]
        """
        try:
            found = _VARIABLE.fullmatch(self.value) and _look_up(data, self.value)
            return [*range(len(self.sources(data)))] if isinstance(found, list) else [None]
        except DataKeyError:
            return [None]  # reading the image says what is wrong

    def sources(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the addresses of its images in a task: one, or all of a list in their order.

        Raises:
            DataKeyError: the data has no such key, or another value than addresses there.

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
                f'(<Image name="{self.name}">), but it holds {json.dumps(found)[:80]}.'
            )
        return sources

    def source(self, data: Mapping[str, Any], index: int | None) -> str:
        """Return the address of one image, or raise `TaskError` where there is none."""
        sources = self.sources(data)
        if (index or 0) >= len(sources):
            raise TaskError(f"The task has no picture {(index or 0) + 1} any more.")
        return sources[index or 0]


@dataclass(frozen=True)
class ControlLabel:
    """A label as one control has it."""

    name: str  # the name of its `clearclip_core.Label`
    written: str  # its text in results of this control: its alias where it has one
    threshold: float = 0.0  # probability in [0, 1] that a region reaches; 1 leaves all out
    colour: str = ""  # as in CSS, in which the editor shows it; empty where the config does not say

    @property
    def spellings(self) -> frozenset[str]:
        """The texts that requests may name it by."""
        return frozenset((self.name, self.written))


@dataclass(frozen=True)
class Control:
    """A control whose regions cover a part of an image."""

    #: Type of its regions and their label key; of a ``<Labels>`` as if its tool had the labels.
    kind: ControlKind
    name: str
    to_names: tuple[str, ...]
    labels: tuple[ControlLabel, ...]  # in the order of the config
    overlap: bool = True  # whether its regions may cover others that are drawn already
    is_predicted: bool = True  # else it answers prompts alone, for labels that no other one has
    tool: str = ""  # name of the ``<Brush>`` or other tool that draws for a ``<Labels>``
    #: Whether each thing gets a region of its own, where a click model proposes things.
    has_instances: bool = False

    def names(self) -> dict[str, str]:
        """Return alias or value -> name of the label; an alias wins, as the editor writes it."""
        by_value = {label.name: label.name for label in self.labels}
        return by_value | {label.written: label.name for label in self.labels}


@dataclass(frozen=True)
class Tool:
    """A control that an annotator makes prompts with."""

    name: str
    to_names: tuple[str, ...]
    labels: tuple[ControlLabel, ...] = ()
    prompt_label: str = ""  # text of the label for words that name none; may be empty
    is_smart: bool = True
    only_asks: bool = False  # whether its regions are no more than prompts: a smart ``<Rectangle>``


@dataclass(frozen=True)
class LabelConfig:
    """The images, controls and labels of a project."""

    images: tuple[ImageTag, ...]  # of the controls that are drawn, in the config's order
    controls: tuple[Control, ...]  # those of `CONTROL_KINDS`
    labels: tuple[Label, ...]  # of these controls, each once; at most one is the background
    tools: tuple[Tool, ...] = ()  # what an annotator makes prompts with; predictions ignore them
    #: ``<RectangleLabels>`` that are tools: they draw answers for labels that no other control has.
    boxes: tuple[Control, ...] = ()
    box_labels: tuple[Label, ...] = ()  # labels that only `boxes` have
    undrawn: tuple[Control, ...] = ()  # controls that only people draw with
    annotated: tuple[ImageTag, ...] = ()  # images that any control is for, in the config's order
    names: tuple[str, ...] = ()  # names of all labels, each once; those of `boxes` alone last
    tag_names: frozenset[str] | None = None  # of all tags; None where a <Repeater> makes more
    #: Names of controls that Label Studio wants an answer to, beside those that are drawn.
    required: tuple[str, ...] = ()
    prelabel: bool = False
    score: ScoreKind = "confidence"
    adapt: Adapt = "auto"

    def controls_of(self, image: str) -> tuple[Control, ...]:
        """Return the controls for the image of that name."""
        return tuple(control for control in self.controls if image in control.to_names)

    def labels_of(self, image: str) -> tuple[Label, ...]:
        """Return the labels that compete on the image of that name."""
        names = {label.name for control in self.controls_of(image) for label in control.labels}
        return tuple(label for label in self.labels if label.name in names)

    def colours_of(self, image: str) -> RGBArray:
        """Return a colour for each of `labels_of`: the editor's where the config names one.

        A label without one gets a colour that no named colour of the image is close to.

        Returns:
            (labels, 3) uint8.

        >>> from backend.label_studio.label_config_parser import parse_label_config
        >>> xml = '''<View><Image name="img" value="$image"/><BrushLabels name="b" toName="img">
        ...   <Label value="sky" background="#0080ff"/><Label value="sea"/></BrushLabels></View>'''
        >>> parse_label_config(xml, None).colours_of("img")[0].tolist()
        [0, 128, 255]
        """
        from clearclip_core.images.drawing import palette  # OpenCV

        named: dict[str, tuple[int, ...]] = {}
        for label in (each for control in self.controls_of(image) for each in control.labels):
            with suppress(ValueError):  # no colour, or an unknown word
                named[label.name] = ImageColor.getrgb(label.colour)[:3]

        names = [label.name for label in self.labels_of(image)]
        colours = palette(len(names))
        free = (
            colour
            for colour in palette(len(names) + 3 * len(named)).astype(int)
            if all(abs(colour - each).sum() >= _FAR_APART for each in named.values())
        )
        for index, name in enumerate(names):
            colours[index] = named[name] if name in named else next(free, colours[index])
        return colours

    def legend_of(self, image: str, labels: Iterable[int] | None = None) -> dict[str, str]:
        """Return name -> colour in CSS of `labels_of`, or of some of them by their indices."""
        names, colours = self.labels_of(image), self.colours_of(image)
        some = range(len(names)) if labels is None else labels
        return {names[label].name: f"#{bytes(colours[label]).hex()}" for label in some}

    def tool(self, name: str) -> Tool | None:
        """Return the tool of that name, if any."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def _label_of_tool(self, written: str, tool_name: str) -> ControlLabel | None:
        """Return the label of a tool that a request names: the one written so comes first."""
        tool = self.tool(tool_name)
        if tool is None:
            return None
        called = [own for own in tool.labels if written in own.spellings]
        return min(called, key=lambda own: own.written != written, default=None)

    def find_label(self, written: str, image: str, tool_name: str = "") -> Label | None:
        """Find the label on an image that a request names, by alias or, after that, by value.

        A tool's labels need only share one of the two with the label that they ask for; that of the
        same value comes first.
        """
        of_tool = self._label_of_tool(written, tool_name)
        value = None if of_tool is None else of_tool.name
        spellings = {written} if of_tool is None else of_tool.spellings

        def fit(label: ControlLabel) -> tuple[bool, bool, bool]:
            return label.name == value, label.written in spellings, label.name in spellings

        for controls in (self.controls, self.boxes):
            there = (own for each in controls if image in each.to_names for own in each.labels)
            best = max(there, key=fit, default=None)
            if best is not None and any(fit(best)):
                return self._label(best.name)
        return None

    def controls_for(self, image: str, name: str) -> tuple[tuple[Control, ControlLabel], ...]:
        """Return the controls that draw a label on an image, each with its own label."""
        for controls in (self.controls, self.boxes):
            there = (each for each in controls if image in each.to_names)
            own = tuple((each, own) for each in there for own in each.labels if own.name == name)
            if own:
                return own
        return ()

    def label_of(self, control: str, text: str) -> str | None:
        """Return the name of the label that a text stands for in regions of a control.

        It is the control's label of that alias, which the editor writes; else its label of that
        value; else the label of that value that other controls have, as after a label was moved.

        Empty where a prompt has left the region behind: its control is one of `boxes`, and another
        control of the image has the label. None where there is no such label.

        >>> from backend.label_studio.label_config_parser import parse_label_config
        >>> config = parse_label_config('''<View><Image name="img" value="$image"/>
        ...   <BrushLabels name="b" toName="img"><Label value="car" alias="c"/>
        ...     <Label value="vehicle" alias="car"/></BrushLabels></View>''', None)
        >>> [config.label_of("b", text) for text in ("car", "c", "vehicle", "bus")]
        ['vehicle', 'car', 'vehicle', None]
        """
        own = self._names_by_control.get(control)
        return None if own is None else own.get(text, text if text in self.names else None)

    @cached_property
    def control_names(self) -> frozenset[str]:
        """The names of all controls whose regions cover a part of an image."""
        return frozenset(self._names_by_control)

    @property
    def asks(self) -> bool:
        """Whether one of its tools asks for masks, where Auto-Annotation is on."""
        return any(tool.is_smart for tool in self.tools)

    @cached_property
    def prompt_tools(self) -> frozenset[str]:
        """The names of tools whose regions are prompts: one that waits at Submit is stored."""
        drawing = {control.tool for control in self.controls}
        return frozenset(tool.name for tool in self.tools if tool.only_asks) - drawing

    @cached_property
    def _names_by_control(self) -> dict[str, dict[str, str]]:
        """Name of a control -> value or alias of a label of its own -> what `label_of` returns."""
        drawn = (*self.controls, *self.undrawn)
        found = {control.name: control.names() for control in drawn}
        for box in self.boxes:
            others = (each for each in drawn if {*each.to_names} & {*box.to_names})
            taken = {label.name for control in others for label in control.labels}
            own = box.names().items()
            found[box.name] = {text: "" if name in taken else name for text, name in own}
        return found

    def unknown_labels(self, regions: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        """Return labels that only regions have -> their number, of control -> label -> number."""
        found: Counter[str] = Counter()
        for control in self.control_names & regions.keys():
            counts = regions[control].items()
            found.update({text: n for text, n in counts if self.label_of(control, text) is None})
        return dict(found.most_common())

    def lost_controls(self, regions: Mapping[str, int]) -> dict[str, int]:
        """Count the masks of controls that the config lacks, of "control|image|kind" -> regions."""
        found: Counter[str] = Counter()  # without boxes, which may have been prompts
        for (control, *_, kind), n in ((key.split("|"), n) for key, n in regions.items()):
            if kind in CONTROL_KINDS[:-1] and control not in (self.tag_names or {control}):
                found[control] += n
        return dict(found)

    def _label(self, name: str) -> Label:
        return next(label for label in (*self.labels, *self.box_labels) if label.name == name)


def _look_up(data: Mapping[str, Any], variable: str) -> Any:
    """Look up the value of a variable such as ``$image``, ``$shot.url`` or ``$pages[0]``."""
    path = variable[1:]
    if path in data:
        return data[path]
    found: object = data
    for key in re.findall(r"[^.[\]]+", path):
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, Mapping) and key in found:
            found = found[key]
        else:
            known = ", ".join(map(str, data)) or "nothing"
            near = get_close_matches(path, map(str, data), n=1)
            raise DataKeyError(
                f'The labeling config asks for "{variable}", but the task\'s data has only: '
                f"{known}." + (f' Write "${near[0]}" if that is meant.' if near else "")
            )
    return found


def least_thresholds(controls: Iterable[Control], labels: Iterable[Label]) -> list[float]:
    """Return the probability from which on any of the controls draws each label; 1 without one.

    >>> from backend.label_studio.label_config_parser import parse_label_config
    >>> config = parse_label_config('''<View><Image name="img" value="$image"/>
    ...   <BrushLabels name="b" toName="img" model_score_threshold="0.4"><Label value="sky"/>
    ...     <Label value="car"/></BrushLabels>
    ...   <PolygonLabels name="p" toName="img"><Label value="sky"/></PolygonLabels></View>''', None)
    >>> least_thresholds(config.controls, config.labels)
    [0.0, 0.4]
    """
    own = [label for control in controls for label in control.labels]
    return [
        min((each.threshold for each in own if each.name == label.name), default=1.0)
        for label in labels
    ]


def prediction_rule(settings: Settings, thresholds: Sequence[float]) -> PredictionRule:
    """Return the rule by which the backend draws masks of labels with these thresholds."""
    from clearclip_core.evaluation.comparison import PredictionRule  # OpenCV

    return PredictionRule(
        True,
        settings.refine,
        tuple(thresholds),
        min_island_share=settings.min_island_share,
        propagate=settings.propagate,
        regions=settings.regions,
    )
