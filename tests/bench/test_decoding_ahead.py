"""Decoding ahead of the model: how near a batch comes to the speed of its slowest stage.

The encoder is a stand-in that sleeps, as a CPU does while a GPU computes. It may encode all that
wait at once. Pictures are decoded, resized, scored, refined and drawn as they are served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import cv2
import pytest

from backend.inference.engine import Engine
from backend.label_studio.image_loader import RGBArray, decode_image
from backend.label_studio.requests import PredictRequest, Task
from backend.prediction.predictor import Predictor
from backend.prediction.task_runner import PROJECT_CONCURRENCY, Outcome, TaskRunner
from backend.settings import Settings
from clearclip_core import (
    SCENE_LABELS,
    DenseFeatures,
    PreparedImage,
    Segmenter,
    render_scene,
    usable_cpus,
)
from tests.backend.fakes.colour_segmenter import brush_config
from tests.bench.conftest import Report

SIZE_HW = (3000, 4000)
LABELS = (*SCENE_LABELS, "label 18", "label 19")
SEEDS, ROUNDS = 4, 3


class SleepingEncoder:
    """Takes the place of a segmenter's encoder; the features are those of the model."""

    def __init__(self, segmenter: Segmenter, files: Sequence[bytes], picture_s: float) -> None:
        prepared = [segmenter.prepare(decode_image(file, 100)) for file in files]
        self._features = {each.digest: segmenter.encode_batch([each])[0] for each in prepared}
        self.picture_s = picture_s
        self.began: list[float] = []
        self.ended_s = self.busy_s = 0.0

    def __call__(self, images: Sequence[PreparedImage], *_: Any) -> list[DenseFeatures]:
        self.began.append(time.perf_counter())
        time.sleep(self.picture_s * len(images))
        self.ended_s = time.perf_counter()
        self.busy_s += self.ended_s - self.began[-1]
        return [self._features[image.digest] for image in images]


def jpeg(seed: int) -> bytes:
    image = render_scene(seed, size_hw=SIZE_HW).image
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return encoded.tobytes()


@pytest.mark.parametrize("count", [12, 48])
def test_pictures_of_12_megapixels(report: Report, count: int) -> None:
    """The encoder has nothing to do before the first picture is read and while the last is drawn.

    So the more pictures a batch has, the nearer it comes to the speed of its slowest stage.
    """
    files = [jpeg(seed) for seed in range(SEEDS)]
    segmenter = Segmenter.load("demo", device="cpu")
    encoder = SleepingEncoder(segmenter, files, 0.25)
    segmenter.encode_batch = encoder  # type: ignore[assignment, method-assign]
    segmenter.windows_at_once = 64

    def read(source: str, task: Task) -> RGBArray:
        return decode_image(files[int(source)], 100)

    with Engine(lambda: segmenter, lambda: "demo") as engine:
        predictor = Predictor(engine, read, Settings())
        tasks = tuple(Task(i, 7, {"image": str(i % SEEDS)}) for i in range(count))
        body = PredictRequest(tasks, brush_config(*LABELS), 7)
        predictor.predict(body)  # embeds the words
        shares = []
        for _ in range(ROUNDS):
            encoder.began, encoder.busy_s = [], 0.0
            began, cpu_began = time.perf_counter(), time.process_time()
            assert all(predictor.predict(body))
            picture_s = (time.perf_counter() - began) / count
            cpu_s = (time.process_time() - cpu_began) / count
            slowest_s = max(encoder.picture_s, cpu_s / usable_cpus())
            busy = encoder.busy_s / (encoder.ended_s - encoder.began[0])
            shares.append((slowest_s / picture_s, cpu_s, busy))
    share, cpu_s, busy = max(shares)
    report.add(
        f"pictures a second of a batch of {count} over those of its slowest stage, 12 MP, "
        f"{len(LABELS)} labels",
        "≥ 0.9 on an idle machine",
        f"{share:.2f}",
        f"a stand-in sleeps {encoder.picture_s:.2f} s a picture in place of the encoder; "
        f"{1000 * cpu_s:.0f} ms of processor a picture for all else, {usable_cpus()} CPUs; "
        f"between its first and last picture it is busy for {busy:.2f} of the time; the best of "
        f"{ROUNDS} rounds",
    )


@pytest.mark.parametrize(("cpus", "encoder_s"), [(2, 0.2), (8, 0.1), (8, 0.05), (16, 0.05)])
def test_stages_that_sleep(report: Report, cpus: int, encoder_s: float) -> None:
    """The order of the stages alone, on as many CPUs as a machine may have."""
    before_s, after_s, count = 0.06, 0.22, 60

    free, waiting = threading.Semaphore(cpus), list[threading.Event]()
    came, ended = threading.Condition(), threading.Event()

    def on_a_cpu(seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            with free:
                time.sleep(0.02)

    def encode() -> None:
        while not ended.is_set():
            with came:
                came.wait_for(lambda: waiting or ended.is_set())
                batch = waiting[:]
                waiting.clear()
            time.sleep(encoder_s * len(batch))
            for each in batch:
                each.set()

    def work(task: Task) -> Outcome:
        on_a_cpu(before_s)
        done = threading.Event()
        with came:
            waiting.append(done)
            came.notify()
        done.wait()
        on_a_cpu(after_s)
        return Outcome([])

    model = threading.Thread(target=encode)
    model.start()
    began = time.perf_counter()
    TaskRunner().run([Task(i, 7, {}) for i in range(count)], "v", 7, work)
    picture_s = (time.perf_counter() - began) / count
    ended.set()
    with came:
        came.notify()
    model.join()
    share = max(encoder_s, (before_s + after_s) / cpus) / picture_s
    report.add(
        f"pictures a second of a batch over those of its slowest stage, stages that sleep, {cpus} "
        f"CPUs, encoder {encoder_s:g} s a picture",
        "",
        f"{share:.2f}",
        f"{PROJECT_CONCURRENCY} tasks at the same time; {before_s:g} s before the encoder and "
        f"{after_s:g} s after it",
    )
