"""What is learned, with a stand-in whose colours a person can foresee and with the demo model."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sqlalchemy import select

from backend.database.database import Database
from backend.errors import ImageRefused, LearningRefused, StudioRefused, StudioUnreachable
from backend.feedback.annotation_reader import annotator_key
from backend.feedback.comparison import AnnotationDiff, ImageDiff
from backend.feedback.evidence import ImageEvidence
from backend.inference.engine import Engine
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prompts import Context, Keypoint, Prompt
from backend.label_studio.records import Annotation
from backend.label_studio.region_reader import Rectangle
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.learning import examples as training_examples
from backend.learning import learner
from backend.learning import unlabelled as unlabelled_images
from backend.learning.compared_images import Work
from backend.learning.examples import STATES
from backend.learning.learner import Learner
from backend.learning.versions import model_key
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import (
    Adaptation,
    DenseFeatures,
    Example,
    Fit,
    Label,
    RGBArray,
    UnlabelledFit,
    Vocabulary,
    adapt,
)
from clearclip_core.adaptation.fitting import HeldOutAdaptations
from clearclip_core.adaptation.people import AnnotatorFinding
from clearclip_core.adaptation.unlabelled import Judgement
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    pixels_of,
    teach,
)
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.learning_stores import LearningStores
from tests.backend.feedback.test_comparison import region
from tests.backend.prediction.annotator import mask_of, request_for
from tests.backend.prediction.test_predictor import read_image

Masks = Mapping[str, npt.NDArray[np.bool_]]

CONFIG = brush_config("wine", "blue")
SIZE_HW = (40, 60)


class Fits:
    """A stand-in for `clearclip_core.adapt` that says what it is told to."""

    def __init__(self) -> None:
        self.adaptation: Adaptation | None = teach(wine="red")
        self.people: tuple[AnnotatorFinding, ...] = ()
        self.as_words: tuple[str, ...] = ()
        self.label_loss = 0.0
        self.asked: list[tuple[Sequence[Example], Vocabulary]] = []

    def __call__(
        self,
        examples: Sequence[Example],
        embed: Any,
        vocabulary: Vocabulary,
        *,
        label_loss: float,
        as_words: Collection[str] = (),
    ) -> Fit:
        self.asked.append((examples, vocabulary))
        self.as_words, self.label_loss = tuple(as_words), label_loss
        assert embed(vocabulary.queries).shape == (len(vocabulary.queries), 3)
        told = {"wine": 0.4}, {"wine": 0.6}, len(examples)
        if self.adaptation is None:
            return Fit(None, *told)
        own = {each.picture_key: self.adaptation for each in examples}
        held_out = HeldOutAdaptations(own, self.adaptation)
        return Fit(
            self.adaptation,
            *told,
            shown={"wine": len(examples)},
            held_out=held_out,
            people=self.people,
        )


class Studio:
    """What learning asks of Label Studio: a labeling config, and annotations with their tasks."""

    def __init__(self, xml: str = CONFIG) -> None:
        self.xml = xml
        self.regions: dict[int, list[dict[str, Any]]] = {}
        self.fault: Exception | None = None
        self.hides_people = False

    def user_names(self) -> dict[int, str]:
        if self.hides_people:
            raise StudioRefused("You do not have permission.")
        return {5: "Ada", 6: "Ben"}

    def config(self, project: int) -> LabelConfig:
        if self.fault is not None:
            raise self.fault
        return parse_label_config(self.xml, None)

    def annotation(self, annotation: int) -> Annotation | None:
        if annotation not in self.regions:
            return None
        return Annotation(annotation, annotation, 7, self.regions[annotation])

    def task(self, project: int, task: int) -> Task:
        return Task(task, project, {"image": "flag"})

    def ids(self, project: int, wanted: TaskFilter) -> list[int]:
        return list(range(1, 301))

    def all_tasks(self, project: int, wanted: TaskFilter) -> list[Task]:
        """One picture in ten is gone."""
        images = {number: "flag" if number % 10 else "gone" for number in wanted.ids or ()}
        return [Task(number, project, {"image": image}) for number, image in images.items()]


class School:
    def __init__(self, database: Database, owner: str = "me", **settings: Any) -> None:
        self.settings = Settings(**{"adapt_every": 2} | settings)
        engine = colour_engine()
        key = model_key(self.settings, engine.model_id)
        self.stores = LearningStores.of(database, owner, lambda: key)
        self.fits = Fits()
        self.learner = make_learner(self.settings, engine, read_image, self.stores, self.fits)
        self.predictor = Predictor(engine, read_image, self.settings, learned=self.stores.versions)

    def learn(self, *annotations: int, config: str = CONFIG, image: str = "flag") -> None:
        for annotation in annotations:
            self.learner.learn(corrected(annotation, {"wine": left_third()}, config, image))

    def step(self, config: str = CONFIG) -> bool:
        made = self.learner.take_due_step(Studio(config))
        if self.stores.versions.state(7).adapt == "auto":
            self.stores.use_first()
        return made

    def predict(self, config: str = CONFIG, project: int = 7) -> dict[str, Any]:
        task = Task(1, project, {"image": "flag"})
        (entry,) = self.predictor.predict(
            request_for(config, task, project=project, adapt=self.settings.adapt)
        )
        for each in entry["result"]:
            del each["id"]  # of the version too
        return entry

    def taught(self) -> list[Example]:
        return [Example.from_bytes(each.example) for each in self.stores.examples.examples(7)]

    def labels(self, config: str = CONFIG) -> list[str]:
        return [each["value"]["brushlabels"][0] for each in self.predict(config)["result"]]


def make_learner(
    settings: Settings,
    engine: Engine,
    read: ReadImage,
    stores: LearningStores,
    fit_examples: Callable[..., Fit] = adapt,
) -> Learner:
    return Learner(settings, engine, read, stores.examples, stores.versions, fit_examples)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/school.db", Clock())
    yield database
    database.close()


def left_third() -> npt.NDArray[np.bool_]:
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[:, :20] = True
    return mask


def corrected(
    annotation: int,
    final: Masks,
    config: str = CONFIG,
    image: str = "flag",
    size_hw: tuple[int, int] = SIZE_HW,
    project: int = 7,
    evidence: ImageEvidence | None = None,
) -> AnnotationDiff:
    parsed = parse_label_config(config, None)
    picture = ImageDiff(
        parsed.images[0], None, size_hw, bool(final), evidence or ImageEvidence(final)
    )
    task = Task(annotation, project, {"image": image})
    return AnnotationDiff(annotation, project, task, parsed, (picture,), 0.0, "somebody")


def test_an_annotation_gives_what_its_picture_and_masks_teach(database: Database) -> None:
    school = School(database)
    school.learn(1)
    (example,) = school.taught()
    assert (example.known, example.names) == (("blue", "wine"), ("wine",))
    assert example.weights[example.labels == 0].sum() == pytest.approx(1 / 3, abs=0.01)
    wine = example.features[example.labels == 0]
    assert np.array_equal(wine, [[255, 0, 0]] * len(wine))  # the stand-in's features are colours
    school.learner.learn(corrected(2, {"blue": left_third()}))
    assert len({each.picture for each in school.taught()}) == 1
    school.learner.forget(2)
    school.learn(1)
    assert school.stores.versions.state(7).changed == 3
    school.learner.forget(1)
    school.learner.learn(corrected(3, {"wine": left_third()}, evidence=ImageEvidence({})))
    assert school.taught() == [], "rectangles, for one, say nothing"


def test_an_example_says_who_drew_what_and_what_was_kept_or_removed(database: Database) -> None:
    upper, lower = left_third(), left_third()
    upper[20:], lower[:20] = False, False
    said = ImageEvidence({"wine": left_third()}, {"wine": upper}, {"blue": lower})
    school = School(database)
    school.learner.learn(corrected(1, {"wine": left_third()}, evidence=said))
    (example,) = school.taught()
    assert example.annotator == "somebody"
    assert (example.names, example.removed_names) == (("wine",), ("blue",))
    lower_half = example.labels == 0
    assert np.array_equal(lower_half, example.removed[:, 0]), "of the left third"
    assert example.weights[lower_half].sum() == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize("image", ["gone", "wide", "flag"])
def test_a_picture_that_does_not_fit_or_has_features_that_are_not_finite_teaches_nothing(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    image: str,
) -> None:
    encode = ColourSegmenter.encode_batch

    def too_large(*given: Any) -> list[DenseFeatures]:
        (features,) = encode(*given)
        features.patches[0, 0, 0, 0] = torch.nan
        return [features]

    school = School(database)
    if image == "flag":
        monkeypatch.setattr(ColourSegmenter, "encode_batch", too_large)
    school.learn(1, image=image)
    assert "Annotation 1 cannot be learned from" in caplog.text
    assert ("the model's features" in caplog.text) == (image == "flag")
    assert school.taught() == []


def test_a_picture_that_is_not_handed_out_leaves_what_was_learned(database: Database) -> None:
    school = School(database)
    school.learn(1, 2)
    school.step()
    before = school.predict()

    def refuse(source: str, task: Task) -> RGBArray:
        raise ImageRefused("The storage answers with HTTP 503.")

    away = make_learner(school.settings, colour_engine(), refuse, school.stores)
    for annotation in (1, 2, 3):
        with pytest.raises(ImageRefused):
            away.learn(corrected(annotation, {"wine": left_third()}))
    state = school.stores.versions.state(7)
    assert (state.annotations, state.changed, state.live) == (2, 0, 1)
    assert school.predict() == before


def test_a_list_of_pictures_teaches_those_with_regions(database: Database) -> None:
    xml = CONFIG.replace('value="$image"', 'valueList="$pages"')
    config = parse_label_config(xml, None)
    task = Task(1, 7, {"pages": ["red", "flag"]})
    masks = {"wine": left_third()}
    pictures = tuple(
        ImageDiff(config.images[0], index, SIZE_HW, True, ImageEvidence(masks)) for index in (1, 5)
    )
    school = School(database)
    school.learner.learn(AnnotationDiff(1, 7, task, config, pictures, 0.0))
    (example,) = school.taught()
    assert (example.features[example.labels == 0] == [255, 0, 0]).all()


def test_a_step_comes_after_so_many_and_predictions_follow_it(database: Database) -> None:
    school = School(database)
    before = school.predict()
    school.learn(1)
    assert not school.step()
    school.learn(2)
    assert school.step()
    assert not school.step()
    ((examples, vocabulary),) = school.fits.asked
    assert len(examples) == 2
    assert vocabulary.labels == (Label("wine"), Label("blue"))
    assert vocabulary.contrast == ("grey",)
    after = school.predict()
    assert [each["value"]["brushlabels"] for each in before["result"]] == [["blue"]]
    assert [each["value"]["brushlabels"] for each in after["result"]] == [["wine"], ["blue"]]
    assert np.array_equal(mask_of(after["result"][0]), left_third())
    name, count_text = after["model_version"].rsplit(" ", 1)
    assert count_text == "v1"
    assert name.rsplit(" ", 2)[0] == before["model_version"].rsplit(" ", 1)[0]
    assert name.endswith(" +2")
    assert school.predict(project=8) == before
    assert School(database, "another").predict() == after


def test_what_an_annotator_asks_for_follows_too(database: Database) -> None:
    school = School(database)
    xml = CONFIG.replace("</View>", '<TextArea name="t" toName="image"/></View>')
    shapes = [Keypoint(10, 50), Rectangle(0, 0, 30, 100), "wine", "all"]

    def ask(shape: Any) -> list[dict[str, Any]]:
        labels = () if isinstance(shape, str) else ("wine",)
        context = Context((Prompt(shape, labels, "t", "image"),))
        task = Task(1, 7, {"image": "flag"})
        (entry,) = school.predictor.predict(request_for(xml, task, project=7, context=context))
        return [r for r in entry["result"] if r["value"]["brushlabels"] == ["wine"]]

    assert ask("wine") == ask("all") == []
    school.learn(1, 2, config=xml)
    school.step(xml)
    for shape in shapes:
        (region,) = ask(shape)
        mask = mask_of(region)
        assert mask[:, :18].all()
        assert not mask[:, 22:].any()
    assert ask("a bottle -> wine") == []  # free words have learned nothing


@pytest.mark.parametrize(
    ("adapt", "own", "pinned"), [("ask", "auto", True), ("auto", "ask", False)]
)
def test_the_config_decides_on_pins(database: Database, adapt: str, own: str, pinned: bool) -> None:
    school = School(database, adapt=adapt)
    school.learn(1, 2)
    assert school.step(brush_config("wine", "blue", attributes=f'adapt="{own}"'))
    assert school.stores.versions.state(7).waits != pinned
    assert school.learner.use(7, 1).pinned == pinned


def test_before_and_after_are_shown(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """On its pictures as they were held out; an annotation that is gone is left out."""
    school, there = School(database), Studio(CONFIG.replace('"wine"', '"wine" background="Red"'))
    there.regions = {1: [region("a", "wine", left_third(), to_name="image")]}
    school.learn(1)
    school.learn(2, image="red")
    assert school.learner.take_due_step(there)
    before_after = school.stores.versions.before_after(7, 1)
    (shown,) = before_after.pictures
    assert shown.task == 1
    third = pytest.approx(1 / 3)  # to erase: the blue one, which nobody has labelled
    assert (shown.text_work, shown.adapted_work) == (Work(third, third), Work(0, third))
    assert before_after.colours["wine"] == "#ff0000"
    assert set(before_after.colours) == {"wine", "blue"}
    pictures = [pixels_of(url) for url in (shown.annotated, shown.words, shown.adapted)]
    third = np.s_[5:35, 2:18]
    assert np.allclose(pictures[0][third], pictures[2][third], atol=12)


def flags(source: str, task: Task) -> RGBArray:
    """Pictures that differ in a pixel, so that none is a near-duplicate by its digest."""
    image = read_image("flag", task).copy()
    image[-1, -1] = task.id or 0
    return image


@pytest.mark.parametrize(
    ("sees_propagated", "count", "is_used"), [(True, 8, True), (False, 8, False), (True, 5, None)]
)
def test_a_version_propagates_its_scores_where_held_out_pictures_gain_by_it(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    sees_propagated: bool,
    count: int,
    is_used: bool | None,
) -> None:
    """The stand-in sees wine only where scores are propagated, or only where they are not.

    That is clear after six of the eight.
    """
    decide = ColourSegmenter.decide

    def some(self: Any, scores: Any, *how: Any) -> Any:
        sees = how[-1] == sees_propagated
        return decide(self, scores if sees else replace(scores, taught={}), *how)

    monkeypatch.setattr(ColourSegmenter, "decide", some)
    school, there = School(database), Studio(CONFIG)
    school.learner.read_image = flags
    for number in range(1, count + 1):
        there.regions[number] = [region("a", "wine", left_third(), to_name="image")]
        school.learn(number)
    assert school.learner.take_due_step(there)
    version, adaptation = school.stores.versions.version(7, 1)
    assert adaptation is not None
    assert adaptation.propagate == bool(is_used)
    assert version.digest == adaptation.digest
    trial = version.propagation_trial
    assert (None if trial is None else trial.is_used) == is_used
    if trial is not None:
        assert (trial.pictures, trial.gain) == (6, pytest.approx(1 if sees_propagated else -1))
        assert trial.losing == (() if sees_propagated else ("wine",))


def test_a_trial_whose_sign_is_not_clear_takes_no_more_than_twelve_pictures(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in sees wine in turns: where scores are propagated, and where they are not."""
    decide, tried = ColourSegmenter.decide, itertools.count()

    def in_turns(self: Any, scores: Any, *how: Any) -> Any:
        sees = next(tried) % 4 in (0, 3)
        return decide(self, scores if sees else replace(scores, taught={}), *how)

    monkeypatch.setattr(ColourSegmenter, "decide", in_turns)
    school, there = School(database), Studio(CONFIG)
    school.learner.read_image = flags
    for number in range(1, 15):
        there.regions[number] = [region("a", "wine", left_third(), to_name="image")]
        school.learn(number)
    assert school.learner.take_due_step(there)
    trial = school.stores.versions.versions(7)[0].propagation_trial
    assert trial is not None
    assert (trial.pictures, trial.is_used) == (12, False)
    assert trial.low < 0 < trial.high


def test_nothing_is_tried_where_all_scores_are_propagated(database: Database) -> None:
    school, there = School(database, propagate=True), Studio(CONFIG)
    school.learner.read_image = flags
    for number in range(1, 8):
        there.regions[number] = [region("a", "wine", left_third(), to_name="image")]
        school.learn(number)
    assert school.learner.take_due_step(there)
    assert school.stores.versions.versions(7)[0].propagation_trial is None


def test_the_picture_of_changes_is_green_where_the_version_alone_is_right(
    database: Database,
) -> None:
    school, there = School(database), Studio(CONFIG)
    there.regions = {1: [region("a", "wine", left_third(), to_name="image")]}
    school.learn(1)
    school.learn(2, image="red")
    assert school.learner.take_due_step(there)
    (shown,) = school.stores.versions.before_after(7, 1).pictures
    assert (shown.changed, shown.gained, shown.lost) == (pytest.approx(1 / 3),) * 2 + (0,)
    picture = pixels_of(shown.changes).astype(int)
    red, green, blue = picture[5:35, 4:16].reshape(-1, 3).mean(0)
    assert green > red + 20
    assert green > blue + 20
    assert np.ptp(picture[5:35, 30:].reshape(-1, 3).mean(0)) < 6, "the rest is grey"
    assert school.stores.versions.before_after(7, 9).pictures == ()


def test_the_fit_is_told_which_labels_keep_their_words(database: Database) -> None:
    school = School(database, adapt_label_loss=4)
    school.learn(1, 2)
    school.stores.versions.keep_words(7, "wine")
    assert school.step()
    assert (school.fits.as_words, school.fits.label_loss) == (("wine",), 0.04)


def test_a_config_may_say_what_follows_corrections(database: Database) -> None:
    school = School(database)
    off = brush_config("wine", "blue", attributes='adapt="OFF"')
    before = school.predict(off)
    assert before == school.predict()
    school.learn(1, 2)
    school.step()
    assert school.predict(off) == before
    assert school.predict() != before
    school.learn(1, config=off)
    assert school.stores.versions.state(7).annotations == 1
    assert School(database, adapt="off").predict() == before
    on = brush_config("wine", "blue", attributes='adapt="auto"')
    assert School(database, adapt="off").labels(on) == ["wine", "blue"]


def test_a_request_keeps_the_version_that_it_has_begun_with(database: Database) -> None:
    school = School(database)

    def is_wanted(version: str, config: LabelConfig) -> bool:
        versions = school.predictor.versions
        return versions.of(config, versions.active_model(config, 7, keep=version)) == version

    config = parse_label_config(CONFIG, None)
    start = school.predictor.versions.current(config, 7)
    school.learn(1, 2)
    school.step()
    first = school.predictor.versions.current(config, 7)
    school.fits.adaptation = teach(wine="white")
    school.learn(3, 4)
    school.step()
    newest = school.predictor.versions.current(config, 7)
    assert len({start, first, newest}) == 3
    for version in (start, first, newest):
        assert is_wanted(version, config)
    assert not is_wanted("another", config)
    other = parse_label_config(brush_config("wine"), None)
    assert not is_wanted(first, other)
    for annotation in (1, 2, 3, 4):
        school.learner.forget(annotation)
    assert not is_wanted(first, config), "the words decide at once"


def test_an_annotation_that_is_too_old_to_count_is_not_even_read(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training_examples, "MOST_ANNOTATIONS", 2)
    school = School(database)
    school.learn(5, 4)
    school.learn(1, image="gone")
    assert "cannot be learned from" not in caplog.text
    school.learn(6)
    kept = [each.annotation for each in school.stores.examples.examples(7)]
    assert (sorted(kept), school.stores.versions.state(7).annotations) == ([5, 6], 2)


def test_a_step_that_fails_is_given_back_with_the_reason(database: Database) -> None:
    school = School(database)
    school.learn(1, 2)

    away = Studio()
    away.fault = StudioUnreachable("Label Studio does not answer.")
    with pytest.raises(StudioUnreachable):
        school.learner.take_due_step(away)
    assert school.stores.versions.state(7).trouble == "Label Studio does not answer."
    assert not school.step()
    database.clock.now += 601
    assert school.step()


def test_a_step_by_hand_is_refused_with_a_reason(database: Database) -> None:
    school = School(database)
    now = Studio()
    with pytest.raises(LearningRefused, match="no corrections"):
        school.learner.step(7, now)
    school.learn(1)
    made = school.learner.step(7, now)
    assert made.number == 1
    school.stores.lease()
    with pytest.raises(LearningRefused, match="just now"):
        school.learner.step(7, now)
    surgery = School(database, method="clipsurgery")
    known = school.stores.versions.state(7)
    surgery.learn(1, 2)
    assert surgery.taught() == []
    assert school.stores.versions.state(7) == known, "what other methods have learned is left alone"
    with pytest.raises(LearningRefused, match="clipsurgery cannot learn"):
        surgery.learner.step(7, now)


def test_a_step_waits_for_the_model(database: Database) -> None:
    school = School(database)
    school.learn(1, 2)
    unloaded = Engine(school.learner.engine.segmenter, lambda: "colours-1")
    assert not make_learner(
        school.settings, unloaded, read_image, school.stores, school.fits
    ).take_due_step(Studio())
    assert school.step()


@pytest.fixture
def unlabelled(monkeypatch: pytest.MonkeyPatch) -> list[Example]:
    """What `adapt_unlabelled` was given; it teaches that wine is red."""
    given: list[Example] = []

    def fit(examples: Sequence[Example], _embed: Any, vocabulary: Vocabulary) -> UnlabelledFit:
        given.extend(examples)
        assert [label.name for label in vocabulary.labels] == ["wine", "blue"]
        return UnlabelledFit(teach(wine="red"), 30, {"wine": (0.1, 0.4), "blue": (0.5, 0.2)})

    monkeypatch.setattr(unlabelled_images, "adapt_unlabelled", fit)
    return given


def test_unlabelled_pictures_make_a_version(database: Database, unlabelled: list[Example]) -> None:
    school = School(database)
    words = school.predict()
    school.stores.versions.request_step(7, unlabelled=True)
    assert school.learner.take_due_step(Studio())
    assert not school.learner.take_due_step(Studio())
    assert 150 < len(unlabelled) < 200, "of 200 of the 300 tasks, those that can be read"
    assert {each.known for each in unlabelled} == {("blue", "wine")}
    assert all((each.labels == -1).all() for each in unlabelled)
    (version,) = school.stores.versions.versions(7)
    assert (version.annotations, version.unlabelled) == (0, 30)
    assert version.areas == {"wine": (0.1, 0.4), "blue": (0.5, 0.2)}
    assert school.stores.versions.state(7).waits == 1
    assert school.predict() == words, "somebody has to look first"
    pictures = school.stores.versions.before_after(7, 1).pictures
    assert len(pictures) == 6
    for each in pictures:
        assert not each.annotated
        assert each.words != each.adapted
    assert not school.learner.use(7, 0).pinned, "corrections may do better"
    assert school.predict() == words
    school.stores.versions.request_step(7, unlabelled=True)
    assert school.learner.take_due_step(Studio())
    assert len(school.stores.versions.versions(7)) == 1, "it does as the one before"
    assert not school.learner.use(7, 1).pinned
    assert school.predict() != words


@pytest.mark.parametrize("has_lost", [False, True])
def test_corrections_judge_it_take_it_back_where_it_lost_and_replace_it(
    database: Database, unlabelled: list[Example], has_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Judgement(-0.01, has_lost, ("wine",))
    monkeypatch.setattr(learner, "judge_adaptation", lambda *_: judged)
    school = School(database)
    versions = school.stores.versions
    versions.request_step(7, unlabelled=True)
    school.learner.take_due_step(Studio())
    school.learner.use(7, 1)
    school.fits.adaptation = teach(wine="green")
    school.learn(1, 2)
    school.learner.take_due_step(Studio())
    newest = versions.versions(7)[0]
    assert (newest.unlabelled_gain, newest.unlabelled) == (-0.01, 0)
    assert newest.unlabelled_losing == ("wine",)
    state = versions.state(7)
    assert state.live == (None if has_lost else 1)
    assert state.waits == 2, "nobody has looked at what corrections teach"
    school.fits.adaptation = teach(wine="white")
    school.learn(3, 4)
    school.learner.take_due_step(Studio())
    assert versions.state(7).waits == 3
    school.learner.use(7, 3)
    school.fits.adaptation = teach(wine="red", blue="red")
    school.learn(5, 6)
    school.learner.take_due_step(Studio())
    assert versions.state(7).live == 4, "from then on by themselves"
    assert versions.versions(7)[0].unlabelled_gain is None


def test_an_unlabelled_picture_that_ends_the_process_is_left_out_after_three_deaths(
    database: Database,
    unlabelled: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deadly = sample_of(School(database).learner, 5)

    def read(source: str, task: Task) -> RGBArray:
        if task.id == deadly:
            raise SystemExit("as if the process had died")
        return read_image(source, task)

    School(database).stores.versions.request_step(7, unlabelled=True)
    for number in range(3):
        school = School(database, f"dies-{number}")
        school.learner.read_image = read
        monkeypatch.setattr(school.stores.versions, "release", lambda *_: None)
        with pytest.raises(SystemExit):
            school.step()
        end_leases(database, table="learning_states")
    school = School(database, "lives")
    school.learner.read_image = read
    assert school.step()
    assert school.stores.versions.versions(7)[0].unlabelled == 30
    assert f"while it worked on task {deadly}" in caplog.text


def test_a_death_after_all_unlabelled_pictures_are_read_is_blamed_on_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> UnlabelledFit:
        raise SystemExit("as if the process had died")

    school = School(database, "dies")
    monkeypatch.setattr(unlabelled_images, "adapt_unlabelled", die)
    monkeypatch.setattr(school.stores.versions, "release", lambda *_: None)
    school.stores.versions.request_step(7, unlabelled=True)
    with pytest.raises(SystemExit):
        school.step()
    assert database.scalar(select(STATES.c.at_work)) == "[]"


def sample_of(learns: Learner, place: int) -> int:
    """The task at a place of those that are drawn of project 7."""
    place_of = (Studio(), 7, parse_label_config(CONFIG, None))
    images = unlabelled_images.UnlabelledImages(learns.engine, learns.read_image, *place_of)
    found = images.images[place].task.id
    assert isinstance(found, int)
    return found


def test_another_model_learns_them_again(database: Database, unlabelled: list[Example]) -> None:
    school = School(database)
    school.stores.versions.request_step(7, unlabelled=True)
    assert school.learner.take_due_step(Studio())
    unused = School(database, method="sclip")
    assert not unused.learner.take_due_step(Studio()), "nobody uses it yet"
    school.learner.use(7, 1)
    other = School(database, method="naclip")
    assert other.learner.take_due_step(Studio())
    assert other.stores.versions.versions(7)[0].unlabelled == 30
    assert other.stores.versions.state(7).waits == 1, "somebody has to look first"
    again = make_learner(other.settings, colour_engine(), read_image, other.stores)
    assert not again.take_due_step(Studio()), "once"


def test_corrections_come_first(database: Database, unlabelled: list[Example]) -> None:
    school = School(database)
    school.stores.versions.request_step(7, unlabelled=True)
    school.learn(1)
    assert school.learner.take_due_step(Studio())
    assert school.stores.versions.versions(7)[0].annotations == 1
    assert unlabelled == []


def test_another_model_learns_again_from_its_own_features_alone(database: Database) -> None:
    school = School(database)
    school.learn(1, 2)
    assert school.step()
    other = School(database, method="naclip", adapt_every=10)
    asked: dict[int, list[int]] = {}
    other.learner.mark = lambda project, ids: asked.update({project: sorted(ids)})
    assert other.step()
    assert asked == {7: [1, 2]}
    other.learn(1)
    assert (len(school.taught()), len(other.taught())) == (1, 1)
    assert other.stores.examples.of_other_models() == {7: [2]}
    other.learn(2)
    assert other.step(), "however few they are"
    ((examples, _),) = other.fits.asked
    assert len(examples) == 2
    assert other.stores.versions.state(7).live == 1
    asked.clear()
    again = make_learner(other.settings, colour_engine(), read_image, other.stores)
    assert not again.take_due_step(Studio())
    assert asked == {}


@pytest.mark.parametrize("hides_people", [False, True])
def test_people_are_named_as_label_studio_names_them(
    database: Database, hides_people: bool
) -> None:
    school, studio = School(database), Studio()
    studio.hides_people = hides_people
    school.fits.people = (AnnotatorFinding(annotator_key(6), "Mirrored.", is_left_out=True),)
    school.learn(1, 2)
    assert school.learner.take_due_step(studio)
    ((person,),) = [each.people for each in school.stores.versions.versions(7)]
    assert (person.key, person.reason) == (annotator_key(6), "Mirrored.")
    assert (person.name == "Ben") is not hides_people
    assert person.name


def test_nothing_is_learned_of_whom_is_left_out(database: Database) -> None:
    school = School(database)
    school.fits.people = (AnnotatorFinding("somebody", "Exchanged."),)
    school.learn(1, 2)
    school.step()
    school.learner.learn(replace(corrected(3, {"blue": left_third()}), annotator="other"))
    school.stores.versions.leave_out(7, "somebody")
    school.fits.adaptation = teach(wine="blue")
    school.step()
    (examples, _) = school.fits.asked[-1]
    assert [each.annotator for each in examples] == ["other"]
    assert school.stores.versions.versions(7)[0].annotations == 1
