"""What Prometheus reads, read back by its own parser."""

from __future__ import annotations

import pytest
import torch
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from backend.inference.engine import Engine
from tests.backend.fakes.colour_segmenter import ColourSegmenter
from tests.backend.web.requests_to_app import RED, make_app, predict_body


def scraped(client: FlaskClient) -> dict[str, float]:
    """Name and labels as they are written -> value."""
    response = client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(response.data.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_requests_tasks_and_what_the_engine_does_are_counted(client: FlaskClient) -> None:
    before = scraped(client)
    assert before["clearclip_model_loaded{}"] == 1
    for number in (1, 2):
        client.post("/predict", json=predict_body(RED | {"id": number}, {"id": 9, "data": {}}))
    client.open("/nowhere/at/all", method="BREW-7")
    found = scraped(client)
    expected = {
        "requests_total{method=POST,route=/predict,status=200}": 2,
        "requests_total{method=other,route=other,status=404}": 1,
        "request_seconds_count{route=/predict}": 2,
        "request_seconds_bucket{le=120.0,route=/predict}": 2,
        "tasks_total{urgency=batch}": 2,
        "failures_total{reason=DataKeyError}": 2,
        "stage_seconds_count{stage=model}": 2,
        "stage_seconds_count{stage=fetch}": 2,
        "queue_pictures{urgency=interactive}": 0,
        "cache_misses_total{cache=features}": 2,
        "cache_hits_total{cache=words}": 2,
        "cache_hits_total{cache=pictures}": 0,
    }
    assert {name: found[f"clearclip_{name}"] for name in expected} == expected
    assert not any("nowhere" in name for name in found)


def test_a_model_that_is_not_loaded_says_so() -> None:
    engine = Engine(ColourSegmenter, lambda: "m")  # type: ignore[arg-type]
    assert scraped(make_app(engine).test_client())["clearclip_model_loaded{}"] == 0


def test_a_gpu_that_is_used_is_told_of_with_all_its_memory(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs, as torch tells of them; this process uses the second."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        assert not any(name.startswith("clearclip_gpu") for name in scraped(client))
    used = {0: 0, 1: 300}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 2 * used[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (7000, 8000))
    found = {n: v for n, v in scraped(client).items() if n.startswith("clearclip_gpu")}
    assert found == {
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=reserved}": 600,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=free}": 7000,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=total}": 8000,
    }
