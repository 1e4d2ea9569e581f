"""`clearclip eval --images` measures what the backend draws."""

from __future__ import annotations

import numpy as np

from backend.inference.engine import Engine
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import HELD_OUT_SEEDS, Label, Segmenter, render_scene
from clearclip_core.evaluation.comparison import Candidate, predict_all
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.prediction.annotator import mask_of
from tests.backend.prediction.test_predictor import IMAGES, read_image, request

NAMES = ("sky", "grass", "tree", "house", "other")


def test_masks_are_those_of_the_backend_at_its_default_settings() -> None:
    IMAGES["scene"] = image = render_scene(HELD_OUT_SEEDS[3], (192, 256)).image
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    engine = Engine(lambda: segmenter, lambda: "demo")
    engine.start()
    try:
        predictor = Predictor(engine, read_image, Settings())
        (entry,) = predictor.predict(request(brush_config(*NAMES), "scene"))
    finally:
        engine.stop()
    assert isinstance(entry, dict)
    drawn = {region["value"]["brushlabels"][0]: mask_of(region) for region in entry["result"]}
    labels = tuple(Label(name, background=name == "other") for name in NAMES)
    (made,) = predict_all([Candidate(segmenter, labels, "demo", "")], image)
    assert {NAMES[index] for index in made.masks} == set(drawn)
    assert len(drawn) >= 3
    for index, mask in made.masks.items():
        assert np.array_equal(mask, drawn[NAMES[index]])
