"""The demo: the real Label Studio beside the backend, with drawn scenes or one's own pictures.

Label Studio runs from an environment of its own, on SQLite, and both listen on 127.0.0.1 only.
What the demo needs of Label Studio goes through its public API, as any user's script would, and
predictions come through Label Studio's own "Retrieve predictions". The pieces are the end-to-end
tests' pieces too: `label_studio`, `served_backend`, `create_project`, `upload`,
`retrieve_predictions`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import requests
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.core.api_error import ApiError
from PIL import Image
from tqdm import tqdm

from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, palette, render_scene

TITLE: Final = "ClearCLIP demo"
SCENES: Final = 12
#: The demo falls short below this, with the demo model, over its twelve scenes.
MEAN_IOU_FLOOR: Final = 0.6
INSTALL_LABEL_STUDIO: Final = (
    "python3 -m venv .venv-label-studio && .venv-label-studio/bin/pip install label-studio==1.23.2"
)
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
BATCH: Final = 16  # tasks in one Retrieve: all of its results are lost if it takes too long
PATIENCE_S: Final = 10  # before a server that does not end is killed


class DemoError(RuntimeError):
    """What the demo needs is missing or has failed; the message says it in a sentence."""


# ---- processes ------------------------------------------------------------------------------


def free_port(preferred: int) -> int:
    """The preferred port where it is free on 127.0.0.1, else any free one.

    Label Studio itself would move to the next port without a word.
    """
    for port in (preferred, 0):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("There is no free port on 127.0.0.1.")


@contextmanager
def running(
    command: Sequence[str],
    *,
    variables: Mapping[str, str],
    only_these: bool = False,
    health: str,
    log: Path,
    timeout_s: float,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block, and whatever it has started in turn.

    Args:
        command: program and arguments; it gets a process group of its own.
        variables: its environment variables, on top of ours.
        only_these: keep ours from it.
        health: the URL that answers 200 once the server is up.
        log: file for what it prints.
        timeout_s: how long that may take.

    Raises:
        DemoError: if it ends or is not up in time, with the last lines of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_ends_with_us(), *_with(variables, only_these), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, health=health, log=log, timeout_s=timeout_s)
        yield process
    finally:
        _stop(process)


def _ends_with_us() -> list[str]:
    """On Linux, a child can ask to be ended when we are, even if we are killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv and sys.platform == "linux" else []


def _with(variables: Mapping[str, str], only_these: bool) -> list[str]:
    """`env` sets variables for a child without our reading any, and keeps them out of `ps`."""
    return ["env", *(["-i"] if only_these else []), *(f"{k}={v}" for k, v in variables.items())]


def _wait_until_up(
    process: subprocess.Popen[bytes], *, health: str, log: Path, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(
                f"The server for {health} ended with status {process.returncode}. "
                f"Its last lines:\n{_last_lines(log)}"
            )
        try:
            if requests.get(health, timeout=2).ok:
                return
        except requests.RequestException:
            pass  # not up yet
        time.sleep(0.3)
    raise DemoError(
        f"{health} did not answer within {timeout_s:.0f} s. "
        f"Its server's last lines:\n{_last_lines(log)}"
    )


def _last_lines(log: Path, count: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: asked first, then by force."""
    for signal_ in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_)
        except ProcessLookupError:
            break
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


# ---- the two servers ------------------------------------------------------------------------


@dataclass(frozen=True)
class Studio:
    """A Label Studio that runs, and how to get in.

    Args:
        url: its address, without a slash at the end.
        username: e-mail address of its user.
        password: that user's.
        token: that user's legacy token, 40 hex digits.
    """

    url: str
    username: str = "demo@example.com"
    password: str = "clearclip-demo"
    token: str = "c1ea4c11" * 5

    @property
    def client(self) -> LabelStudio:
        return LabelStudio(base_url=self.url, api_key=self.token)

    @property
    def authorization(self) -> str:
        return f"Token {self.token}"

    def post(self, path: str, **request: Any) -> Any:
        """What the SDK has no call for: the answer's JSON, of a request that must succeed."""
        response = requests.post(
            self.url + path,
            headers={"Authorization": self.authorization},
            timeout=3600,
            **request,
        )
        if not response.ok:
            raise DemoError(f"Label Studio answered {response.status_code}: {response.text[:300]}")
        return response.json()


def find_label_studio(command: str | None = None) -> str:
    """The label-studio command: the given one, else `.venv-label-studio`'s, else the PATH's.

    Raises:
        DemoError: if there is none, with how to install it.
    """
    for candidate in (
        [command] if command else [".venv-label-studio/bin/label-studio", "label-studio"]
    ):
        found = shutil.which(candidate)
        if found:
            return str(Path(found).absolute())
    missing = f"`{command}` is no command." if command else "Label Studio is not installed here."
    raise DemoError(f"{missing} Install it with: {INSTALL_LABEL_STUDIO}")


@contextmanager
def label_studio(command: str, *, data_dir: Path, port: int) -> Iterator[Studio]:
    """Run Label Studio on SQLite in `data_dir`; the first start there takes about 40 s.

    A copy of a folder that it has once run in starts in 3 s, users and projects included.
    """
    studio = Studio(f"http://127.0.0.1:{port}")
    data_dir.mkdir(parents=True, exist_ok=True)
    variables = {
        "PATH": f"{Path(command).parent}:{os.defpath}",
        "HOME": str(data_dir),
        "LANG": "C.UTF-8",
        "DJANGO_DB": "sqlite",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
        "LABEL_STUDIO_HOST": studio.url,
        "LABEL_STUDIO_USERNAME": studio.username,
        "LABEL_STUDIO_PASSWORD": studio.password,
        "LABEL_STUDIO_USER_TOKEN": studio.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        # A backend on 127.0.0.1 is what both of these are there to forbid.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "ML_TIMEOUT_PREDICT": "3600",
        # The data manager sorts by the scores of the backend's present version.
        "ff_front_dev_1682_model_version_dropdown_070622_short": "true",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "LOG_LEVEL": "WARNING",
    }
    with running(
        [command, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)],
        variables=variables,
        only_these=True,
        health=f"{studio.url}/health",
        log=data_dir / "label-studio.log",
        timeout_s=300,
    ):
        yield studio


@contextmanager
def served_backend(
    studio: Studio, *, model: str, port: int, log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Serve the backend for a Label Studio, in a process of its own; the value is its address.

    `variables` are settings on top, and win.
    """
    url = f"http://127.0.0.1:{port}"
    serve = ["serve", "--host", "127.0.0.1", "--port", str(port), "--model", model]
    reach = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    unset = {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""}  # whatever the shell says
    # Jobs of another Label Studio must not meet this one, whose projects have the same numbers.
    own = {"DATABASE_URL": f"sqlite:///{log.absolute().with_suffix('.db')}"}
    with running(
        [sys.executable, "-m", "backend", *serve],
        variables={**reach, **unset, **own, **(variables or {})},
        health=f"{url}/health",
        log=log,
        timeout_s=120,
    ):
        yield url


#: A tool of the magic wand alone: beside the ordinary one, which asks nothing, it confuses.
_ASKS: Final = {"smart": "true", "smartOnly": "true"}


# ---- a project ------------------------------------------------------------------------------


def label_config(labels: Sequence[str]) -> str:
    """A labeling config with one brush per label, each in a colour of its own.

    With it come the tools that an annotator asks with: clicks, boxes and words.

    >>> label_config(["sky"])  # doctest: +ELLIPSIS
    '<View><Image name="image" value="$image" zoom="true" /><BrushLabels name="mask" ...'
    """
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image", zoom="true")
    controls = [
        ET.SubElement(view, "BrushLabels", name="mask", toName="image"),
        ET.SubElement(view, "KeyPointLabels", _ASKS, name="click", toName="image"),
        ET.SubElement(view, "RectangleLabels", _ASKS, name="box", toName="image"),
    ]
    for control in controls:
        for label, rgb in zip(labels, palette(len(labels)), strict=True):
            ET.SubElement(control, "Label", value=label, background=f"#{bytes(rgb).hex()}")
    ET.SubElement(view, "TextArea", name="words", toName="image", placeholder="words, or: all")
    return ET.tostring(view, encoding="unicode")


def create_project(studio: Studio, labels: Sequence[str], *, title: str = TITLE) -> int:
    """Create a project with one brush per label; the value is its id."""
    project = studio.client.projects.create(title=title, label_config=label_config(labels))
    return int(project.id)


def upload(studio: Studio, project: int, files: Iterable[tuple[str, bytes]]) -> None:
    """Upload pictures, given as name and content: each becomes a task."""
    remaining = iter(files)
    while batch := list(islice(remaining, BATCH)):
        answer = studio.post(
            f"/api/projects/{project}/import",
            files={name: (name, content) for name, content in batch},  # a field of its own each
        )
        if answer["task_count"] != len(batch):
            raise DemoError(f"{len(batch)} pictures became {answer['task_count']} tasks.")


def connect(studio: Studio, project: int, url: str, **options: Any) -> None:
    """Connect a backend to a project; options are the SDK's, such as basic auth."""
    options = {"title": "ClearCLIP", "is_interactive": True, **options}
    try:
        studio.client.ml.create(project=project, url=url, **options)
    except ApiError as error:
        raise DemoError(f"Label Studio cannot connect to {url}: {error.body}") from error


def retrieve_predictions(studio: Studio, project: int) -> None:
    """Have Label Studio ask its backend for predictions, as "Retrieve predictions" does.

    It says nothing of what went wrong there: count what it has stored.
    """
    tasks = [task.id for task in studio.client.tasks.list(project=project)]
    with tqdm(total=len(tasks), desc="Predictions", unit="task", leave=False) as progress:
        for start in range(0, len(tasks), BATCH):
            batch = tasks[start : start + BATCH]
            studio.post(
                f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
                json={"selectedItems": {"all": False, "included": batch}},
            )
            progress.update(len(batch))


def scene_file(seed: int) -> tuple[str, bytes]:
    """A drawn scene to upload: its name, which tells the seed, and a PNG file."""
    content = io.BytesIO()
    Image.fromarray(render_scene(seed).image).save(content, "png")
    return f"scene-{seed}.png", content.getvalue()


def scene_seed(path: str) -> int:
    """The seed of a scene, from the address that Label Studio gave its picture.

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
    """The brush regions of a stored prediction -> (H, W) index into `SCENE_LABELS`, -1 = none."""
    label_map = np.full(size_hw, -1, dtype=np.int64)
    for region in result:
        mask = decode_rle(region["value"]["rle"]).reshape(*size_hw, 4)[..., 3] > 127
        label_map[mask] = SCENE_LABELS.index(region["value"]["brushlabels"][0])
    return label_map


def mean_iou(pairs: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]) -> float:
    """Dataset-level mIoU in [0, 1] of (predicted, true) label maps, each (H, W), -1 = none.

    Intersections and unions are summed over all pictures, then averaged over the labels that
    occur.

    >>> mean_iou([(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 1]]))])  # 1/2 and 2/3
    0.5833333333333333
    """
    count = len(SCENE_LABELS)
    confusion = np.zeros((count + 1, count + 1), dtype=np.int64)  # true x predicted, last: none
    for predicted, true in pairs:
        np.add.at(confusion, (true.ravel(), predicted.ravel()), 1)
    hits = np.diag(confusion)[:count]
    unions = confusion.sum(axis=0)[:count] + confusion.sum(axis=1)[:count] - hits
    return float((hits[unions > 0] / unions[unions > 0]).mean())


# ---- the whole ------------------------------------------------------------------------------


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
    """Start both servers, prelabel a new project through Label Studio, and say how it went.

    Args:
        images: folder of pictures; None: twelve drawn scenes, whose ground truth is known.
        labels: the project's labels; needed with `images`, refused without.
        model: what the backend serves.
        once: end after the report, instead of staying up until Ctrl-C.
        label_studio_command: the label-studio command, if it is not where it is looked for.
        data_dir: Label Studio's folder, kept; None: a temporary one, removed at the end.
        studio_port: Label Studio's port; another one if that is taken.
        backend_port: the backend's port, likewise.

    Returns:
        The exit status: 0 if every task got a prediction and, for the scenes under the demo
        model, the mean IoU reached `MEAN_IOU_FLOOR`; else 1.

    Raises:
        DemoError: what is missing or has failed, in a sentence.
    """
    if (images is None) != (not labels):
        raise DemoError("Pictures and labels go together: give both, or none for drawn scenes.")
    files = map(scene_file, HELD_OUT_SEEDS[:SCENES]) if images is None else _pictures(images)
    command = find_label_studio(label_studio_command)
    with ExitStack() as stack:
        stack.enter_context(_signals_end_us())
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
            _say(f"Fell short: {' '.join(shortfalls)} The backend's last lines:", _last_lines(log))
        if not once:
            _say(
                "Ctrl-C stops both servers" + (" and forgets the project." if not data_dir else ".")
            )
            with suppress(KeyboardInterrupt):
                signal.pause()
    return 1 if shortfalls else 0


def _pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise DemoError(f"There is no picture ({', '.join(sorted(PICTURES))}) in {folder}.")
    return ((path.name, path.read_bytes()) for path in paths)


def report(studio: Studio, project: int, *, floor: float | None) -> list[str]:
    """Print where to look and what has been stored; the value is what fell short, in sentences.

    Args:
        studio: where the project is.
        project: its id.
        floor: least mean IoU against the scenes' ground truth; None: there is no ground truth.
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
def _signals_end_us() -> Iterator[None]:
    """Ctrl-C, a closed terminal and `kill` all unwind the stack, which ends the servers."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
