"""What a model version depends on."""

from __future__ import annotations

from backend.label_studio.label_config_parser import parse_label_config
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.prediction.test_predictor import (
    make_predictor,
)


def test_the_version_follows_all_that_changes_masks() -> None:
    def version(config: str = brush_config("red"), **settings: object) -> str:
        return make_predictor(**settings).versions.current(parse_label_config(config))

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
        version(method="sclip"),
        version(model="ViT-B-16/dfn2b"),
    }
    assert len(others | {same}) == 9
    assert same == version(precision="fp32", device="cpu")


def test_the_version_says_what_it_is_sorted_by_where_that_was_chosen() -> None:
    def version(config: str = brush_config("red"), **settings: object) -> str:
        return make_predictor(**settings).versions.current(parse_label_config(config))

    plain, effort = version(), version(score="effort")
    asks = {
        kind: brush_config("red", attributes=f'score="{kind}"') for kind in ("confidence", "effort")
    }
    assert version(asks["confidence"], score="uncertainty") == version(score="confidence") == plain
    assert version(asks["effort"]) == effort
    assert len({plain, effort, version(score="uncertainty")}) == 3
