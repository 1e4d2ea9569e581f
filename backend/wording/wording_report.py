"""The figures of wordings and of a checked vocabulary, with what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from backend.errors import BadRequest
from backend.label_studio.label_config_edit import with_words
from backend.wording.wording_request import Wording
from clearclip_core.evaluation.comparison import LabelFigures
from clearclip_core.wording.vocabulary_check import (
    LabelResponse,
    Swallowed,
    VocabularyCheck,
    rank_wordings,
)


@dataclass(frozen=True)
class PictureTrial:
    """A wording on one picture.

    Attributes:
        task: id of the task.
        share: share of the picture that the label covers, in [0, 1].
        milliseconds: time from the cached features to the masks, in ms.
        own: figures of the label; None where the picture has no truth.
        all: figures of all labels together; None where the picture has no truth.
        preview: the picture with the label's mask, as a data URL; empty where it is not shown.
    """

    task: int
    share: float
    milliseconds: float
    own: LabelFigures | None = None
    all: LabelFigures | None = None
    preview: str = ""


@dataclass(frozen=True)
class Trial:
    """A wording on all pictures.

    Attributes:
        wording: as it was asked for.
        words: the words.
        threshold: probability from which the label is drawn, in [0, 1].
        method: name of the method.
        line: the ``<Label>`` tag to write into the label config.
        pictures: the figures of each picture.
    """

    wording: Wording
    words: tuple[str, ...]
    threshold: float
    method: str
    line: str
    pictures: tuple[PictureTrial, ...] = ()

    @property
    def own(self) -> LabelFigures | None:
        """The figures of the label on all pictures; None where none has a truth."""
        return _sum([each.own for each in self.pictures])

    @property
    def all(self) -> LabelFigures | None:
        """The figures of all labels on all pictures; None where none has a truth."""
        return _sum([each.all for each in self.pictures])

    @property
    def share(self) -> float:
        """The share of the pictures that the label covers, in [0, 1]."""
        return fmean(each.share for each in self.pictures) if self.pictures else 0.0

    @property
    def milliseconds(self) -> float:
        """The median time of a picture, from its cached features to the masks, in ms."""
        return median(each.milliseconds for each in self.pictures) if self.pictures else 0.0

    @property
    def saved_paint(self) -> float | None:
        """The saved paint of all labels; None without a truth. `rank_wordings` ranks wordings."""
        return None if self.all is None else self.all.overlap.saved_paint

    def to_json(self, row: int, rank: int | None) -> dict[str, Any]:
        """Return the figures as JSON, without the previews."""
        own = self.own
        return {
            "row": row,
            "rank": rank,
            "is_current": self.wording == Wording(),
            "words": list(self.words),
            "threshold": self.threshold,
            "method": self.method,
            "iou": None if own is None else own.overlap.iou,
            "saved_paint": None if own is None else own.overlap.saved_paint,
            "saved_paint_all": self.saved_paint,
            "share": self.share,
            "milliseconds": round(self.milliseconds, 2),
            "line": self.line,
            "tasks": [
                {
                    "task": each.task,
                    "share": each.share,
                    "iou": None if each.own is None else each.own.overlap.iou,
                }
                for each in self.pictures
            ],
        }


@dataclass(frozen=True)
class WordingReport:
    """What was measured.

    Attributes:
        label: the label that words were tried for; empty where the vocabulary was checked.
        labels: names of the project's labels.
        on: ``"corrected"`` or ``"diverse"`` pictures.
        trials: the wordings, that of the label config first.
        check: the findings on the words; None where wordings were tried.
        swallowed: labels that others swallow.
        responses: how each label answers.
        pictures: number of pictures.
        left_out: task -> reason, for pictures that could not be read.
        config: the label config that was measured with.
        encoding_s: time to encode or to fetch the features of all pictures, in seconds.
    """

    label: str
    labels: tuple[str, ...]
    on: str
    trials: tuple[Trial, ...] = ()
    check: VocabularyCheck | None = None
    swallowed: tuple[Swallowed, ...] = ()
    responses: tuple[LabelResponse, ...] = ()
    pictures: int = 0
    left_out: Mapping[int, str] = field(default_factory=dict)
    config: str = ""
    encoding_s: float = 0.0

    @property
    def ranks(self) -> dict[int, int]:
        """Row of a trial -> its rank from 1 on, see `rank_wordings`.

        Equal ones share a rank. Empty where no picture has a truth.
        """
        if not self.trials or any(each.saved_paint is None for each in self.trials):
            return {}
        wrong_px = [
            [0 if each.all is None else each.all.overlap.wrong_px for each in trial.pictures]
            for trial in self.trials
        ]
        raised = [trial.threshold > self.trials[0].threshold for trial in self.trials]
        return dict(enumerate(rank_wordings(wrong_px, raised)))

    def config_with(self, row: int) -> str:
        """Return the label config with the words, and the threshold, of a trial.

        Raises:
            BadRequest: there is no such trial.
            LabelConfigError: the words cannot be changed in this config.
        """
        if not 0 <= row < len(self.trials):
            raise BadRequest(
                f'Expected "row" to be a number from 0 to {len(self.trials) - 1}, but got {row}.'
            )
        trial = self.trials[row]
        return with_words(self.config, self.label, trial.words, trial.wording.threshold)[0]

    def is_in_config(self, row: int) -> bool:
        """Return whether a trial has the words and the threshold of the label config."""
        now, trial = self.trials[0], self.trials[row]
        return (trial.words, trial.threshold) == (now.words, now.threshold)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The trials as JSON, the best first; in their order where there is no truth."""
        ranks = self.ranks
        rows = [
            each.to_json(row, ranks.get(row)) | {"is_in_config": self.is_in_config(row)}
            for row, each in enumerate(self.trials)
        ]
        return sorted(rows, key=lambda each: (each["rank"] or 0, each["row"]))

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON, without pictures and without the label config."""
        check = None if self.check is None else self.check.to_json()
        return {
            "label": self.label,
            "labels": list(self.labels),
            "on": self.on,
            "pictures": self.pictures,
            "encoding_s": round(self.encoding_s, 3),
            "trials": self.rows,
            "words": check,
            "swallowed": [each.to_json() for each in self.swallowed],
            "responses": [each.to_json() for each in self.responses],
            "advice": list(self.advice()),
            "left_out": [{"task": task, "reason": why} for task, why in self.left_out.items()],
        }

    def advice(self) -> Iterator[dict[str, str]]:
        """Yield what is found, the label that it is about, and what to try."""
        if self.check is None:
            return
        for near in self.check.near:
            first, second = near.labels
            yield _advice(
                second,
                f"“{near.words[1]}” ({second}) means nearly the same to the model as "
                f"“{near.words[0]}” ({first}).",
                f"Write a narrower word for one of them, or make {first} and {second} one label.",
            )
        for word in self.check.unknown:
            yield _advice(
                word.label,
                f"“{word.word}” ({word.label}) means as little to the model as a made-up word.",
                "Try a more common word, a word for its kind, or a description of its looks.",
            )
        for each in self.swallowed:
            yield _advice(
                each.label,
                f"{each.by} takes {100 * each.share:.0f} % of {each.label} from it, narrowly.",
                f"Try other words for {each.label}, or fewer and narrower ones for {each.by}.",
            )
        for response in self.responses:
            if not response.share:
                yield _advice(
                    response.label,
                    f"{response.label} is found on none of these pictures.",
                    "Where it is on one of them, try other words. Where it is on none, this says "
                    "nothing: check with other pictures.",
                )


def _advice(label: str, finding: str, remedy: str) -> dict[str, str]:
    return {"label": label, "finding": finding, "try": remedy}


def _sum(figures: Sequence[LabelFigures | None]) -> LabelFigures | None:
    known = [each for each in figures if each is not None]
    return sum(known, LabelFigures()) if known else None
