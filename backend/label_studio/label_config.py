"""A labeling config as values: images, controls, labels, tools, options of scores."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import ImageColor

from backend.errors import DataKeyError
from backend.settings import Adapt, ScoreKind, Settings
from clearclip_core import Label

if TYPE_CHECKING:
    from clearclip_core import RGBArray
    from clearclip_core.evaluation.comparison import PredictionRule

ControlKind = Literal["brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels"]

#: Kinds of controls that are drawn, in the order in which they are.
CONTROL_KINDS: tuple[ControlKind, ...] = get_args(ControlKind)

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


@dataclass(frozen=True)
class ControlLabel:
    """A label as one control has it.

    Attributes:
        name: the name of its `clearclip_core.Label`.
        written: its text in results of this control: its alias where it has one.
        threshold: probability in [0, 1] below which pixels and regions are left out; 1 is never
            reached, also where a probability is rounded to 1.
        colour: as in CSS, in which the editor shows it; empty where the config does not say.
    """

    name: str
    written: str
    threshold: float = 0.0
    colour: str = ""

    @property
    def is_never_predicted(self) -> bool:
        """Whether no prediction reaches the threshold."""
        return self.threshold >= 1

    @property
    def spellings(self) -> frozenset[str]:
        """The texts that requests may name it by."""
        return frozenset((self.name, self.written))


@dataclass(frozen=True)
class Control:
    """A control whose regions the backend draws.

    Attributes:
        kind: both the type of its regions and their label key; of a ``<Labels>``, that of the
            control that its tool would be with labels of its own.
        labels: in the order of the config.
        overlap: whether its regions may cover others that are drawn already.
        is_predicted: whether predictions have regions of it. A control that is not predicted
            answers prompts for the labels that no other one has.
        tool: name of the ``<Brush>``, ``<Bitmask>``, ``<Polygon>`` or ``<Rectangle>`` that draws
            the regions of a ``<Labels>``; empty for a control that has labels of its own.
    """

    kind: ControlKind
    name: str
    to_names: tuple[str, ...]
    labels: tuple[ControlLabel, ...]
    overlap: bool = True
    is_predicted: bool = True
    tool: str = ""


@dataclass(frozen=True)
class Tool:
    """A control that an annotator makes prompts with.

    Attributes:
        labels: its labels, if any.
        prompt_label: text of the label for words that name none; may be empty.
    """

    name: str
    to_names: tuple[str, ...]
    labels: tuple[ControlLabel, ...] = ()
    prompt_label: str = ""
    is_smart: bool = True


@dataclass(frozen=True)
class LabelConfig:
    """The images, controls and labels of a project.

    Attributes:
        images: those that a control is for, in the order of the config.
        labels: all labels of all controls, each once, in the order of the controls; at most one is
            the background.
        tools: controls that an annotator may make prompts with; predictions ignore them.
        boxes: ``<RectangleLabels>`` that are tools beside other controls, which draw only the
            answers for labels that no other control has.
        box_labels: labels that only `boxes` have.
        prelabel: whether new tasks are to be predicted at once.
        score: score that predictions are sorted by.
        adapt: whether predictions follow corrections.
        presence: weight of the presence prior, in [0, 1).
    """

    images: tuple[ImageTag, ...]
    controls: tuple[Control, ...]
    labels: tuple[Label, ...]
    tools: tuple[Tool, ...] = ()
    boxes: tuple[Control, ...] = ()
    box_labels: tuple[Label, ...] = ()
    prelabel: bool = False
    score: ScoreKind = "confidence"
    adapt: Adapt = "auto"
    presence: float = 0.0

    def controls_of(self, image: str) -> tuple[Control, ...]:
        """Return the controls for the image of that name."""
        return tuple(control for control in self.controls if image in control.to_names)

    def labels_of(self, image: str) -> tuple[Label, ...]:
        """Return the labels that compete on the image of that name."""
        names = {label.name for control in self.controls_of(image) for label in control.labels}
        return tuple(label for label in self.labels if label.name in names)

    def colours_of(self, image: str) -> RGBArray:
        """Return (labels, 3) uint8 a colour for each of `labels_of`: the editor's where it has one.

        >>> from backend.label_studio.label_config_parser import parse_label_config
        >>> xml = '''<View><Image name="img" value="$image"/><BrushLabels name="b" toName="img">
        ...   <Label value="sky" background="#0080ff"/><Label value="sea"/></BrushLabels></View>'''
        >>> parse_label_config(xml, None).colours_of("img")[0].tolist()
        [0, 128, 255]
        """
        from clearclip_core import palette  # OpenCV

        names = [label.name for label in self.labels_of(image)]
        colours = palette(len(names))
        for label in (each for control in self.controls_of(image) for each in control.labels):
            with suppress(ValueError):  # no colour, or a word that is none
                colours[names.index(label.name)] = ImageColor.getrgb(label.colour)[:3]
        return colours

    def legend_of(self, image: str, labels: Iterable[int]) -> dict[str, str]:
        """Return name -> colour in CSS of some of `labels_of`, by their indices."""
        names, colours = self.labels_of(image), self.colours_of(image)
        return {names[label].name: f"#{bytes(colours[label]).hex()}" for label in labels}

    def tool(self, name: str) -> Tool | None:
        """Return the tool of that name, if any."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def find_label(self, written: str, image: str, tool_name: str = "") -> Label | None:
        """Find the label on an image that a request names, by alias or, after that, by value.

        A tool's labels need only share one of the two with the label that they ask for; that of
        the same value comes first.
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

    def controls_for(self, image: str, name: str) -> tuple[tuple[Control, ControlLabel], ...]:
        """Return the controls that draw a label on an image, each with its own label."""
        for controls in (self.controls, self.boxes):
            there = (each for each in controls if image in each.to_names)
            own = tuple((each, own) for each in there for own in each.labels if own.name == name)
            if own:
                return own
        return ()

    def unknown_labels(self, regions: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        """Return labels that regions have and their control has not -> number of these regions.

        Args:
            regions: name of a control -> label -> number of its regions.
        """
        found: Counter[str] = Counter()
        for control in (*self.controls, *self.boxes):
            known = {text for label in control.labels for text in label.spellings}
            counts = regions.get(control.name, {})
            found.update({label: n for label, n in counts.items() if label not in known})
        return dict(found.most_common())

    def _label(self, name: str) -> Label:
        return next(label for label in (*self.labels, *self.box_labels) if label.name == name)


def _look_up(data: Mapping[str, Any], variable: str) -> Any:
    """Look up the value of a variable such as ``$image``, ``$shot.url`` or ``$pages[0]``."""
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
            near = get_close_matches(path, map(str, data), n=1)
            raise DataKeyError(
                f'The label config asks for "{variable}", but the task\'s data has only: {known}.'
                + (f' Write "${near[0]}" if that is meant.' if near else "")
            )
    return found


def least_thresholds(controls: Iterable[Control], labels: Iterable[Label]) -> list[float]:
    """Return the probability from which on any of the controls draws each label; 1 where none does.

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
    """Return the rule by which the backend draws masks.

    Args:
        thresholds: the probability from which on each label is drawn, in [0, 1].
    """
    from clearclip_core.evaluation.comparison import PredictionRule  # torch, seconds

    return PredictionRule(
        True,
        settings.refine,
        tuple(thresholds),
        min_island_share=settings.min_island_share,
        propagate=settings.propagate,
    )
