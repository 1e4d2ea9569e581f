"""``clearclip-backend make-tasks``: pictures of a folder as tasks with predictions."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from backend.cli.options import (
    MASK_SETTINGS,
    OUTPUT_FILE,
    check_model,
    progress_bar,
    with_settings,
    write_text,
)
from backend.errors import ImageInvalid, LabelConfigError
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import PredictRequest, Task
from backend.label_studio.set_up import label_config, split_names
from backend.services import Services
from backend.settings import Settings
from clearclip_core import RGBArray
from clearclip_core.images.files import find_images
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import to_rgb
from clearclip_core.quantities import quantity

_BATCH_SIZE = 16  # pictures between two steps of the progress bar; those of one step overlap


@click.command("make-tasks")
@click.argument("pictures", nargs=-1, required=True)
@click.option("--labels", help='Names of the labels: "sky,tree,horse".')
@click.option(
    "--label-config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The project's labeling config as an XML file, in place of --labels.",
)
@click.option(
    "--url-prefix",
    default="/data/local-files/?d=",
    show_default=True,
    help="What stands before a picture's path in the tasks.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that the paths in the tasks start from, such as Label Studio's "
    "LOCAL_FILES_DOCUMENT_ROOT; else they are as written here.",
)
@click.option(
    "-o", "--out", default="tasks.json", show_default=True, type=OUTPUT_FILE, help="File to write."
)
@with_settings(
    "model",
    "method",
    "device",
    "precision",
    "short_side_px",
    "score",
    "model_dir",
    *MASK_SETTINGS,
)
def make_tasks(
    settings: Settings,
    *,
    pictures: tuple[str, ...],
    labels: str | None,
    config_file: Path | None,
    url_prefix: str,
    root: Path | None,
    out: Path,
) -> None:
    """Write pictures as Label Studio tasks with predictions, ready to import.

    PICTURES are files, folders or globs. With --labels, the labeling config that the predictions
    belong to is written beside the tasks.
    """
    if (labels is None) == (config_file is None):
        raise click.UsageError("Give either --labels or --label-config.")
    xml = config_file.read_text() if config_file else label_config(split_names(labels or ""))
    tasks = predict_pictures(find_images(pictures), xml, settings, url_prefix, root)
    write_text(out, json.dumps(tasks))
    if labels is not None:
        write_text(out.with_suffix(".label-config.xml"), xml)
    missing = sum(not task["predictions"] for task in tasks)
    written = quantity(len(tasks), "task")
    click.echo(f"{written} written to {out}, {missing} without predictions.")
    if missing:
        raise SystemExit(1)


def predict_pictures(
    paths: list[Path], xml: str, settings: Settings, url_prefix: str, root: Path | None
) -> list[dict[str, Any]]:
    """Make a task of each picture, with the prediction that /predict would answer.

    Paths in the tasks begin with `url_prefix`, and start from `root` where there is one.

    Raises:
        BackendError: the labeling config has not one picture, or the model cannot be loaded.
        ValueError: a picture is not below `root`.
    """
    made = []
    config = parse_label_config(xml, settings)
    key = _data_key(config)
    urls = [url_prefix + quote(_shown(path, root).as_posix().lstrip("/")) for path in paths]
    check_model(settings)
    from backend.prediction.predictor import Predictor  # and torch with it

    with Services(settings).engine as engine, progress_bar("Predicting", "picture") as show:
        engine.segmenter()  # raises now where no model can be loaded
        predictor = Predictor(engine, _read_file, settings)
        for start in range(0, len(paths), _BATCH_SIZE):
            batch = slice(start, start + _BATCH_SIZE)
            tasks = tuple(Task(str(path), None, {key: str(path)}) for path in paths[batch])
            entries = predictor.predict(PredictRequest(tasks, config))
            for url, entry in zip(urls[batch], entries, strict=True):
                made.append({"data": {key: url}, "predictions": [entry] if entry else []})
            show(len(made), len(paths))
    return made


def _shown(path: Path, root: Path | None) -> Path:
    """Return a picture's path as its task has it: from `root`, else as it is."""
    if root is None:
        return path
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} is not below --root {root}.")
    return path.resolve().relative_to(root.resolve())


def _data_key(config: LabelConfig) -> str:
    """Return the key under which a task's data has its one picture."""
    images = config.images
    if len(images) != 1 or not re.fullmatch(r"\$\w+", images[0].value):
        raise LabelConfigError('Expected one <Image> with a value such as "$image".')
    return images[0].value[1:]


def _read_file(source: str, task: Task) -> RGBArray:
    try:
        with open_image(source) as picture:
            return to_rgb(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageInvalid(f"{source} cannot be read as an image: {error}.") from None
