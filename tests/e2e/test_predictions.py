"""What the demo says, and the predictions that Label Studio has stored of its scenes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from label_studio_sdk.core.api_error import ApiError

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from tests.backend.fakes.local_server import free_port
from tests.core.clip.siglip_models import write_siglip
from tests.e2e.conftest import MODEL, DemoRun, WithPersonalToken
from tests.e2e.servers import sdk


def test_the_demo_says_what_there_is(demo_run: DemoRun) -> None:
    assert f"http://127.0.0.1:{demo_run.studio_port}/projects/1/data" in demo_run.output
    assert re.search(r"^Login +demo@example.com  clearclip-demo$", demo_run.output, re.MULTILINE)
    assert re.search(r"^Tasks +12, 12 of them with predictions$", demo_run.output, re.MULTILINE)


def test_tasks_have_the_version_of_setup_and_are_not_predicted_again(
    studio: LabelStudioProcess, demo_project: int, backend_url: str
) -> None:
    config = sdk(studio).projects.get(id=demo_project).label_config
    body = {"project": f"{demo_project}.1", "schema": config, "hostname": studio.url}
    setup = requests.post(f"{backend_url}/setup", json=body, timeout=60).json()
    predictions = list(sdk(studio).predictions.list(project=demo_project))
    for prediction in predictions:
        assert prediction.model_version == setup["model_version"]
        assert all(0 < region["score"] <= 1 for region in prediction.result)
    demo.retrieve_predictions(studio, demo_project)
    after = {each.id for each in sdk(studio).predictions.list(project=demo_project)}
    assert after == {each.id for each in predictions}


def test_images_are_fetched_with_a_personal_token_where_legacy_tokens_are_off(
    studio: LabelStudioProcess,
    new_project: Callable[..., int],
    without_legacy_tokens: WithPersonalToken,
    tmp_path: Path,
) -> None:
    personal = without_legacy_tokens
    with pytest.raises(ApiError):
        sdk(studio).users.whoami()
    project = new_project(["sky"], seeds=[10_000_100], studio=personal)
    with demo_servers.served_backend(
        personal, model=MODEL, port=free_port(), log=tmp_path / "log"
    ) as url:
        demo.connect(personal, project, url)
        demo.retrieve_predictions(personal, project)
    assert len(list(sdk(personal).predictions.list(project=project))) == 1


@pytest.mark.thorough
def test_a_model_of_another_family_predicts_labels_in_japanese(
    studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    labels = ["空", "木", "道路", "background"]
    project = new_project(labels, seeds=[10_000_100])
    model = f"local-dir:{write_siglip(tmp_path / 'siglip', logit_scale=1e4)}"
    with demo_servers.served_backend(
        studio, model=model, port=free_port(), log=tmp_path / "log"
    ) as url:
        demo.connect(studio, project, url)
        demo.retrieve_predictions(studio, project)
    (prediction,) = sdk(studio).predictions.list(project=project)
    found = [
        region["value"]["labels"] for region in prediction.result if region["type"] == "labels"
    ]
    assert any(region["type"] == "brush" for region in prediction.result)
    assert {name for names in found for name in names} <= set(labels)
    assert found
