"""``clearclip-backend demo``: the real Label Studio beside the backend, with a project prelabeled.

The project has drawn scenes, or one's own pictures. Label Studio runs in an environment of its own,
on SQLite. Both servers listen on 127.0.0.1 only. The demo uses Label Studio's public API, as any
user's script would, and predictions come through Label Studio's own "Retrieve predictions". The
end-to-end tests use the parts of the demo too.
"""

from __future__ import annotations

import io
import re
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.core.api_error import ApiError
from PIL import Image
from tqdm import tqdm

from backend.cli.demo_servers import (
    DemoError,
    LabelStudioProcess,
    find_label_studio,
    free_port,
    label_studio,
    last_lines,
    served_backend,
)
from backend.cli.export import label_config, split_names
from backend.cli.options import signals_handled
from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, render_scene
from clearclip_core.images.label_maps import is_hidden
from clearclip_core.quantities import quantity


def scene_file(seed: int) -> tuple[str, bytes]:
    """Return the file name of a drawn scene, which contains the seed, and its PNG content."""
    content = io.BytesIO()
    Image.fromarray(render_scene(seed).image).save(content, "png")
    return f"scene-{seed}.png", content.getvalue()


def scene_seed(path: str) -> int:
    """Return the seed of a scene, from the address that Label Studio gave its picture.

    Raises:
        ValueError: the address is not that of a drawn scene.

    >>> scene_seed("/data/upload/1/0a1b2c3d-scene-10000003.png")
    10000003
    """
    found = re.search(r"scene-(\d+)\.png$", path)
    if not found:
        raise ValueError(f"Expected argument `path` to name a drawn scene, but got {path!r}.")
    return int(found[1])


def predicted_label_map(
    result: Sequence[Mapping[str, Any]], size_hw: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Return the label map of a stored prediction's brush regions.

    Returns:
        (H, W) int64: index into `SCENE_LABELS`, its length for none.
    """
    label_map = np.full(size_hw, len(SCENE_LABELS), dtype=np.int64)
    for region in result:
        mask = decode_rle(region["value"]["rle"]).reshape(*size_hw, 4)[..., 3] > 127
        label_map[mask] = SCENE_LABELS.index(region["value"]["brushlabels"][0])
    return label_map


def scenes_mean_iou(predictions: Mapping[int, Sequence[Mapping[str, Any]]]) -> float:
    """Return the mean IoU, in [0, 1], of the labels that occur in drawn scenes.

    Args:
        predictions: the seed of each scene -> the regions of its stored prediction.
    """
    from clearclip_core.evaluation.metrics import ConfusionMatrix  # and torch

    parts = []
    for seed, result in predictions.items():
        truth = render_scene(seed).label_map
        predicted = predicted_label_map(result, truth.shape)
        parts.append(ConfusionMatrix.of(truth, predicted, classes=len(SCENE_LABELS) + 1))
    return float(np.nanmean(ConfusionMatrix.sum(parts).iou[:-1]))


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


DEMO_SCENES: Final = 12

#: How annotators click where the prelabels are: on most of a picture.
COVERED_SPOT: Final = (
    "On a spot that a region covers, a smart click selects the region.\n"
    "              Ctrl+click asks (Ctrl+Alt+click takes away), but not with <BitmaskLabels>."
)
#: The demo falls short below this mean IoU, with the demo model, over its twelve scenes.
MEAN_IOU_FLOOR: Final = 0.6
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})


@click.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of your own pictures in place of drawn scenes.",
)
@click.option("--labels", default="", help='Labels for your own pictures: "sky,tree,horse".')
@click.option("--model", default="demo", show_default=True, help="See `clearclip models`.")
@click.option("--once", is_flag=True, help="End after the report; not 0 if anything fell short.")
@click.option("--label-studio", "label_studio_command", help="Path of the label-studio command.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep Label Studio's data here.")
@click.option("--studio-port", default=8080, show_default=True, help="Port of Label Studio.")
@click.option("--backend-port", default=9090, show_default=True, help="Port of the backend.")
def demo(labels: str, **given: Any) -> None:
    """Start the real Label Studio beside the backend and prelabel a project."""
    try:
        raise SystemExit(run_demo(labels=split_names(labels), **given))
    except DemoError as error:
        raise click.ClickException(str(error)) from None


def run_demo(
    *,
    images: Path | None = None,
    labels: Sequence[str] = (),
    model: str = "demo",
    once: bool = False,
    label_studio_command: str | None = None,
    data_dir: Path | None = None,
    studio_port: int = 8080,
    backend_port: int = 9090,
) -> int:
    """Start both servers, prelabel a new project through Label Studio, and print a report.

    Args:
        images: folder of pictures; None: twelve drawn scenes, which have a ground truth.
        labels: the project's labels; needed with `images`, refused without.
        once: end after the report, instead of staying up until Ctrl-C.
        data_dir: Label Studio's folder, kept; None: a temporary one, removed at the end.

    Returns:
        The exit status: 0 if every task got a prediction and, for the scenes under the demo
        model, the mean IoU reached `MEAN_IOU_FLOOR`; else 1.

    Raises:
        DemoError: something is missing or has failed; the message is a sentence.
    """
    if (images is None) != (not labels):
        raise DemoError("Pictures and labels go together: give both, or none for drawn scenes.")
    files = map(scene_file, HELD_OUT_SEEDS[:DEMO_SCENES]) if images is None else _pictures(images)
    command = find_label_studio(label_studio_command)
    with ExitStack() as stack:
        stack.enter_context(signals_handled(_unwind, signal.SIGTERM, signal.SIGHUP))
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _say("Starting Label Studio. In a new folder it takes about a minute.")
        port = free_port(studio_port)
        studio = stack.enter_context(label_studio(command, data_dir=folder, port=port))
        _say(f"Starting the backend with the model {model}.")
        log = folder / "backend.log"
        port = free_port(backend_port)
        backend = stack.enter_context(served_backend(studio, model=model, port=port, log=log))
        _say("Creating a project, uploading pictures and retrieving predictions.")
        project = create_project(studio, labels or SCENE_LABELS)
        upload(studio, project, files)
        connect(studio, project, backend)
        retrieve_predictions(studio, project)
        floor = MEAN_IOU_FLOOR if model == "demo" else 0.0
        shortfalls = report_demo(studio, project, floor=floor if images is None else None)
        if shortfalls:
            _say(f"Fell short: {' '.join(shortfalls)} The backend's last lines:", last_lines(log))
        if not once:
            _say(
                "Ctrl-C stops both servers" + (" and forgets the project." if not data_dir else ".")
            )
            with suppress(KeyboardInterrupt):
                signal.pause()
    return 1 if shortfalls else 0


def _pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    shown = (path for path in folder.glob("*") if not is_hidden(path, folder))
    paths = sorted(path for path in shown if path.suffix.lower() in PICTURES)
    if not paths:
        raise DemoError(f"There is no picture ({', '.join(sorted(PICTURES))}) in {folder}.")
    return ((path.name, path.read_bytes()) for path in paths)


def report_demo(studio: LabelStudioProcess, project: int, *, floor: float | None) -> list[str]:
    """Print the addresses and counts of a project.

    Args:
        studio: where the project is.
        project: its id.
        floor: least mean IoU against the scenes' ground truth; None: there is no ground truth.

    Returns:
        A sentence for each shortfall.
    """
    tasks = {task.id: task.data["image"] for task in studio.client.tasks.list(project=project)}
    predictions = {p.task: p.result for p in studio.client.predictions.list(project=project)}
    regions = sum(map(len, predictions.values()))  # a picture may have none of the labels
    _say(
        "",
        f"Label Studio  {studio.url}/projects/{project}/data",
        f"Login         {studio.username}  {studio.password}",
        f"Tasks         {len(tasks)}, {len(predictions)} of them with predictions",
        f"Regions       {regions}",
        f"Smart clicks  {COVERED_SPOT}",
    )
    missing = len(tasks.keys() - predictions.keys())
    shortfalls = [f"{missing} of {len(tasks)} tasks have no prediction."] if missing else []
    if floor is not None:
        reached = scenes_mean_iou(
            {scene_seed(path): predictions.get(task, []) for task, path in tasks.items()}
        )
        _say(f"Mean IoU      {reached:.1%} against the scenes' ground truth")
        if reached < floor:
            shortfalls.append(f"The mean IoU is under {floor:.0%}.")
    return shortfalls


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def _unwind(number: int, frame: FrameType | None) -> None:
    """End the servers on `kill` and where the terminal is closed, as Ctrl-C does by itself."""
    raise SystemExit(128 + number)
