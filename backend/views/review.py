"""The review page as a value: what it says beside its pictures, in finished sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from backend.label_studio.label_config import LabelConfig
from backend.review.queue import AskedPage, Card
from backend.review.verdicts import CHECKED, TOO_FAST_S, NotDone, TakingBack, Tally
from backend.views.project import UrlOf
from backend.views.text import Part, Pill, Sentence, count_with_noun, sentence
from clearclip_core.quantities import grouped

NO_NAME: Final = "No name given"

#: What the columns of the figures by person mean.
_COLUMNS: Final = (
    "Persons are the names that people gave on this page. Too fast: called good in less than "
    f"{TOO_FAST_S} s. Checked: good ones that somebody has submitted in the editor since, 5 s or "
    "later. Needed no change: of these pictures, with the 95 % interval."
)

_UNSORTED: Final = (
    "The scores of earlier predictions are being read: until then pictures without one come last."
)


class PersonFigures(Struct, frozen=True):
    """What one person has said, as a row of the page's table."""

    person: str
    good: str
    work: str
    skipped: str
    too_fast: str
    has_been_fast: bool
    checked: str
    unchanged: str  # of the checked ones, with its interval; a dash where none was checked

    @classmethod
    def of(cls, tally: Tally) -> PersonFigures:
        return cls(
            person=tally.person or NO_NAME,
            good=grouped(tally.good),
            work=grouped(tally.work),
            skipped=grouped(tally.skip),
            too_fast=grouped(tally.too_fast),
            has_been_fast=tally.too_fast > 0,
            checked=grouped(tally.checked),
            unchanged=_share_unchanged(tally),
        )


def _share_unchanged(tally: Tally) -> str:
    if not tally.checked:
        return "–"
    share = round(100 * tally.unchanged / tally.checked)
    low, high = tally.interval
    return f"{share} % ({math.floor(100 * low)} to {math.ceil(100 * high)})"


class ReviewTally(Struct, frozen=True, kw_only=True):
    """What was said so far, and what can be done about it."""

    project: int
    seat: str  # the page's own id: who comes back has the same pictures
    asked: AskedPage
    people: tuple[PersonFigures, ...]
    columns: str = _COLUMNS  # what the columns mean
    taking_back: TakingBack | None  # how far verdicts are taken back; None: nothing is taken back
    undo: str = ""  # of the button that takes the last page back; empty where there is none
    last_at: float | None = None  # when that page was sent, in seconds since the epoch
    correct: str = ""  # of the button that makes a view; empty where nothing needs work

    @classmethod
    def of(
        cls,
        *,
        project: int,
        seat: str,
        asked: AskedPage,
        tallies: Sequence[Tally],
        last_page: tuple[int, float | None],
        to_correct: int,
        taking_back: TakingBack | None,
    ) -> ReviewTally:
        """Put the figures together.

        Args:
            project: the project's number.
            seat: the page's own id.
            asked: which pictures the page shows.
            tallies: what each person has said.
            last_page: verdicts of the page that was sent last, and when.
            to_correct: tasks that need work.
            taking_back: how far verdicts are taken back.
        """
        verdicts, last_at = last_page
        tasks = count_with_noun(to_correct, "task")
        return cls(
            project=project,
            seat=seat,
            asked=asked,
            people=tuple(map(PersonFigures.of, tallies)),
            taking_back=taking_back,
            undo=f"Undo the last page ({verdicts})" if verdicts else "",
            last_at=last_at,
            correct=f"Correct {tasks} in Label Studio" if to_correct else "",
        )

    @property
    def is_shown(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.taking_back or self.undo or self.correct or self.people)

    @property
    def here(self) -> dict[str, object]:
        """The page's own address, as values of a route."""
        return {
            "project": self.project,
            "seat": self.seat,
            "label": self.asked.label or None,
            "view": self.asked.view,
            "least": self.asked.least or None,
        }


class ReviewPage(Struct, frozen=True, kw_only=True):
    """The pictures that a person judges now."""

    filters: str  # which pictures are shown, and for whom, on one line
    cards: tuple[Card, ...]
    since: float  # when the page was made, in seconds since the epoch
    labels: tuple[str, ...]
    colours: Mapping[str, str]  # label -> its colour, as "#rrggbb"
    legends: tuple[Mapping[str, str], ...]  # of what is shown, for each image of the config
    shows_scores: bool  # whether scores say how sure the model is
    rule: str  # whose the annotations are, and what is checked
    notice: Sentence  # why no picture is shown; empty where some are
    hints: tuple[str, ...]  # what is to be known of the order of the pictures
    required: str  # what *Good* leaves empty; "" where that is nothing
    not_done: tuple[NotDone, ...]
    not_done_title: str
    made_view: str  # address of the view that was made just now; "" where none was
    worst: tuple[int, ...]  # tasks in it, the worst first

    def signs(self, card: Card) -> tuple[Pill, ...]:
        """Return what stands beside the number of a picture's task: its score, and its age."""
        signs = []
        if self.shows_scores and card.score:
            signs.append(Pill(f"{card.score:.2f}", "soft", is_plain=True))
        if card.is_old:
            signs.append(Pill("older masks", "wait", is_plain=True))
        return tuple(signs)

    @classmethod
    def of(
        cls,
        *,
        cards: Sequence[Card],
        config: LabelConfig,
        tally: ReviewTally,
        url_of: UrlOf,
        person: str,
        since: float,
        is_measuring: bool,
        is_sorting: bool,
        token_user: str,
        not_done: Sequence[NotDone],
        made_view: str = "",
        worst: Sequence[int] = (),
    ) -> ReviewPage:
        """Put a page together.

        Args:
            cards: the predictions on it.
            config: the project's labeling config.
            tally: what was said so far.
            url_of: the name and the values of a route -> its address.
            person: name of who reviews; "" where nobody has given one.
            since: when the page was made, in seconds since the epoch.
            is_measuring: whether the time that a prediction saves is measured now.
            is_sorting: whether scores of earlier predictions are being read.
            token_user: name of the user of the backend's token.
            not_done: what verdicts were to bring about and have not.
            made_view: address of the view that was made just now.
            worst: tasks in it, the worst first.
        """
        legends = [config.legend_of(image.name) for image in config.annotated]
        label = tally.asked.label
        shown = [_only(label, each) for each in legends] if label else legends

        return cls(
            filters=describe_filters(tally.asked, person),
            cards=() if is_measuring else tuple(cards),
            since=since,
            labels=tuple(each.name for each in config.labels),
            colours=_joined(legends),
            legends=tuple(shown),
            shows_scores=config.score == "confidence",
            rule=_rule(token_user),
            notice=_notice(tally, url_of, is_measuring=is_measuring, is_empty=not cards),
            hints=(_UNSORTED,) if is_sorting else (),
            required=_required(config),
            not_done=tuple(not_done),
            not_done_title=f"{count_with_noun(len(not_done), 'verdict')} not done",
            made_view=made_view,
            worst=tuple(worst),
        )


def describe_filters(asked: AskedPage, person: str) -> str:
    """Say which pictures a page shows, and for whom, on the line that the filters fold to.

    >>> describe_filters(AskedPage(label="car", least=0.5), "Ada")
    'Crops of car · score from 0.50 · reviewed by Ada'
    >>> describe_filters(AskedPage(view=3), "")
    'Whole pictures · view 3 of Label Studio · say your name here'
    """
    parts = [
        f"Crops of {asked.label}" if asked.label else "Whole pictures",
        f"score from {asked.least:.2f}" if asked.least else "",
        f"view {asked.view} of Label Studio" if asked.view else "",
        f"reviewed by {person}" if person else "say your name here",
    ]
    return " · ".join(part for part in parts if part)


def _only(label: str, legend: Mapping[str, str]) -> dict[str, str]:
    return {label: legend[label]} if label in legend else {}


def _joined(legends: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {label: colour for legend in legends for label, colour in legend.items()}


def _rule(token_user: str) -> str:
    return (
        f"Annotations are {token_user}'s, the user of the backend's token; verdicts are counted by "
        "the name that you give. Nothing is accepted that you do not mark. One good picture in "
        f"{CHECKED} goes to the editor all the same, unmarked, and tells how far the others can be "
        "trusted."
    )


def _notice(tally: ReviewTally, url_of: UrlOf, *, is_measuring: bool, is_empty: bool) -> Sentence:
    """Say why there is no picture; empty where there are some."""
    project = tally.project
    if is_measuring:
        stop = url_of("report.page", project=project, _anchor="measure")
        return sentence(
            "The time that a prediction saves is being measured. A review would take the easy "
            "pictures out of it: ",
            Part("wait until it ends, or stop it", stop),
            ".",
        )
    if not is_empty:
        return ()

    others = " Those that somebody else has on the page now are left out."
    if tally.asked == AskedPage():
        return sentence(f"No picture waits for a review.{others}")
    everything = url_of("review.page", project=project, seat=tally.seat)
    return sentence(
        "No picture waits for a review here; ", Part("look at all", everything), f".{others}"
    )


def _required(config: LabelConfig) -> str:
    """Say what *Good* leaves empty; empty where that is nothing."""
    if not config.required:
        return ""
    names = " and ".join(f"“{name}”" for name in config.required)
    return (
        f"The labeling config requires {names} beside the masks. Good leaves that empty: mark "
        "pictures as needing work, or fill it in afterwards."
    )
