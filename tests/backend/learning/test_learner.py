"""What is learned, with a stand-in whose colours a person can foresee and with the demo model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from backend.database.database import Database
from backend.errors import LearningRefused, StudioUnreachable
from backend.feedback.annotation_reader import annotator_key
from backend.inference.engine import Engine
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prompts import Context, Keypoint, Prompt
from backend.label_studio.region_reader import Rectangle
from backend.label_studio.requests import Task
from backend.learning import learner
from backend.learning import unlabelled as unlabelled_images
from backend.learning.examples import STATES
from backend.learning.learner import Learner
from clearclip_core import (
    Example,
    Label,
    RGBArray,
    UnlabelledFit,
    Vocabulary,
)
from clearclip_core.adaptation.people import AnnotatorFinding
from clearclip_core.adaptation.unlabelled import Judgement
from tests.backend.fakes.colour_segmenter import (
    brush_config,
    colour_engine,
    teach,
)
from tests.backend.fakes.databases import end_leases
from tests.backend.learning.school import (
    CONFIG,
    School,
    Studio,
    corrected,
    left_third,
    make_learner,
)
from tests.backend.prediction.annotator import mask_of, request_for
from tests.backend.prediction.test_predictor import read_image

#: PostgreSQL's double has its tests in `test_versions.py`.
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


def test_a_step_comes_once_after_so_many(database: Database) -> None:
    school = School(database)
    school.learn(1)
    assert not school.step()
    school.learn(2)
    assert school.step()
    assert not school.step()


def test_a_step_is_of_all_examples_and_the_labels_in_use(database: Database) -> None:
    school = School(database)
    school.learn(1, 2)
    school.step()
    ((examples, vocabulary),) = school.fits.asked
    assert len(examples) == 2
    assert vocabulary.labels == (Label("wine"), Label("blue"))
    assert vocabulary.contrast == ("grey",)


def test_predictions_follow_a_step_in_its_project_alone(database: Database) -> None:
    school = School(database)
    before = school.predict()
    school.learn(1, 2)
    school.step()
    after = school.predict()
    assert [each["value"]["brushlabels"] for each in before["result"]] == [["blue"]]
    assert [each["value"]["brushlabels"] for each in after["result"]] == [["wine"], ["blue"]]
    assert np.array_equal(mask_of(after["result"][0]), left_third())
    assert school.predict(project=8) == before
    assert School(database, "another").predict() == after


def test_the_name_of_a_version_says_what_it_was_learned_from(database: Database) -> None:
    school = School(database)
    before = school.predict()
    school.learn(1, 2)
    school.step()
    name, count_text = school.predict()["model_version"].rsplit(" ", 1)
    assert count_text == "v1"
    assert name.rsplit(" ", 2)[0] == before["model_version"].rsplit(" ", 1)[0]
    assert name.endswith(" +2")


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
