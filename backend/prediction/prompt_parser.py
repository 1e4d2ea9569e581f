"""Parse an annotator's clicks, boxes or words into a prompt request.

Words name their label by the first rule that fits, phrase by phrase; commas separate phrases:

1. ``all`` asks for every label of the whole image, whatever else is typed.
2. ``red car -> Car`` names the label.
3. A label's own name, alias or prompt in the text: the longest, of equal ones the first.
4. The only label there is.
5. The ``prompt_label`` of the text area.

Words that name no label get no answer: drawn as some label, they would be a wrong one, of which the
editor cannot tell. The log says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.label_config_parser import words_of_name
from backend.label_studio.requests import Context, Keypoint, Prompt, Rectangle, TypedWords
from clearclip_core import Label

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clicks:
    """Points on an object that is to have a label, and beside it."""

    label: Label
    points: tuple[Keypoint, ...]


@dataclass(frozen=True)
class Boxes:
    """Boxes around objects that are to have a label; most often one."""

    label: Label
    rectangles: tuple[Rectangle, ...]


@dataclass(frozen=True)
class Phrase:
    """Words that describe an object, and the label that it is to have.

    Attributes:
        prompts: the words; a label's own prompts where the words are its name.
    """

    prompts: tuple[str, ...]
    label: Label


@dataclass(frozen=True)
class Phrases:
    """Phrases that compete; or whether all labels are asked for, as a prediction has them."""

    phrases: tuple[Phrase, ...] = ()
    asks_all: bool = False


@dataclass(frozen=True)
class PromptRequest:
    """An annotator's prompt on an image.

    Attributes:
        item_index: index of the image in a list; None for all images of it.
        region_ids: ids of the prompts' own regions, which an answer may cover.
    """

    image: ImageTag
    item_index: int | None
    query: Clicks | Boxes | Phrases
    region_ids: frozenset[str] = frozenset()


def parse_prompt(context: Context, config: LabelConfig) -> PromptRequest | None:
    """Parse the prompts of a context; None where there are none, or no answer is possible.

    The last prompt decides. Earlier ones of its kind, label and image count with it: the editor
    sends all clicks that are not accepted yet. Prompts of tools that ask nothing are ignored.
    """
    if context.event != "predict" or not context.prompts:
        return None
    tools = {tool.name: tool for tool in reversed(config.tools)}  # of equal names the first
    prompts = [
        prompt
        for prompt in context.prompts
        if prompt.control not in tools or tools[prompt.control].is_smart
    ]
    if not prompts:
        log.info("All that was drawn or typed was made with tools that ask nothing.")
        return None
    last = prompts[-1]
    same = [prompt for prompt in prompts if _same_target(prompt) == _same_target(last)]
    image, label = _target(last, config)
    if image is None:
        log.info("A prompt is on %r, which is no image of ours.", last.image)
        return None
    ids = frozenset(prompt.id for prompt in same if prompt.id)
    if not isinstance(last.shape, TypedWords):
        if label is None:
            log.info("No control for the image %r draws any of %s.", image.name, last.labels)
            return None
        clicks = tuple(prompt.shape for prompt in same if isinstance(prompt.shape, Keypoint))
        boxes = tuple(prompt.shape for prompt in same if isinstance(prompt.shape, Rectangle))
        query = Clicks(label, clicks) if clicks else Boxes(label, boxes)
        return PromptRequest(image, last.item_index or 0, query, ids)
    labels = config.labels_of(image.name)
    prompt_label = tools[last.control].prompt_label if last.control in tools else ""
    phrases = read_words(last.shape.text, config, labels, prompt_label)
    if not phrases.phrases and not phrases.asks_all:
        return None
    return PromptRequest(image, last.item_index, phrases, ids)


def read_words(
    text: str, config: LabelConfig, labels: Sequence[Label], prompt_label: str
) -> Phrases:
    """Parse words into phrases and their labels, by the rules above.

    A phrase that names no label is left out.

    Args:
        labels: the labels of the image, which the words may name.
        prompt_label: the label of words that name none; may be empty.
    """
    parts = [*filter(None, map(str.strip, text.split(",")))]
    if "all" in map(words_of_name, parts):
        return Phrases(asks_all=True)
    phrases = map(_PhraseReader(config, labels, prompt_label).phrase, parts)
    return Phrases(tuple(dict.fromkeys(phrase for phrase in phrases if phrase is not None)))


class _PhraseReader:
    """Finds the labels of phrases on an image."""

    def __init__(self, config: LabelConfig, labels: Sequence[Label], prompt_label: str) -> None:
        self._labels = tuple(labels)
        self._titles = {label.name: _titles(label, config) for label in self._labels}
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
        wanted = words_of_name(text)
        named = (label for label in self._labels if wanted in self._titles[label.name])
        prompted = (label for label in self._labels if wanted in map(words_of_name, label.prompts))
        return next(chain(named, prompted), None)

    def _within(self, text: str) -> Label | None:
        """Return the label that a text names; the longest name, of equal ones the first."""
        spaced = f" {plain_words(text)} "
        found = [
            (-len(name), spaced.index(f" {name} "), index)
            for index, label in enumerate(self._labels)
            for name in map(plain_words, (*self._titles[label.name], *label.prompts))
            if name and f" {name} " in spaced
        ]
        return self._labels[min(found)[2]] if found else None

    def _fallback(self) -> Label | None:
        """Return the label of words that name none; never the background beside other labels."""
        labels = [label for label in self._labels if not label.background] or self._labels
        return labels[0] if len(labels) == 1 else self._default


def _titles(label: Label, config: LabelConfig) -> frozenset[str]:
    """Return the names of a label, its value and its aliases, as words."""
    spellings = {label.name}.union(
        *(
            own.spellings
            for control in config.controls
            for own in control.labels
            if own.name == label.name
        )
    )
    return frozenset(map(words_of_name, spellings))


def plain_words(text: str) -> str:
    """Return the words of a text without punctuation.

    >>> plain_words("the T-shirt, red")
    'the t shirt red'
    """
    return " ".join(re.findall(r"\w+", words_of_name(text)))


def _same_target(prompt: Prompt) -> tuple[object, ...]:
    return type(prompt.shape), prompt.labels, prompt.image, prompt.item_index


def _target(prompt: Prompt, config: LabelConfig) -> tuple[ImageTag | None, Label | None]:
    """Return the image tag of a prompt and its label there.

    Without a name, it is the first tag that has the label.
    """
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
