"""The served backend under load: a click during a batch."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from flask import Flask

from backend import create_app
from backend.inference.engine import Engine
from backend.inference.feature_cache import FeatureCache
from backend.inference.queue import Priority
from backend.settings import Settings
from clearclip_core import RGBArray, Segmenter, render_scene
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.waiting import wait_for
from tests.backend.prediction.annotator import keypoint
from tests.bench.conftest import Report

#: Short side, long side: of a photograph, small enough for a data: URL to cost nothing.
SIZE_HW = (456, 683)
CONFIG = brush_config("sky", "grass", "tree", "house", "road")
BATCH = 50


def task(seed: int) -> dict[str, Any]:
    return {"id": seed, "data": {"image": data_url(picture(seed))}}


def picture(seed: int) -> RGBArray:
    noise = np.random.default_rng(seed).integers(0, 20, (*SIZE_HW, 3), np.uint8)
    return render_scene(seed=seed, size_hw=SIZE_HW).image // 2 + noise


def predict(app: Flask, *tasks: Any, **params: Any) -> float:
    """Return the seconds until the response, each of whose predictions has regions."""
    body: dict[str, Any] = {"tasks": tasks, "label_config": CONFIG, "params": params}
    body["project"] = "1.7"
    began = time.perf_counter()
    response = app.test_client().post("/predict", json=body)
    assert response.status_code == 200
    assert all(response.get_json()["results"])
    return time.perf_counter() - began


def test_a_click_during_a_batch(report: Report) -> None:
    tasks = [task(seed) for seed in range(BATCH + 5)]
    click = {"result": [keypoint(50, 50, "sky")]}
    delays, waits = [], []
    engine = Engine(partial(Segmenter.load, "demo"), lambda: "demo", cache=FeatureCache(0))
    with engine, ThreadPoolExecutor(1) as other:
        engine.segmenter()
        app = create_app(Settings(predict_deadline_s=600), engine)
        batch = other.submit(predict, app, *tasks[:BATCH])
        for number in range(5):
            wait_for(lambda: engine.snapshot().waiting[Priority.BATCH] > 1 or batch.done())
            assert not batch.done()
            before = engine.snapshot().batches
            waits.append(predict(app, tasks[BATCH + number], context=click))
            delays.append(engine.snapshot().batches - before)
        batch.result()
    report.add(
        f"micro-batches until a click during a batch of {BATCH} is answered, its own included",
        "≤ 3: the running one, its own, and one that began while its mask was drawn",
        f"{max(delays)}",
        f"demo model, {max(waits):.2f} s at most",
    )
