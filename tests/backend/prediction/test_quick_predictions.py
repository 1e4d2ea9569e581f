"""Answers of a vocabulary that is new to the model: quick ones first, full ones afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.database.database import Database
from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.quick_version import is_quick
from backend.label_studio.requests import (
    Context,
    Keypoint,
    PredictRequest,
    Prompt,
    Rectangle,
    Task,
    Words,
)
from backend.prediction.deadline import DeadlineRunner
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import PredictionOutbox, result_key
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import (
    SCENE_LABELS,
    TEMPLATES,
    EmbeddingStore,
    Segmenter,
    TextEncoder,
    render_scene,
)
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine
from tests.backend.inference.scene import eventually
from tests.backend.prediction.test_predictor import mask_of, read_image, request

NAMES = ("red", "blue", "one", "two", "three", "four")
CONFIG = brush_config(*NAMES)
ANNOTATORS = (Priority.INTERACTIVE, Priority.OPENED)
CLICK = Context((Prompt(Keypoint(10, 50), ("red",)),))


class World:
    """A predictor whose model knows no words.

    Attributes:
        go_on: until it is set, one word is embedded in all templates where an annotator waits.
    """

    def __init__(self, **settings: Any) -> None:
        self.segmenter = ColourSegmenter(words_known=False)
        self.go_on = threading.Event()
        self.engine = colour_engine(self.segmenter)
        self.segmenter.embed.fault = self._wait
        self.predictor = Predictor(self.engine, read_image, Settings(**settings))

    def _wait(self, _: object) -> None:
        def is_over() -> bool:
            waiting = self.engine.snapshot().waiting
            return self.go_on.is_set() or any(waiting[each] for each in ANNOTATORS)

        assert eventually(is_over)

    def predict(self, *images: str, context: Context | None = None, config: str = CONFIG) -> Any:
        return self.predictor.predict(request(config, *images, context=context))

    def version(self) -> str:
        """The version that Label Studio is told."""
        return self.predictor.versions.current(parse_label_config(CONFIG))

    def finish(self) -> None:
        self.go_on.set()
        assert eventually(lambda: not self.engine.snapshot().vocabularies)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.go_on.set()
    made.engine.stop()


def test_an_opened_task_has_a_quick_prediction_first_and_a_full_one_afterwards(
    world: World,
) -> None:
    (quick,) = world.predict("flag")
    assert len(world.segmenter.embed.missing(NAMES)) > 4
    assert is_quick(quick["model_version"])
    assert mask_of(quick["result"][0])[:, :20].all()
    (again,) = world.predict("flag")
    assert again["model_version"] == quick["model_version"]
    world.finish()
    (full,) = world.predict("flag")
    assert full["model_version"] == world.version()
    assert len(world.segmenter.embedded_quick) == 1


def test_label_studio_finds_no_full_version_in_a_quick_one(world: World) -> None:
    """Its filter looks for a version in the versions of a task, as text in text."""
    (quick,) = world.predict("flag")
    assert world.version() not in quick["model_version"]
    assert quick["model_version"].split()[:2] == world.version().split()[:2]


@pytest.mark.parametrize(
    "context",
    [
        CLICK,
        Context((Prompt(Rectangle(0, 0, 100 / 3, 100), ("red",)),)),
        Context((Prompt(Words("red"), image="image"),)),
        Context((Prompt(Words("all"), image="image"),)),
    ],
)
def test_clicks_boxes_and_words_are_answered_quickly(world: World, context: Context) -> None:
    config = CONFIG.replace("</View>", '<TextArea name="words" toName="image"/></View>')
    (quick,) = world.predict("flag", context=context, config=config)
    assert is_quick(quick["model_version"])
    assert mask_of(quick["result"][0])[:, 5:15].all()
    world.finish()
    (full,) = world.predict("flag", context=context, config=config)
    assert not is_quick(full["model_version"])


def test_new_words_of_a_phrase_count_as_well(world: World) -> None:
    world.segmenter.embed.known.update([*NAMES, "grey"])
    phrases = ", ".join(f"{word} -> red" for word in ("a", "b", "c", "d", "e"))
    context = Context((Prompt(Words(phrases), image="image"),))
    config = CONFIG.replace("</View>", '<TextArea name="words" toName="image"/></View>')
    assert is_quick(world.predict("flag", context=context, config=config)[0]["model_version"])
    assert not is_quick(world.predict("flag")[0]["model_version"])


def test_a_batch_waits_for_all_templates(world: World) -> None:
    entries: list[Any] = []
    asked = threading.Thread(target=lambda: entries.extend(world.predict("flag", "red")))
    asked.start()
    assert eventually(lambda: world.engine.snapshot().vocabularies)
    (quick,) = world.predict("flag")  # somebody opens a task meanwhile
    assert is_quick(quick["model_version"])
    assert not entries
    world.go_on.set()
    asked.join(20)
    assert {entry["model_version"] for entry in entries} == {world.version()}


def test_a_few_new_words_are_waited_for(world: World) -> None:
    world.go_on.set()
    world.segmenter.embed.known.update(NAMES[:4])
    (full,) = world.predict("flag")
    assert full["model_version"] == world.version()
    assert world.segmenter.embedded_quick == []


def test_a_prewarmed_task_has_its_quick_words(world: World) -> None:
    world.predict("flag", context=Context(event="prewarm"))
    assert eventually(lambda: world.segmenter.encoded)
    assert world.segmenter.embedded_quick
    (quick,) = world.predict("flag", context=CLICK)
    assert is_quick(quick["model_version"])
    assert len(world.segmenter.embedded_quick) == 1


def test_a_model_that_loads_past_the_deadline_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_load = threading.Event()
    stand_in: Any = ColourSegmenter(words_known=False)

    def load() -> Any:
        assert may_load.wait(20)
        return stand_in

    wait = Engine.embedding_s

    def waited(*given: Any) -> float:
        try:
            return wait(*given)
        finally:
            may_load.set()

    monkeypatch.setattr(Engine, "embedding_s", waited)
    engine = Engine(load, lambda: "colours-1")
    engine.start()
    predictor = Predictor(engine, read_image, Settings(predict_deadline_s=0.2))
    entries = predictor.predict(request(CONFIG, "red"))
    engine.stop()
    assert not is_quick(entries[0]["model_version"])  # it was too late to choose another


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[PredictionOutbox]:
    database = Database(f"sqlite:///{tmp_path}/outbox.db")
    yield PredictionOutbox(database, "me")
    database.close()


def keep_full(outbox: PredictionOutbox, version: str) -> None:
    """Let the outbox have the full prediction of the picture ``flag``."""
    (task,) = request(CONFIG, "flag").tasks
    key = result_key(task, version)
    outbox.claim({key: task}, 1, version)
    outbox.add(key, {"model_version": version, "score": 0.5, "result": []}, time.time() + 60)


def runner(outbox: PredictionOutbox, database: Database) -> DeadlineRunner:
    return DeadlineRunner(FailureStore(database), outbox, 20.0)


@pytest.mark.parametrize("state", ["loading", "failed"])
def test_a_full_prediction_that_is_ready_needs_no_model(
    outbox: PredictionOutbox, tmp_path: Path, state: str
) -> None:
    may_load = threading.Event()

    def load() -> Any:
        if state == "loading":
            assert may_load.wait(60)
        raise OSError("no weights")

    database = Database(f"sqlite:///{tmp_path}/outbox.db")
    with Engine(load, lambda: "colours-1") as engine, ThreadPoolExecutor(1) as pool:
        assert eventually(lambda: engine.status.state == state)
        predictor = Predictor(engine, read_image, Settings(), task_runner=runner(outbox, database))
        version = predictor.versions.current(parse_label_config(CONFIG), 1)
        keep_full(outbox, version)
        asked = pool.submit(predictor.predict, request(CONFIG, "flag"))
        try:
            (entry,) = asked.result(20)
        finally:
            may_load.set()
    database.close()
    assert isinstance(entry, dict)
    assert entry["model_version"] == version


def test_a_full_prediction_of_another_backend_comes_before_a_quick_one(
    world: World, outbox: PredictionOutbox, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path}/outbox.db")
    world.predictor = Predictor(
        world.engine, read_image, Settings(), task_runner=runner(outbox, database)
    )
    (quick,) = world.predict("flag")
    assert is_quick(quick["model_version"])
    keep_full(outbox, world.version())
    (full,) = world.predict("flag")
    assert full["model_version"] == world.version()
    database.close()


def test_an_opened_task_of_a_batch_is_joined_once_its_words_are_embedded(
    world: World, outbox: PredictionOutbox, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path}/outbox.db")
    world.segmenter.embed.known.update([*NAMES, "grey"])
    world.predictor = Predictor(
        world.engine, read_image, Settings(), task_runner=runner(outbox, database)
    )
    world.segmenter.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        batch = pool.submit(world.predict, "flag", "red")
        assert world.segmenter.started.acquire(timeout=20)
        opened = pool.submit(world.predict, "flag")
        world.segmenter.gate.set()
        (entry,) = opened.result(20)
        batch.result(20)
    database.close()
    assert entry["model_version"] == world.version()
    assert sum(map(len, world.segmenter.encoded)) == 2


def test_a_request_without_tasks_does_not_wait_for_the_model() -> None:
    engine = Engine(lambda: pytest.fail("it is not started"), lambda: "colours-1")
    predictor = Predictor(engine, read_image, Settings())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(predictor.predict, request(CONFIG))
        try:
            assert asked.result(20) == []
        finally:
            engine.stop()


def test_no_task_is_predicted_quickly_unless_somebody_waits(world: World) -> None:
    config = parse_label_config(CONFIG)
    spec = world.predictor.spec(config, Priority.BATCH, 1, None)
    assert (spec.quick, spec.version) == (False, world.version())


def test_a_process_that_ends_leaves_its_full_embeddings_to_the_next_one(tmp_path: Path) -> None:
    names = [*NAMES, *(f"more {number}" for number in range(10))]
    third, go_on = threading.Event(), threading.Event()
    full: list[str] = []

    def tower(sentences: Sequence[str]) -> torch.Tensor:
        if len(sentences) == len(TEMPLATES):
            full.append(sentences[0])
            if len(full) == 3:
                third.set()
                assert go_on.wait(20)
        return torch.ones(len(sentences), 2)

    def start() -> World:
        world = World()
        world.segmenter.embed = TextEncoder(tower, store=EmbeddingStore(tmp_path, "weights"))
        return world

    first = start()
    (quick,) = first.predict("flag", config=brush_config(*names))
    assert is_quick(quick["model_version"])
    assert third.wait(20)
    first.engine.stop()
    go_on.set()
    first.engine.join()
    assert len(list(tmp_path.iterdir())) == 3
    second = start()
    assert len(second.segmenter.embed.missing([*names, "grey"], quick=True)) == len(names) + 1 - 3
    (quick,) = second.predict("flag", config=brush_config(*names))
    assert is_quick(quick["model_version"])
    second.finish()
    assert len(set(full)) == len(full) == len(names) + 1
    second.engine.stop()


def test_the_demo_model_answers_in_full_once_all_is_embedded() -> None:
    """With real embeddings: the masks afterwards are those of a model that never was quick."""
    scene = render_scene(seed=10_000_003, size_hw=(96, 128)).image
    config = brush_config(*(f"drawn {label}" for label in SCENE_LABELS))
    asked = PredictRequest((Task(1, 1, {"image": "scene"}),), config, 1)

    def make() -> tuple[Engine, Predictor]:
        engine = Engine(lambda: Segmenter.load("demo", device="cpu"), lambda: "demo")
        engine.start()
        return engine, Predictor(engine, lambda *_: scene, Settings(model="demo"))

    engine, predictor = make()
    (quick,) = predictor.predict(asked)
    assert eventually(lambda: not engine.snapshot().vocabularies)
    (full,) = predictor.predict(asked)
    engine.stop()
    other, patient = make()
    other.embed(parse_label_config(config).labels)
    (expected,) = patient.predict(asked)
    other.stop()
    assert isinstance(quick, dict)
    assert isinstance(full, dict)
    assert isinstance(expected, dict)
    assert (is_quick(quick["model_version"]), is_quick(full["model_version"])) == (True, False)
    assert full["score"] == expected["score"] != quick["score"]
    assert full["model_version"] == expected["model_version"]
