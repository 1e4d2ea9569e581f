"""``clearclip-backend demo``: the real Label Studio beside the backend, with a project prelabeled.

The project has drawn scenes, or one's own pictures. Label Studio runs in an environment of its own,
on SQLite. Both servers listen on 127.0.0.1 only. The demo uses Label Studio's public API, as any
user's script would, and predictions come through Label Studio's own "Retrieve predictions". The
end-to-end tests use the parts of the demo too.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from backend.cli.demo_scenes import mean_iou, predicted_label_map, scene_file, scene_seed
from backend.cli.demo_servers import (
    LabelStudioProcess,
    find_label_studio,
    label_studio,
    served_backend,
)
from backend.cli.label_config import split_names
from backend.cli.label_studio_project import connect, create_project, retrieve_predictions, upload
from backend.cli.server_process import DemoError, free_port, last_lines
from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, render_scene
from clearclip_core.images.label_maps import is_hidden

SCENES: Final = 12

#: How annotators click where the prelabels are: on most of a picture.
COVERED_SPOT: Final = (
    "A smart click on a spot that any region covers asks nothing: Label Studio selects the "
    "region.\n              Ctrl+click works (Ctrl+Alt+click for a negative point)."
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
        model: what the backend serves.
        once: end after the report, instead of staying up until Ctrl-C.
        label_studio_command: the label-studio command, if it is not where it is looked for.
        data_dir: Label Studio's folder, kept; None: a temporary one, removed at the end.
        studio_port: Label Studio's port; another one if that is taken.
        backend_port: the backend's port; another one if that is taken.

    Returns:
        The exit status: 0 if every task got a prediction and, for the scenes under the demo
        model, the mean IoU reached `MEAN_IOU_FLOOR`; else 1.

    Raises:
        DemoError: something is missing or has failed; the message is a sentence.
    """
    if (images is None) != (not labels):
        raise DemoError("Pictures and labels go together: give both, or none for drawn scenes.")
    files = map(scene_file, HELD_OUT_SEEDS[:SCENES]) if images is None else _pictures(images)
    command = find_label_studio(label_studio_command)
    with ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
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
        shortfalls = report(studio, project, floor=floor if images is None else None)
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


def report(studio: LabelStudioProcess, project: int, *, floor: float | None) -> list[str]:
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
        seeds = {task: scene_seed(path) for task, path in tasks.items()}
        reached = mean_iou(
            (predicted_label_map(predictions.get(task, []), truth.shape), truth)
            for task, seed in seeds.items()
            for truth in [render_scene(seed).label_map]
        )
        _say(f"Mean IoU      {reached:.1%} against the scenes' ground truth")
        if reached < floor:
            shortfalls.append(f"The mean IoU is under {floor:.0%}.")
    return shortfalls


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Unwind the stack, and so end the servers, on `kill` and where the terminal is closed.

    Ctrl-C does so by itself.
    """

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
