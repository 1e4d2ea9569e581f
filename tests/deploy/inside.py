"""What `walk.py` does inside the backend's container: as a person with a browser, over HTTP.

`docker compose exec -T backend-cpu python - STEP ARGUMENTS < inside.py` runs one step, which ends
with a line of JSON.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from backend.label_studio.brush_rle import encode_runs
from backend.label_studio.records import PredictionRegions, WholeTask
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import SCENE_LABELS, RunMask, render_scene

BACKEND = "http://backend:9090"
#: Label of the scenes -> name of the label in the project; two that the model does not know.
CALLED = {"sky": "sky", "grass": "grass", "house": "house", "tree": "blorp", "road": "zindle"}
FIRST_SEED = 10_000_700


def studio() -> LabelStudioProcess:
    url, token = (os.environ[f"LABEL_STUDIO_{name}"] for name in ("URL", "API_KEY"))
    return LabelStudioProcess(url, token=token)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 600) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} has not come in {seconds:g} s"
        time.sleep(0.5)
    return value


def is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


def ready() -> dict[str, Any]:
    wait_for(lambda: is_up(studio().url), "Label Studio", 1200)
    wait_for(lambda: is_up(BACKEND), "the backend")
    wait_for(lambda: requests.get(f"{BACKEND}/ready", timeout=5).ok, "the model")
    return {}


def closed() -> dict[str, Any]:
    """Check that no outer network is reached, nothing is written, and pip and uv are not there."""
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    assert routes, "expected a network"
    assert all(line.split()[1] != "00000000" for line in routes), "there is a default route"
    for folder in ("/", "/opt/clearclip", str(Path.home())):
        assert os.statvfs(folder).f_flag & os.ST_RDONLY, f"{folder} is not read-only"
    for tool in ("pip", "uv"):
        assert find_spec(tool) is None, f"{tool} can be imported"
        assert shutil.which(tool) is None, f"{tool} is a command"
    return {}


def connect(pictures: str) -> dict[str, Any]:
    """Make a project with drawn scenes, and connect the backend as the docs say."""
    server = studio()
    project = demo.create_project(server, list(CALLED.values()), title="Walk")
    add(str(project), pictures)
    demo.connect(server, project, BACKEND)
    return {"project": project}


def add(project: str, pictures: str) -> dict[str, Any]:
    seeds = range(FIRST_SEED, FIRST_SEED + int(pictures))
    files = (demo.scene_file(seed) for seed in seeds)
    demo.upload(studio(), int(project), files)
    return {}


def tasks(project: str) -> list[WholeTask]:
    client, number = studio().client, int(project)
    return client.whole_tasks(number, list(client.ids(number, TaskFilter())), WholeTask)


def predictions(project: str) -> dict[int, PredictionRegions]:
    newest = {
        task.id: max(task.predictions, key=lambda each: each.id, default=None)
        for task in tasks(project)
    }
    return {task: each for task, each in newest.items() if each}


def predict(project: str) -> dict[str, Any]:
    """Retrieve predictions of all tasks in one request, as the data manager does."""
    server = studio()
    server.post(
        f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
        json={"selectedItems": {"all": True, "excluded": []}},
    )
    return count(project)


def count(project: str) -> dict[str, Any]:
    predicted = [task for task, each in predictions(project).items() if each.regions]
    return {"tasks": len(tasks(project)), "predicted": len(predicted)}


def annotate(project: str) -> dict[str, Any]:
    """Submit what each scene shows, and wait until the project has learned from it."""
    before, first = version(project)["version"], predictions(project)
    for task in tasks(project):
        regions = truth(task.data["image"], first[task.id].regions[1])  # with its label
        made = {"result": regions, "parent_prediction": first[task.id].id, "lead_time": 20.0}
        studio().post(f"/api/tasks/{task.id}/annotations/", json=made)
    wait_for(lambda: compared(project) == len(first), "the last annotation")
    learning = f"{BACKEND}/projects/{project}/learning"
    first_version = wait_for(
        lambda: requests.get(learning, timeout=60).json()["waits"], "a version that waits"
    )
    requests.post(f"{learning}/use", json={"number": first_version}, timeout=60).raise_for_status()
    after = wait_for(
        lambda: (now := version(project)["version"]) != before and now, "a version that has learned"
    )
    assert re.search(r" \+\d+ v\d+$", after), after
    return {"version": after}


def truth(image: str, template: dict[str, Any]) -> list[dict[str, Any]]:
    seed = int(image.rpartition("scene-")[2].removesuffix(".png"))
    label_map = render_scene(seed).label_map
    regions = []
    for name, label in CALLED.items():
        mask = label_map == SCENE_LABELS.index(name)
        if mask.any():
            rle = encode_runs(RunMask.of(mask))
            value = {"format": "rle", "rle": rle, "labels": [label]}
            regions.append(template | {"id": label, "value": value, "origin": "manual"})
    return regions


def compared(project: str) -> int:
    report = requests.get(f"{BACKEND}/projects/{project}/report.json", timeout=60).json()
    return int(report["annotations"]["compared"])


def version(project: str) -> dict[str, Any]:
    config = studio().client.label_config(int(project))
    body = {"project": f"{project}.1", "schema": config, "hostname": studio().url}
    answer = requests.post(f"{BACKEND}/setup", json=body, timeout=60)
    answer.raise_for_status()
    return {"version": answer.json()["model_version"]}


def tls(host: str, email: str, password: str, authority: str) -> dict[str, Any]:
    """Log in through the proxy, and open the dashboard, with the certificate checked."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file, requests.Session() as browser:
        file.write(authority)
        file.flush()
        browser.verify = file.name
        browser.trust_env = False
        browser.headers["Sec-Fetch-Site"] = "none"  # as browsers say over https
        page = browser.get(f"https://{host}/user/login/", timeout=60)
        page.raise_for_status()
        assert all(cookie.secure for cookie in browser.cookies)
        form = {
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            "email": email,
            "password": password,
        }
        headers = {"Origin": f"https://{host}", "Referer": page.url}
        answer = browser.post(page.url, data=form, headers=headers, timeout=60)
        answer.raise_for_status()
        assert answer.url != page.url, "the login was refused"
        browser.get(f"https://{host}:9443/", timeout=60).raise_for_status()
    return {}


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    print(json.dumps(globals()[step](*arguments)))
