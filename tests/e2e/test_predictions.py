"""Predictions that Label Studio has stored, against the ground truth of the scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from label_studio_sdk.core.api_error import ApiError

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.conftest import MODEL, WithPersonalToken
from tests.e2e.masks import decode, iou

SEEDS = [10_000_100, 10_000_101]


def stored(studio: LabelStudioProcess, project: int) -> dict[int, list[dict[str, Any]]]:
    """Return task id -> regions of its only prediction."""
    predictions = studio.client.predictions.list(project=project)
    assert len({prediction.task for prediction in predictions}) == len(predictions)
    return {prediction.task: prediction.result for prediction in predictions}


def seeds_of(studio: LabelStudioProcess, project: int) -> dict[int, int]:
    tasks = studio.client.tasks.list(project=project)
    return {task.id: demo.scene_seed(task.data["image"]) for task in tasks}


def test_each_scene_has_its_masks_in_the_right_place(
    studio: LabelStudioProcess, demo_project: int
) -> None:
    seeds = seeds_of(studio, demo_project)
    predictions = stored(studio, demo_project)
    assert predictions.keys() == seeds.keys()
    ious, mirrored = [], []
    for task, regions in predictions.items():
        truth = render_scene(seeds[task]).label_map
        assert len({region["value"]["brushlabels"][0] for region in regions}) == len(regions)
        for region in regions:
            (label,) = region["value"]["brushlabels"]
            true = truth == SCENE_LABELS.index(label)
            mask = decode(region)
            assert mask.shape == truth.shape
            if true.mean() > 0.05:
                ious.append(iou(mask, true))
                mirrored.append(iou(mask[:, ::-1], true))
    assert len(ious) > 12
    assert np.mean(ious) > 0.6
    assert np.mean(mirrored) < np.mean(ious) - 0.1, "the scenes could not tell"


def test_each_region_has_a_score_and_the_version_is_the_one_of_setup(
    studio: LabelStudioProcess, demo_project: int, backend_url: str
) -> None:
    config = studio.client.projects.get(id=demo_project).label_config
    setup = requests.post(
        f"{backend_url}/setup",
        json={"project": f"{demo_project}.1", "schema": config, "hostname": studio.url},
        timeout=30,
    ).json()
    for prediction in studio.client.predictions.list(project=demo_project):
        assert prediction.model_version == setup["model_version"]
        assert 0 < prediction.score <= 1
        assert all(0 < region["score"] <= 1 for region in prediction.result)


def test_the_data_manager_sorts_tasks_by_their_scores(
    studio: LabelStudioProcess, demo_project: int, backend_url: str
) -> None:
    scores = {
        prediction.task: prediction.score
        for prediction in studio.client.predictions.list(project=demo_project)
    }
    for ordering, sign in (("tasks:predictions_score", 1), ("tasks:-predictions_score", -1)):
        view = studio.client.views.create(project=demo_project, data={"ordering": [ordering]})
        tasks = [task.id for task in studio.client.tasks.list(view=view.id)]
        studio.client.views.delete(id=str(view.id))
        assert tasks != sorted(tasks, reverse=sign < 0), "the scores could not tell"
        assert [sign * scores[task] for task in tasks] == sorted(sign * s for s in scores.values())


def test_tasks_that_have_a_prediction_are_not_predicted_again(
    studio: LabelStudioProcess, demo_project: int, backend_url: str
) -> None:
    before = {p.id for p in studio.client.predictions.list(project=demo_project)}
    demo.retrieve_predictions(studio, demo_project)
    assert {p.id for p in studio.client.predictions.list(project=demo_project)} == before


def test_a_second_project_has_labels_of_its_own(
    studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    project = new_project(["sky", "tree"], seeds=SEEDS)
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    results = stored(studio, project)
    assert len(results) == len(SEEDS)
    labels = {
        region["value"]["brushlabels"][0] for regions in results.values() for region in regions
    }
    assert labels <= {"sky", "tree"}
    for task, seed in seeds_of(studio, project).items():
        sky = render_scene(seed).label_map == SCENE_LABELS.index("sky")
        masks = [decode(r) for r in results[task] if r["value"]["brushlabels"] == ["sky"]]
        if sky.mean() > 0.1:
            assert iou(masks[0], sky) > 0.5


def test_images_are_fetched_with_a_personal_token_where_legacy_tokens_are_off(
    studio: LabelStudioProcess,
    new_project: Callable[..., int],
    without_legacy_tokens: WithPersonalToken,
    tmp_path: Path,
) -> None:
    personal = without_legacy_tokens
    with pytest.raises(ApiError):
        studio.client.users.whoami()
    project = new_project(["sky"], seeds=SEEDS[:1], studio=personal)
    with demo_servers.served_backend(
        personal, model=MODEL, port=demo_servers.free_port(0), log=tmp_path / "log"
    ) as url:
        demo.connect(personal, project, url)
        demo.retrieve_predictions(personal, project)
    assert len(stored(personal, project)) == 1
