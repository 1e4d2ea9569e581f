"""An application with a stand-in for the model, what is sent to it, and a browser before it."""

import json
from html.parser import HTMLParser
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from backend import create_app
from backend.database.database import Database
from backend.inference.engine import Engine
from backend.jobs.job_store import JobStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag

RED = {"id": 1, "data": {"image": data_url(flag("red", "blue"))}}


def make_app(engine: Engine | None = None, **settings: object) -> Flask:
    return create_app(Settings(**settings), engine or colour_engine())  # type: ignore[arg-type]


def predict_body(*tasks: Any, config: str = brush_config("red"), **params: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), "label_config": config, "project": "1.7", "params": params}


def error_of(response: Any) -> str:
    body = json.loads(response.data)
    assert set(body) == {"error"}
    assert "Traceback" not in body["error"]
    return str(body["error"])


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

    @property
    def links(self) -> list[str]:
        """Where the page leads, in its order."""
        return [str(each["href"]) for each in self.all("a")]

    @property
    def next_page(self) -> str:
        """Where the page goes by itself; empty where it stays."""
        contents = [each["content"] for each in self.all("meta") if "http-equiv" in each]
        return "".join(str(each).partition("; url=")[2] for each in contents)


class Dashboard:
    """A backend with a store, and a browser before it."""

    def __init__(self, engine: Engine | None = None, **settings: Any) -> None:
        given = {"label_studio_url": "http://studio:8080", "label_studio_api_key": KEY, **settings}
        self.store = JobStore(Database.from_settings(Settings(**given)))
        self.app = create_app(Settings(**given), engine or colour_engine())
        self.client: FlaskClient = self.app.test_client()

    def page(self, path: str = "/") -> Page:
        response = self.client.get(path, headers=PEOPLE)
        assert response.status_code == 200
        return Page(response)

    def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> Any:
        """As a form of the page does."""
        return self.client.post(path, data=form or {"x": "1"}, headers=headers or HERE)


def started(dashboard: Dashboard, done: int = 0, total: int | None = None) -> int:
    job = dashboard.store.start_job(7)
    dashboard.store.lease_job("worker", job.id)
    dashboard.store.advance(job.id, "worker", total=total, done=done)
    return job.id


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
