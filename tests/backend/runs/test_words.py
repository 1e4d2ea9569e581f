"""Words are measured as plain loops over the library's masks do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from backend.errors import BadRequest, LabelConfigError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.requests import Task
from backend.runs.words import (
    WORDS,
    Advice,
    AskedWords,
    Wording,
    WordsOnPicture,
    _advice,
    _Measured,
    _ranked,
    _Trial,
    preview,
)
from backend.services import Services
from clearclip_core import SCENE_LABELS, Label, RGBArray, Segmenter
from clearclip_core.evaluation.comparison import LabelFigures
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.wording.vocabulary_check import (
    LabelResponse,
    NearWords,
    Swallowed,
    UnknownWord,
    VocabularyCheck,
)
from tests.backend.fakes.colour_segmenter import pixels_of
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.maker import Maker
from tests.backend.runs.scene_project import LABELS, SIZE_HW, painted, scene_studio, scenes

MIN_PX = round(0.0005 * SIZE_HW[0] * SIZE_HW[1])


@pytest.fixture
def studio() -> FakeStudio:
    return scene_studio(annotated=3)


@pytest.fixture
def measure(services: Services, studio: FakeStudio) -> Iterator[Maker]:
    with studio.served() as server:
        yield Maker(WORDS, services, LabelStudioClient(server.url, TOKEN, retry_for_s=1))


def by_hand(words: tuple[str, ...], method: str, threshold: float) -> tuple[float, float, float]:
    """IoU and saved paint of grass, and saved paint of all labels, on the annotated scenes."""
    segmenter = Segmenter.load(
        "demo", method=method, device="cpu", precision="fp32", short_side_px=224
    )
    labels = [Label(name, words if name == "grass" else ()) for name in LABELS]
    limits = [threshold if name == "grass" else 0.0 for name in LABELS]
    both, union, wrong, true = (np.zeros(len(LABELS)) for _ in range(4))
    for scene in scenes()[:3]:
        made = segmenter.segment(
            scene.image, labels, contrast=True, threshold=limits, refine=True
        ).masks(MIN_PX, MIN_PX)
        for index, name in enumerate(LABELS):
            ours = made.get(name, np.zeros(SIZE_HW, bool))
            theirs = scene.label_map == SCENE_LABELS.index(name)
            both[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
            wrong[index] += (ours != theirs).sum()
            true[index] += theirs.sum()
    grass = LABELS.index("grass")
    own = 1 - wrong[grass] / true[grass]
    return float(both[grass] / union[grass]), float(own), float(1 - wrong.sum() / true.sum())


def test_wordings_thresholds_and_methods_are_measured_on_corrected_pictures(
    measure: Maker, studio: FakeStudio
) -> None:
    before = studio.label_config
    asked = {"wordings": ["meadow, lawn"], "thresholds": [0.6], "methods": ["clip"]}
    report = measure(label="grass", pictures=3, **asked)
    assert (report.on, report.pictures) == ("corrected", 3)
    now, tried = report.trials
    for trial, by in [
        (now, by_hand(("grass",), "clearclip", 0.0)),
        (tried, by_hand(("meadow", "lawn"), "clip", 0.6)),
    ]:
        figures = (trial.iou, trial.saved_paint, trial.saved_paint_all)
        # Features are kept in half precision, which moves a pixel here and there.
        assert figures == pytest.approx(by, abs=0.004)
        assert trial.milliseconds > 0
    assert [(each.row, each.rank) for each in report.trials] == [(0, 1), (1, 2)]
    line = '<Label value="grass" predicted_values="meadow, lawn" model_score_threshold="0.6"/>'
    assert tried.line == line
    assert report.config_with(1) == before.replace('<Label value="grass"/>', line)
    with pytest.raises(BadRequest, match='"row" to be a number from 0 to 1'):
        report.config_with(2)
    assert studio.label_config == before, "nothing is written"


def test_the_words_of_today_are_measured_once(measure: Maker) -> None:
    report = measure(label="grass", wordings=["grass", "lawn"], methods=["clearclip"], pictures=1)
    assert {trial.words for trial in report.trials} == {("grass",), ("lawn",)}
    assert [row.is_current for row in report.trials].count(True) == 1


def test_corrected_pictures_are_decoded_once(
    measure: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int | None] = []
    images = measure.services.images
    before = images.read

    def counted(source: str, task: Task) -> RGBArray:
        read.append(task.id)
        return before(source, task)

    monkeypatch.setattr(type(images), "read", lambda _, *given: counted(*given))
    report = measure(label="grass", wordings=["lawn"], pictures=2, on="corrected")
    assert report.pictures == 2
    assert read
    assert len(read) == len(set(read))


def test_without_corrections_pictures_differ_and_nothing_is_ranked(
    measure: Maker, studio: FakeStudio
) -> None:
    studio.annotations.clear()
    studio.tasks[5] = studio.tasks[6] = studio.tasks[1]
    told = []
    report = measure(lambda *step: told.append(step), label="tree", wordings=["pine"], pictures=4)
    assert (report.on, report.pictures) == ("diverse", 4)
    assert [(each.row, each.rank) for each in report.trials] == [(0, None), (1, None)]
    tasks = [each.task for each in report.trials[0].pictures]
    assert len({task for task in tasks if task in (1, 5, 6)}) == 1, "equal pictures come once"
    assert [each.preview[:23] for each in report.trials[1].pictures] == [
        "data:image/jpeg;base64,"
    ] * 4
    assert list(report.left_out) == [9]
    assert told[-1] == (4, 4)
    assert report.trials[0].saved_paint is None


def test_a_quarter_of_the_corrected_pictures_lacks_the_label(
    measure: Maker, studio: FakeStudio
) -> None:
    """Tasks 2, 3, 5 and 6 show a house; 1 and 7 do not, and show trees."""
    for task, same in ((5, 2), (6, 2), (7, 1)):
        studio.tasks[task] = studio.tasks[same]
        studio.annotate(task, painted(scenes()[same - 1]))

    def tasks(label: str) -> list[int]:
        chosen = measure(label=label, pictures=4).trials[0].pictures
        assert all(each.is_corrected for each in chosen)
        return sorted(each.task for each in chosen)

    assert tasks("house") == [1, 2, 3, 5]
    assert tasks("tree") == [1, 2, 3, 7], "where few show it, more lack it"


def test_all_words_are_checked_on_pictures(measure: Maker, studio: FakeStudio) -> None:
    clean = measure(pictures=3, on="diverse")
    assert clean.check is not None
    assert (clean.check.near, clean.check.unknown, clean.swallowed) == ((), (), ())
    planted = '<Label value="heaven"/><Label value="zither"/></BrushLabels>'
    studio.label_config = studio.label_config.replace("</BrushLabels>", planted)
    report = measure(pictures=3, on="diverse")
    assert report.check is not None
    assert [each.labels for each in report.check.near] == [("sky", "heaven")]
    assert [each.word for each in report.check.unknown] == ["zither"]
    assert [{each.label, each.by} for each in report.swallowed] == [{"sky", "heaven"}]
    about = {each.label for each in report.advice}
    assert {"heaven", "zither"} <= about


def test_what_cannot_be_measured_says_why(measure: Maker, studio: FakeStudio) -> None:
    with pytest.raises(LabelConfigError, match="no label 'moon'"):
        measure(label="moon")
    studio.annotations.clear()
    with pytest.raises(ValueError, match="no annotated task"):
        measure(label="sky", on="corrected")
    studio.tasks = {9: {"image": "data:,"}}
    with pytest.raises(ValueError, match="No picture can be measured"):
        measure(label="sky")
    studio.tasks = {}
    with pytest.raises(ValueError, match="no task with a picture"):
        measure(label="sky")


def trial(*shared_px: int | None, method: str = "", words: tuple[str, ...] = ("a",)) -> _Trial:
    """A trial on pictures of which 10 px are true and 10 are predicted."""
    pictures = tuple(
        _Measured(WordsOnPicture(task, 0.1), 5.0)
        if shared is None
        else _Measured(
            WordsOnPicture(task, 0.1),
            5.0 + task,
            *[LabelFigures.of(MaskOverlap(10, 10, shared))] * 2,
        )
        for task, shared in enumerate(shared_px)
    )
    return _Trial(Wording((), None, method), words, 0.0, method or "clearclip", "", pictures)


def ranks(*trials: _Trial) -> list[tuple[int, int | None]]:
    return [(each.row, each.rank) for each in _ranked(trials)]


def test_the_most_saved_paint_comes_first_and_equal_ones_share_a_rank() -> None:
    trials = trial(5, 5), trial(9, 7), trial(8, 8), trial(0, 1)
    assert ranks(*trials) == [(1, 1), (2, 1), (0, 3), (3, 4)]
    first = _ranked(trials)[0]
    assert first.saved_paint == pytest.approx(1 - 8 / 20)
    assert first.iou == pytest.approx(16 / 24)
    assert first.milliseconds == 5.5


def test_a_raised_threshold_that_saves_on_one_picture_alone_is_not_first() -> None:
    now, lucky = trial(5, 5, 5, 5), trial(5, 5, 5, 9)
    assert ranks(now, replace(lucky, threshold=0.9)) == [(0, 1), (1, 2)]
    assert ranks(now, lucky) == [(1, 1), (0, 2)]


def test_another_method_with_the_words_of_today_changes_no_label_config() -> None:
    told = _ranked([trial(5), trial(6, method="clip"), trial(7, words=("b",))])
    assert {row.row: row.is_in_config for row in told} == {0: True, 1: True, 2: False}


CHECK = VocabularyCheck((), (), 0.5, 0.5)


@pytest.mark.parametrize(
    ("check", "swallowed", "responses", "said"),
    [
        (
            VocabularyCheck((NearWords(("a", "b"), ("x", "y"), 0.9),), (), 0.5, 0.5),
            *((), ()),
            "“y” (b) means nearly the same to the model as “x” (a).",
        ),
        (
            VocabularyCheck((), (UnknownWord("a", "x", 0.9),), 0.5, 0.5),
            *((), ()),
            "“x” (a) means as little to the model as a made-up word.",
        ),
        (CHECK, (Swallowed("a", "b", 0.75),), (), "b takes 75 % of a from it"),
        (CHECK, (), (LabelResponse("a", 0.0, None, 0.2),), "a is found on none"),
    ],
)
def test_each_finding_comes_with_what_to_try(
    check: VocabularyCheck, swallowed: Any, responses: Any, said: str
) -> None:
    (found,) = _advice(check, swallowed, responses)
    assert isinstance(found, Advice)
    assert said in found.finding
    assert found.remedy
    assert found.label in ("a", "b")
    assert not [*_advice(CHECK, (), (LabelResponse("a", 0.5, 1.0, 0.9),))]


def test_what_the_project_has_comes_first_and_each_trial_once() -> None:
    asked = AskedWords("tree", ("a", "a ", "b,c"), (0.5, 0.50001))
    assert asked.trials == (Wording(), Wording(("a",), 0.5), Wording(("b", "c"), 0.5))
    assert AskedWords().trials == ()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"wordings": ["a"]}, "name the label"),
        ({"label": "x", "wordings": [", ,"]}, "1 to 10 words"),
        ({"label": "x", "wordings": ["a" * 201]}, "200 letters"),
        ({"label": "x", "wordings": ["a\0b"]}, "control characters"),
        ({"label": "x", "wordings": "a"}, "Expected `array`"),
        ({"label": "x", "thresholds": [2]}, "<= 1"),
        ({"label": "x", "thresholds": [True]}, "Expected `float`"),
        ({"label": "x", "methods": ["magic"]}, "magic"),
        ({"label": "x", "wordings": list("abcdef"), "thresholds": [0.1, 0.2]}, "13 trials"),
        ({"pictures": 25}, "<= 24"),
        ({"on": "all"}, "Invalid enum value 'all'"),
        ({"lable": "x"}, "unknown field `lable`"),
    ],
)
def test_what_is_not_allowed_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises((BadRequest, msgspec.ValidationError), match=said):
        msgspec.convert(fields, AskedWords)


def test_the_mask_is_coloured_and_the_rest_is_the_picture() -> None:
    rgb = np.full((300, 600, 3), 128, np.uint8)
    mask = np.zeros((300, 600), bool)
    mask[:, :300] = True
    small = pixels_of(preview(rgb, mask))
    assert small.shape == (128, 256, 3)
    assert np.abs(small[:, 140:] - 128).max() <= 4
    assert (small[:, :110, 0] - small[:, :110, 1]).min() > 80
    assert np.abs(pixels_of(preview(rgb, None)) - 128).max() <= 4
    assert pixels_of(preview(rgb[:1, :1], mask[:1, :1])).shape == (1, 1, 3)
