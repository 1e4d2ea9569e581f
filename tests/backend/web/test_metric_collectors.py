"""What the engine counts, as Prometheus reads it."""

from __future__ import annotations

from backend.inference.engine import Engine
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag
from tests.backend.web.scraped import make_metrics, values


def test_the_engine_is_asked_at_each_scrape() -> None:
    segmenter = ColourSegmenter()
    engine = colour_engine(segmenter)
    metrics = make_metrics(engine)
    before = values(metrics)
    assert before["clearclip_model_loaded{}"] == 1
    assert before["clearclip_pictures_total{outcome=done}"] == 0
    picture = segmenter.prepare(flag("red"))
    engine.encode(picture, (Label("red"),))
    after = values(metrics)
    assert after["clearclip_pictures_total{outcome=done}"] == 1
    assert after["clearclip_windows_total{}"] == 1
    assert after["clearclip_queue_pictures{urgency=interactive}"] == 0
    assert after["clearclip_cache_misses_total{cache=features}"] == 1
    assert after["clearclip_cache_hits_total{cache=words}"] == 1
    assert after["clearclip_cache_misses_total{cache=words}"] == 0
    assert after["clearclip_cache_hits_total{cache=pictures}"] == 3
    assert after["clearclip_cache_bytes{cache=pictures}"] == 500


def test_a_model_that_is_not_loaded_says_so() -> None:
    assert (
        values(make_metrics(Engine(ColourSegmenter, lambda: "m")))["clearclip_model_loaded{}"] == 0
    )  # type: ignore[arg-type]
