"""What Prometheus reads, read back by its own parser."""

from __future__ import annotations

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from backend.inference.engine import Engine
from backend.label_studio.image_loader import ImageCacheStats
from backend.telemetry.task_tracker import TaskRecord
from backend.web.gpu_memory import gpu_memory_bytes
from backend.web.metrics import CONTENT_TYPE, Metrics
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag


def make_metrics(engine: Engine | None = None) -> Metrics:
    kept = ImageCacheStats(hits=3, misses=4, bytes=500, limit_bytes=1000)
    return Metrics((engine or colour_engine()).snapshot, lambda: kept)


def values(metrics: Metrics) -> dict[str, float]:
    """Name and labels as they are written -> value."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def record(reason: str = "", **stages: float) -> TaskRecord:
    return TaskRecord(1, 7, "opened", "r", 0.0, 1.0, stages, reason=reason)


def test_requests_are_counted_by_route_method_and_status() -> None:
    metrics = make_metrics()
    metrics.request("/predict", "POST", 200, 0.2)
    metrics.request("/predict", "POST", 200, 3.0)
    metrics.request("/predict", "POST", 503, 0.001)
    metrics.request("other", "BREW-7", 405, 0.001)
    found = values(metrics)
    assert found["clearclip_requests_total{method=POST,route=/predict,status=200}"] == 2
    assert found["clearclip_requests_total{method=POST,route=/predict,status=503}"] == 1
    assert found["clearclip_requests_total{method=other,route=other,status=405}"] == 1
    assert found["clearclip_request_seconds_bucket{le=0.25,route=/predict}"] == 2
    assert found["clearclip_request_seconds_count{route=/predict}"] == 3


def test_tasks_are_counted_with_their_stages_and_reasons() -> None:
    metrics = make_metrics()
    metrics.task(record(fetch=0.3, model=2.0))
    metrics.task(record(fetch=0.7))
    metrics.task(record("ImageNotFound", fetch=0.02))
    found = values(metrics)
    assert found["clearclip_tasks_total{urgency=opened}"] == 2
    assert found["clearclip_failures_total{reason=ImageNotFound}"] == 1
    assert found["clearclip_stage_seconds_count{stage=fetch}"] == 3
    assert found["clearclip_stage_seconds_bucket{le=0.5,stage=fetch}"] == 2
    assert found["clearclip_stage_seconds_sum{stage=model}"] == 2.0


def test_the_engine_is_asked_at_each_scrape() -> None:
    segmenter = ColourSegmenter()
    engine = colour_engine(segmenter)
    metrics = make_metrics(engine)
    before = values(metrics)
    assert before["clearclip_model_loaded{}"] == 1
    assert before["clearclip_pictures_total{outcome=done}"] == 0
    picture = segmenter.prepare(flag("red"))
    engine.score(picture, (Label("red"),))
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


def test_two_backends_in_one_process_do_not_share_counts() -> None:
    first, second = make_metrics(), make_metrics()
    first.request("/health", "GET", 200, 0.1)
    assert "clearclip_requests_total{method=GET,route=/health,status=200}" in values(first)
    assert "clearclip_requests_total{method=GET,route=/health,status=200}" not in values(second)


def test_memory_of_a_gpu_is_told_only_where_one_is_used() -> None:
    memory = gpu_memory_bytes()
    found = [name for name in values(make_metrics()) if name.startswith("clearclip_gpu")]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        assert len(found) == 4 * len(memory)
    else:
        assert (memory, found) == ({}, [])


def test_a_gpu_that_is_used_is_told_of_with_all_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as torch tells of them; this process uses the second."""
    used = {0: 0, 1: 300}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: used[index])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 2 * used[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (7000, 8000))
    found = values(make_metrics())
    assert {name: value for name, value in found.items() if name.startswith("clearclip_gpu")} == {
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=allocated}": 300,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=reserved}": 600,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=free}": 7000,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=total}": 8000,
    }


def test_the_content_type_is_prometheus_own() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=")
