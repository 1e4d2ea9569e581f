"""The label-studio-ml face, with whichever release of that package is installed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag

RED = {"id": 1, "data": {"image": data_url(flag("red", "blue"))}}


@pytest.fixture
def model_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))  # where label-studio-ml 2 opens its database
    from backend.label_studio_ml import ClearClipModel

    settings = Settings(score="effort")  # the version must know it
    reader = ImageReader(LabelStudioFiles.from_settings(settings), settings)
    ClearClipModel.use(Predictor(colour_engine(), reader.read, settings))
    yield ClearClipModel
    ClearClipModel.use(None)


def test_the_backend_does_not_import_label_studio_ml() -> None:
    code = "import sys, backend, backend.cli.main; sys.exit('label_studio_ml' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_instance_predicts_with_its_own_label_config_as_the_routes_do(model_class: Any) -> None:
    from backend import create_app

    client = create_app(Settings(score="effort"), colour_engine()).test_client()
    models = {each: model_class(label_config=brush_config(each)) for each in ("red", "blue")}
    for label, model in models.items():
        made = model.predict([RED])
        body = {"tasks": [RED], "label_config": brush_config(label)}
        assert made == client.post("/predict", json=body).get_json()["results"]
        assert made[0]["model_version"] == model.version()
        assert made[0]["result"][0]["value"]["brushlabels"] == [label]


def test_after_submit_with_a_text_area_the_answer_is_empty(model_class: Any) -> None:
    model = model_class(label_config=brush_config("red"))
    assert model.predict([RED], context={"result": []}) == [{"result": []}]


@pytest.mark.thorough
def test_label_studio_ml_writes_to_model_dir_alone(tmp_path: Path) -> None:
    """Version 2 opens a database in MODEL_DIR, or else in the working directory, on import."""
    package = tmp_path / "packages" / "label_studio_ml"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text(
        "import os, pathlib\n"
        "folder = pathlib.Path(os.getenv('MODEL_DIR', '.'))\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "(folder / 'cache.db').touch()\n"
        "class LabelStudioMLBase: ...\n"
    )
    path = os.pathsep.join(map(str, (package.parent, Path(__file__).parents[2])))
    own = {"HOME": str(tmp_path / "home"), "MODEL_DIR": "~/weights", "PYTHONPATH": path}
    code = "import backend.label_studio_ml"
    command = [sys.executable, "-B", "-c", code]
    subprocess.run(command, cwd=tmp_path, env=os.environ | own, check=True)
    assert [*tmp_path.rglob("*.db")] == [tmp_path / "home" / "weights" / "cache.db"]


@pytest.mark.thorough
def test_the_example_for_its_own_server_predicts_brush_masks(tmp_path: Path) -> None:
    """Its own tests, run as its README says, with whichever release of label-studio-ml is there."""
    example = Path(__file__).parents[2] / "examples" / "label-studio-ml"
    root = str(example.parents[1])
    variables = {"MODEL": "demo", "DEVICE": "cpu", "MODEL_DIR": str(tmp_path), "PYTHONPATH": root}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", example],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout
