"""The page and its JSON; that strangers cannot steer through a browser; that nothing waits."""

from __future__ import annotations

import json
import re
import threading
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend import create_app
from backend.inference.engine import Engine
from backend.jobs.job_store import JobStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)

KEY = "0123456789abcdef0123456789abcdef01234567"
PEOPLE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HERE = {"Origin": "http://localhost"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text in them."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(response.data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class Console:
    """A backend with a store, and a browser before it."""

    def __init__(self, engine: Engine | None = None, **settings: Any) -> None:
        given = {"label_studio_url": "http://studio:8080", "label_studio_api_key": KEY, **settings}
        self.store = JobStore.from_settings(Settings(**given))
        self.app = create_app(Settings(**given), engine or colour_engine())
        self.client: FlaskClient = self.app.test_client()

    def page(self, path: str = "/") -> Page:
        response = self.client.get(path, headers=PEOPLE)
        assert response.status_code == 200
        return Page(response)

    def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> Any:
        """As a form of the page does."""
        return self.client.post(path, data=form or {"x": "1"}, headers=headers or HERE)


@pytest.fixture
def console() -> Console:
    return Console()


def started(console: Console, done: int = 0, total: int | None = None) -> int:
    """A job in work."""
    job = console.store.start_job(7)
    console.store.lease_job("worker", job.id)
    console.store.advance(job.id, "worker", total=total, done=done)
    return job.id


def test_browsers_get_the_page_and_programs_json(console: Console) -> None:
    assert "ClearCLIP for Label Studio" in console.page().text
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert json.loads(console.client.get("/", headers=headers).data)["status"] == "UP"


def test_the_page_shows_model_jobs_tasks_and_errors(console: Console) -> None:
    started(console, done=30, total=120)
    gone = {"id": 41, "data": {"picture": "x"}}
    good = {"id": 42, "data": {"image": data_url(flag("red"))}}
    body = {"tasks": [gone, good], "label_config": brush_config("red"), "project": "7.1"}
    console.client.post("/predict", json=body)
    page = console.page()
    for text in ("Ready", "ViT-B-16/openai", "float32", "30 predicted of 120", "running"):
        assert text in page.text, text
    assert 'asks for "$image"' in page.text
    (progress,) = page.all("progress")
    assert (progress["value"], progress["max"]) == ("30", "120")
    links = [link["href"] for link in page.all("a")]
    assert "http://studio:8080/projects/7/data?task=41" in links
    assert [button["id"] for button in page.all("button") if "id" in button] == [
        "pause-1",
        "cancel-1",
    ]


def test_the_page_needs_nothing_from_elsewhere(console: Console) -> None:
    """Air-gapped: no script, style, font or picture comes from a server, not even this one."""
    started(console, done=1, total=2)
    for path in ("/", "/?part=1", "/jobs/1"):
        page = console.page(path)
        for tag, attributes in page.elements:
            assert "src" not in attributes, tag
            assert "style" not in attributes, tag
            assert not any(name.startswith("on") for name in attributes), tag
            if tag == "link":
                assert attributes["href"] == "data:,"
        assert "@import" not in page.text
        assert "url(" not in page.text


def test_the_policy_lets_only_the_pages_own_script_run(console: Console) -> None:
    first, second = (console.client.get("/", headers=PEOPLE) for _ in range(2))
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    (nonce,) = set(re.findall(r"'nonce-([\w-]+)'", policy))
    page = Page(first)
    assert [element["nonce"] for element in page.all("script") + page.all("style")] == [nonce] * 2
    assert nonce not in second.headers["Content-Security-Policy"]
    assert first.headers["Cache-Control"] == "no-store"


def test_what_comes_from_outside_is_text(console: Console) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    setup = {"schema": brush_config("red"), "hostname": "javascript:alert(1)", "access_token": ""}
    console.client.post("/setup", json=setup)
    body = {"tasks": [{"id": evil, "data": {evil: evil}}], "label_config": brush_config("red")}
    console.client.post("/predict", json=body)
    job = started(console)
    console.store.advance(job, "worker", failures=[(1, evil)], version=evil)
    console.store.finish(job, "worker", reason=evil)
    refused = console.post("/jobs", {"project": "7", evil: "1"})
    for page in (console.page(), console.page("/?part=1"), console.page("/jobs/1"), Page(refused)):
        assert "alert(1)" in page.text
        assert page.all("img") == []
        assert len(page.all("script")) <= 1
        for link in page.all("a"):
            assert str(link["href"]).startswith(("http://studio:8080", "/", "#"))


def test_a_job_is_started_paused_resumed_and_cancelled_from_the_page(console: Console) -> None:
    response = console.post("/jobs", {"project": " 7 ", "filter": "all", "view": ""})
    assert response.status_code == 303
    assert response.headers["Location"].endswith("/")
    (job,) = console.store.list_jobs()
    assert (job.project, job.only, job.view, job.state) == (7, "all", None, "queued")
    for turn, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert console.post(f"/jobs/{job.id}/{turn}").status_code == 303
        assert console.store.get_job(job.id).state == state
    assert console.post("/jobs/1/resume").status_code == 409  # and says why, on the page
    assert "it cannot become queued" in Page(console.post("/jobs/1/resume")).text


def test_a_job_is_started_listed_read_and_cancelled_by_a_program(console: Console) -> None:
    client = console.client
    response = client.post("/jobs", json={"project": 7, "filter": "all", "view": 3, "limit": 10})
    assert response.status_code == 201
    assert response.headers["Location"].endswith("/jobs/1")
    job = json.loads(response.data)
    expected = {"id": 1, "project": 7, "filter": "all", "view": 3, "limit": 10, "state": "queued"}
    assert expected.items() <= job.items()
    assert json.loads(client.get("/jobs").data)["jobs"] == [job]
    assert json.loads(client.get("/jobs?project=8").data)["jobs"] == []
    console.store.lease_job("worker")
    console.store.advance(1, "worker", total=5, done=1, failures=[(41, "There is no file.")])
    read = json.loads(client.get("/jobs/1").data)
    assert (read["done"], read["failed"], read["remaining"]) == (1, 1, 3)
    (failure,) = read["failures"]
    assert (failure["task"], failure["sentence"]) == (41, "There is no file.")
    assert failure["url"] == "http://studio:8080/projects/7/data?task=41"
    assert json.loads(client.post("/jobs/1/pause").data)["state"] == "paused"
    assert json.loads(client.delete("/jobs/1").data)["state"] == "cancelled"
    assert client.post("/jobs/1/pause").status_code == 409
    assert client.get("/jobs/2").status_code == client.delete("/jobs/2").status_code == 404


def test_pressing_twice_starts_one_job(console: Console) -> None:
    for _ in range(2):
        console.post("/jobs", {"project": "7"})
    assert len(console.store.list_jobs()) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"project": "x"}', b'{"project": 0}', b'{"project": -1}'],
)
def test_a_job_that_cannot_be_is_refused_in_one_sentence(console: Console, body: bytes) -> None:
    response = console.client.post("/jobs", data=body, content_type="application/json")
    assert response.status_code == 400
    assert json.loads(response.data)["error"].startswith("Expected ")
    assert console.store.list_jobs() == []


@pytest.mark.parametrize(
    "form",
    [
        {"project": ""},
        {"project": "seven"},
        {"project": "7" * 30},
        {"project": "7", "filter": "none"},
        {"project": "7", "limit": "0"},
        {"project": "7", "what": "x"},
    ],
)
def test_a_wrong_form_is_answered_on_the_page(console: Console, form: dict[str, str]) -> None:
    response = console.post("/jobs", form)
    assert response.status_code == 400
    page = Page(response)
    assert "Expected " in page.text
    assert page.all("form"), "and can be corrected there"
    assert console.store.list_jobs() == []


def test_a_large_body_is_refused(console: Console) -> None:
    response = console.client.post("/jobs", data=b"project=" + b"7" * (1 << 17))
    assert response.status_code == 413


def test_without_a_key_nothing_can_be_written_and_that_is_said() -> None:
    console = Console(label_studio_api_key=None)
    page = console.page()
    assert "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in page.text
    assert page.all("form") == []
    response = console.client.post("/jobs", json={"project": 7})
    assert response.status_code == 400
    assert "LABEL_STUDIO_API_KEY" in json.loads(response.data)["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "ftp://localhost"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_a_page_of_another_site_changes_nothing(console: Console, headers: dict[str, str]) -> None:
    job = started(console)
    for method, path in (
        ("POST", "/jobs"),
        ("POST", f"/jobs/{job}/cancel"),
        ("POST", f"/jobs/{job}/pause"),
        ("DELETE", f"/jobs/{job}"),
        ("POST", "/setup"),
        ("POST", "/predict"),
        ("POST", "/webhook"),
    ):
        for body in ({"data": {"project": "8"}}, {"data": b'{"project": 8}'}):
            response = console.client.open(path, method=method, headers=headers, **body)
            assert response.status_code == 403
    (only,) = console.store.list_jobs()
    assert (only.id, only.state) == (job, "running")


def _posted(name: str, scheme: str = "http", **settings: Any) -> int:
    """The status of what a page of this backend posts, at a name that a browser found it by."""
    headers = {"Host": name, "Origin": f"{scheme}://{name}"}
    client = Console(**settings).client
    basic = ("ann", "secret") if "basic_auth_user" in settings else None
    return client.post("/jobs", data={"project": "8"}, headers=headers, auth=basic).status_code


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_name_that_another_site_has_pointed_here_is_refused(host: str) -> None:
    assert _posted("evil.example:9090", host=host) == 403
    assert _posted("localhost.evil.example", host=host) == 403


@pytest.mark.parametrize(
    "name", ["127.0.0.1:9090", "localhost:9090", "[::1]:9090", "192.168.1.7", "localhost"]
)
def test_names_that_nobody_elsewhere_points_anywhere(name: str) -> None:
    assert _posted(name) == 303


def test_names_where_another_site_gains_nothing_by_them() -> None:
    assert _posted("gpu.lab.example:9090", host="0.0.0.0") == 303  # as in a container
    assert _posted("clearclip.example.com", "https") == 303  # behind a proxy that speaks TLS
    locked = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}
    assert _posted("clearclip.example.com", **locked) == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},  # a proxy before it speaks TLS
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://clearclip.example.com"},
        {"Sec-Fetch-Site": "none"},
        {},  # no browser
    ],
)
def test_its_own_page_and_programs_do(console: Console, headers: dict[str, str]) -> None:
    response = console.client.post("/jobs", data={"project": "8"}, headers=headers)
    assert response.status_code == 303


def test_reading_changes_nothing(console: Console) -> None:
    job = started(console)
    for path in ("pause", "resume", "cancel"):
        assert console.client.get(f"/jobs/{job}/{path}").status_code == 405
    for project in ("x", "0", "9" * 30):
        assert console.client.get(f"/jobs?project={project}").status_code == 400
    assert console.client.get(f"/jobs/{'9' * 30}").status_code == 404
    assert console.store.get_job(job).state == "running"


def test_ready_is_another_thing_than_alive() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(20)
        return ColourSegmenter()

    with Engine(load, lambda: "m") as engine:
        console = Console(engine)
        assert console.client.get("/health").status_code == 200
        ready = console.client.get("/ready")
        assert ready.status_code == 503
        assert json.loads(ready.data)["state"] == "loading"
        assert "Loading the model" in console.page().text
        may_load.set()
        engine.segmenter()
        assert console.client.get("/ready").status_code == 200
    ready = console.client.get("/ready")
    assert ready.status_code == 503
    assert json.loads(ready.data)["reason"] == "The backend is shutting down."
    assert "The backend is shutting down." in console.page().text


def test_nothing_here_waits_for_a_model_that_is_busy() -> None:
    segmenter = ColourSegmenter()
    console = Console(colour_engine(segmenter))
    segmenter.gate.clear()
    task = {"id": 5, "data": {"image": data_url(flag("red"))}}
    body = {"tasks": [task], "label_config": brush_config("red"), "project": "7.1"}
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(console.app.test_client().post("/predict", json=body))
    )
    asking.start()
    assert segmenter.started.acquire(timeout=20)
    for path in ("/", "/status", "/metrics", "/ready", "/jobs", "/health"):
        assert console.client.get(path, headers=PEOPLE).status_code == 200
    page = console.page()
    assert "in the model" in page.text
    assert "http://studio:8080/projects/7/data?task=5" in [link["href"] for link in page.all("a")]
    assert answers == []
    segmenter.gate.set()
    asking.join(20)
    assert answers[0].status_code == 200


def test_status_is_the_same_as_json(console: Console) -> None:
    started(console, done=30, total=120)
    status = json.loads(console.client.get("/status").data)
    assert status["model"]["state"] == "ready"
    assert status["jobs"][0]["done"] == 30


def test_metrics_count_requests_and_tasks(console: Console) -> None:
    task = {"id": 5, "data": {"image": data_url(flag("red"))}}
    bad = {"id": 6, "data": {}}
    body = {"tasks": [task, bad], "label_config": brush_config("red"), "project": "7.1"}
    console.client.post("/predict", json=body)
    console.client.get("/nowhere/at/all")
    response = console.client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    text = response.data.decode()
    assert 'clearclip_requests_total{method="POST",route="/predict",status="200"} 1.0' in text
    assert 'clearclip_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert 'clearclip_tasks_total{urgency="batch"} 1.0' in text
    assert 'clearclip_failures_total{reason="DataKeyError"} 1.0' in text
    for stage in ("fetch", "prepare", "wait", "model", "decide", "draw"):
        assert f'clearclip_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert "nowhere" not in text


def test_a_page_under_a_path_of_a_proxy_stays_there(console: Console) -> None:
    started(console)
    environ = {"SCRIPT_NAME": "/clearclip"}
    page = Page(console.client.get("/", headers=PEOPLE, environ_overrides=environ))
    assert {str(form["action"]) for form in page.all("form")} == {
        "/clearclip/jobs",
        "/clearclip/jobs/1/pause",
        "/clearclip/jobs/1/cancel",
    }
    assert '"/clearclip/"' in page.text


def test_everything_is_behind_basic_auth_but_health() -> None:
    console = Console(basic_auth_user="ann", basic_auth_pass="p")
    for path in ("/", "/status", "/metrics", "/ready", "/jobs", "/jobs/1"):
        response = console.client.get(path, headers=PEOPLE)
        assert response.status_code == 401
        assert b"ViT" not in response.data
    for path in ("/jobs", "/jobs/1/cancel"):
        assert console.post(path).status_code == 401
    assert console.client.get("/health").status_code == 200


def test_times_do_not_stand_still(console: Console) -> None:
    """What the page renews by itself is drawn anew each time."""
    assert "Not begun yet" not in console.page("/?part=1").text
    console.store.start_job(7)
    part = console.page("/?part=1")
    assert "Not begun yet" in part.text
    assert [element["id"] for element in part.all("div") if "id" in element] == ["live", "more"]
    assert part.all("script") == part.all("style") == []
    assert time.time() - json.loads(console.client.get("/status").data)["at"] < 60
