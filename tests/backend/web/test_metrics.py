"""What Prometheus reads, read back by its own parser."""

from __future__ import annotations

from backend.telemetry.task_tracker import HandledTask
from tests.backend.web.scraped import make_metrics, values


def record(reason: str = "", **stages: float) -> HandledTask:
    return HandledTask(1, 7, "opened", "r", 0.0, 1.0, stages, reason=reason)


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
