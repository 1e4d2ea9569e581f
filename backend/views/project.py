"""A project as a value: how far its five steps are, which one comes next, what needs a look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from backend.feedback.report.hours_left import Hours
from backend.runs.checks import CheckResult
from backend.settings import Adapt
from backend.views.glance import GlancedTask
from backend.views.jobs import JobView
from backend.views.next_step import (
    Facts,
    Step,
    TaskCounts,
    describe_masks,
    describe_progress,
    next_step,
)
from backend.views.text import Part, Pill, Sentence, ago, count_with_noun, sentence
from clearclip_core.quantities import grouped, inflected

REMAKING: Final = (
    "The version that was in use is being made again, for the model of now. Until then the words "
    "alone would predict, so masks stay as they are, and new tasks wait for it."
)

_HIDDEN: Final = (
    "Label Studio shows nobody's predictions: choose the model in the project's settings, under "
)

#: From this many tasks on, pictures that nobody has corrected can teach something.
_ENOUGH_UNLABELLED: Final = 20

#: Name of a route, and its values such as ``project`` and ``_anchor`` -> the page's address.
UrlOf = Callable[..., str]


class WordsCheck(Struct, frozen=True):
    """What the last check of all words has found."""

    run: int
    at: float | None = None  # when it was made; None while it is made
    labels: int = 0
    weak: int = 0  # labels that may need other words
    is_old: bool = False  # whether the words were changed since


class Learned(Struct, frozen=True, kw_only=True):
    """What a project has learned; gains are in mean IoU on held-out pictures."""

    live: int | None = None  # number of the version in use; None: the words alone
    gain: float | None = None  # of the version in use; None: not measured
    pinned: bool = False
    waits: int | None = None  # number of the version that waits for somebody to decide
    waits_gain: float | None = None
    changed: int = 0  # corrections since the last version
    asked: bool = False  # whether the next version is being made
    every: int = 0  # how many corrections make the next version
    trouble: str = ""
    adapt: Adapt = "auto"
    made_again: bool = False  # for another model than before


class NewestDataset(Struct, frozen=True):
    """The newest data set of a project."""

    run: int | None = None  # None before there is one
    at: float | None = None
    corrected_since: int = 0  # tasks that were corrected since it was asked for
    pictures: int = 0
    left_out: int = 0


class Reading(Struct, frozen=True):
    """How far the annotations of a project are read."""

    is_served: bool = False  # whether the project is connected to this backend
    at: float | None = None  # when they were read last, if that is long ago
    open: int = 0  # annotations that are still to be read
    tasks: int | None = None  # tasks that were read so far, while all are read for the first time
    of_tasks: int | None = None

    @property
    def sentence(self) -> str:
        """How old figures of annotations are; "" where they are of now.

        >>> Reading(is_served=True, open=1).sentence
        '1 annotation is still to be read.'
        """
        sentences = []
        if self.at:
            sentences.append(f"Annotations were read {ago(self.at)}.")
        if self.of_tasks:
            of = count_with_noun(self.of_tasks, "task")
            sentences.append(
                "The annotations that the project had are being read, the newest first: "
                f"{grouped(self.tasks or 0)} of {of} so far."
            )
        elif self.open:
            are = inflected(self.open, "is", "are")
            sentences.append(f"{count_with_noun(self.open, 'annotation')} {are} still to be read.")
        return " ".join(sentences)


class NewestChecks(Struct, frozen=True):
    """The results of the newest checks of the set-up."""

    run: int
    at: float | None  # when they were made; None while they are
    results: list[CheckResult]

    @property
    def pills(self) -> list[Pill]:
        """Whether they are being made."""
        return [Pill("being made", "wait")] if self.at is None else []


class Finding(Struct, frozen=True):
    """What needs a look: how many, of what, where, and when it was found."""

    count: int
    what: str
    url: str | None
    at: float | None = None
    remedy: str = ""

    @property
    def age(self) -> str:
        """When it was found; "" where it is of now."""
        return ago(self.at) if self.at else ""


class ProjectState(Struct, frozen=True, kw_only=True):
    """What is known of a project's steps; `next` follows from it."""

    project: int
    counts: TaskCounts | None = None  # None where Label Studio never said
    jobs: tuple[JobView, ...] = ()  # the newest ones, the last first
    words: WordsCheck | None = None  # None before any check
    learned: Learned | None = None  # None where the model is not there
    data_set: NewestDataset = NewestDataset()
    hours: Hours | None = None  # that the tasks left take; None: not known
    has_key: bool = True  # whether there is a token for Label Studio

    @property
    def next(self) -> Step:
        """The step to do next."""
        learned, words = self.learned, self.words
        is_checked = words is not None and not words.is_old
        version_waits = learned is not None and learned.waits is not None
        made_again = learned is not None and learned.made_again
        facts = Facts(
            counts=self.counts,
            words_checked=is_checked,
            predicting=self._is_predicting,
            version_waits=version_waits,
            made_again=made_again,
            corrected=self.data_set.corrected_since,
        )
        return next_step(facts)

    @property
    def _is_predicting(self) -> bool:
        """Whether a job predicts, or will by itself; a paused one waits for somebody."""
        at_work = (job for job in self.jobs if job.state in ("queued", "running"))
        return any(job.kind != "withdrawal" for job in at_work)

    @property
    def masks(self) -> str:
        """How many tasks have masks, after that number; "" where it is not known."""
        return "" if self.counts is None else describe_masks(self.counts)

    @property
    def progress(self) -> str:
        """How far the tasks are, after the number of those that are done; "" if not known."""
        return "" if self.counts is None else describe_progress(self.counts, self.hours)


# The steps


class Note(Struct, frozen=True):
    """A sentence below the figure of a step."""

    text: Sentence
    kind: Literal["", "soft", "bad"] = ""


class Progress(Struct, frozen=True):
    """A bar."""

    label: str
    done: int
    total: int


class Button(Struct, frozen=True):
    """A link that looks like a button."""

    text: str
    url: str
    is_first: bool  # whether it is what to do next


class Offer(Struct, frozen=True):
    """A button that starts a job."""

    text: str
    is_all: bool = False  # for tasks with an annotation, too
    has_choice: bool = False  # whether somebody may choose these


class StepView(Struct, frozen=True, kw_only=True):
    """A step as a page shows it."""

    name: Step
    title: str
    is_next: bool = False
    pill: Pill | None = None
    figure: str = ""  # such as "3", before the sentence; "" where nothing was measured
    sentence: Sentence
    notes: tuple[Note, ...] = ()
    progress: Progress | None = None
    buttons: tuple[Button, ...] = ()
    offer: Offer | None = None


def step_views(state: ProjectState, url_of: UrlOf, tasks_url: str) -> tuple[StepView, ...]:
    """Return the five steps of a project.

    Args:
        state: what is known of the project.
        url_of: returns the address of a page.
        tasks_url: address of the project in Label Studio; "" where people cannot reach it.
    """
    return (
        words_step(state, url_of),
        prelabel_step(state, url_of),
        correct_step(state, url_of, tasks_url),
        learn_step(state, url_of),
        export_step(state, url_of),
    )


def words_step(state: ProjectState, url_of: UrlOf) -> StepView:
    """Say whether the model knows the words of the labels."""
    words, is_next = state.words, state.next == "words"
    figure, pill, text = "", None, "Check words"
    if words is None:
        told = "not checked yet: does the model know these words?"
    elif words.at is None:
        pill = Pill("being checked", "wait")
        told = "the words of all labels are being checked"
    elif words.is_old:
        pill = Pill("changed", "wait")
        told = f"the words were changed since they were checked, {ago(words.at)}"
    else:
        pill = Pill("weak words", "wait") if words.weak else Pill("checked", "good")
        figure, text = grouped(words.weak), "Try words"
        labels = count_with_noun(words.labels, "label")
        told = f"of {labels} may need other words, checked {ago(words.at)}"

    return StepView(
        name="words",
        title="1. Words",
        is_next=is_next,
        pill=pill,
        figure=figure,
        sentence=sentence(told),
        buttons=(Button(text, url_of("words.page", project=state.project), is_next),),
    )


def prelabel_step(state: ProjectState, url_of: UrlOf) -> StepView:
    """Say which tasks have masks of the version in use, and offer to make the others'."""
    is_next = state.next == "prelabel"
    figure, told = _masks(state)
    job = next((each for each in state.jobs if not each.over), None)
    buttons: tuple[Button, ...] = ()
    progress = None
    if job is not None:
        buttons = (Button(f"Job {job.id}", url_of("jobs.show", job=job.id), is_next),)
        if job.total:
            progress = Progress(f"Progress of job {job.id}", job.processed, job.total)

    return StepView(
        name="prelabel",
        title="2. Prelabel",
        is_next=is_next,
        pill=_prelabel_pill(state, job),
        figure=figure,
        sentence=sentence(told),
        notes=tuple(_prelabel_notes(state, job, url_of)),
        progress=progress,
        buttons=buttons,
        offer=None if job is not None else _offer(state),
    )


def _masks(state: ProjectState) -> tuple[str, str]:
    """Return how many tasks have masks, and the sentence after that figure."""
    counts = state.counts
    if counts is None:
        return "", "masks of the version in use: not known"
    if not counts.tasks:
        return "0", "tasks: import pictures in Label Studio first"
    if not counts.unseen:
        return "0", "tasks are left to predict"
    return grouped(counts.unseen - counts.waiting), state.masks


def _has_failed(jobs: tuple[JobView, ...]) -> bool:
    newest = next(iter(jobs), None)
    return newest is not None and newest.state == "failed"


def _prelabel_pill(state: ProjectState, job: JobView | None) -> Pill | None:
    if job is not None:
        return Pill(job.state, "wait")
    if _has_failed(state.jobs):
        return Pill("failed", "bad")
    counts = state.counts
    if counts is not None and counts.unseen and counts.waiting == counts.withheld:
        return Pill("done", "good")
    return None


def _prelabel_notes(state: ProjectState, job: JobView | None, url_of: UrlOf) -> Iterable[Note]:
    counts, learned = state.counts, state.learned
    if counts is not None:
        if counts.tasks and counts.unseen and counts.withheld:
            gets = inflected(counts.withheld, "gets", "get")
            url = url_of("report.page", project=state.project, _anchor="measure")
            measured = Part("time that a prediction saves", url)
            told = f"{count_with_noun(counts.withheld, 'task')} {gets} none while the "
            yield Note(sentence(told, measured, " is measured."))
        if not counts.shown:
            yield Note(sentence(_HIDDEN, Part("Annotation", tag="i"), "."), "bad")

    if job is None and _has_failed(state.jobs):
        newest = state.jobs[0]
        yield Note(sentence(f"Job {newest.id}: {newest.reason}"), "bad")
    if learned is not None and learned.made_again:  # a job of new tasks waits for it, too
        yield Note(sentence(REMAKING), "soft")


def _offer(state: ProjectState) -> Offer | None:
    """Return the job to start; None where one is open already, or would change nothing."""
    counts, learned = state.counts, state.learned
    if learned is not None and learned.made_again:
        return None
    if counts is None:
        return Offer("Prelabel", has_choice=True) if state.has_key else None
    if counts.to_predict and counts.to_predict == counts.older:
        are = inflected(counts.older, "is", "are")
        return Offer(
            f"Prelabel the {grouped(counts.older)} that {are} left with {_version(learned)}"
        )
    if counts.to_predict:
        return Offer("Prelabel", has_choice=bool(counts.annotated))
    if counts.failed:
        return Offer(f"Try the {grouped(counts.failed)} again")
    return Offer("Prelabel annotated tasks", is_all=True) if counts.annotated else None


def _version(learned: Learned | None) -> str:
    if learned is None or not learned.live or learned.gain is None:
        return "the version in use"
    return f"version {learned.live} ({100 * learned.gain:+.1f})"


def correct_step(state: ProjectState, url_of: UrlOf, tasks_url: str) -> StepView:
    """Say how many tasks are done, and lead to Label Studio's own stream of the others."""
    counts, is_next = state.counts, state.next == "correct"
    if counts is None:
        return StepView(
            name="correct",
            title="3. Correct",
            sentence=sentence("tasks done: not known"),
        )

    is_done = counts.done and not counts.left
    notes = (Note(sentence(counts.tools), "soft"),) if counts.tools else ()
    return StepView(
        name="correct",
        title="3. Correct",
        is_next=is_next,
        pill=Pill("done", "good") if is_done else None,
        figure=grouped(counts.done),
        sentence=sentence(state.progress),
        notes=notes,
        buttons=tuple(_correct_buttons(state, counts, url_of, tasks_url)),
    )


def _correct_buttons(
    state: ProjectState, counts: TaskCounts, url_of: UrlOf, tasks_url: str
) -> Iterable[Button]:
    if not counts.left or not tasks_url:
        return
    # The first task that waits, and after Submit the next one.
    yield Button("Correct", f"{tasks_url}?labeling=1", state.next == "correct")
    if counts.unseen > counts.waiting:
        url = url_of("review.page", project=state.project)
        yield Button("Review at a glance", url, is_first=False)


def learn_step(state: ProjectState, url_of: UrlOf) -> StepView:
    """Say which version is in use, what it gains, and when the next one comes."""
    learned, is_next = state.learned, state.next == "learn"
    figure, told = _learned(learned, state.counts)
    text = "Decide" if learned is not None and learned.waits else "Learning"
    return StepView(
        name="learn",
        title="4. Learn",
        is_next=is_next,
        pill=_learn_pill(learned),
        figure=figure,
        sentence=told,
        buttons=(Button(text, url_of("learning.show", project=state.project), is_next),),
    )


def _learn_pill(learned: Learned | None) -> Pill | None:
    if learned is None:
        return None
    if learned.trouble:
        return Pill("failed", "bad")
    if learned.adapt == "off":
        return Pill("off", "soft")
    return Pill("in use", "good") if learned.live else None


def _learned(learned: Learned | None, counts: TaskCounts | None) -> tuple[str, Sentence]:
    """Return by how much corrections have helped, and the sentence after that figure."""
    if learned is None:
        return "", sentence("not known: the model is not there")
    if learned.adapt == "off":
        off = Part('adapt="off"', tag="code")
        before = "the labeling config or the backend's settings say "
        return "", sentence(before, off, ": corrections teach nothing")
    if learned.waits:
        told = f"{_gained(learned.waits_gain)}: version {learned.waits} waits for you"
        if learned.live:
            told += f"; version {learned.live} is in use"
        return _points(learned.waits_gain), sentence(told)

    after = _next_version(learned)
    if learned.live:
        told = f"{_gained(learned.gain)}: version {learned.live} is in use"
        return _points(learned.gain), sentence(told + after)
    told = "the words alone are in use"
    if counts is not None and counts.tasks >= _ENOUGH_UNLABELLED and not learned.changed:
        told += "; unlabelled pictures can teach, too"
    return "", sentence(told + after)


def _points(gain: float | None) -> str:
    return "" if gain is None else f"{100 * gain:+.1f} points"


def _gained(gain: float | None) -> str:
    return "not measured yet" if gain is None else "of IoU on held-out pictures"


def _next_version(learned: Learned) -> str:
    """Say when the next version comes, after which one is in use; "" without corrections."""
    if learned.pinned:
        return ", chosen by hand, so no new version is made"
    if not learned.changed:
        return ""
    if learned.asked:
        when = "the next version is being made"
    elif learned.changed < learned.every:
        when = f"the next version comes after {learned.every}"
    else:
        when = "enough for the next version"
    since = " since" if learned.live else ""
    return f"; {count_with_noun(learned.changed, 'correction')}{since}, {when}"


def export_step(state: ProjectState, url_of: UrlOf) -> StepView:
    """Say how many tasks the newest data set lacks."""
    made, is_next = state.data_set, state.next == "export"
    pill = None
    if made.left_out:
        pill = Pill(f"{grouped(made.left_out)} left out", "wait")
    elif made.run and not made.corrected_since:
        pill = Pill("done", "good")

    since = "and no data set yet"
    if made.run and made.at is not None:
        since = f"since the last data set, {ago(made.at)}"
    parts: list[str | Part] = [f"{inflected(made.corrected_since, 'task')} corrected {since}"]
    if made.left_out:
        were = inflected(made.left_out, "was", "were")
        why = f"why {count_with_noun(made.left_out, 'task')} {were} left out"
        parts.append(f". It has {count_with_noun(made.pictures, 'picture')}; ")
        url = url_of("datasets.page", project=state.project, _anchor="left-out")
        parts.append(Part(why, url))

    return StepView(
        name="export",
        title="5. Export",
        is_next=is_next,
        pill=pill,
        figure=grouped(made.corrected_since),
        sentence=sentence(*parts),
        buttons=(Button("Data sets", url_of("datasets.page", project=state.project), is_next),),
    )


# The project


class ProjectView(Struct, frozen=True, kw_only=True):
    """A project as its page and its JSON show it."""

    project: int
    counts: TaskCounts | None
    counted: float | None  # when the counts were told, where Label Studio does not answer now
    trouble: str  # why it does not; "" where it does
    is_away: bool  # whether that is because it cannot be reached
    jobs: tuple[JobView, ...]
    words: WordsCheck | None
    hours: Hours | None
    learned: Learned | None
    data_set: NewestDataset
    read: Reading = Reading()
    checks: NewestChecks | None = None
    findings: list[Finding] = []
    glance: tuple[GlancedTask, ...] = ()
    next: Step = ""
    masks: str = ""
    progress: str = ""
    steps: tuple[StepView, ...] = ()

    def with_steps(self, state: ProjectState, url_of: UrlOf, tasks_url: str) -> ProjectView:
        """Return the view with what follows from a state; see `step_views` for the arguments."""
        return replace(
            self,
            next=state.next,
            masks=state.masks,
            progress=state.progress,
            steps=step_views(state, url_of, tasks_url),
        )

    @property
    def notice(self) -> str:
        """Why its counts are old or missing; "" where they are of now."""
        if not self.trouble:
            return ""
        told = "Label Studio does not say how far the project is"
        if self.counted is not None:
            told += f", so the numbers of tasks are those of {ago(self.counted)}"
        return f"{told}: {self.trouble}"

    @property
    def present(self) -> list[Finding]:
        """The findings that there is something of."""
        return [each for each in self.findings if each.count]

    @property
    def look_pills(self) -> list[Pill]:
        """Whether what needs a look is what to do next."""
        return [Pill("next", "good")] if self.next == "look" else []

    @property
    def is_renewed(self) -> bool:
        """Whether the page changes by itself: a job or a check is at work."""
        is_open = any(not job.over for job in self.jobs)
        return is_open or (self.checks is not None and self.checks.at is None)

    @property
    def is_unconnected(self) -> bool:
        """Whether it is known that the project is not connected to this backend."""
        return not self.is_away and not self.read.is_served

    def has_finding(self, url: str) -> bool:
        """Whether some finding leads to a page."""
        return any(each.url == url for each in self.findings)
