"""The parts of the backend and how they are put together."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from backend import create_app
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import PredictRequest, parse_predict
from backend.services import Services
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag

KEYS = {"label_studio_url": "http://studio", "label_studio_api_key": "token"}

PARTS = ("engine", "files", "images", "store", "owner", "task_runner", "annotations")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(model="demo", database_url=f"sqlite:///{tmp_path}/jobs.db", **KEYS))  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [*PARTS, "examples", "learner"])
def test_a_part_is_made_once(services: Services, part: str) -> None:
    assert getattr(services, part) is getattr(services, part)


def test_making_parts_opens_no_database_and_starts_no_thread(
    services: Services, tmp_path: Path
) -> None:
    threads = threading.active_count()
    client = services.required_client("predictions are written")
    services.prelabeler(client)
    services.ray_prelabeler(client, "", None)
    services.annotation_reader(client, services.learner)
    services.worker(services.predictor())
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def test_check_refuses_a_model_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="arch/tag"):
        Services(Settings(model="nothing")).check()


def test_check_refuses_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    url = f"sqlite:///{tmp_path}/folder"
    with pytest.raises(ValueError, match="folder"):
        Services(Settings(model="demo", database_url=url)).check()  # type: ignore[arg-type]


def test_commands_and_server_make_predictions_of_one_version() -> None:
    settings, config = Settings(), parse_label_config(brush_config("red"))
    served = create_app(settings, colour_engine()).test_client()
    body = {"project": "7", "schema": brush_config("red")}
    version = served.post("/setup", json=body).get_json()["model_version"]
    services = Services(settings, colour_engine())
    assert services.predictor().versions.current(config, 7) == version
    assert services.database_free_predictor().versions.current(config) == version


def _request(task: dict[str, object]) -> PredictRequest:
    message = {"tasks": [task], "label_config": brush_config("red")}
    return parse_predict(json.dumps(message).encode())


def test_a_predictor_without_a_database_makes_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    services = Services(Settings(database_url=url), colour_engine())  # type: ignore[arg-type]
    task = {"id": 1, "data": {"image": data_url(flag("red", "blue"))}}
    request = _request(task)
    (entry,) = services.database_free_predictor().predict(request)
    assert entry["result"]
    assert list(tmp_path.iterdir()) == []


def test_a_predictor_without_a_database_reads_images_as_it_is_told(tmp_path: Path) -> None:
    services = Services(Settings(), colour_engine())
    predictor = services.database_free_predictor(lambda source, task: flag("red", "blue"))
    task = {"id": 1, "data": {"image": "picture.png"}}
    (entry,) = predictor.predict(_request(task))
    assert entry["result"]
