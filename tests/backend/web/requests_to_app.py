"""An application with a stand-in for the model, and what is sent to it."""

from __future__ import annotations

import json
import time
from typing import Any

from flask import Flask

from backend import create_app
from backend.inference.engine import Engine
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import (
    brush_config,
    colour_engine,
    data_url,
    flag,
)

RED = {"id": 1, "data": {"image": data_url(flag("red", "blue"))}}


def make_app(engine: Engine | None = None, **settings: object) -> Flask:
    return create_app(Settings(**settings), engine or colour_engine())  # type: ignore[arg-type]


def failing_engine(reason: str = "The weights are not on this machine: bring them") -> Engine:
    def load() -> Any:
        raise FileNotFoundError(reason)

    engine = Engine(load, lambda: "m", retry_after_s=60)
    engine.start()
    while engine.status.state == "loading":
        time.sleep(0.01)
    engine.stop()
    return engine


def predict_body(*tasks: Any, config: str = brush_config("red"), **params: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), "label_config": config, "project": "1.7", "params": params}


def error_of(response: Any) -> str:
    body = json.loads(response.data)
    assert set(body) == {"error"}
    assert "Traceback" not in body["error"]
    return str(body["error"])
