"""What a person asks of the laboratory: a label and wordings, or a check of all words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal, cast, get_args

from backend.errors import BadRequest
from backend.label_studio.requests import read_count

#: Which pictures words are tried on.
On = Literal["auto", "corrected", "diverse"]

MAX_TRIALS: Final = 12
MAX_WORDS: Final = 10
MAX_LETTERS: Final = 200
MAX_PICTURES: Final = 24

_FIELDS: Final = ("label", "wordings", "thresholds", "methods", "pictures", "on")


@dataclass(frozen=True)
class Wording:
    """Words, a threshold and a method that are tried for a label.

    Attributes:
        words: the words; empty for those of the label config.
        threshold: probability from which the label is drawn, in [0, 1]; None for that of the label
            config.
        method: name of the method; empty for the backend's own.
    """

    words: tuple[str, ...] = ()
    threshold: float | None = None
    method: str = ""


@dataclass(frozen=True)
class WordingRequest:
    """What to measure on a project.

    Attributes:
        project: number of the project.
        label: name of the label; empty to check the words of all labels.
        wordings: the words to try; none to try those of the label config.
        thresholds: the thresholds to try with each; none to try that of the label config.
        methods: the methods to try with each; none to try the backend's own.
        pictures: number of pictures.
        on: ``"corrected"`` for pictures with an annotation, ``"diverse"`` for pictures that differ
            from each other, ``"auto"`` for the first where there are any.
    """

    project: int
    label: str = ""
    wordings: tuple[tuple[str, ...], ...] = ()
    thresholds: tuple[float, ...] = ()
    methods: tuple[str, ...] = ()
    pictures: int = 8
    on: On = "auto"

    def __post_init__(self) -> None:
        if not self.label and (self.wordings or self.thresholds or self.methods):
            raise BadRequest('Expected "label" to name the label that the words are for.')
        if len(self.trials) > MAX_TRIALS:
            raise BadRequest(
                f"Wordings, thresholds and methods make {len(self.trials)} trials with the words "
                f"of today, more than {MAX_TRIALS}: ask for fewer at once."
            )
        if self.pictures > MAX_PICTURES:
            raise BadRequest(f'Expected "pictures" to be at most {MAX_PICTURES}.')
        from clearclip_core import resolve_method  # and torch with it

        for method in self.methods:
            try:
                resolve_method(method)
            except ValueError as error:
                raise BadRequest(str(error)) from None

    @property
    def trials(self) -> tuple[Wording, ...]:
        """What is tried: what the project has today first, then all combinations, each once."""
        if not self.label:
            return ()
        tried = product(self.wordings or ((),), self.thresholds or (None,), self.methods or ("",))
        return tuple(dict.fromkeys((Wording(), *(Wording(*each) for each in tried))))

    @classmethod
    def parse(cls, project: int, fields: Mapping[str, Any]) -> WordingRequest:
        """Read the fields of a JSON object; an empty one counts as missing.

        Raises:
            BadRequest: an unknown field, or a value that is not allowed.

        >>> asked = WordingRequest.parse(7, {"label": "tree", "wordings": ["tree, pine"]})
        >>> [each.words for each in asked.trials]
        [(), ('tree', 'pine')]
        """
        unknown = sorted(fields.keys() - set(_FIELDS))
        if unknown:
            raise BadRequest(f"Expected {', '.join(_FIELDS)}, but got {str(unknown[0])[:50]!r}.")
        label = fields.get("label") or ""
        if not isinstance(label, str) or len(label) > MAX_LETTERS:
            raise BadRequest(f'Expected "label" to be a text of at most {MAX_LETTERS} letters.')
        on = fields.get("on") or "auto"
        if on not in get_args(On):
            raise BadRequest(f'Expected "on" to be one of {", ".join(get_args(On))}.')
        return cls(
            project=project,
            label=label if label.strip() else "",
            wordings=tuple(dict.fromkeys(map(parse_words, _texts(fields, "wordings")))),
            thresholds=_thresholds(fields),
            methods=tuple(dict.fromkeys(_texts(fields, "methods"))),
            pictures=read_count(fields, "pictures") or 8,
            on=cast(On, on),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `parse` reads."""
        return {
            "label": self.label,
            "wordings": [", ".join(words) for words in self.wordings],
            "thresholds": list(self.thresholds),
            "methods": list(self.methods),
            "pictures": self.pictures,
            "on": self.on,
        }


def parse_words(text: str) -> tuple[str, ...]:
    """Return the words of a wording, which are separated by commas.

    Raises:
        BadRequest: there is none, or too many or too long ones.

    >>> parse_words("traffic light, signal ,")
    ('traffic light', 'signal')
    """
    words = tuple(dict.fromkeys(filter(None, (" ".join(each.split()) for each in text.split(",")))))
    if not words or len(words) > MAX_WORDS or any(len(word) > MAX_LETTERS for word in words):
        raise BadRequest(
            f"Expected a wording to be 1 to {MAX_WORDS} words, separated by commas, of at most "
            f"{MAX_LETTERS} letters each."
        )
    if not all(character.isprintable() for word in words for character in word):
        raise BadRequest("Expected a wording of letters and signs, but got control characters.")
    return words


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
    given = fields.get(name) or []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise BadRequest(f'Expected "{name}" to be a list of texts.')
    if len(given) > MAX_TRIALS:
        raise BadRequest(f'Expected "{name}" to hold at most {MAX_TRIALS} texts.')
    return [each for each in given if each.strip()]


def _thresholds(fields: Mapping[str, Any]) -> tuple[float, ...]:
    given = fields.get("thresholds") or []
    if (
        not isinstance(given, list)
        or len(given) > MAX_TRIALS
        or not all(type(each) in (int, float) and 0 <= each <= 1 for each in given)
    ):
        raise BadRequest('Expected "thresholds" to be a list of numbers from 0 to 1.')
    return tuple(dict.fromkeys(round(float(each), 4) for each in given))
