"""Parse an annotator's clicks, box or words into what they ask for."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.label_config_parser import words
from backend.label_studio.requests import Context, Keypoint, Prompt, Rectangle, Words
from clearclip_core import Label

log = logging.getLogger(__name__)


log = logging.getLogger(__name__)

_ARROW = "->|→"


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
class PromptRequest:
    """What an annotator asks for, and where.

    Attributes:
        image: the tag of the picture.
        item_index: which picture of a list; None for all of it.
        wish: what is asked for.
        region_ids: of the prompts themselves, which are no regions to stay clear of.
    """

    image: ImageTag
    item_index: int | None
    spec: Clicks | Boxes | Phrases
    region_ids: frozenset[str] = frozenset()


def parse_prompt(context: Context, config: LabelConfig, nearest: Nearest) -> PromptRequest | None:
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
    same = [prompt for prompt in prompts if _same_target(prompt) == _same_target(last)]
    image = _image(last, config)
    if image is None:
        log.info("A prompt is on %r, which is no image of ours.", last.image)
        return None
    ids = frozenset(prompt.id for prompt in same if prompt.id)
    if isinstance(last.shape, Words):
        phrases = read_words(
            last.shape.text, config, image.name, _prompt_label(last, config), nearest
        )
        return PromptRequest(image, last.item_index, phrases, ids)
    label = _label(last, config, image.name)
    if label is None:
        log.info("No control for the image %r draws any of %s.", image.name, last.labels)
        return None
    clicks = tuple(prompt.shape for prompt in same if isinstance(prompt.shape, Keypoint))
    boxes = tuple(prompt.shape for prompt in same if isinstance(prompt.shape, Rectangle))
    spec = Clicks(label, clicks) if clicks else Boxes(label, boxes)
    return PromptRequest(image, last.item_index or 0, spec, ids)


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
        spaced = f" {plain_words(text)} "
        found = [
            (-len(name), spaced.index(f" {name} "), index)
            for index, label in enumerate(self._labels)
            for name in map(plain_words, (*self._titles[label.name], *label.prompts))
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


def plain_words(text: str) -> str:
    """Words without what stands between them.

    >>> plain_words("the T-shirt, red")
    'the t shirt red'
    """
    return " ".join(re.findall(r"\w+", words(text)))


def _same_target(prompt: Prompt) -> tuple[object, ...]:
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
        label = config.find_label(written, image, prompt.control)
        if label is not None:
            return label
    labels = config.labels_of(image)
    return labels[0] if len(labels) == 1 and not prompt.labels else None


def _asks(prompt: Prompt, config: LabelConfig) -> bool:
    tool = config.tool(prompt.control)
    return tool is None or tool.is_smart


def _prompt_label(prompt: Prompt, config: LabelConfig) -> str:
    tool = config.tool(prompt.control)
    return tool.prompt_label if tool else ""
