"""Clicks, boxes and words -> what they mean -> one mask for a label.

A context is understood first (`understand`), with nothing but the label config: for which label,
on which picture. Then it is drawn from the features and scores of that picture: `segment_clicks`,
`segment_boxes`, `segment_phrases`.

Words name their label like this; the first rule that fits counts, phrase by phrase (they are
separated by commas):

1. ``all`` is the whole picture, for every label; ``car all`` and ``all car`` for that one.
2. ``red car -> Car`` says so.
3. A label's own name, alias or prompt in the text: the longest, of equal ones the first.
4. The only label there is.
5. The ``prompt_label`` of the text area.
6. The label whose text is nearest; its name goes to the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.label_studio.label_config_parser import ImageTag, LabelConfig, words
from backend.label_studio.region_writer import area_mask, rectangle_corners, rectangle_mask
from backend.label_studio.requests import Area, Context, Keypoint, Prompt, Rectangle, Words
from clearclip_core import (
    BoolMask,
    DenseFeatures,
    Label,
    Point,
    RGBArray,
    Scores,
    Segmentation,
    segment_box,
    segment_points,
)

log = logging.getLogger(__name__)

_ARROW = "->|→"

#: So many clicks count, for each costs a walk over the picture.
_MOST_CLICKS = 50

#: Of these labels, the one that means most what a text says.
Nearest = Callable[[str, Sequence[Label]], Label]


@dataclass(frozen=True)
class Clicks:
    """Points on a thing, and beside it, that is to have a label."""

    label: Label
    points: tuple[Keypoint, ...]


@dataclass(frozen=True)
class Boxes:
    """Boxes around things that are to have a label; most often one."""

    label: Label
    rectangles: tuple[Rectangle, ...]


@dataclass(frozen=True)
class Phrase:
    """Words, and the label that what they describe is to have.

    Attributes:
        prompts: the words; several where a label's own stand for them.
        label: whose region it becomes.
    """

    prompts: tuple[str, ...]
    label: Label


@dataclass(frozen=True)
class Phrases:
    """Words that compete, and labels that are asked for as in a prediction.

    Attributes:
        phrases: in their order.
        whole: labels whose masks are wanted as nobody had asked for a special thing.
    """

    phrases: tuple[Phrase, ...] = ()
    whole: tuple[Label, ...] = ()


@dataclass(frozen=True)
class Ask:
    """What an annotator asks for, and where.

    Attributes:
        image: the tag of the picture.
        item_index: which picture of a list; None for all of it.
        wish: what is asked for.
        region_ids: of the prompts themselves, which are no regions to stay clear of.
    """

    image: ImageTag
    item_index: int | None
    wish: Clicks | Boxes | Phrases
    region_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Found:
    """One label's mask.

    Attributes:
        label: its name.
        mask: (H, W) bool.
        confidence: (H, W) float16 in [0, 1].
        threshold: which controls want it: those whose label has this threshold; None for all.
    """

    label: str
    mask: BoolMask
    confidence: npt.NDArray[np.float16]
    threshold: float | None = None


def understand(context: Context, config: LabelConfig, nearest: Nearest) -> Ask | None:
    """What a context asks for; None, and a line in the log, where no answer is possible.

    The last prompt says what is asked for. Those before it that are of its kind, label and picture
    count with it: the editor sends all clicks that are not accepted yet. What was made with a tool
    that asks nothing is passed over.

    Args:
        context: the prompts.
        config: the project's.
        nearest: decides on words that name no label.
    """
    prompts = [prompt for prompt in context.prompts if _asks(prompt, config)]
    if not prompts:
        log.info("All that was drawn or typed was made with tools that ask nothing.")
        return None
    last = prompts[-1]
    same = [prompt for prompt in prompts if _kin(prompt) == _kin(last)]
    image = _image(last, config)
    if image is None:
        log.info("A prompt is on %r, which is no image of ours.", last.image)
        return None
    ids = frozenset(prompt.id for prompt in same if prompt.id)
    if isinstance(last.shape, Words):
        phrases = read_words(
            last.shape.text, config, image.name, _prompt_label(last, config), nearest
        )
        return Ask(image, last.item_index, phrases, ids)
    label = _label(last, config, image.name)
    if label is None:
        log.info("No control for the image %r draws any of %s.", image.name, last.labels)
        return None
    clicks = tuple(prompt.shape for prompt in same if isinstance(prompt.shape, Keypoint))
    boxes = tuple(prompt.shape for prompt in same if isinstance(prompt.shape, Rectangle))
    wish = Clicks(label, clicks) if clicks else Boxes(label, boxes)
    return Ask(image, last.item_index or 0, wish, ids)


def read_words(
    text: str, config: LabelConfig, image: str, prompt_label: str, nearest: Nearest
) -> Phrases:
    """Which labels words are for, by the rules above.

    Args:
        text: one phrase, or several with commas between them.
        config: the project's.
        image: name of the image, whose labels they may be.
        prompt_label: the label of words that name none; may be empty.
        nearest: decides where nothing else does.
    """
    reader = _Reader(config, image, prompt_label, nearest)
    phrases: list[Phrase] = []
    whole: list[Label] = []
    for part in reader.parts(text):
        asked = reader.whole(part)
        whole += asked
        if not asked:
            phrases.append(reader.phrase(part))
    own = {Phrase(label.prompts, label) for label in whole}  # asked for already
    return Phrases(
        tuple(phrase for phrase in dict.fromkeys(phrases) if phrase not in own),
        tuple(dict.fromkeys(whole)),
    )


class _Reader:
    """Reads one phrase after the other."""

    def __init__(
        self, config: LabelConfig, image: str, prompt_label: str, nearest: Nearest
    ) -> None:
        self._labels = config.labels_of(image)
        self._titles = {label.name: _titles(label, config) for label in self._labels}
        self._default = self._named(prompt_label)
        if prompt_label and self._default is None:
            log.warning("prompt_label=%r is the name of no label.", prompt_label)
        self._nearest = nearest

    def parts(self, text: str) -> list[str]:
        """The phrases of a text: between commas, unless these are in the name of a label."""
        sides = [side for side in re.split(_ARROW, text, maxsplit=1) if "," in side]
        if self.whole(text) or any(map(self._named, sides)):
            return [text]
        return [part for part in map(str.strip, text.split(",")) if part]

    def whole(self, part: str) -> tuple[Label, ...]:
        """The labels whose whole-picture masks a phrase asks for, if it does."""
        text = words(part)
        if text == "all":
            return () if self._named(text) else self._labels
        name = re.sub(r"^all (?=.)|(?<=.) all$", "", text)
        label = self._named(name) if name != text and not self._named(text) else None
        return (label,) if label else ()

    def phrase(self, part: str) -> Phrase:
        """The words of a phrase and the label that they are for."""
        text, *arrow = (side.strip() for side in re.split(_ARROW, part, maxsplit=1))
        wanted = self._named(arrow[0]) if arrow else None
        if not text:
            text = arrow[0] if arrow and arrow[0] else part
        label = wanted or self._named(text) or self._within(text) or self._otherwise(text)
        own = words(text) in self._titles[label.name]
        return Phrase(label.prompts if own else (text,), label)

    def _named(self, text: str) -> Label | None:
        """The label that is called so, or has that prompt."""
        wanted = words(text)
        if not wanted:
            return None
        for label in self._labels:
            if wanted in self._titles[label.name]:
                return label
        for label in self._labels:
            if wanted in map(words, label.prompts):
                return label
        return None

    def _within(self, text: str) -> Label | None:
        """The label that is named in a text; the longest name, of equal ones the first."""
        spaced = f" {_plain(text)} "
        found = [
            (-len(name), spaced.index(f" {name} "), index)
            for index, label in enumerate(self._labels)
            for name in map(_plain, (*self._titles[label.name], *label.prompts))
            if name and f" {name} " in spaced
        ]
        return self._labels[min(found)[2]] if found else None

    def _otherwise(self, text: str) -> Label:
        things = [label for label in self._labels if not label.background] or list(self._labels)
        if len(things) == 1:
            return things[0]
        if self._default is not None:
            return self._default
        label = self._nearest(text, things)
        log.info("%r names no label: it is drawn as %s, the nearest.", text, label.name)
        return label


def _titles(label: Label, config: LabelConfig) -> frozenset[str]:
    """How a label is called: its value and its aliases, as words."""
    spellings = {label.name}.union(
        *(
            own.spellings
            for control in config.controls
            for own in control.labels
            if own.name == label.name
        )
    )
    return frozenset(map(words, spellings))


def _plain(text: str) -> str:
    """Words without what stands between them.

    >>> _plain("the T-shirt, red")
    'the t shirt red'
    """
    return " ".join(re.findall(r"\w+", words(text)))


def rivals(wish: Phrases, labels: Iterable[Label]) -> tuple[Label, ...]:
    """What competes where words are scored: the phrases first, then the project's other labels.

    A label that one of the phrases is for, or that one names ("red car", where there is a label
    "car"), means too much the same to be a rival.
    """
    own = {phrase.label.name for phrase in wish.phrases}
    said = [f" {_plain(prompt)} " for phrase in wish.phrases for prompt in phrase.prompts]
    phrases = (Label(_rival(i, phrase), phrase.prompts) for i, phrase in enumerate(wish.phrases))
    others = (
        label
        for label in labels
        if label.name not in own
        and not any(f" {_plain(prompt)} " in text for prompt in label.prompts for text in said)
    )
    return (*phrases, *others)


def _rival(index: int, phrase: Phrase) -> str:
    """What a phrase is called among its rivals: as its label, where it says no more than that.

    So a label that corrections have taught keeps what it has learned; free words have nothing.
    """
    return phrase.label.name if phrase.prompts == phrase.label.prompts else f"words {index}"


def segment_clicks(
    wish: Clicks, features: DenseFeatures, scores: Scores, image: RGBArray
) -> Iterator[Found]:
    """The region that clicks point at; nothing without a positive one on the picture.

    Of very many the first positive one counts, which says what is meant, and the newest.
    """
    height, width = image.shape[:2]
    points = [
        Point(point.x_percent / 100 * width, point.y_percent / 100 * height, point.positive)
        for point in wish.points
        if 0 <= point.x_percent <= 100 and 0 <= point.y_percent <= 100
    ]
    meant = [point for point in points[:-_MOST_CLICKS] if point.positive][:1]
    points = [*meant, *points[-_MOST_CLICKS:]]
    if any(point.positive for point in points):
        made = segment_points(features, scores, _index(wish.label, scores), points, image)
        yield Found(wish.label.name, made.mask, made.confidence)


def segment_boxes(
    wish: Boxes, features: DenseFeatures, scores: Scores, image: RGBArray
) -> Iterator[Found]:
    """What is in boxes; nothing where they have no pixel of the picture.

    A turned box is looked at as the upright one around it, and what is outside of it cut off.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    confidence = np.zeros((height, width), np.float16)
    for rectangle in wish.rectangles:
        inside = rectangle_mask(rectangle, (height, width))
        corners = rectangle_corners(rectangle, (height, width)).clip(0, (width, height))
        left, top = np.floor(corners.min(axis=0)).tolist()
        right, bottom = np.ceil(corners.max(axis=0)).tolist()
        if inside.any() and left < right and top < bottom:
            index = _index(wish.label, scores)
            made = segment_box(features, scores, index, (left, top, right, bottom), image)
            found = made.mask & inside
            mask |= found
            confidence[found] = np.maximum(confidence[found], made.confidence[found])
    if mask.any():
        yield Found(wish.label.name, mask, confidence)


def segment_phrases(wish: Phrases, segmentation: Segmentation) -> Iterator[Found]:
    """The masks of phrases, joined where they are for one label.

    Args:
        wish: the phrases.
        segmentation: of the picture, by `rivals`.
    """
    masks: dict[str, BoolMask] = {}
    for index, phrase in enumerate(wish.phrases):
        mask = segmentation.label_map == index
        name = phrase.label.name
        masks[name] = masks[name] | mask if name in masks else mask
    for name, mask in masks.items():
        yield Found(name, mask, segmentation.confidence)


def covered(areas: Iterable[Area], controls: Collection[str], size_hw: tuple[int, int]) -> BoolMask:
    """What regions of some controls cover.

    A region that cannot be read, or whose picture had another size, covers nothing.

    Args:
        areas: on one picture.
        controls: names of those that count; nothing of the others is decoded.
        size_hw: height and width of the picture in px.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(size_hw, np.bool_)
    for area in areas:
        if area.control in controls and area.size_hw == size_hw:
            try:
                mask |= area_mask(area)
            except ValueError as error:
                log.warning("A region that is drawn already is not respected: %s", error)
    return mask


def _kin(prompt: Prompt) -> tuple[object, ...]:
    return type(prompt.shape), prompt.labels, prompt.image, prompt.item_index


def _image(prompt: Prompt, config: LabelConfig) -> ImageTag | None:
    """The image that a prompt is on; where it does not say, the first one that has its label."""
    if prompt.image:
        return next((tag for tag in config.images if tag.name == prompt.image), None)
    fitting = (tag for tag in config.images if _label(prompt, config, tag.name))
    return next(fitting, config.images[0])


def _label(prompt: Prompt, config: LabelConfig, image: str) -> Label | None:
    """The label that a click or box is for: the one it carries, or the only one there is."""
    for written in prompt.labels:
        label = config.label_written(written, image, prompt.control)
        if label is not None:
            return label
    labels = config.labels_of(image)
    return labels[0] if len(labels) == 1 and not prompt.labels else None


def _asks(prompt: Prompt, config: LabelConfig) -> bool:
    tool = config.tool(prompt.control)
    return tool is None or tool.asks


def _prompt_label(prompt: Prompt, config: LabelConfig) -> str:
    tool = config.tool(prompt.control)
    return tool.prompt_label if tool else ""


def _index(label: Label, scores: Scores) -> int:
    return [own.name for own in scores.vocabulary.labels].index(label.name)
