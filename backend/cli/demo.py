"""``clearclip-backend demo``: the real Label Studio beside the backend, with a project prelabeled.

The project has drawn scenes, or one's own pictures. Label Studio runs in an environment of its own,
on SQLite. Both servers listen on 127.0.0.1 only. The demo uses Label Studio's public API, as any
user's script would, and predictions come through Label Studio's own "Retrieve predictions". The
end-to-end tests use the parts of the demo too.
"""

import io
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
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
from backend.cli.options import signals_handled
from backend.errors import BackendError
from backend.label_studio import set_up
from backend.label_studio.client import TasksTogether
from backend.label_studio.records import WholeTask
from backend.label_studio.set_up import label_config, split_names
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, render_scene
from clearclip_core.images.files import is_hidden
from clearclip_core.quantities import quantity


def scene_file(seed: int) -> tuple[str, bytes]:
    """Return the file name of a drawn scene, which contains the seed, and its PNG content."""
    content = io.BytesIO()
    Image.fromarray(render_scene(seed).image).save(content, "png")
    return f"scene-{seed}.png", content.getvalue()


#: Tasks of one Retrieve. Label Studio loses all of its predictions if it takes too long.
_BATCH_SIZE: Final = 16


def create_project(
    studio: LabelStudioProcess, labels: Sequence[str], *, title: str = "ClearCLIP demo"
) -> int:
    """Create a project with a brush, a click and a box for each label, and return its id."""
    fields = {"title": title, "label_config": label_config(labels)}
    return int(studio.post("/api/projects/", json=fields)["id"])


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
    """Connect a backend to a project as `clearclip-backend connect` does, or raise `DemoError`."""
    try:
        set_up.connect(studio.client, project, url, **options)
    except BackendError as error:
        raise DemoError(f"Label Studio cannot connect to {url}: {error}") from error


def retrieve_predictions(studio: LabelStudioProcess, project: int) -> None:
    """Have Label Studio ask its backend for predictions, as "Retrieve predictions" does.

    Label Studio does not report tasks that failed: count the predictions that it has stored.
    """
    tasks = list(studio.client.ids(project, TaskFilter()))
    with tqdm(total=len(tasks), desc="Predictions", unit="task", leave=False) as progress:
        for start in range(0, len(tasks), _BATCH_SIZE):
            batch = tasks[start : start + _BATCH_SIZE]
            studio.post(
                f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
                json={"selectedItems": {"all": False, "included": batch}},
            )
            progress.update(len(batch))


#: How annotators click where the prelabels are: on most of a picture.
_COVERED_SPOT: Final = (
    "On a spot that a region covers, a smart click selects the region.\n"
    "              Ctrl+click asks (Ctrl+Alt+click takes away), but not with <BitmaskLabels>."
)
_DEMO_SCENES: Final = 12
_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})


@click.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of your own pictures in place of drawn scenes.",
)
@click.option("--labels", default="", help='Labels for your own pictures: "sky,tree,horse".')
@click.option("--model", default="demo", show_default=True, help="See `clearclip models`.")
@click.option("--once", is_flag=True, help="End after the report; not 0 if a task has no masks.")
@click.option("--label-studio", "label_studio_command", help="Path of the label-studio command.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep Label Studio's data here.")
@click.option("--studio-port", default=8080, show_default=True, help="Port of Label Studio.")
@click.option("--backend-port", default=9090, show_default=True, help="Port of the backend.")
def demo(
    *,
    images: Path | None,
    labels: str,
    model: str,
    once: bool,
    label_studio_command: str | None,
    data_dir: Path | None,
    studio_port: int,
    backend_port: int,
) -> None:
    """Start the real Label Studio beside the backend and prelabel a project."""
    if (images is None) != (not labels):
        raise DemoError("Pictures and labels go together: give both, or none for drawn scenes.")

    scenes = map(scene_file, HELD_OUT_SEEDS[:_DEMO_SCENES])
    files = scenes if images is None else _read_pictures(images)
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
        project = create_project(studio, split_names(labels) or SCENE_LABELS)
        upload(studio, project, files)
        connect(studio, project, backend)
        retrieve_predictions(studio, project)

        missing = _report(studio, project, backend)
        if missing:
            count = quantity(missing, "task")
            _say(f"{count} without a prediction. The backend's last lines:", last_lines(log))

        if not once:
            _say(f"Ctrl-C stops both servers{'.' if data_dir else ' and forgets the project.'}")
            with suppress(KeyboardInterrupt):
                signal.pause()

    raise SystemExit(1 if missing else 0)


def _read_pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    shown = (path for path in folder.glob("*") if not is_hidden(path, folder))
    paths = sorted(path for path in shown if path.suffix.lower() in _PICTURES)
    if not paths:
        raise DemoError(f"There is no picture ({', '.join(sorted(_PICTURES))}) in {folder}.")
    return ((path.name, path.read_bytes()) for path in paths)


def _report(studio: LabelStudioProcess, project: int, backend: str) -> int:
    """Print the addresses and counts of a project; return how many tasks have no prediction."""
    tasks = list(studio.client.ids(project, TaskFilter()))
    together = TasksTogether(studio.client, project, tasks, WholeTask)
    found = [held.predictions for task in tasks if (held := together.take(task))]
    predicted = [each[-1].regions for each in found if each]
    regions = sum(len({region["id"] for region in each}) for each in predicted)
    _say("", f"Label Studio  {studio.url}/projects/{project}/data")
    _say(f"Dashboard     {backend}/projects/{project}")
    _say(f"Login         {studio.username}  {studio.password}")
    _say(f"Tasks         {len(tasks)}, {len(predicted)} of them with predictions")
    _say(f"Regions       {regions}")
    _say(f"Smart clicks  {_COVERED_SPOT}")
    return len(tasks) - len(predicted)


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def _unwind(number: int, frame: FrameType | None) -> None:
    """End the servers on `kill` and where the terminal is closed, as Ctrl-C does by itself."""
    raise SystemExit(128 + number)
