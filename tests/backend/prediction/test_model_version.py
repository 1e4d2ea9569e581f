"""What a model version depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
from cachetools import TTLCache

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


def test_the_current_version_is_read_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors ask for it all the time, each time with the database of what was learned."""
    now = [0.0]
    monkeypatch.setattr(
        "backend.prediction.predictor.TTLCache",
        lambda size, ttl: TTLCache(size, ttl, timer=lambda: now[0]),
    )
    versions = make_predictor().versions
    asked: list[int | None] = []
    monkeypatch.setattr(versions, "active_model", lambda _config, project: asked.append(project))
    red, blue = (parse_label_config(brush_config(name)) for name in ("red", "blue"))
    for _ in range(3):
        assert versions.current(red, 7) == versions.current(red, 8) != versions.current(blue, 7)
    assert asked == [7, 8, 7]
    now[0] = 1.5
    versions.current(red, 7)
    assert asked == [7, 8, 7, 7]
