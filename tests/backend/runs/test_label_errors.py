"""A run finds the annotation with a mistake among right ones, on drawn scenes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.learning.examples import TrainingExample
from backend.runs.label_errors import (
    LABEL_ERRORS,
    ConfirmedAnnotations,
    draw_place,
    least_score,
)
from backend.services import Services
from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    Adaptation,
    Example,
    PreparedImage,
    Scores,
    render_scene,
)
from clearclip_core.adaptation.fitting import HeldOutAdaptations
from clearclip_core.images.drawing import palette
from clearclip_core.images.label_maps import NOTHING
from clearclip_core.label_errors import find_disagreements, rank
from tests.backend.fakes.colour_segmenter import pixels_of
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.runs.conftest import Maker
from tests.backend.runs.scene_project import CONFIG, LABELS, SIZE_HW, painted, scene_studio, scenes


@pytest.fixture
def studio() -> FakeStudio:
    return scene_studio(annotated=4)


@pytest.fixture
def make(services: Services, studio: FakeStudio) -> Iterator[Maker]:
    with studio.served() as server:
        yield Maker(LABEL_ERRORS, services, LabelStudioClient(server.url, TOKEN, retry_for_s=1))


def annotation_of(studio: FakeStudio, task: int) -> dict[str, Any]:
    (found,) = [each for each in studio.annotations.values() if each["task"] == task]
    return found


def exchange(studio: FakeStudio, task: int, label: str, other: str) -> int:
    """Let a label of a task be painted as another one; the value is the annotation."""
    annotation = annotation_of(studio, task)
    for region in annotation["result"]:
        if region["value"]["brushlabels"] == [label]:
            region["value"]["brushlabels"] = [other]
    return int(annotation["id"])


@pytest.fixture
def as_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """List what would be listed of twenty pictures, which take their time."""
    monkeypatch.setattr("backend.runs.label_errors.least_score", lambda pictures: 1.0)


@pytest.mark.usefixtures("as_of_many")
def test_an_exchanged_label_and_a_missing_thing_come_first(make: Maker, studio: FakeStudio) -> None:
    wrong = exchange(studio, 2, "sky", "house")
    result = annotation_of(studio, 3)["result"]
    result[:] = [each for each in result if each["value"]["brushlabels"] != ["sky"]]
    told: list[tuple[int, int]] = []
    report = make(lambda *step: told.append(step))
    assert (report.annotations, report.examples, report.left_out) == (4, 0, {})
    assert len(report.suspicions) < 4, "those that do not stand out are not listed"
    first, second = sorted(report.suspicions[:2], key=lambda each: each.task)
    assert (first.task, first.annotation) == (2, wrong)
    assert (first.kind, first.label, first.other) == ("label", "house", "sky")
    assert first.sentence == "Painted “house”, but it looks like “sky”."
    assert first.preview.startswith("data:image/jpeg;base64,")
    assert first.preview != first.suggestion
    assert (second.task, second.kind, second.label, second.other) == (3, "missing", "", "sky")
    assert second.sentence.startswith("No “sky” is painted")
    assert told[-1] == (4, 4)


def test_of_few_pictures_nothing_is_listed(make: Maker, studio: FakeStudio) -> None:
    """Right ones look as suspicious there as wrong ones."""
    exchange(studio, 2, "sky", "house")
    report = make()
    assert report.suspicions == ()
    assert report.notes.startswith("4 pictures do not say what is usual, so nothing is listed")


def test_of_a_dozen_and_some_one_right_annotation_is_listed_at_most(
    services: Services,
) -> None:
    """The scenes are right to the pixel, and scored by the words."""
    segmenter = services.engine.segmenter()
    words = segmenter.vocabulary(parse_label_config(CONFIG, None).labels, contrast=True)
    embeddings, found = segmenter.embed(words.queries), []
    for seed in HELD_OUT_SEEDS[:42]:
        scene = render_scene(seed, SIZE_HW)
        truth = np.full(SIZE_HW, NOTHING, np.uint8)
        for index, name in enumerate(LABELS):
            truth[scene.label_map == SCENE_LABELS.index(name)] = index
        scores = Scores.of(segmenter.encode(scene.image), embeddings, words)
        found.append(find_disagreements(scores, scene.image, truth, truth))
    for first in range(0, len(found), 14):
        ranked = rank(found[first : first + 14], range(14))
        assert sum(each.score > least_score(14) for each in ranked) <= 1


def test_what_was_confirmed_leaves_its_place_to_others(
    services: Services, make: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.label_errors.least_score", lambda pictures: 0.0)
    exchange(studio, 2, "sky", "house")
    first, second, *_ = [each.annotation for each in make().suspicions]
    monkeypatch.setattr("backend.runs.label_errors.MOST_SUSPICIONS", 1)
    updated = make().suspicions[0].updated
    confirmed = ConfirmedAnnotations(services.database)
    confirmed.confirm(7, first, updated)
    assert [each.annotation for each in make().suspicions] == [second]
    confirmed.confirm(7, first, updated - 1)
    assert [each.annotation for each in make().suspicions] == [first], "it was changed"
    confirmed.take_back(7, first)


def test_each_annotation_counts_but_what_cannot_be_read_or_was_skipped(
    make: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 1 << 20)
    studio.annotate(1, painted(scenes()[0]), completed_by=2)
    annotation_of(studio, 2)["result"][0]["meta"] = {"text": "x" * (1 << 20)}
    studio.annotate(3, [], was_cancelled=True)
    studio.annotate(9, painted(scenes()[0]))
    report = make()
    assert (report.annotations, report.pictures) == (4, 3)
    assert (sorted(report.left_out), report.left_out_count) == ([2, 9], 2)
    assert "sends more than 1 MB" in report.left_out[2]


@pytest.mark.usefixtures("as_of_many")
def test_an_annotation_that_has_changed_has_no_picture(make: Maker, studio: FakeStudio) -> None:
    wrong = exchange(studio, 2, "sky", "house")

    def fault(asked: Asked) -> Answer | None:
        if asked.path.startswith(f"/api/annotations/{wrong}"):
            return Answer(404, b"{}")
        if asked.path.startswith("/api/annotations/"):
            for each in studio.annotations.values():
                each["updated_at"] = "2099-01-01T00:00:00Z"
        return None

    studio.fault = fault
    suspicions = make().suspicions
    assert suspicions[0].annotation == wrong
    assert {each.preview for each in suspicions} == {""}


def test_each_image_is_scored_by_what_the_other_images_teach(
    services: Services, make: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter, examples = services.engine.segmenter(), []
    for task, scene in enumerate(scenes(), 1):
        masks = {name: scene.label_map == SCENE_LABELS.index(name) for name in LABELS}
        picture = segmenter.prepare(scene.image).digest
        example = Example.of(segmenter.encode(scene.image), masks, LABELS, picture)
        stored = TrainingExample(example.digest, example.to_bytes())
        services.learner.examples.replace(int(annotation_of(studio, task)["id"]), 7, [stored])
        examples.append(example)
    used: dict[str, Adaptation | None] = {}
    encode = services.engine.encode

    def watched(image: PreparedImage, *more: Any) -> Any:
        used[image.digest] = more[3]
        return encode(image, *more)

    monkeypatch.setattr(services.engine, "encode", watched)
    report = make()
    for annotation in studio.annotations:
        services.learner.examples.forget(annotation)
    assert (report.annotations, report.examples) == (4, 4)
    words = segmenter.vocabulary(parse_label_config(CONFIG, None).labels, contrast=True)
    held_out = HeldOutAdaptations.fit(examples, segmenter.embed, words)
    assert used.keys() == held_out.by_picture.keys()
    digests = {picture: held_out.by_picture[picture].digest for picture in used}
    assert {picture: each and each.digest for picture, each in used.items()} == digests
    assert len(set(digests.values())) == 4, "each has a fold of its own"


def test_without_any_region_there_is_nothing_to_compare(make: Maker, studio: FakeStudio) -> None:
    studio.annotations.clear()
    with pytest.raises(ValueError, match="no annotation with a region"):
        make()
    studio.annotate(9, painted(scenes()[0]))
    with pytest.raises(ValueError, match="No annotation can be reviewed"):
        make()


def test_the_place_and_what_is_around_it_is_shown_at_most_320_px_wide() -> None:
    rgb = np.full((600, 900, 3), 128, np.uint8)
    truth = np.full((600, 900), NOTHING, np.uint8)
    made = np.full((600, 900), -1, np.int16)
    truth[200:400, 300:600] = 1
    made[200:400, 300:450] = 1
    made[200:400, 450:600] = 0
    box = slice(200, 400), slice(300, 600)
    *pictures, labels = draw_place(rgb, truth, made, box, palette(4))
    before, after = map(pixels_of, pictures)
    assert labels == [0, 1]
    assert before.shape == after.shape
    assert max(before.shape[:2]) == 320
    height, width = before.shape[:2]
    middle, left, right, outside = height // 2, int(width * 0.4), int(width * 0.6), 4
    assert np.abs(before[middle, left] - before[middle, right]).max() < 8, "one label"
    assert np.abs(after[middle, left] - before[middle, left]).max() < 8, "equal colours"
    assert np.abs(after[middle, right] - before[middle, right]).max() > 30, "another label"
    assert np.abs(before[outside, outside] - 128).max() < 8, "nothing is painted there"
    assert before.min(axis=2).max() > 200, "a white frame"
