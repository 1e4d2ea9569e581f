"""The routes of label-studio-ml's server; run from this folder with `MODEL=demo pytest`."""

import base64
import io

import pytest
from PIL import Image

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
    '<Label value="sky"/><Label value="grass"/></BrushLabels></View>'
)


@pytest.fixture
def client():
    from _wsgi import app

    return app.test_client()


def test_start_takes_a_port_and_a_host(monkeypatch):
    import _wsgi

    asked = {}
    monkeypatch.setattr(_wsgi.app.__class__, "run", lambda _, **given: asked.update(given))
    _wsgi.main(["-p", "9191", "--host", "0.0.0.0", "--check"])
    assert asked == {"host": "0.0.0.0", "port": 9191, "debug": False}


def picture():
    """A blue half above a green one, as a data: URL."""
    image = Image.new("RGB", (64, 48), (90, 150, 230))
    image.paste((70, 140, 50), (0, 24, 64, 48))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_setup_names_the_version(client):
    body = {"project": "1.7", "schema": CONFIG, "hostname": "", "access_token": ""}
    answer = client.post("/setup", json=body)
    assert answer.status_code == 200
    assert answer.get_json()["model_version"]


def test_predict_answers_brush_masks(client):
    tasks = [{"id": 1, "data": {"image": picture()}}]
    body = {"project": "1.7", "label_config": CONFIG, "tasks": tasks, "params": {}}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200
    (entry,) = answer.get_json()["results"]
    assert entry["result"]
    assert {region["type"] for region in entry["result"]} == {"brushlabels"}
