"""Words are measured as plain loops over the library's masks do it."""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from backend.errors import BadRequest, LabelConfigError
from backend.label_studio.client import LabelStudioClient
from backend.runs.words import WORDS, AskedWords
from backend.services import Services
from clearclip_core import SCENE_LABELS, Example, Label, Segmenter, adapt_unlabelled
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.conftest import Maker
from tests.backend.runs.scene_project import LABELS, SIZE_HW, painted, scene_studio, scenes

MIN_PX = round(0.0005 * SIZE_HW[0] * SIZE_HW[1])


@pytest.fixture
def studio() -> FakeStudio:
    return scene_studio(annotated=3)


@pytest.fixture
def measure(services: Services, studio: FakeStudio) -> Iterator[Maker]:
    with studio.served() as server:
        yield Maker(WORDS, services, LabelStudioClient(server.url, TOKEN, retry_for_s=1))


def by_hand(words: tuple[str, ...], learns: bool = False) -> tuple[float, float, float]:
    """IoU of grass, saved paint of all labels, and share of grass on the annotated scenes."""
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=224)
    labels = [Label(name, words if name == "grass" else ()) for name in LABELS]
    adaptation = None
    if learns:
        seen = [segmenter.encode(scene.image) for scene in scenes()]
        examples = [Example.of(each, {}, LABELS, str(number)) for number, each in enumerate(seen)]
        vocabulary = segmenter.vocabulary(labels, contrast=True)
        adaptation = adapt_unlabelled(examples, segmenter.embed, vocabulary).adaptation
        assert adaptation is not None
    both, union, wrong, true = (np.zeros(len(LABELS)) for _ in range(4))
    shares = []
    for scene in scenes()[:3]:
        made = segmenter.segment(
            scene.image, labels, contrast=True, refine=True, adaptation=adaptation
        ).masks(MIN_PX, MIN_PX)
        for index, name in enumerate(LABELS):
            ours = made.get(name, np.zeros(SIZE_HW, bool))
            theirs = scene.label_map == SCENE_LABELS.index(name)
            both[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
            wrong[index] += (ours != theirs).sum()
            true[index] += theirs.sum()
        shares.append(made.get("grass", np.zeros(1)).mean())
    grass = LABELS.index("grass")
    return (
        float(both[grass] / union[grass]),
        float(1 - wrong.sum() / true.sum()),
        float(np.mean(shares)),
    )


def test_wordings_are_measured_and_ranked(measure: Maker, studio: FakeStudio) -> None:
    before = studio.label_config
    told: list[tuple[int, int | None]] = []
    report = measure(
        lambda *step: told.append(step),
        label="grass",
        wordings=["xylophone", "grass", "meadow, lawn"],
        pictures=3,
    )
    assert (report.is_corrected, report.pictures, told[-1]) == (True, 3, (3, 3))
    words = {0: ("grass",), 1: ("xylophone",), 2: ("meadow", "lawn")}
    assert {each.row: each.words for each in report.trials} == words, "each once, today's first"
    for trial in report.trials:
        # Features are kept in half precision, which moves a pixel here and there.
        figures = (trial.iou, trial.saved_paint, trial.share)
        assert figures == pytest.approx(by_hand(trial.words), abs=0.004)
        assert all(each.preview.startswith("data:image/jpeg;base64,") for each in trial.pictures)
    saved = [each.saved_paint for each in report.trials]
    assert saved == sorted(saved, reverse=True)
    assert report.trials[-1].row == 1
    line = '<Label value="grass" predicted_values="meadow, lawn"/>'
    assert report.row(2).line == line
    assert report.config_with(2) == before.replace('<Label value="grass"/>', line)
    with pytest.raises(BadRequest, match='"row" to be a number from 0 to 2'):
        report.config_with(3)
    assert studio.label_config == before, "nothing is written"


def test_where_predictions_have_seen_unlabelled_pictures_each_wording_has(
    measure: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearclip_core.UnlabelledFit.FEWEST", 4)
    asked = {"label": "grass", "wordings": ["xylophone"], "pictures": 3}
    plain = {each.row: each.iou for each in measure(**asked).trials}
    versions = measure.services.learner.versions
    versions.request_step(7, unlabelled=True)
    assert measure.services.learner.take_due_step(measure.client)
    assert measure(**asked).unlabelled == 0, "it waits for somebody"
    measure.services.learner.use(7, 1)
    report = measure(**asked)
    versions.reset(7)
    assert report.unlabelled == 4
    for trial in report.trials:
        figures = (trial.iou, trial.saved_paint, trial.share)
        assert figures == pytest.approx(by_hand(trial.words, learns=True), abs=0.004)
    assert {each.row: each.iou for each in report.trials} != plain


def test_without_corrections_nothing_is_ranked(
    measure: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.annotations.clear()
    report = measure(label="tree", wordings=["xylophone"], pictures=5)
    assert (report.is_corrected, report.pictures, list(report.left_out)) == (False, 4, [9])
    assert [each.row for each in report.trials] == [0, 1]
    assert (report.trials[0].saved_paint, report.trials[0].iou) == (None, None)
    monkeypatch.setattr("backend.runs.words._SHOWN", 1)
    spread = measure(label="tree", pictures=2).trials[0]
    assert [each.task for each in spread.pictures] == [1], "of two that are measured"


def test_a_quarter_of_corrected_pictures_lacks_it(measure: Maker, studio: FakeStudio) -> None:
    """Tasks 2, 3, 5 and 6 show a house; 1 and 7 do not, and show trees."""
    for task, same in ((5, 2), (6, 2), (7, 1)):
        studio.tasks[task] = studio.tasks[same]
        studio.annotate(task, painted(scenes()[same - 1]))

    def tasks(label: str) -> list[int]:
        return sorted(each.task for each in measure(label=label, pictures=4).trials[0].pictures)

    assert tasks("house") == [1, 2, 3, 5]
    assert tasks("tree") == [1, 2, 3, 7], "where few show it, more lack it"


def test_all_words_are_checked_on_pictures(measure: Maker, studio: FakeStudio) -> None:
    assert measure(pictures=3).advice == ()
    planted = '<Label value="heaven"/><Label value="zither"/></BrushLabels>'
    studio.label_config = studio.label_config.replace("</BrushLabels>", planted)
    report = measure(pictures=3)
    said = {each.finding: each for each in report.advice}
    assert "“heaven” (heaven) means nearly the same to the model as “sky” (sky)." in said
    assert "“zither” (zither) means as little to the model as a made-up word." in said
    assert "zither is found on none of these pictures." in said
    assert [each for each in said if each.endswith("from it, narrowly.")]
    assert all(each.remedy for each in report.advice)
    assert report.shares["sky"] + report.shares["heaven"] > 0.1
    assert report.shares["zither"] == 0


def test_each_label_shows_the_pictures_that_it_covers_most(
    measure: Maker, studio: FakeStudio
) -> None:
    studio.annotations.clear()  # then all four pictures are measured
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=224)
    labels = [Label(name) for name in LABELS]
    covered: dict[str, list[float]] = {name: [] for name in LABELS}
    for scene in scenes():
        made = segmenter.segment(scene.image, labels, contrast=True, refine=True)
        for name, mask in made.masks(MIN_PX, MIN_PX).items():
            covered[name].append(float(mask.mean()))

    report = measure(pictures=5)
    for name in LABELS:
        most = sorted(covered[name], reverse=True)[:3]
        assert [crop.share for crop in report.crops[name]] == pytest.approx(most, abs=2e-3)


def test_what_cannot_be_measured_says_why(measure: Maker, studio: FakeStudio) -> None:
    with pytest.raises(LabelConfigError, match="no label 'moon'"):
        measure(label="moon")
    studio.annotations.clear()
    studio.tasks = {9: {"image": "data:,"}}
    with pytest.raises(ValueError, match="No picture can be measured"):
        measure(label="sky")
    studio.tasks = {}
    with pytest.raises(ValueError, match="no task with a picture"):
        measure(label="sky")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"wordings": ["a"]}, "name the label"),
        ({"label": "x", "wordings": [", ,"]}, "1 to 10 words"),
        ({"label": "x", "wordings": ["a" * 201]}, "200 letters"),
        ({"label": "x", "wordings": ["a\0b"]}, "control characters"),
        ({"label": "x", "wordings": list("abcdefghijklm")}, "<= 12"),
        ({"pictures": 25}, "<= 24"),
    ],
)
def test_what_is_not_allowed_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises((BadRequest, msgspec.ValidationError), match=said):
        msgspec.convert(fields, AskedWords)
