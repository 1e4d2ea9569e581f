"""What a project has learned as a value: for its page, for programs, and for ``adapt``."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from backend.errors import ModelUnavailable
from backend.feedback.report.statistics import in_percent
from backend.learning.compared_images import BeforeAfter, Work
from backend.learning.learner import Learner
from backend.learning.versions import LearningState, Version
from backend.runs.label_errors import Suspicion
from backend.runs.models import FEWEST_PICTURES
from backend.views.learning import told_ious, too_few
from backend.views.project import UrlOf
from backend.views.text import Part, Pill, Sentence, ago, count_with_noun, sentence, with_reasons
from clearclip_core import UnlabelledFit
from clearclip_core.quantities import grouped, inflected

#: IoU of a label's words, and where little was drawn share of that which they find, below which
#: other words may do more than corrections; the most labels that are named, the weakest first.
_WEAK_IOU: Final = 0.3
_MOST_WEAK: Final = 3

_LOSS: Final = 0.01  # IoU that a label may lose before the annotations to check are named
_FALLEN: Final = 0.05  # gain of mean IoU that an earlier version has to have had more, to be named

#: Decision -> what it does; {} is the label that it is about.
_DONE: Final = {
    "unpin": "New versions are made again, and may replace what is in use.",
    "keep-words": ("{} keeps its words from the next version on. To come back: Learn it again."),
    "learn-label": "{} is learned from corrections again, from the next version on.",
    "learn-without": "From the next version on, nothing is learned of these annotations.",
    "learn-with": "From the next version on, these annotations teach again.",
}

#: Decision by which a version is made -> what happens until it is there.
_MAKING: Final = {
    "step": "A version is being made of all corrections",
    "unlabelled": "Up to 200 pictures are read, and a version is made of them",
}

_RESET: Final = (
    "Delete {} of project {}, what {} taught, and what you decided?\n\nThe annotations stay in "
    "Label Studio. They are read again, and the next version is made of them. To stay with the "
    "words alone, press Use the words instead."
)


class VersionView(Version, frozen=True, kw_only=True):
    """A version as pages and programs show it: IoUs of labels that enough pictures show."""

    live: bool = False
    growing: tuple[str, ...] = ()
    too_few: dict[str, str] = field(default_factory=dict)  # label that has no figure -> why
    unlabelled_summary: str = ""
    propagation_sentence: str = ""  # what propagated scores gain; "" where that was not tried

    @classmethod
    def of(cls, version: Version, live: int | None) -> VersionView:
        """Return the view of a version, where the version in use is `live`."""
        told = replace(
            version,
            text_ious=told_ious(version.text_ious, version.shown),
            adapted_ious=told_ious(version.adapted_ious, version.shown),
        )
        return cls(
            **asdict(told),
            live=version.number == live,
            growing=version.growing,
            too_few=too_few(version.shown),
            unlabelled_summary=version.unlabelled_summary,
            propagation_sentence=""
            if version.propagation_trial is None
            else version.propagation_trial.sentence,
        )

    @property
    def made_of(self) -> str:
        """What it has learned from, without a full stop."""
        if self.unlabelled:
            return f"{self.unlabelled} of your pictures, nobody has corrected one"
        return count_with_noun(self.annotations, "annotation")

    @property
    def pictures_note(self) -> str:
        """How many uncorrected pictures it has learned from, in a table; "" for none."""
        return f" ({count_with_noun(self.unlabelled, 'picture')})" if self.unlabelled else ""

    @property
    def heading(self) -> str:
        """The head of its pictures."""
        head = f"Before and after: the words, and version {self.number}"
        return head if self.better else f"{head}, which is not used"

    @property
    def measured(self) -> Sentence:
        """What its mean IoU is beside that of the words; () where it was not measured."""
        if not self.text_ious:
            return ()
        goes, after = "goes", ""
        if not self.better:
            goes = "would go"
            after = " A picture on which the words do badly may have a wrong annotation."
        return sentence(
            f"{self._measured_ious} {goes} from ",
            Part(in_percent(self.text_iou), tag="b"),
            " to ",
            Part(in_percent(self.adapted_iou), tag="b"),
            ", measured on corrected pictures that were held out: pictures unlike these may gain "
            f"less.{self._over_all_labels}{after}",
        )

    @property
    def _measured_ious(self) -> str:
        """Of which labels the mean IoU is."""
        if len(self.text_ious) >= self.labels_in_use:
            return "The mean IoU"
        name, *others = self.text_ious
        return f"The mean IoU of {1 + len(others)} labels" if others else f"The IoU of {name}"

    @property
    def _over_all_labels(self) -> str:
        """What the gain is over all labels; "" where each has a figure."""
        labels = self.labels_in_use
        without = labels - len(self.text_ious)
        if without <= 0 or self.gain is None:
            return ""
        stay = inflected(without, "stays as it is", "stay as they are")
        gain = f"{100 * self.gain:+.1f} points"
        return (
            f" Over all {labels} labels that is {gain}, if the {without} without a figure {stay}."
        )

    @property
    def iou_cells(self) -> tuple[str, str]:
        """Its mean IoU before and after, as a table has them."""
        if not self.text_ious:
            return in_percent(None), in_percent(None)
        return in_percent(self.text_iou), in_percent(self.adapted_iou)

    @property
    def gain_cell(self) -> str:
        """Its gain over all labels in points, as a table has it."""
        return "–" if self.gain is None else f"{100 * self.gain:+.1f}"

    @property
    def losing(self) -> list[str]:
        """The labels that lose, the most first."""
        losses = {name: iou - self.adapted_ious[name] for name, iou in self.text_ious.items()}
        return sorted(
            (name for name, loss in losses.items() if loss > _LOSS),
            key=losses.__getitem__,
            reverse=True,
        )

    @property
    def refusals(self) -> list[str]:
        """Which labels keep their words, and why: a sentence a reason."""
        return with_reasons(self.refused)

    @property
    def unused(self) -> str:
        """Why a version from unlabelled pictures is not used; "" for others."""
        if self.better or not self.unlabelled:
            return ""
        return (
            f"Version {self.number} is not used: {UnlabelledFit.FEWEST} pictures that differ are "
            f"needed, and of those that were read {self.unlabelled} do."
        )

    @property
    def waiting(self) -> str:
        """What to do before somebody decides on it."""
        if self.unlabelled:
            return (
                f"It has learned from {self.made_of}: nothing has measured it yet. Compare the "
                "masks below before you use it. Corrections will measure it, and replace it."
            )
        return (
            "Look at its figures and pictures below: only people see a mistake that everybody has "
            "made."
        )

    @property
    def held_out(self) -> str:
        """How its pictures were drawn; "" where nobody has corrected any."""
        if self.unlabelled:
            return ""
        in_use = " In use, the version has learned from all of them." if self.better else ""
        return (
            f"Each picture was held out here: v{self.number} is drawn by what the other pictures "
            f"teach.{in_use} To paint: pixels with a label that the masks lack; to erase: pixels "
            "that they show as a label and the annotation does not, things without a label "
            "included."
        )

    def area_note(self, label: str) -> str:
        """Say that a label's area changes much; "" where it does not."""
        before, after = self.areas[label]
        if 3 * after < before:
            return "less than a third: look for it"
        return "half as much again, or more: look for it" if label in self.growing else ""


def work_sentence(name: str, work: Work | None) -> Sentence:
    """Say what masks leave to do, after whose they are.

    >>> [each.text for each in work_sentence("words", Work(0.125, 0.05))]
    ['words: ', '12.5 %', ' to paint, ', '5.0 %', ' to erase']
    """
    if work is None:
        return sentence(name)
    return sentence(
        f"{name}: ",
        Part(in_percent(work.to_paint), tag="b"),
        " to paint, ",
        Part(in_percent(work.to_erase), tag="b"),
        " to erase",
    )


class LearningView(LearningState, frozen=True, kw_only=True):
    """Where a project stands, and its versions, the newest first."""

    every: int  # how many changed annotations make the next version
    can_learn: bool  # whether the method can
    unread: int = 0  # annotations that another model has learned from
    versions: tuple[VersionView, ...] = ()
    weak_words: tuple[str, ...] = ()  # labels whose words find little, the weakest first

    @classmethod
    def read(cls, learner: Learner, project: int) -> LearningView:
        """Read what a project has learned.

        Where the model is unavailable, the view has a ``trouble`` and no versions.
        """
        settings = learner.settings
        state, unread = LearningState(project=project), 0
        versions: list[Version] = []
        try:
            state = learner.versions.state(project)
            versions = learner.versions.versions(project)
            unread = len(learner.examples.of_other_models().get(project, ()))
        except ModelUnavailable as error:
            state, versions = LearningState(project=project, trouble=str(error)), []

        shown = tuple(VersionView.of(each, state.live) for each in versions)
        decided = replace(state, adapt=state.adapt or settings.adapt)
        return cls(
            **asdict(decided),
            every=state.due_after(settings.adapt_every),
            can_learn=learner.can_learn,
            unread=unread,
            versions=shown,
            weak_words=_weak_words(versions[0]) if versions else (),
        )

    @property
    def newest(self) -> VersionView | None:
        return next(iter(self.versions), None)

    @property
    def in_use(self) -> VersionView | None:
        return next((each for each in self.versions if each.live), None)

    @property
    def fallen(self) -> str:
        """Name an earlier version that gained much more than the one in use; "" where none did."""
        passed = [each for each in self.versions if each.better]
        gains = {each.number: each.gain for each in passed if each.gain is not None}
        if self.live not in gains:
            return ""
        best = max((number for number in gains if number <= self.live), key=gains.__getitem__)
        now, then = gains[self.live], gains[best]
        if then - now < _FALLEN:
            return ""
        return (
            f"Version {best} gained {100 * then:.1f} points over the words, version {self.live} "
            f"gains {100 * now:.1f}. Check what was annotated since, or use version {best} again."
        )

    @property
    def waiting(self) -> VersionView | None:
        """The version that waits for somebody to decide."""
        return next((each for each in self.versions if each.number == self.waits), None)

    @property
    def choices(self) -> list[tuple[int, str]]:
        """What somebody may choose while a version waits: its number, 0: the words; and how."""
        choices = [(self.waits or 0, f"Use version {self.waits}")]
        if self.live:
            choices.append((self.live, f"Keep version {self.live}"))
        return [*choices, (0, "Keep the words")]

    def chosen(self, number: int | None) -> VersionView | None:
        """Return the version whose pictures to show: the one of that number if there is one.

        Else it is the newest if it passed, the one in use, or the newest.
        """
        asked = next((each for each in self.versions if each.number == number), None)
        newest = self.newest
        passed = newest if newest is not None and newest.better else None
        return asked or passed or self.in_use or newest

    @property
    def may_begin(self) -> bool:
        """Whether it may learn from unlabelled pictures: nothing better is there."""
        is_free = not (self.annotations or self.pinned or self.waits)
        return is_free and self.adapt != "off"

    @property
    def pills(self) -> list[Pill]:
        """What is in use, in a word or two."""
        pills = [Pill("the words alone", "soft")]
        if self.live:
            pills = [Pill(f"version {self.live} in use", "good")]
        return [*pills, Pill("chosen by hand", "wait")] if self.pinned else pills

    @property
    def now(self) -> str:
        """What is in use, as a sentence without its full stop."""
        return f"Version {self.live} is in use" if self.live else "The words alone are in use"

    def standing(self, unread: int) -> Sentence:
        """Say what the version in use was learned from, and when the next one comes.

        Args:
            unread: annotations that are still to be read.
        """
        used = self.in_use
        learned = "" if used is None else f"learned from {used.made_of}; "
        since = "since the last version" if self.versions else "so far"
        corrections = count_with_noun(self.changed, "correction")
        return sentence(f"{learned}{corrections} {since}; ", *self._next_version(unread))

    def _next_version(self, unread: int) -> Sentence:
        if self.adapt == "off":
            return sentence("corrections teach nothing: ", Part('adapt="off"', tag="code"))
        if self.pinned:
            return sentence("no version is made until you let it learn again")
        if self.asked:
            return sentence("the next version is being made")
        if self.changed < self.every:
            told = f"the next version comes after {grouped(self.every)}, or with "
            return sentence(told, Part("Learn now", tag="i"))
        if unread:
            are = inflected(unread, "is", "are")
            waited = f"{count_with_noun(unread, 'annotation')} {are} read"
            return sentence(f"the next version is made when {waited}")
        return sentence("the next version is made soon")

    @property
    def unread_sentence(self) -> str:
        """How many annotations another model has read; "" for none."""
        if not self.unread:
            return ""
        are = inflected(self.unread, "is", "are")
        return (
            f"The model or the method is another than before: "
            f"{count_with_noun(self.unread, 'annotation')} {are} still to be read again, and the "
            "next version is made by itself."
        )

    def unused(self, url_of: UrlOf) -> Sentence:
        """Say why the newest version is not used; () where it is, or may be."""
        newest = self.newest
        if newest is None or newest.better:
            return ()
        if newest.unlabelled:
            return sentence(newest.unused)
        url = url_of(
            "learning.show", project=self.project, version=newest.number, _anchor="before-after"
        )
        told = "did not pass the check on held-out pictures, so it is not used: "
        return sentence(f"Version {newest.number} {told}", Part("see why", url), ".")

    def weak(self, url_of: UrlOf) -> Sentence:
        """Name the labels whose words find little; () where there are none."""
        if not self.weak_words:
            return ()
        parts: list[str | Part] = ["The words find little of "]
        for place, label in enumerate(self.weak_words):
            url = url_of("words.page", project=self.project, label=label)
            parts += [", " if place else "", Part(label, url)]
        return sentence(*parts, ". Try other words there first: they may do more than corrections.")

    def compare_models(self, url_of: UrlOf) -> Sentence:
        """Say that other settings can be compared; () where there are too few corrections."""
        if self.annotations < FEWEST_PICTURES or not self.can_learn:
            return ()
        url = url_of("models.page", project=self.project)
        told = ": would another method, second encoder or size do better on these corrections?"
        return sentence(Part("Compare models", url), told)

    def word_note(self, label: str, version: VersionView) -> str:
        """Say that a label keeps its words in a version, or from the next one on; "" if neither."""
        if label in version.refused:
            return "keeps its words"
        return "keeps its words from the next version on" if label in self.as_words else ""

    def keepable(self, version: VersionView) -> list[str]:
        """Return the labels that may be left to their words: those that lose in a version first."""
        losing = version.losing
        others = (label for label in version.shown if label not in losing)
        return [label for label in (*losing, *others) if not self.word_note(label, version)]

    def pills_of(self, version: VersionView) -> list[Pill]:
        """Say in the list of versions which is in use, and which never will be."""
        if version.live:
            return [Pill("in use, chosen by hand" if self.pinned else "in use", "good")]
        return [] if version.better else [Pill("not passed", "soft", is_plain=True)]

    @property
    def reset_question(self) -> str:
        """What to ask before everything is deleted."""
        versions = count_with_noun(len(self.versions), "version")
        return _RESET.format(
            versions, self.project, count_with_noun(self.annotations, "annotation")
        )

    @property
    def words_question(self) -> str:
        """What to ask before the words alone are used."""
        stays = f"Version {self.live} stays in the list below, to be used again."
        return f"Go back to the words alone? {stays}"

    def done(self, action: str, label: str, unread: int, url_of: UrlOf) -> Sentence:
        """Say what somebody's decision does; () where there was none.

        Args:
            action: the last part of the decision's route.
            label: name of the label that it is about, as the query has it.
            unread: annotations that are still to be read.
            url_of: returns the address of a page.
        """
        if action in _MAKING:
            waiting = f"{_MAKING[action]}; this page loads itself until it is there."
            return sentence(waiting if self.asked else "The version is made.")
        if action in _DONE:
            return sentence(_DONE[action].format(self._label(label)))
        if action == "reset":
            return sentence(self._deleted(unread))
        if action != "use":
            return ()

        url = url_of("project.page", project=self.project)
        kept = "Tasks keep the masks that they have until they are prelabelled again. "
        return sentence(f"{self.now}. {kept}", Part("Prelabel those that are left", url))

    def _label(self, label: str) -> str:
        """Return a name that comes from outside only where the project has such a label."""
        known = {*self.as_words}.union(*(each.shown for each in self.versions))
        return label if label in known else "The label"

    def _deleted(self, unread: int) -> str:
        are = inflected(unread, "is", "are")
        corrections = count_with_noun(self.every, "correction")
        return (
            f"What was learned is deleted. {count_with_noun(unread, 'annotation')} {are} still to "
            f"be read again; the next version comes after {corrections}, or with Learn now."
        )


def _weak_words(version: Version) -> tuple[str, ...]:
    """Return the labels whose words find little, the weakest first."""
    known = version.found | version.text_ious
    weak = (label for label, share in known.items() if share < _WEAK_IOU)
    return tuple(sorted(weak, key=known.__getitem__)[:_MOST_WEAK])


class Losing(Struct, frozen=True):
    """What is said of labels that lose by a version."""

    labels: list[str]
    found: float | None  # when label errors were searched; None: never
    listed: int  # label errors that are to be checked first

    def told(self, url: str) -> Sentence:
        """Say which labels lose, and where a wrong annotation may be found.

        Args:
            url: address of the page of label errors.
        """
        loses = inflected(len(self.labels), "loses", "lose")
        said = f" {loses} more than a point. A wrong annotation may be the cause. "
        names = Part(", ".join(self.labels), tag="b")
        if self.found is None:
            return sentence(names, said, "Label errors say which annotations to check first.")
        would = "would check these first:" if self.listed else "have none left to check."
        return sentence(names, said, Part("Label errors", url), f" ({ago(self.found)}) {would}")


class Comparison(Struct, frozen=True, kw_only=True):
    """A version beside the words: its pictures, and what they show."""

    shown: BeforeAfter
    changes: str  # what the pictures of changes show; "" where there are none
    missing: str  # why labels have no figure; "" where all have one
    losing: Losing | None  # None where no label loses
    errors: list[tuple[int, Suspicion]]  # label errors to check first, with their places
