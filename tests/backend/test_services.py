"""The parts of the backend and how they are put together; the errors that all of them raise."""

import inspect
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from backend import create_app, errors
from backend.errors import BadRequest
from backend.label_studio.client import required_client
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import parse_predict
from backend.services import Services
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag

KEYS = {"label_studio_url": "http://studio", "label_studio_api_key": "token"}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(model="demo", database_url=f"sqlite:///{tmp_path}/jobs.db", **KEYS))  # type: ignore[arg-type]


def test_parts_are_made_once_and_open_nothing(services: Services, tmp_path: Path) -> None:
    threads = {*threading.enumerate()}  # some may be ending
    client, predictor = services.client, services.predictor()
    assert client.url == "http://studio"
    services.prelabeler(client, predictor)
    services.ray_prelabeler(client, "", None)
    services.worker(predictor)
    for part in ("engine", "images", "store", "owner", "task_runner", "annotations", "learner"):
        assert getattr(services, part) is getattr(services, part), part
    assert {*threading.enumerate()} <= threads
    assert list(tmp_path.iterdir()) == []


def test_without_a_token_there_is_no_client() -> None:
    services = Services(Settings())
    assert (services.client, services.page_client) == (None, None)
    with pytest.raises(BadRequest, match=r"^Tasks are read: set LABEL_STUDIO_URL and LABEL_STUDIO"):
        required_client(services.client, "Tasks are read")


def test_commands_and_server_make_predictions_of_one_version() -> None:
    settings, config = Settings(), parse_label_config(brush_config("red"), None)
    served = create_app(settings, colour_engine()).test_client()
    body = {"project": "7", "schema": brush_config("red")}
    version = served.post("/setup", json=body).get_json()["model_version"]
    services = Services(settings, colour_engine())
    assert services.predictor().versions.current(config, 7) == version
    assert services.predictor(uses_database=False).versions.current(config) == version


def test_a_predictor_without_a_database_makes_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    services = Services(Settings(database_url=url), colour_engine())  # type: ignore[arg-type]
    task = {"id": 1, "data": {"image": data_url(flag("red", "blue"))}}
    body = json.dumps({"tasks": [task], "label_config": brush_config("red")}).encode()
    (entry,) = services.predictor(uses_database=False).predict(
        parse_predict(body, services.settings)
    )
    assert entry["result"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("days", "uses_database", "copies"), [(2, True, 1), (0, True, 0), (2, False, 0)]
)
def test_a_server_keeps_a_copy_of_a_large_picture_that_it_predicts(
    tmp_path: Path, days: int, uses_database: bool, copies: int
) -> None:
    services = Services(Settings(model_dir=tmp_path, picture_days=days), colour_engine())
    large = data_url(np.full((1200, 2000, 3), (255, 0, 0), np.uint8))
    tasks = [{"id": number, "data": {"image": large}} for number in (1, 2)]  # one is a click's
    body = json.dumps({"tasks": tasks, "label_config": brush_config("red")}).encode()
    services.predictor(uses_database=uses_database).predict(parse_predict(body, services.settings))
    assert len([*tmp_path.glob("pictures/*.jpg")]) == copies


def test_only_our_own_fault_is_a_server_error() -> None:
    ours = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.BackendError) and kind.http_status >= 500
    }
    may_pass = {"ModelUnavailable", "DatabaseAway", "StudioBusy"}  # 503: come again
    assert ours == {"BackendError"} | may_pass
