"""The dashboard, jobs, and what monitoring asks for; nothing of it waits for the model."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import promql_parser
import pytest
import torch
import yaml
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from backend.database.database import Database
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.jobs import worker
from backend.jobs.change_poller import Poll, PollStore
from backend.jobs.connection_watch import ConnectionWatch
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.batches import Outcome
from backend.prediction.images import PredictionSpec
from backend.projects.failures import FailureStore
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.web.pages.status import StatusReport
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.waiting import wait_for
from tests.backend.web.browser import KEY, PEOPLE, RED, Dashboard, Page, predict_body, started


def test_the_page_shows_what_goes_on_and_programs_get_json(dashboard: Dashboard) -> None:
    started(dashboard, done=30, total=120)
    gone = {"id": 41, "data": {"picture": "x"}}
    dashboard.client.post("/predict", json=predict_body(gone, RED) | {"project": "7.1"})
    page = dashboard.page()
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert dashboard.client.get("/", headers=headers).get_json()["status"] == "UP"
    for text in ("Ready", "ViT-B-16/openai", "float32", "30 predicted of 120", "running"):
        assert text in page.text, text
    assert 'asks for "$image"' in page.text
    (progress,) = page.all("progress")
    assert (progress["value"], progress["max"]) == ("30", "120")
    assert "http://studio:8080/projects/7/data?task=41" in page.links
    asks = {form["action"]: "data-confirm" in form for form in page.all("form")}
    assert asks == {"/jobs/1/pause": False, "/jobs/1/cancel": True}
    status = dashboard.client.get("/status").get_json()
    assert (status["jobs"][0]["done"], status["model"]["device"]) == (30, "cpu")
    assert torch.__version__.startswith(status["versions"]["torch"])  # "+cu124" may follow


def test_ready_is_another_thing_than_alive() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(60)
        return ColourSegmenter()

    with Engine(load, lambda: "m") as engine:
        dashboard = Dashboard(engine)
        assert scraped(dashboard.client)["clearclip_model_loaded{}"] == 0
        ready = dashboard.client.get("/ready")
        assert (ready.status_code, ready.get_json()["state"]) == (503, "loading")
        assert "Loading the model" in dashboard.page().text
        setup = dashboard.client.post("/setup", json={"schema": brush_config("red")})
        assert setup.status_code == 200, "Label Studio gives up after 3 s"
        may_load.set()
        engine.segmenter()
        assert dashboard.client.get("/ready").status_code == 200
    assert "The backend is shutting down." in dashboard.page().text


def test_nothing_here_waits_for_a_model_that_is_busy() -> None:
    segmenter = ColourSegmenter()
    dashboard = Dashboard(colour_engine(segmenter))
    segmenter.gate.clear()
    body = predict_body(RED | {"id": 5}) | {"project": "7.1"}
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(dashboard.app.test_client().post("/predict", json=body))
    )
    asking.start()
    assert segmenter.started.acquire(timeout=60)
    for path in ("/", "/status", "/metrics", "/ready", "/jobs", "/health"):
        assert dashboard.client.get(path, headers=PEOPLE).status_code == 200
    status = dashboard.client.get("/status").get_json()
    assert status["waiting"] == [{"urgency": "opened", "project": 7, "count": 1}]
    assert (status["remaining"], status["running"][0]["task"]) == (1, 5)
    page = dashboard.page()
    assert "in the model" in page.text
    assert "http://studio:8080/projects/7/data?task=5" in page.links
    assert answers == []
    segmenter.gate.set()
    asking.join(60)
    assert answers[0].status_code == 200


def worked_until(dashboard: Dashboard, is_shown: Callable[[Page], bool]) -> Page:
    """The page as it is once a worker has found something out."""
    dashboard.app.extensions["worker"].start()
    wait_for(lambda: is_shown(dashboard.page("/?part=1")))
    dashboard.app.extensions["worker"].stop()
    return dashboard.page("/?part=1")


def test_the_page_says_that_label_studio_refuses_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    refused = "refuses the token of this backend (HTTP 401)"
    with FakeStudio(brush_config("red"), {}, token="another").served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        worked_until(dashboard, lambda page: refused in page.text)
    status = dashboard.client.get("/status").get_json()["connection"]
    assert "Set LABEL_STUDIO_API_KEY" in status["trouble"]
    assert TOKEN not in json.dumps(status)


def test_projects_served_come_first_others_in_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    titles = {7: "<b>Streets</b>", 8: "Kitchens"}
    database = Database.from_settings(Settings())
    FailureStore(database).add([(41, "It is gone."), (42, "It is gone.")], project=7)
    (polls := PollStore(database, "another")).add(7, in_s=0)
    polls.lease()
    polls.finish(Poll(7, tasks=5), in_s=25)  # of tasks older than the connection, not annotated
    with FakeStudio(brush_config("red"), {}, titles=titles).served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        page = worked_until(dashboard, lambda page: "Kitchens (8)" in page.text)
    assert "<b>Streets</b> (7)" in page.text, "as text"
    assert page.links.index("/projects/7") < page.links.index("/projects/8")
    assert page.text.index("1 project that this backend does not serve") < page.text.index("Kit")
    (served,) = dashboard.client.get("/status").get_json()["served"]
    nothing = {"tasks": 5, "left": None, "annotations": 0, "accepted_share": None}
    assert served == {"project": 7, "failing": 2} | nothing


def test_the_page_needs_nothing_from_elsewhere(dashboard: Dashboard) -> None:
    """Air-gapped: no script, style, font or picture comes from another server."""
    started(dashboard, done=1, total=2)
    for path in ("/", "/?part=1", "/projects/7?job=1"):
        page = dashboard.page(path)
        names = {name for _, attributes in page.elements for name in attributes}
        assert not [name for name in names if name == "style" or name.startswith("on")]
        sources = {str(attributes.get("src")) for _, attributes in page.elements} - {"None"}
        assert {each.partition("?")[0] for each in sources} <= {"/page.js"}
        links = {str(each["href"]).partition("?")[0] for each in page.all("link")}
        assert links <= {"data:,", "/page.css"}
    for name in ("page.css", "page.js"):
        text = dashboard.client.get(f"/{name}").text
        assert not [each for each in ("@import", "url(", "http") if each in text]


def test_the_policy_lets_only_the_pages_own_script_run(dashboard: Dashboard) -> None:
    first, second = (dashboard.client.get("/", headers=PEOPLE) for _ in range(2))
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    (nonce,) = set(re.findall(r"'nonce-([\w-]+)'", policy))
    page = Page(first)
    own = page.all("script") + [each for each in page.all("link") if "nonce" in each]
    assert {element["nonce"] for element in own} == {nonce}
    assert nonce not in second.headers["Content-Security-Policy"]
    assert first.headers["Cache-Control"] == "no-store"


def test_what_comes_from_outside_is_text(dashboard: Dashboard) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    setup = {"schema": brush_config("red"), "hostname": "javascript:alert(1)", "access_token": ""}
    dashboard.client.post("/setup", json=setup)
    body = {"tasks": [{"id": evil, "data": {evil: evil}}], "label_config": brush_config("red")}
    dashboard.client.post("/predict", json=body)
    job = started(dashboard)
    dashboard.store.advance(job, "worker", failures=[(1, evil)], version=evil)
    dashboard.store.finish(job, "worker", reason=evil)
    refused = dashboard.post("/jobs", {"project": "7", evil: "1"})
    shown = map(dashboard.page, ("/", "/?part=1", "/projects/7?job=1"))
    for page in (*shown, Page(refused)):
        assert "alert(1)" in page.text
        assert page.all("img") == []
        assert all(script.get("nonce") for script in page.all("script"))
        assert all(link.startswith(("http://studio:8080", "/", "#")) for link in page.links)


def test_a_job_is_started_paused_resumed_and_cancelled_from_the_page(dashboard: Dashboard) -> None:
    for _ in range(2):  # pressing twice starts one
        response = dashboard.post("/jobs", {"project": " 7 ", "filter": "all", "view": ""})
        assert response.status_code == 303
        assert response.headers["Location"].endswith("/projects/7?job=1")
    (job,) = dashboard.store.list_jobs()
    assert (job.project, job.only, job.view, job.state) == (7, "all", None, "queued")
    for turn, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert dashboard.client.get(f"/jobs/{job.id}/{turn}").status_code == 405
        answer = dashboard.post(f"/jobs/{job.id}/{turn}")
        assert answer.status_code == 303
        assert "/jobs/1" in dashboard.page(answer.headers["Location"]).links, "it says so"
        assert dashboard.store.get_job(job.id).state == state
    refused = dashboard.post("/jobs/1/resume")
    assert refused.status_code == 409
    assert "it cannot become queued" in Page(refused).text


@pytest.mark.parametrize(("is_gone", "forms"), [(False, 1), (True, 0)])
def test_a_failed_job_of_a_project_that_is_gone_cannot_be_resumed(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, is_gone: bool, forms: int
) -> None:
    monkeypatch.setattr(ConnectionWatch, "is_gone", lambda self, project: is_gone)
    job = dashboard.store.start_job(7)
    dashboard.store.lease_job("worker", job.id)
    dashboard.store.finish(job.id, "worker", "The project is gone.")
    assert dashboard.store.get_job(job.id).state == "failed"
    actions = [form["action"] for form in dashboard.page().all("form")]
    assert actions.count("/jobs/1/resume") == forms


def test_a_job_of_a_project_that_is_gone_is_not_resumed_by_a_program() -> None:
    with FakeStudio(brush_config("red"), {}).served() as server:  # it has project 7 alone
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        job = dashboard.store.start_job(8)
        dashboard.store.pause(job.id)
        refused = dashboard.client.post(f"/jobs/{job.id}/resume")
    assert refused.status_code == 404
    assert "project 8" in refused.get_json()["error"]
    assert dashboard.store.get_job(job.id).state == "paused"


def test_a_job_is_started_listed_read_and_cancelled_by_a_program(dashboard: Dashboard) -> None:
    client = dashboard.client
    response = client.post("/jobs", json={"project": 7, "filter": "all", "view": 3, "limit": 10})
    assert (response.status_code, response.headers["Location"]) == (201, "/jobs/1")
    job = response.get_json()
    expected = {"id": 1, "project": 7, "filter": "all", "view": 3, "limit": 10, "state": "queued"}
    assert expected.items() <= job.items()
    assert client.get("/jobs").get_json()["jobs"] == [job]
    assert client.get("/jobs?project=8").get_json()["jobs"] == []
    dashboard.store.lease_job("worker")
    dashboard.store.advance(1, "worker", total=5, done=1, failures=[(41, "There is no file.")])
    read = client.get("/jobs/1").get_json()
    assert (read["done"], read["failed"], read["remaining"]) == (1, 1, 3)
    (failure,) = read["failures"]
    assert (failure["task"], failure["sentence"]) == (41, "There is no file.")
    assert failure["url"] == "http://studio:8080/projects/7/data?task=41"
    assert client.post("/jobs/1/pause").get_json()["state"] == "paused"
    assert client.post("/jobs/1/cancel").get_json()["state"] == "cancelled"
    assert client.post("/jobs/1/pause").status_code == 409
    assert client.get("/jobs/2").status_code == 404
    assert client.get(f"/jobs/{'9' * 30}").status_code == 404
    assert client.get(f"/jobs?project={'9' * 30}").status_code == 200


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


MONITORING = Path(__file__).parents[4] / "deploy" / "monitoring"


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


STUDIO_URL = "http://label-studio:8080"


class Scene:
    def __init__(self, database: Database | None = None) -> None:
        studio: Any = {"label_studio_url": STUDIO_URL, "label_studio_api_key": KEY}
        settings = Settings(model="demo", **studio)
        self.segmenter = ColourSegmenter()
        self.services = Services(settings, colour_engine(self.segmenter))
        if database is not None:
            vars(self.services)["database"] = database  # in place of the cached one
        self.store, self.tracker = self.services.store, TaskTracker()
        self.status = StatusReport(self.services, self.tracker)

    def read(self) -> dict[str, Any]:
        now: dict[str, Any] = json.loads(msgspec.json.encode(self.status.read()))
        return now


def test_tasks_of_batches_wait_too_but_are_not_counted_beside_their_job() -> None:
    scene = Scene()
    gate = threading.Event()

    def work(task: Task, spec: PredictionSpec) -> Outcome:
        assert gate.wait(60)
        return Outcome({"result": []})

    tasks = [Task(number, 7, {}) for number in range(10)]
    spec = PredictionSpec(parse_label_config(brush_config("red"), None), "v", Priority.BATCH, 7)
    run = scene.services.task_runner.run
    batch = threading.Thread(target=run, args=(tasks, spec, work))
    batch.start()
    wait_for(lambda: scene.read()["remaining"] == 10)
    assert scene.read()["waiting"] == [{"urgency": "batch", "project": 7, "count": 10}]
    job = scene.store.start_job(7)
    scene.store.lease_job("worker")
    scene.store.advance(job.id, "worker", total=100, done=60)
    assert scene.read()["remaining"] == 40
    gate.set()
    batch.join(60)
    scene.store.cancel(job.id)
    wait_for(lambda: scene.read()["remaining"] == 0)
    assert scene.read()["waiting"] == []


def test_jobs_come_with_what_remains_and_when_they_end() -> None:
    now = [1000.0]
    scene = Scene(Database("sqlite://", clock=lambda: now[0]))
    over = scene.store.start_job(3)
    scene.store.cancel(over.id)
    running = scene.store.start_job(7, only="all", limit=50)
    scene.store.lease_job("worker")
    now[0] += 10
    scene.store.advance(running.id, "worker", total=100, done=20, failures=[(5, "Gone.")])
    scene.store.start_job(8, kind="new", tasks=[1, 2, 3])
    read = scene.read()
    assert [job["state"] for job in read["jobs"]] == ["queued", "running", "cancelled"]
    queued, job, _ = read["jobs"]
    assert (queued["kind"], job["project"], job["filter"], job["limit"]) == ("new", 7, "all", 50)
    assert (job["total"], job["done"], job["failed"], job["remaining"]) == (100, 20, 1, 79)
    assert (job["rate"], read["eta_s"], read["remaining"]) == pytest.approx((2.0, 39.5, 79))
    (error,) = read["errors"]
    assert (error["task"], error["project"], error["job"]) == (5, 7, running.id)
    scene.services.connection_watch._trouble = "Label Studio is away."
    assert scene.read()["eta_s"] is None


def test_tasks_without_a_prediction_are_named_once_with_their_newest_reason() -> None:
    scene = Scene()
    job = scene.store.start_job(7)
    scene.store.lease_job("worker")
    scene.store.advance(job.id, "worker", failures=[(5, "Gone."), (6, "Gone.")])
    failures = FailureStore(scene.store.database)
    failures.add([(number, "Gone.") for number in range(7, 29)], project=7)
    scene.store.start_job(8)
    failures.add([(99, "Gone.")], project=8)
    scene.services.change_poller.polls.add(9, 0)
    failures.add([(98, "Gone.")], project=9)
    failures.add([(6, "There is no file.")])
    failures.solve([7, 8])
    vars(scene.services.connection_watch)["_titles"] = {7: "Streets"}
    now = scene.read()
    assert (now["failing"]["tasks"], len(now["errors"])) == (23, 20), "8 is deleted, 9 is new"
    assert {each["project"] for each in now["served"]} == {7, 9}
    assert now["errors"][0]["task"] == 6, "the last one first"
    errors = {error["task"]: error for error in now["errors"]}
    assert 99 not in errors
    assert (errors[6]["project"], errors[6]["sentence"]) == (7, "There is no file.")
    assert errors[6]["url"] == "http://label-studio:8080/projects/7/data?task=6"
    assert now["failing"]["since"] <= errors[6]["since"] < errors[6]["at"]


def test_polls_are_shown() -> None:
    scene = Scene()
    polls = scene.services.change_poller.polls
    polls.add(7, 0)
    polls.add(8, 0)
    poll = polls.lease()
    assert poll is not None
    polls.finish(poll, 60.0)
    assert polls.lease() is not None
    polls.fail(8, f"Label Studio refuses {KEY}.", 60.0)
    good, bad = scene.read()["connection"]["polled"]
    assert (good["project"], good["trouble"], good["at"] > 1e9) == (7, "", True)
    assert (bad["project"], bad["at"]) == (8, None)
    assert "Label Studio refuses" in bad["trouble"]
    assert KEY not in bad["trouble"]


def test_no_secret_is_seen() -> None:
    scene = Scene()
    sentence = f"refused {KEY} at http://a:hunter2@host/"
    FailureStore(scene.store.database).add([(5, sentence)], project=7)
    scene.tracker.refused(sentence)
    with scene.tracker.task(KEY, 7, "batch"):
        text = msgspec.json.encode(scene.status.read()).decode()
    assert text.count("refused") == 2
    assert KEY not in text
    assert "hunter2" not in text


def test_a_database_that_is_gone_hides_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"this is no database" * 100)
    now = Scene(Database(f"sqlite:///{path}")).read()
    assert now["jobs"] == []
    assert now["jobs_trouble"] == "The database of jobs cannot be read (file is not a database)."
    assert now["model"]["state"] == "ready"
    now = Scene(Database(f"sqlite:///{tmp_path}")).read()
    assert "(unable to open database file)" in now["jobs_trouble"]
