"""The served backend under load: many annotators at once, a click during a batch.

The speed of ViT-B/16 does not depend on its weights, so they are random. Words are embedded in one
template, as the figures are about images.
"""

import itertools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from flask import Flask

from backend import create_app
from backend.inference.engine import Engine
from backend.inference.feature_cache import FeatureCache
from backend.inference.queue import Priority
from backend.settings import Settings
from clearclip_core import RGBArray, Segmenter, render_scene
from clearclip_core.clip.text_encoder import TextEncoder
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.waiting import wait_for
from tests.backend.prediction.annotator import keypoint
from tests.bench.conftest import Report
from tests.bench.timing import seconds

#: Short side, long side: of a photograph, small enough for a data: URL to cost nothing.
SIZE_HW = (456, 683)
LABELS = ("sky", "grass", "tree", "house", "road")
AT_ONCE = 16
BATCH = 50


def engine_of(name: str) -> Engine:
    def load() -> Segmenter:
        segmenter = Segmenter.load(name)
        segmenter.embed = TextEncoder(segmenter.model.embed, ["a photo of a {}.".format])
        return segmenter

    engine = Engine(load, lambda: name, cache=FeatureCache(0))
    engine.start()
    engine.segmenter()
    return engine


def served(engine: Engine) -> Flask:
    return create_app(Settings(threads=2 * AT_ONCE, predict_deadline_s=600), engine)


def task(seed: int) -> dict[str, Any]:
    return {"id": seed, "data": {"image": data_url(picture(seed))}}


def picture(seed: int) -> RGBArray:
    noise = np.random.default_rng(seed).integers(0, 20, (*SIZE_HW, 3), np.uint8)
    return render_scene(seed=seed, size_hw=SIZE_HW).image // 2 + noise


def predict(app: Flask, *tasks: Any, labels: tuple[str, ...] = LABELS, **params: Any) -> float:
    """Return the seconds until the response; none of its predictions may be empty."""
    body: dict[str, Any] = {"tasks": tasks, "label_config": brush_config(*labels), "params": params}
    body["project"] = "1.7"

    def ask() -> None:
        response = app.test_client().post("/predict", json=body)
        assert response.status_code == 200
        assert all(response.get_json()["results"])

    return seconds(ask)


def device(engine: Engine) -> str:
    where = engine.segmenter().encoder.device
    return torch.cuda.get_device_name() if where.type == "cuda" else "CPU"


def test_many_at_once(report: Report) -> None:
    engine = engine_of("ViT-B-16/random")
    app = served(engine)
    seeds = itertools.count()
    where = device(engine)
    predict(app, task(next(seeds)))  # warm

    def together(tasks: list[dict[str, Any]]) -> list[float]:
        with ThreadPoolExecutor(AT_ONCE) as annotators:
            return list(annotators.map(lambda one: predict(app, one), tasks))

    throughputs, waits, windows = [], [], []
    for _ in range(3):
        # new pictures each time: one that was predicted is answered without the encoder
        first, tasks, last = ([task(next(seeds)) for _ in range(n)] for n in (4, AT_ONCE, 4))
        alone_s = [predict(app, one) for one in first]
        before = engine.snapshot()
        started = time.perf_counter()
        longest_s = max(together(tasks))
        together_s = time.perf_counter() - started
        after = engine.snapshot()
        alone_s += [predict(app, one) for one in last]  # both sides of it: speed drifts
        in_turn_s = AT_ONCE * statistics.mean(alone_s)
        throughputs.append(in_turn_s / together_s)
        waits.append(longest_s / in_turn_s)
        windows.append((after.windows - before.windows) / (after.batches - before.batches))
    engine.stop()
    report.add(
        f"throughput of {AT_ONCE} one-task requests at once over one at a time",
        "≥ 1.0× on a CPU, ≥ 3× on a GPU",
        f"{statistics.median(throughputs):.2f}×",
        f"{where}, {AT_ONCE / together_s:.2f} pictures/s, "
        f"{statistics.mean(windows):.1f} windows a batch",
    )
    report.add(
        f"longest wait of the {AT_ONCE}, over all of them one after the other",
        "≤ 1: nobody starves",
        f"{statistics.median(waits):.2f}",
        f"{longest_s:.2f} s",
    )


def test_a_click_during_a_batch(report: Report) -> None:
    engine = engine_of("demo")
    app = served(engine)
    tasks = [task(seed) for seed in range(BATCH + 5)]
    click = {"result": [keypoint(50, 50, "sky")]}
    delays, waits = [], []
    with ThreadPoolExecutor(1) as other:
        batch = other.submit(predict, app, *tasks[:BATCH])
        for number in range(5):
            wait_for(lambda: engine.snapshot().waiting[Priority.BATCH] > 1 or batch.done())
            assert not batch.done()
            before = engine.snapshot().batches
            waits.append(predict(app, tasks[BATCH + number], context=click))
            delays.append(engine.snapshot().batches - before)
        batch.result()
    engine.stop()
    report.add(
        f"micro-batches until a click during a batch of {BATCH} is answered, its own included",
        "≤ 3: the running one, its own, and one that began while its mask was drawn",
        f"{max(delays)}",
        f"demo model, {max(waits):.2f} s at most",
    )
