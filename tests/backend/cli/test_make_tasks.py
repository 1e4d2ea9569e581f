"""`clearclip-backend make-tasks`, with a stand-in for the model."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from backend.cli.make_tasks import make_tasks
from backend.inference.engine import Engine
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, flag


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in in place of the demo model, whose weights are there."""
    monkeypatch.setenv("MODEL", "demo")
    monkeypatch.setattr(Engine, "from_settings", classmethod(lambda *_: colour_engine()))


@pytest.mark.usefixtures("colours")
def test_it_writes_tasks_ready_to_import(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    (folder / "b").mkdir(parents=True)
    Image.fromarray(flag("red", "blue")).save(folder / "a.png")
    Image.fromarray(flag("blue")).save(folder / "b" / "ä.png")
    out = tmp_path / "out" / "tasks.json"
    arguments = [str(folder), "--labels", "red,blue", "--root", str(folder), "-o", str(out)]
    result = CliRunner().invoke(make_tasks, arguments)
    assert result.exit_code == 0, result.output
    tasks = json.loads(out.read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=a.png",
        "/data/local-files/?d=b/%C3%A4.png",
    ]
    config = out.with_suffix(".label-config.xml").read_text()
    interface = LabelInterface(config)
    for task in tasks:
        assert interface.validate_prediction(task["predictions"][0])
    _, red, _, blue = tasks[0]["predictions"][0]["result"]
    assert (red["value"]["labels"], blue["value"]["labels"]) == (["red"], ["blue"])
    mask = np.array(decode_rle(red["value"]["rle"])).reshape(40, 60, 4)[..., 3]
    assert (mask[:, :30] == 255).all()
    assert (mask[:, 30:] == 0).all()


@pytest.mark.usefixtures("colours")
def test_it_takes_a_projects_config_and_keeps_a_broken_picture_as_a_task(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    Image.fromarray(flag("red")).save(tmp_path / "b.png")
    config, out = tmp_path / "config.xml", tmp_path / "tasks.json"
    config.write_text(brush_config("red").replace("$image", "$photo"))
    arguments = [str(tmp_path), "--label-config", str(config), "-o", str(out)]
    result = CliRunner().invoke(make_tasks, [*arguments, "--url-prefix", "s3://bucket/"])
    assert result.exit_code == 1
    assert "1 without predictions" in result.output
    broken, good = json.loads(out.read_text())
    assert broken["predictions"] == []
    assert good["data"] == {"photo": f"s3://bucket{tmp_path}/b.png"}
    assert good["predictions"][0]["result"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [("x.png", "either --labels or --label-config"), ("/nowhere/*.png --labels a", "no pictures")],
)
def test_it_says_what_is_missing(arguments: str, sentence: str) -> None:
    result = CliRunner().invoke(make_tasks, arguments.split())
    assert result.exit_code != 0
    assert sentence in result.output


@pytest.mark.usefixtures("colours")
def test_a_picture_outside_the_root_is_refused_before_anything_is_predicted(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    Image.fromarray(flag("red")).save(tmp_path / "b.png")
    arguments = [str(tmp_path), "--labels", "red", "--root", str(tmp_path / "root")]
    result = CliRunner().invoke(make_tasks, [*arguments, "-o", str(tmp_path / "tasks.json")])
    assert result.exit_code == 1
    assert f"{tmp_path}/b.png is not below --root {tmp_path}/root" in result.output
    assert not (tmp_path / "tasks.json").exists()
