"""What monitoring asks for: `/metrics`, and the alerts and panels that are made of it."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import torch
import yaml
from flask.testing import FlaskClient

from backend.jobs.change_poller import PollStore
from backend.jobs.connection_watch import ConnectionWatch
from tests.backend.web.browser import (
    RED,
    Dashboard,
    predict_body,
    scraped,
    started,
)


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
        "request_seconds_count{route=/predict,urgency=batch}": 2,
        "request_seconds_bucket{le=120.0,route=/predict,urgency=batch}": 2,
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


def test_jobs_polls_and_label_studio_are_told_of_and_the_scrape_outlives_the_database(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(dashboard, done=3, total=120)
    dashboard.store.start_job(8)
    polls = PollStore(dashboard.store.database, "another backend")
    polls.add(7, in_s=-1)
    poll = polls.lease()
    assert poll is not None
    polls.finish(poll, in_s=60)
    monkeypatch.setattr(PollStore, "now", polls.now + 90)
    monkeypatch.setattr(ConnectionWatch, "trouble", "Label Studio cannot be reached.")
    found = scraped(dashboard.client)
    states = [found[f"clearclip_jobs{{state={each}}}"] for each in ("running", "queued", "failed")]
    assert states == [1, 1, 0], "the alert asks for the difference of those that failed"
    assert found["clearclip_failures_total{reason=ImageNotFound}"] == 0, "and for its increase"
    assert 90 <= found["clearclip_poll_age_seconds{}"] < 120
    assert found["clearclip_label_studio_up{}"] == 0
    (build,) = (name for name in found if name.startswith("clearclip_build_info"))
    assert "method=clearclip,model=ViT-B-16/openai,version=" in build
    with dashboard.store.database.write() as connection:
        connection.exec_driver_sql("DROP TABLE jobs")
    without = scraped(dashboard.client)
    assert without["clearclip_model_loaded{}"] == 1
    assert "clearclip_jobs{state=running}" not in without


MONITORING = Path(__file__).parents[3] / "deploy" / "monitoring"


def monitoring_queries() -> list[str]:
    """Return what the alerts and the panels of Grafana ask Prometheus."""
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    asked = [rule["expr"] for rule in group["rules"]]
    return asked + [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("query", monitoring_queries())
def test_prometheus_takes_what_alerts_and_panels_ask(query: str) -> None:
    promql_parser.parse(query)  # raises for syntax, unknown functions and wrong types


def test_alerts_and_dashboard_ask_for_metrics_that_are_there(dashboard: Dashboard) -> None:
    started(dashboard, done=3, total=120)
    dashboard.client.get("/health")
    text = dashboard.client.get("/metrics").get_data(as_text=True)
    names = {name for each in monitoring_queries() for name in re.findall(r"clearclip_\w+", each)}
    told = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    told |= {f"{name}_{end}" for name in told for end in ("bucket", "count", "sum")}
    assert len(names) > 10
    assert names - told - {"clearclip_gpu_memory_bytes", "clearclip_poll_age_seconds"} == set()


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
