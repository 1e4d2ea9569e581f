"""What a model version depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.label_studio.label_config_parser import parse_label_config
from clearclip_core.clip.sink_channels import save_sink_channels
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.prediction.test_predictor import make_predictor


def version(config: str = brush_config("red"), **settings: object) -> str:
    return make_predictor(**settings).versions.current(parse_label_config(config))


def test_the_version_follows_all_that_changes_masks() -> None:
    same = version()
    assert same == version()
    assert same.startswith("ViT-B-16/openai clearclip ")
    others = {
        version(brush_config("red", "blue")),
        version(brush_config("red", attributes='model_score_threshold="0.5"')),
        version(
            '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
            '<Label value="red" predicted_values="crimson"/></BrushLabels></View>'
        ),
        version(short_side_px=672),
        version(min_island_share=0.01),
        version(refine=False),
        version(propagate=True),
        version(method="sclip"),
        version(model="ViT-B-16/dfn2b"),
    }
    assert len(others | {same}) == 10
    assert same == version(precision="fp32", device="cpu")


@pytest.mark.parametrize(
    ("name", "plain", "other"),
    [("score", "confidence", "effort"), ("presence", 0, 0.1)],
)
def test_what_a_config_chooses_is_in_the_version_only_where_it_changes_masks(
    name: str, plain: object, other: object
) -> None:
    asks = {value: brush_config("red", attributes=f'{name}="{value}"') for value in (plain, other)}
    assert version(asks[plain], **{name: other}) == version(**{name: plain}) == version()
    assert version(asks[other]) == version(**{name: other}) != version()


def test_sink_channels_are_part_of_the_version_of_methods_that_use_them(tmp_path: Path) -> None:
    def of(method: str) -> str:
        return version(model="demo", method=method, model_dir=tmp_path)

    methods = ("clearclip", "scclip", "rfclip")
    before = list(map(of, methods))
    save_sink_channels("demo", (1, 2), tmp_path)
    after = list(map(of, methods))
    save_sink_channels("demo", (1, 3), tmp_path)
    again = list(map(of, methods))
    assert before[:2] == after[:2] == again[:2]
    assert len({before[2], after[2], again[2]}) == 3


def test_a_method_with_class_weights_has_no_presence_prior_in_its_version() -> None:
    weighed = version(method="clipsurgery", presence=0.1)
    assert weighed == version(method="clipsurgery", presence=0.0)
