"""Read an annotator's clicks, boxes or words, and parse them into a prompt request.

Words name their label by the first rule that fits, phrase by phrase; commas separate phrases:

1. ``all`` asks for every label of the whole image, whatever else is typed.
2. ``red car -> Car`` names the label.
3. A label's own name, alias or prompt in the text: the longest, of equal ones the first.
4. The only label there is.
5. The ``prompt_label`` of the text area.

Words that name no label get no answer, and the log says so: drawn as some label, they would be a
wrong one, and nothing in the editor would show it.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from msgspec import Struct, ValidationError, convert

from backend.errors import BadRequest
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.label_config_parser import words_of_name
from backend.label_studio.region_reader import (
    Number,
    Rectangle,
    read_item_index,
    read_text,
    read_texts,
)
from clearclip_core import Label

log = logging.getLogger(__name__)

#: Keys of geometry: the value of every region with a place has one of them.
_GEOMETRY_KEYS = {"x", "points", "rle", "imageDataURL"}
_LONGEST_TEXT = 1000  # letters that are read of a text that an annotator types

#: Boxes and words of one context: each is answered by masks of its own. Of clicks, only a few count
#: (`backend.prediction.masks`).
_MAX_PROMPTS: Final = 500


class Keypoint(Struct, frozen=True, rename={"x_percent": "x", "y_percent": "y"}):
    """A click, in percent of the upright image's width and height."""

    x_percent: Number
    y_percent: Number
    positive: bool = True


@dataclass(frozen=True)
class Prompt:
    """One region of a context that asks for an answer."""

    shape: Keypoint | Rectangle | str  # a text is the last one that the annotator has typed
    labels: tuple[str, ...] = ()  # labels as the editor writes them: aliases where there are some
    control: str = ""  # name of the control that it was made with; empty where it is not given
    image: str = ""  # name of the image that it is on; empty where it is not given
    item_index: int | None = None
    id: str = ""


@dataclass(frozen=True)
class Context:
    """What an annotator's editor asks."""

    #: Empty after Submit in a project with a text area, after the last click was undone, and where
    #: all regions were made with other tools; only an empty answer then keeps the annotation.
    prompts: tuple[Prompt, ...] = ()
    event: str = "predict"  # answers the prompts; trackers of videos send others


def read_context(raw: Any) -> Context | None:
    """Read the context of a request, decoded; None where nobody waits for an answer.

    Raises:
        BadRequest: it holds no list of regions, or too many boxes and words.
    """
    if raw is None or raw == {}:
        return None

    message = raw if isinstance(raw, dict) else {"result": raw}
    event = read_text(message, "event")
    regions = _read_regions(message, event)

    found = (_read_prompt(region) for region in regions)
    prompts = tuple(_labelled(prompt, regions) for prompt in found if prompt is not None)
    answered = sum(not isinstance(prompt.shape, Keypoint) for prompt in prompts)
    if answered > _MAX_PROMPTS:
        raise BadRequest(
            f"The context has {answered} boxes and words, more than {_MAX_PROMPTS}: accept or "
            "reject some suggestions first."
        )
    return Context(prompts, event or "predict")


def _read_regions(message: Mapping[str, Any], event: str) -> list[Any]:
    """Read the regions of a context; only those of prompts have some."""
    regions = message.get("result")
    if regions is None and event:
        return []
    if not isinstance(regions, list):
        raise BadRequest('Expected "context" to hold a list "result".')
    return regions


def _read_prompt(region: Any) -> Prompt | None:
    """Read a prompt; None where the region is none, which leaves the other prompts valid."""
    if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
        return None
    kind, value, shape = region.get("type"), region["value"], _read_shape(region)
    if shape is None:
        return None
    return Prompt(
        shape=shape,
        # of a tool beside <Labels>, the labels have that key
        labels=tuple(read_texts(value.get(kind)) or read_texts(value.get("labels"))),
        control=read_text(region, "from_name"),
        image=read_text(region, "to_name"),
        item_index=read_item_index(region),
        id=read_text(region, "id"),
    )


def _labelled(prompt: Prompt, regions: Sequence[Any]) -> Prompt:
    """Return a prompt with its labels: a box beside ``<Labels>`` has them in an entry of its id."""
    if prompt.labels or not prompt.id:
        return prompt
    same = (each for each in regions if isinstance(each, dict) and each.get("id") == prompt.id)
    values = (each["value"] for each in same if isinstance(each.get("value"), dict))
    labels = (text for value in values for text in read_texts(value.get("labels")))
    return replace(prompt, labels=tuple(labels))


def _read_shape(region: Mapping[str, Any]) -> Keypoint | Rectangle | str | None:
    kind, value = region.get("type"), region["value"]
    with suppress(ValidationError):
        if kind in ("keypointlabels", "keypoint"):
            # Newer editors write ``positive`` into the value beside the region's own.
            negative = {"positive": False} if region.get("is_positive") is False else {}
            return convert(value | negative, Keypoint)
        if kind in ("rectanglelabels", "rectangle"):
            return convert(value, Rectangle)
    return _read_words(value) if kind == "textarea" else None


def _read_words(value: Mapping[str, Any]) -> str | None:
    """Read the last text, as those before it are answered. Text with geometry is a description."""
    given = value.get("text")
    texts = read_texts([given] if isinstance(given, str) else given)
    if not texts or _GEOMETRY_KEYS & value.keys():
        return None
    return texts[-1][:_LONGEST_TEXT]


# ---- what is asked for -----------------------------------------------------------------------


@dataclass(frozen=True)
class Clicks:
    """Points on an object that is to have a label, and beside it."""

    label: Label | None  # None where no label was selected: the words say which it is
    points: tuple[Keypoint, ...]


@dataclass(frozen=True)
class Boxes:
    """Boxes around objects that are to have a label; most often one."""

    label: Label | None  # as of `Clicks`
    rectangles: tuple[Rectangle, ...]


@dataclass(frozen=True)
class Phrase:
    """Words that describe an object, and the label that it is to have."""

    prompts: tuple[str, ...]  # the words; a label's own prompts where the words are its name
    label: Label


@dataclass(frozen=True)
class Phrases:
    """Phrases that compete; or whether all labels are asked for, as a prediction has them."""

    phrases: tuple[Phrase, ...] = ()
    asks_all: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not self.phrases and not self.asks_all


@dataclass(frozen=True)
class PromptRequest:
    """An annotator's prompt on an image."""

    image: ImageTag
    item_index: int | None  # index of the image in a list; None for all images of it
    query: Clicks | Boxes | Phrases
    region_ids: frozenset[str] = frozenset()  # the prompts' own regions, which an answer may cover


def parse_prompt(context: Context, config: LabelConfig) -> PromptRequest | None:
    """Parse the prompts of a context; None where there are none, or no answer is possible.

    The last prompt decides. Earlier ones of its kind, label and image count with it: the editor
    sends all clicks that are not accepted yet. Prompts of tools that ask nothing are ignored.
    """
    if context.event != "predict" or not context.prompts:
        return None

    prompts = [prompt for prompt in context.prompts if _asks(prompt, config)]
    if not prompts:
        log.info("All that was drawn or typed was made with tools that ask nothing.")
        return None

    last = prompts[-1]
    same = _with_target(last, prompts)
    image, label = _target(last, config)
    if image is None:
        log.info("A prompt is on %r, which is no image of ours.", last.image)
        return None

    query = _query(same, image, label, config)
    if query is None:
        return None
    ids = frozenset(prompt.id for prompt in same) - {""}
    return PromptRequest(image, _item_index(last), query, ids)


def _query(
    prompts: Sequence[Prompt], image: ImageTag, label: Label | None, config: LabelConfig
) -> Clicks | Boxes | Phrases | None:
    """Return what prompts of one kind, label and image ask for; None where nothing can answer."""
    last = prompts[-1]
    if isinstance(last.shape, str):
        phrases = _read_phrases(last, last.shape, image, config)
        return None if phrases.is_empty else phrases

    if label is None and last.labels:
        log.info("No control for the image %r draws any of %s.", image.name, last.labels)
        return None
    return _join_shapes(prompts, label)


def _item_index(prompt: Prompt) -> int | None:
    """Return the image of a list that a prompt is on; words without one are for all of them."""
    return prompt.item_index if isinstance(prompt.shape, str) else prompt.item_index or 0


def _asks(prompt: Prompt, config: LabelConfig) -> bool:
    """Return whether a prompt was made with a tool that asks; one that is not known does."""
    tool = config.tool(prompt.control)
    return tool is None or tool.is_smart


def _read_phrases(prompt: Prompt, text: str, image: ImageTag, config: LabelConfig) -> Phrases:
    """Read the words of a prompt on an image, with the label of its text area, if it has one."""
    tool = config.tool(prompt.control)
    prompt_label = "" if tool is None else tool.prompt_label
    return read_words(text, config, config.labels_of(image.name), prompt_label)


def _join_shapes(prompts: Sequence[Prompt], label: Label | None) -> Clicks | Boxes:
    """Return all clicks or boxes of one kind, label and image as one query."""
    clicks = tuple(prompt.shape for prompt in prompts if isinstance(prompt.shape, Keypoint))
    if clicks:
        return Clicks(label, clicks)
    return Boxes(label, tuple(p.shape for p in prompts if isinstance(p.shape, Rectangle)))


def read_words(
    text: str, config: LabelConfig, labels: Sequence[Label], prompt_label: str
) -> Phrases:
    """Parse words into phrases and their labels, by the rules above.

    A phrase that names no label of the image gets that of the text area; without one, it is left
    out.
    """
    parts = [*filter(None, map(str.strip, text.split(",")))]
    if "all" in map(words_of_name, parts):
        return Phrases(asks_all=True)
    phrases = map(_PhraseReader(config, labels, prompt_label).phrase, parts)
    return Phrases(tuple(dict.fromkeys(phrase for phrase in phrases if phrase is not None)))


class _PhraseReader:
    """Finds the labels of phrases on an image.

    The names are made ready once: a text may have hundreds of phrases, a config thousands of words.
    """

    def __init__(self, config: LabelConfig, labels: Sequence[Label], prompt_label: str) -> None:
        self._labels = tuple(labels)
        self._titles = _titles(self._labels, config)

        self._by_name: dict[str, Label] = {}
        for label in self._labels:
            for name in self._titles[label.name]:
                self._by_name.setdefault(name, label)
        for label in self._labels:  # a name comes before another label's prompt
            for prompt in label.prompts:
                self._by_name.setdefault(words_of_name(prompt), label)

        self._plain_names: list[tuple[str, int]] = []
        for index, label in enumerate(self._labels):
            names = map(plain_words, [*self._titles[label.name], *label.prompts])
            self._plain_names += [(f" {plain} ", index) for plain in names if plain]

        self._default = self._named(prompt_label)
        if prompt_label and self._default is None:
            log.warning("prompt_label=%r is the name of no label.", prompt_label)

    def phrase(self, part: str) -> Phrase | None:
        """Parse a phrase into words and their label; None where they name none."""
        text, *arrow = (side.strip() for side in re.split("->|→", part, maxsplit=1))
        wanted = self._named(arrow[0]) if arrow else None
        text = text or part
        label = wanted or self._named(text) or self._within(text) or self._fallback()
        if label is None:
            log.info("%r names no label: it gets no answer.", text)
            return None
        own = words_of_name(text) in self._titles[label.name]
        return Phrase(label.prompts if own else (text,), label)

    def _named(self, text: str) -> Label | None:
        """Return the label with that name or alias, else the one with that prompt."""
        return self._by_name.get(words_of_name(text))

    def _within(self, text: str) -> Label | None:
        """Return the label that a text names; the longest name, of equal ones the first."""
        spaced = f" {plain_words(text)} "
        found = [
            (-len(name), spaced.index(name), index)
            for name, index in self._plain_names
            if name in spaced
        ]
        return self._labels[min(found)[2]] if found else None

    def _fallback(self) -> Label | None:
        """Return the label of words that name none; never the background beside other labels."""
        labels = [label for label in self._labels if not label.background] or self._labels
        return labels[0] if len(labels) == 1 else self._default


def _titles(labels: Sequence[Label], config: LabelConfig) -> dict[str, frozenset[str]]:
    """Return the names of each label, its value and its aliases, as words."""
    spellings = {label.name: {label.name} for label in labels}
    for own in chain.from_iterable(control.labels for control in config.controls):
        if own.name in spellings:
            spellings[own.name].update(own.spellings)
    return {name: frozenset(map(words_of_name, written)) for name, written in spellings.items()}


def plain_words(text: str) -> str:
    """Return the words of a text without punctuation.

    >>> plain_words("the T-shirt, red")
    'the t shirt red'
    """
    return " ".join(re.findall(r"\w+", words_of_name(text)))


def _with_target(prompt: Prompt, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts that are of the kind, the labels and the image of one of them."""

    def target(each: Prompt) -> tuple[object, ...]:
        return type(each.shape), each.labels, each.image, each.item_index

    return [each for each in prompts if target(each) == target(prompt)]


def _target(prompt: Prompt, config: LabelConfig) -> tuple[ImageTag | None, Label | None]:
    """Return the image tag of a prompt, else the first that has its label, and the label there."""
    tags = [tag for tag in config.images if prompt.image in ("", tag.name)]
    found = ((tag, _label(prompt, config, tag.name)) for tag in tags)
    return next((pair for pair in found if pair[1]), (tags[0] if tags else None, None))


def _label(prompt: Prompt, config: LabelConfig, image: str) -> Label | None:
    """Return the label of a click or box: the one it carries, or the only one there is."""
    for written in prompt.labels:
        label = config.find_label(written, image, prompt.control)
        if label is not None:
            return label
    labels = config.labels_of(image)
    return labels[0] if len(labels) == 1 and not prompt.labels else None
