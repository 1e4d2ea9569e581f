"""Do in Label Studio what a user does in a project, through its public API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from label_studio_sdk.core.api_error import ApiError
from tqdm import tqdm

from backend.cli.demo_servers import LabelStudioProcess
from backend.cli.label_config import label_config
from backend.cli.server_process import DemoError
from clearclip_core.quantities import quantity

TITLE: Final = "ClearCLIP demo"

#: Tasks of one Retrieve. Label Studio loses all of its predictions if it takes too long.
_BATCH_SIZE: Final = 16


def create_project(studio: LabelStudioProcess, labels: Sequence[str], *, title: str = TITLE) -> int:
    """Create a project with one brush for each label, and return its id."""
    project = studio.client.projects.create(title=title, label_config=label_config(labels))
    return int(project.id)


def upload(studio: LabelStudioProcess, project: int, files: Iterable[tuple[str, bytes]]) -> None:
    """Upload pictures, each given as name and content. Each becomes a task.

    Raises:
        DemoError: Label Studio has made another number of tasks.
    """
    remaining = iter(files)
    while batch := list(islice(remaining, _BATCH_SIZE)):
        answer = studio.post(
            f"/api/projects/{project}/import",
            files={name: (name, content) for name, content in batch},  # a field of its own each
        )
        if answer["task_count"] != len(batch):
            made = quantity(answer["task_count"], "task")
            raise DemoError(f"{quantity(len(batch), 'picture')} became {made}.")


def connect(studio: LabelStudioProcess, project: int, url: str, **options: Any) -> None:
    """Connect a backend to a project.

    Args:
        studio: where the project is.
        project: its id.
        url: address of the backend.
        options: the SDK's, such as basic auth.

    Raises:
        DemoError: Label Studio cannot reach the backend, or refuses it.
    """
    options = {"title": "ClearCLIP", "is_interactive": True, **options}
    client = studio.client
    try:
        client.ml.create(project=project, url=url, **options)
    except ApiError as error:
        # 403: it has connected the backend, and may not call a webhook at a private address
        if error.status_code != 403 or not client.ml.list(project=project):
            raise DemoError(f"Label Studio cannot connect to {url}: {error.body}") from error
        client.projects.update(id=project, model_version=options["title"])


def retrieve_predictions(studio: LabelStudioProcess, project: int) -> None:
    """Have Label Studio ask its backend for predictions, as "Retrieve predictions" does.

    Label Studio does not report tasks that failed: count the predictions that it has stored.
    """
    tasks = [task.id for task in studio.client.tasks.list(project=project)]
    with tqdm(total=len(tasks), desc="Predictions", unit="task", leave=False) as progress:
        for start in range(0, len(tasks), _BATCH_SIZE):
            batch = tasks[start : start + _BATCH_SIZE]
            studio.post(
                f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
                json={"selectedItems": {"all": False, "included": batch}},
            )
            progress.update(len(batch))
