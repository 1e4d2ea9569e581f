"""What a model version depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
from cachetools import TTLCache

from backend.label_studio.label_config_parser import parse_label_config
from clearclip_core.clip.sink_channels import save_sink_channels
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
        version(propagate=True),
        version(method="sclip"),
        version(model="ViT-B-16/dfn2b"),
    }
    assert len(others | {same}) == 10
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


def test_sink_channels_are_part_of_the_version_of_methods_that_use_them(tmp_path: Path) -> None:
    def version(method: str) -> str:
        predictor = make_predictor(model="demo", method=method, model_dir=tmp_path)
        return predictor.versions.current(parse_label_config(brush_config("red")))

    before = {method: version(method) for method in ("clearclip", "scclip", "rfclip")}
    save_sink_channels("demo", (1, 2), tmp_path)
    after = {method: version(method) for method in before}
    save_sink_channels("demo", (1, 3), tmp_path)
    again = {method: version(method) for method in before}
    assert len({each["rfclip"] for each in (before, after, again)}) == 3
    for method in ("clearclip", "scclip"):
        assert before[method] == after[method] == again[method]


@pytest.mark.parametrize("name", ["presence"])
def test_what_counts_beside_the_words_is_part_of_the_version_only_where_it_counts(
    name: str,
) -> None:
    def version(config: str = brush_config("red"), **settings: object) -> str:
        return make_predictor(**settings).versions.current(parse_label_config(config))

    asks = {value: brush_config("red", attributes=f'{name}="{value}"') for value in ("0", "0.1")}
    assert version(asks["0"]) == version(asks["0"], **{name: 0.2}) == version()
    assert version(asks["0.1"]) == version(**{name: 0.1})
    assert len({version(), version(presence=0.1)}) == 2
    assert version(**{name: 0.1}) != version(**{name: 0.2})


def test_joined_synonyms_are_part_of_the_version_only_where_they_count() -> None:
    def version(config: str = brush_config("red"), **settings: object) -> str:
        return make_predictor(**settings).versions.current(parse_label_config(config))

    joined, best = (
        brush_config("red", attributes=f'synonyms="{how}"') for how in ("joined", "best")
    )
    assert version(best, synonyms="joined") == version(synonyms="best") == version()
    assert version(joined) == version(synonyms="joined") != version()


def test_a_method_with_class_weights_has_no_presence_prior_in_its_version() -> None:
    config = parse_label_config(brush_config("red"))
    plain, weighed = (
        make_predictor(method="clipsurgery", presence=weight).versions.current(config)
        for weight in (0.0, 0.1)
    )
    assert plain == weighed


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
