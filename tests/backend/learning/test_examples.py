"""Training examples: what an annotation teaches, and what is left out."""

from typing import Any

import numpy as np
import pytest
import torch

from backend.database.database import Database
from backend.errors import ImageRefused
from backend.feedback.comparison import AnnotationDiff, ImageDiff
from backend.feedback.evidence import ImageEvidence
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.learning import examples as training_examples
from clearclip_core import (
    DenseFeatures,
    RGBArray,
)
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    colour_engine,
)
from tests.backend.learning.school import (
    CONFIG,
    SIZE_HW,
    School,
    corrected,
    left_third,
    make_learner,
)

#: PostgreSQL's double has its tests in `test_versions.py`.
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


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
