"""`clearclip-backend adapt`: see and steer what a project has learned."""

import numpy as np
import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.learning.versions import Person, model_key
from backend.settings import Settings
from clearclip_core import weights_id
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.learning_stores import LearningStores
from tests.backend.feedback.test_annotation_reader import region
from tests.backend.web.pages.test_learning import learn, stores_of


@pytest.fixture
def demo_stores(monkeypatch: pytest.MonkeyPatch) -> LearningStores:
    """What a backend with the demo model keeps; the demo model's id is known without loading."""
    monkeypatch.setenv("MODEL", "demo")
    return stores_of(model_key(Settings(), weights_id("demo")))


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["adapt", words[0], "--project", "7", *words[1:]])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_line_learns_without_somebody(demo_stores: LearningStores) -> None:
    learn(demo_stores, people=(Person("a1", "Ada", "She exchanges them.", is_left_out=False),))
    told = run("without", "Ada")
    assert "Ada: She exchanges them." in told
    assert "Learned without Ada." in told
    assert "Learned without" not in run("without", "Ada", "--learn-again")


def test_the_command_line_steers_without_a_server(demo_stores: LearningStores) -> None:
    learn(demo_stores, "red", "blue")
    assert all(each in run("status") for each in ("version 2 is in use", "50.0 %"))
    assert "version 1 is in use, chosen by hand" in run("use", "1")
    assert "no version 9" in run("use", "9", code=1)
    assert "keep their words: car" in run("keep-words", "car")
    assert "keep their words" not in run("keep-words", "car", "--learn-again")
    assert "by hand" not in run("unpin")
    assert "0 annotations" in run("reset")


def test_steps_by_hand_learn(demo_stores: LearningStores, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (2, 4, 8, 3), np.uint8)
    tasks = {i: {"image": data_url(image)} for i, image in enumerate(noise, start=1)}
    studio = FakeStudio(brush_config("red", "blue"), tasks)
    for task in tasks:
        studio.annotate(task, [region("a", "red", 4)], 1e9)
    with studio.served() as server:
        monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
        assert "2 annotations to learn from" in run("step")
        assert "has no label 'Sign', but red, blue." in run("keep-words", "Sign", code=1)
        assert "keep their words: red" in run("keep-words", "red")
        told = run("step", "--short-side-px", "64")
    assert "2 annotations to learn from; 0 changed" in " ".join(told.split())
    smaller = Settings(short_side_px=64)
    stores = stores_of(model_key(smaller, weights_id("demo")))
    assert [version.annotations for version in stores.versions.versions(7)] == [2]
    assert len(demo_stores.versions.versions(7)) == 1, "each model has its own"
