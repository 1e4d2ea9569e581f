"""Pictures of a folder as Label Studio tasks with predictions, ready to import."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from tqdm import tqdm

from backend.errors import ImageInvalid, LabelConfigError
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import PredictRequest, Task
from backend.services import Services
from backend.settings import Settings
from clearclip_core import RGBArray, to_rgb

#: Pictures between two steps of the progress bar; those of one step overlap.
_EXPORTED_AT_ONCE = 16


def export_tasks(
    paths: list[Path], xml: str, settings: Settings, url_prefix: str, root: Path | None
) -> list[dict[str, Any]]:
    """Each picture as a task, its prediction made by the pipeline that answers /predict.

    Raises:
        BackendError: the labeling config has not one picture, or the model cannot be loaded.
        ValueError: a picture is not below `root`.
    """
    exported = []
    key = _data_key(xml)
    urls = [url_prefix + quote(_shown(path, root).as_posix().lstrip("/")) for path in paths]
    services = Services(settings)
    with (
        services.engine as engine,
        tqdm(total=len(paths), unit="picture", disable=len(paths) == 1) as bar,
    ):
        engine.segmenter()  # or a sentence at once: nobody brings weights later
        predictor = services.database_free_predictor(_read_file)
        for start in range(0, len(paths), _EXPORTED_AT_ONCE):
            some = slice(start, start + _EXPORTED_AT_ONCE)
            tasks = tuple(Task(str(path), None, {key: str(path)}) for path in paths[some])
            entries = predictor.predict(PredictRequest(tasks, xml))
            for url, entry in zip(urls[some], entries, strict=True):
                exported.append({"data": {key: url}, "predictions": [entry] if entry else []})
            bar.update(len(tasks))
    return exported


def _shown(path: Path, root: Path | None) -> Path:
    """A picture's path as its task has it: from `root`, else as it is."""
    if root is None:
        return path
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} is not below --root {root}.")
    return path.resolve().relative_to(root.resolve())


def _data_key(xml: str) -> str:
    """The key under which a task's data has its one picture."""
    images = parse_label_config(xml).images
    if len(images) != 1 or not re.fullmatch(r"\$\w+", images[0].value):
        raise LabelConfigError('Expected one <Image> with a value such as "$image" to export for.')
    return images[0].value[1:]


def _read_file(source: str, task: Task) -> RGBArray:
    try:
        with Image.open(source) as picture:
            return to_rgb(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageInvalid(f"{source} cannot be read as an image: {error}.") from None
