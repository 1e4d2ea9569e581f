"""A backend with its background threads, for tests of jobs and feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.inference.engine import Engine
from backend.jobs.job_store import JobStore
from backend.jobs.worker import Worker
from backend.label_studio.label_config_parser import parse_label_config
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)

CONFIG = brush_config("red")


@dataclass
class Backend:
    """The parts of a backend as `serve` runs it."""

    client: Any
    worker: Worker
    store: JobStore
    segmenter: ColourSegmenter
    engine: Engine

    def predict(self, *ids: int, config: str = CONFIG) -> list[Any]:
        tasks = [{"id": i, "project": 7, "data": {"image": picture(i)}} for i in ids]
        body = {"tasks": tasks, "label_config": config, "project": "7.1"}
        results: list[Any] = self.client.post("/predict", json=body).get_json()["results"]
        return results


def picture(number: int) -> str:
    return data_url(flag("red", "blue", size_hw=(4, 8 + number)))


def version() -> str:
    versions = Predictor(colour_engine(), lambda *_: flag("red"), Settings()).versions
    return versions.current(parse_label_config(CONFIG, None))
