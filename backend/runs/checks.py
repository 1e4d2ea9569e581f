"""Checks of a set-up: Label Studio and the backend in both directions, for a page or ``doctor``."""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from itertools import combinations
from typing import Any, Final, Literal

import msgspec
import requests

from backend.database.database import Database
from backend.errors import BackendError, BadRequest, StudioBusy, StudioRefused
from backend.label_studio.client import LabelStudioClient, TasksTogether
from backend.label_studio.connection import PAGE_WAIT_S
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.label_studio.label_config import Control, LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import BackendRow, SummaryRow, WholeTask
from backend.label_studio.region_reader import count_regions
from backend.label_studio.requests import Task
from backend.label_studio.set_up import is_annotated, login, own_address, tools_advice
from backend.label_studio.task_filter import TaskFilter
from backend.label_studio.tokens import is_personal
from backend.runs.run_store import Progress, Run, RunKind, RunParts
from backend.settings import Settings
from clearclip_core import WeightsNotFoundError, check_weights
from clearclip_core.quantities import quantity
from clearclip_core.registry import Registry

log = logging.getLogger(__name__)

#: Longest wait for an answer of the backend, and for a prediction, in seconds.
_TIMEOUT_S: Final = 10.0
_PREDICT_TIMEOUT_S: Final = 120.0

#: Tasks whose pictures are looked through, of those first imported and of those last changed.
_TASKS_AT_AN_END: Final = 25

_LARGE_MEGAPIXELS: Final = 40  # from this size on the editor is slow
_PROJECTS_NAMED: Final = 10  # projects that are named where there is no such one
_MOST_KINDS: Final = 12  # kinds of address; one picture of each is read
#: What to do about masks of a control that the labeling config lacks; {} is its name.
ADD_CONTROL: Final = (
    'They count nowhere. Add a control of their kind to the labeling config, with name="{}", their '
    'labels and prelabel="no".'
)


class CheckResult(msgspec.Struct, frozen=True):
    """The result of a check: well, well with something to mind, wrong, or not checked.

    >>> print(CheckResult("backend", "FAIL", "It is away. Start it."))
    FAIL  backend          It is away. Start it.
    """

    name: str
    mark: Literal["ok", "warn", "FAIL", "-"]
    text: str

    def __str__(self) -> str:
        return f"{self.mark:<4}  {self.name:<15}  {self.text}"


class CheckFailed(Exception):  # noqa: N818 -- a result, no error of the program
    """Something is wrong: what that is, and what to do."""


class CheckWarned(CheckFailed):
    """All is well, but something later will not be: what, and what to do."""


@dataclass
class Setup:
    """What is checked, and what earlier checks have read for later ones."""

    settings: Settings  # those of the backend
    project: int  # number of the project in Label Studio; 0 for none
    backend_url: str | None  # address of the backend from here; None until Label Studio has told it
    xml: str = ""  # the project's labeling config
    config: LabelConfig = field(default_factory=lambda: LabelConfig((), (), ()))
    is_interactive: bool = True  # whether smart tools ask the backend
    task: dict[str, Any] = field(default_factory=dict)  # one with a readable picture

    @cached_property
    def client(self) -> LabelStudioClient:
        """A client of Label Studio that asks once."""
        client = LabelStudioClient.from_settings(
            self.settings, retry_for_s=0.0, timeout_s=PAGE_WAIT_S
        )
        assert client is not None
        return client

    @cached_property
    def images(self) -> ImageReader:
        """What reads pictures as the backend does."""
        return ImageReader(LabelStudioFiles.from_settings(self.settings), self.settings)

    def ask_backend(self, path: str, timeout_s: float = _TIMEOUT_S, **body: Any) -> tuple[int, Any]:
        """Ask the backend, and return the status and the JSON object of its answer.

        The request for /health comes without a password: only its response shows that the server
        there is this backend.

        Raises:
            CheckFailed: the backend cannot be reached.
        """
        url = str(self.backend_url).rstrip("/") + path
        own = login(self.settings) if path != "/health" else {}
        pair = [own[name].encode() for name in ("basic_auth_user", "basic_auth_pass") if own]
        more: dict[str, Any] = {"allow_redirects": False, "timeout": timeout_s}
        more["auth"] = tuple(pair) or None
        try:
            method = "POST" if body else "GET"
            response = requests.request(method, url, json=body or None, **more)
        except (requests.RequestException, ValueError) as error:
            raise CheckFailed(
                f"{url} cannot be reached from here ({type(error).__name__}). Start the backend "
                "with `clearclip-backend serve`; if it has another address from here, give its "
                "HOST and PORT, or that to `doctor --backend-url`."
            ) from None
        try:
            answer = json.loads(response.content)
        except ValueError:
            answer = None
        return response.status_code, answer if isinstance(answer, dict) else {}


# ---- Label Studio --------------------------------------------------------------------------------

#: What to do about a token that Label Studio refuses, by its kind.
_REFUSED: Final = {
    "legacy": "Copy it again from Account & Settings: Reset there makes a new one, and the old one "
    "is refused. Or legacy tokens are off, as in new organizations: switch them on under "
    "Organization, API Tokens Settings, or set LABEL_STUDIO_API_KEY to a personal access token.",
    "personal": "Make a new personal access token and set LABEL_STUDIO_API_KEY.",
}


def check_label_studio(setup: Setup) -> str:
    """Check that Label Studio answers at its address, and accepts the token."""
    url, key = setup.settings.label_studio_url, setup.settings.label_studio_api_key
    if url is None:
        raise CheckFailed(
            "LABEL_STUDIO_URL is not set. Set it to the address at which this machine reaches "
            "Label Studio."
        )
    if key is None:
        raise CheckFailed(
            "LABEL_STUDIO_API_KEY is not set. Make a token in Label Studio under Account & "
            "Settings and set it."
        )
    kind = "personal" if is_personal(key.get_secret_value()) else "legacy"
    try:
        user = setup.client.user()
    except BackendError as error:
        raise CheckFailed(_no_label_studio(url, error, kind)) from None
    return f"{url} accepts the {kind} token of {user}."


def _no_label_studio(url: str, error: BackendError, kind: str) -> str:
    """Say why Label Studio does not answer, and what to do; `kind` is that of the token."""
    if isinstance(error, StudioBusy):
        return f"{error} It is there: check again when it has less to do."
    if _is_this_backend(url):
        return f"LABEL_STUDIO_URL={url} is the backend itself. Set it to Label Studio's address."
    if isinstance(error, StudioRefused):
        return f"{str(error).rstrip('.')}. {_REFUSED[kind]}"

    scheme, _, rest = url.partition("://")
    other = "https" if scheme == "http" else "http"
    if _answers(f"{other}://{rest}"):
        return (
            f"Label Studio answers by {other} there, not by {scheme}: set "
            f"LABEL_STUDIO_URL={other}://{rest}."
        )
    return (
        f"{error} Start Label Studio, or correct LABEL_STUDIO_URL; inside of containers localhost "
        "is the container itself."
    )


def _answers(url: str) -> bool:
    """Whether a web server answers there; one whose certificate is not trusted does, too."""
    try:
        return requests.get(f"{url}/health", timeout=_TIMEOUT_S).ok
    except requests.exceptions.SSLError as error:
        return "CERTIFICATE_VERIFY_FAILED" in str(error)
    except (requests.RequestException, ValueError):
        return False


def _is_this_backend(url: str) -> bool:
    with suppress(requests.RequestException, ValueError, TypeError):
        return "model" in requests.get(f"{url}/health", timeout=_TIMEOUT_S).json()
    return False


def check_settings(setup: Setup) -> str:
    """Check the settings that fail without a word: the database, new tasks, links of pages."""
    settings = setup.settings
    if settings.database_url is not None:
        try:
            Database.from_settings(settings).revision()
        except ValueError as error:
            raise CheckFailed(str(error)) from None

    wanted = [*map(int, re.findall(r"\d+", settings.auto_prelabel))]
    if lacking := [each for each in wanted if not setup.client.has_project(each)]:
        raise CheckWarned(
            f"AUTO_PRELABEL names {', '.join(map(str, lacking))}, and Label Studio shows no such "
            "project to this token."
        )

    if settings.click_model is not None:
        try:
            check_weights("demo", settings.model_dir, click=settings.click_model)
        except (ValueError, WeightsNotFoundError) as error:
            raise CheckFailed(f"CLICK_MODEL: {error}") from None

    if (url := settings.label_studio_browser_url) is not None:
        with suppress(requests.RequestException):  # only browsers may reach it
            if requests.get(f"{url}/health", timeout=_TIMEOUT_S).status_code != 200:
                raise CheckWarned(
                    f"LABEL_STUDIO_BROWSER_URL={url} does not answer as Label Studio: links of the "
                    "pages lead there. Set it to the address that people type."
                )

    return "Those that can be wrong without a word are well."


def check_project(setup: Setup) -> str:
    """Check that the project exists, and whose predictions it shows."""
    try:
        project = setup.client.project(setup.project)
    except StudioRefused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        raise CheckFailed(_no_project(setup)) from None
    setup.xml = project.label_config
    if not project.model_version:
        raise CheckWarned(
            f"Project {project.id} shows nobody's predictions. Choose the model in its settings, "
            "under Annotation, Prelabeling."
        )
    return f"Project {project.id} is {project.title!r}."


def _no_project(setup: Setup) -> str:
    """Say that there is no such project, and name those that there are, the newest first."""
    titles = setup.client.project_titles()
    newest = sorted(titles, reverse=True)[:_PROJECTS_NAMED]
    names = ", ".join(f"{number} “{titles[number]}”" for number in newest)
    more = ", ..." if len(titles) > len(newest) else ""
    there = f"There are: {names}{more}." if names else "It shows none at all."
    return f"Label Studio shows no project {setup.project} to this token. {there}"


def check_label_config(setup: Setup) -> str:
    """Check that the labeling config can be predicted."""
    try:
        setup.config = config = parse_label_config(setup.xml, setup.settings)
    except BackendError as error:
        raise CheckFailed(
            f"{error} Change it in the project's settings, under Labeling Interface."
        ) from None

    if of_task := re.findall(r"<\w+labels\b[^>]*\bvalue=[\"']\$[^>]*>", setup.xml, re.IGNORECASE):
        raise CheckWarned(
            f"Labels that come from the task are not predicted: {', '.join(of_task)}. Write them "
            "as <Label> tags in the labeling config."
        )
    if twice := _predicted_twice(config):
        names = " and ".join(f"“{control.name}”" for control in twice)
        raise CheckWarned(
            f"The controls {names} have the same labels, so each picture gets their predictions "
            'twice. Give prelabel="no" to the one that people alone draw with.'
        )

    names = ", ".join(f"“{label.name}”" for label in config.labels[:5])
    more = ", ..." if len(config.labels) > 5 else ""
    controls = quantity(len(config.controls), "control")
    return f"{controls}, {quantity(len(config.labels), 'label')}: {names}{more}."


def _predicted_twice(config: LabelConfig) -> tuple[Control, Control] | None:
    """Return two controls that predict a label on the same image; None where there are none."""
    for one, other in combinations((each for each in config.controls if each.is_predicted), 2):
        labels = {label.name for label in one.labels} & {label.name for label in other.labels}
        if labels and {*one.to_names} & {*other.to_names}:
            return one, other
    return None


def check_connection(setup: Setup) -> str:
    """Check that Label Studio reaches the backend, which it tries as it lists its backends."""
    connected = setup.client.backends(setup.project)
    if not connected:
        raise CheckFailed(
            "No backend is connected to the project. Connect this one in the project's settings, "
            "under Model, at an address that Label Studio reaches, such as http://localhost:9090."
        )
    first = min(connected, key=lambda each: each.id)
    setup.is_interactive = first.is_interactive is not False
    setup.backend_url = setup.backend_url or first.url
    if first.state != "CO":
        raise CheckFailed(_not_connected(first))
    others = f", the first of {len(connected)}: only it is used" if len(connected) > 1 else ""
    return f"Label Studio reaches {first.url}{others}."


def _not_connected(backend: BackendRow) -> str:
    """Return why Label Studio has no connection to a backend, and what to do."""
    message = backend.error_message or ""
    if backend.state == "DI":
        return (
            f"Label Studio cannot reach {backend.url} within a second. Start the backend there, or "
            "correct the address under Model: it is Label Studio that must reach it. For private "
            "addresses Label Studio needs ML_BLOCK_LOCAL_IP=false."
        )
    if "401" in message:
        return (
            f"{backend.url} refuses what Label Studio sends as user name and password. Type "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS into the Model dialog."
        )
    return f"{backend.url} refuses the project: {message[:300]} Do what that says."


def check_smart_tools(setup: Setup) -> str:
    """Check that Label Studio asks the backend where an annotator uses a smart tool."""
    tools = ", ".join(tool.name for tool in setup.config.tools if tool.is_smart)
    if not tools and setup.is_interactive:
        raise CheckWarned(tools_advice(setup.xml, is_annotated(setup.client, setup.project)))
    if not tools:
        return "The labeling config has no smart tools."
    if not setup.is_interactive:
        raise CheckFailed(
            "Interactive preannotations are off, but the labeling config has smart tools "
            f"({tools}): they ask nothing. Switch them on in the project's settings, under Model, "
            "where you edit the connection."
        )
    if any(control.kind == "bitmasklabels" for control in setup.config.controls):
        raise CheckWarned(
            "<BitmaskLabels>: a click on a spot that a region covers asks nothing, nor with Ctrl. "
            "Use <BrushLabels> where people correct with clicks."
        )
    if (model := setup.settings.click_model) is not None:
        return f"Interactive preannotations are on, for {tools}; {model} answers clicks and boxes."
    return f"Interactive preannotations are on, for {tools}."


def check_pictures(setup: Setup) -> str:
    """Check that a picture of each kind of address in the project can be read."""
    client, size = setup.client, _TASKS_AT_AN_END
    tasks = client.tasks(setup.project, TaskFilter(), size)
    tasks += client.tasks(setup.project, TaskFilter(order="-tasks:updated_at"), size)
    if not tasks:
        raise CheckFailed("The project has no task yet. Import pictures, and run this again.")
    lacking: dict[str, str] = {}
    found: dict[str, list[tuple[str, Task]]] = {}
    for task in {task.id: task for task in tasks}.values():
        try:
            sources = [url.strip() for tag in setup.config.images for url in tag.sources(task.data)]
        except BackendError as error:
            lacking.setdefault(str(error), f"Task {task.id}: {error}")
            continue
        for source in sources:
            found.setdefault(kind_of(source), []).append((source, task))
    return _read_each_kind(setup, dict([*found.items()][:_MOST_KINDS]), lacking)


def _read_each_kind(
    setup: Setup, found: dict[str, list[tuple[str, Task]]], trouble: dict[str, str]
) -> str:
    read, largest = {}, 0.0
    for kind, pictures in found.items():
        for source, task in pictures[:1] + pictures[1:][-1:]:  # one may be broken by itself
            try:
                rgb = setup.images.read(source, task)
            except BackendError as error:
                trouble.setdefault(kind, f"Task {task.id}: {error}")
                continue
            largest = max(largest, rgb.shape[0] * rgb.shape[1] / 1e6)
            setup.task = {"id": task.id, "project": setup.project, "data": dict(task.data)}
            read[kind] = f"{kind} (task {task.id}, {rgb.shape[1]} x {rgb.shape[0]} px)"
            break

    if unread := len(found) - len(read):
        kinds = f"{unread} of {quantity(len(found), 'kind')} of address"
        raise CheckFailed(
            f"{kinds} cannot be read, nor by the backend. {' '.join(trouble.values())}"
        )

    if trouble:
        raise (CheckWarned if read else CheckFailed)(
            "Bring the pictures of tasks that get no prediction, or delete the tasks: "
            + " ".join(trouble.values())
        )

    if largest > _LARGE_MEGAPIXELS:
        raise CheckWarned(
            f"Task {setup.task['id']} has a picture of {largest:.0f} megapixels. Label Studio's "
            "editor takes a minute and 2.5 GB for 48: make them smaller."
        )
    return f"A picture of each kind of address can be read: {', '.join(read.values())}."


def check_annotations(setup: Setup) -> str:
    """Check that Label Studio serves all annotations, and that the config has their labels."""
    # A busy Label Studio takes long for whole tasks: as long as the poll waits for them.
    client = LabelStudioClient.from_settings(setup.settings, retry_for_s=0.0)
    assert client is not None
    tasks = list(client.ids(setup.project, TaskFilter(annotation_ids=True)))
    said: dict[int, str] = {}
    served = TasksTogether(client, setup.project, tasks, WholeTask)
    regions: dict[str, Counter[str]] = {}
    for task in tasks:
        try:
            found = served.take(task)
        except BadRequest as error:
            said[task] = str(error)
            continue
        for annotation in found.annotations if found else ():
            for place, counts in count_regions(annotation.result).items():
                regions.setdefault(place, Counter()).update(counts)

    if said:
        raise CheckFailed(
            f"{len(said)} of {quantity(len(tasks), 'task')} with annotations cannot be read whole, "
            "and are in no data set. Delete the annotation that Label Studio cannot serve: select "
            "the task in its data manager, then Actions, Delete Annotations; that deletes all of "
            "the task. "
            f"{' '.join(f'Task {task}{_broken(setup, task)}: {said[task]}' for task in said)}"
        )
    # Label Studio's own summary leaves out annotations that were imported with their tasks.
    _check_labels_in_use(setup.config, SummaryRow.of(regions))
    return f"The annotations of {quantity(len(tasks), 'task')} can be read."


def _check_labels_in_use(config: LabelConfig, regions: SummaryRow) -> None:
    """Raise `CheckWarned` where regions have a label or a control that the config lacks."""
    for control, count in config.lost_controls(regions.created_annotations or {}).items():
        what = f"{quantity(count, 'region')} made with the control “{control}”"
        raise CheckWarned(f"{what}, which the config lacks. {ADD_CONTROL.format(control)}")
    if unknown := config.unknown_labels(regions.created_labels or {}):
        names = ", ".join(f"“{label}” ({count})" for label, count in [*unknown.items()][:5])
        raise CheckWarned(
            f"{quantity(sum(unknown.values()), 'region')} of annotations with a label that the "
            f"config no longer has: {names}. They count nowhere. If it was renamed, write the old "
            f'name as alias: <Label value="NEW NAME" alias="{next(iter(unknown))}"/>.'
        )


def _broken(setup: Setup, task: int) -> str:
    """Say which annotations of a task Label Studio cannot serve, and how to delete each alone."""
    client = setup.client
    times = client.annotation_times(setup.project, task)
    broken = [f"/api/annotations/{id_}/" for id_, updated in times.items() if not updated]
    return f" (that one alone: DELETE {client.url}{', '.join(broken)})" if broken else ""


def kind_of(source: str) -> str:
    """Return what all addresses of one kind begin with: a scheme and a host, or two folders.

    >>> kind_of("https://host:81/a/b.png"), kind_of("s3://bucket/a.png"), kind_of("a.png")
    ('https://host:81/', 's3://bucket/', 'a.png')
    >>> kind_of("/data/upload/7/a.png"), kind_of("/data/local-files/?d=a.png")
    ('/data/upload/', '/data/local-files/')
    """
    found = re.match(r"data:|[A-Za-z][\w+.-]*://[^/?]*/?|/[^/?]*/[^/?]*/?", source)
    return found[0] if found else source


# ---- the backend ---------------------------------------------------------------------------------


def check_backend(setup: Setup) -> str:
    """Check that this backend answers from here, and that its model loads."""
    setup.backend_url = setup.backend_url or f"http://127.0.0.1:{setup.settings.port}"
    status, body = setup.ask_backend("/health")
    if status != 200 or "model" not in body:
        raise CheckFailed(
            f"{setup.backend_url} answers HTTP {status}, but not as this backend. Connect the "
            "address of `clearclip-backend serve`, or give it with --backend-url."
        )
    if body.get("state") == "failed":
        model = setup.ask_backend("/status")[1].get("model", {})
        reason = model.get("reason") or "Look into the backend's log."
        raise CheckFailed(f"The model {body['model']} cannot be loaded. {reason}")
    if body["model"] == "demo":
        raise CheckWarned(
            f"{setup.backend_url} serves demo, a toy that knows drawn scenes alone: set MODEL for "
            "real work."
        )
    return f"{setup.backend_url} serves {body['model']}, {body.get('state')}."


def check_prediction(setup: Setup) -> str:
    body = {"tasks": [setup.task], "label_config": setup.xml, "project": str(setup.project)}
    status, answer = setup.ask_backend("/predict", _PREDICT_TIMEOUT_S, **body)

    if status == 401:
        raise CheckFailed(
            "The backend has another user name and password than these settings. Set "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS as the backend has them."
        )

    if status != 200 or len(answer.get("results", ())) != 1:
        raise CheckFailed(
            f"/predict answers HTTP {status}: {answer.get('error', '')} Do what that says, and "
            "look into the backend's log."
        )

    (entry,) = answer["results"]
    if not entry:
        raise CheckFailed(
            f"Task {setup.task['id']} has no prediction. The backend's log says why, with the "
            "task's number."
        )

    regions = quantity(len({region["id"] for region in entry["result"]}), "region")
    return f"Task {setup.task['id']} has a prediction of {regions} by {entry['model_version']!r}."


# ---- all of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One check of a set-up.

    Another package adds one: a value of this class, named by an entry point of the group
    ``clearclip.checks`` under its name. It comes after those of this file.

    Attributes:
        name: in one or two words, at most 13 letters.
        make: makes the check, and returns what is well, in a sentence; raises `CheckFailed` or
            `CheckWarned` with what is not, and what to do.
        needs: names of checks that must be well before this one is made.
        needs_project: whether it is made of a project only.
    """

    name: str
    make: Callable[[Setup], str]
    needs: tuple[str, ...] = ("project",)
    needs_project: bool = True


#: The checks of this file, in their order.
_OWN: Final = (
    Check("label studio", check_label_studio, needs=(), needs_project=False),
    Check("settings", check_settings, needs=("label studio",), needs_project=False),
    Check("project", check_project, needs=("label studio",)),
    Check("labeling config", check_label_config),
    Check("connection", check_connection),
    Check("smart tools", check_smart_tools, needs=("connection", "labeling config")),
    Check("backend", check_backend, needs_project=False),
    Check("pictures", check_pictures, needs=("labeling config",)),
    Check("prediction", check_prediction, needs=("backend", "pictures")),
    Check("annotations", check_annotations),
)


def _expect_check(name: str, found: object) -> Check:
    if not isinstance(found, Check):
        raise TypeError("is no Check")
    if found.name != name:
        raise TypeError(f'calls itself "{found.name}": give both one name')
    return found


#: All checks by name, also those of other packages.
_CHECKS: Final = Registry(
    "clearclip.checks", "check", {each.name: each for each in _OWN}, _expect_check
)


def checks_of(project: int | None) -> list[Check]:
    """Return the checks of a project in their order; None: those that need no project."""
    return [each for each in _CHECKS.all() if project or not each.needs_project]


def check_setup(
    settings: Settings, project: int | None, *, backend_url: str | None = None
) -> Iterator[CheckResult]:
    """Make all checks of a set-up; leave out what needs a failed one.

    Args:
        settings: those of the backend.
        project: number of the project; None: what needs no project is checked.
        backend_url: address of the backend from here; by default the one that Label Studio has.

    >>> from backend.settings import load_settings
    >>> print(next(check_setup(load_settings(), 7)))  # doctest: +ELLIPSIS
    FAIL  label studio     LABEL_STUDIO_URL is not set. Set it to the address at which ...
    """
    setup = Setup(settings, project or 0, backend_url)
    checks = checks_of(project)
    open_ = {each.name for each in checks}  # those that are not well, or not made yet
    for check in checks:
        missing = [need for need in check.needs if need in open_]
        if missing:
            reason = f"Not checked: {' and '.join(missing)} must be well first."
            yield CheckResult(check.name, "-", reason)
            continue

        result = _make_check(check, setup)
        yield result
        if result.mark != "FAIL":
            open_.remove(check.name)


def _make_check(check: Check, setup: Setup) -> CheckResult:
    """Make a check; what it does not expect costs it alone."""
    try:
        return CheckResult(check.name, "ok", check.make(setup))
    except CheckWarned as warned:
        return CheckResult(check.name, "warn", str(warned))
    except (CheckFailed, BackendError) as failed:
        return CheckResult(check.name, "FAIL", str(failed))
    except Exception as error:  # a check of another package may raise anything
        log.exception("The check %s has failed", check.name)
        reason = f"The check itself has failed ({type(error).__name__}): see the backend's log."
        return CheckResult(check.name, "FAIL", reason)


# ---- as a run ------------------------------------------------------------------------------------


class AskedChecks(msgspec.Struct, frozen=True):
    """What came before the checks, in sentences for people; empty where nothing did."""

    said: str = ""

    def results(self) -> list[CheckResult]:
        """Return what came before, as the first result; nothing where nothing did."""
        return [CheckResult("set up", "warn", self.said)] if self.said else []


class Checks(msgspec.Struct, frozen=True):
    """The results of all checks of a project."""

    results: list[CheckResult]

    @property
    def n_failed(self) -> int:
        return sum(each.mark == "FAIL" for each in self.results)


def _make(parts: RunParts, run: Run, asked: AskedChecks, progress: Progress) -> Checks:
    """Make the checks from the backend itself."""
    here = own_address(parts.settings, is_here=True)
    results = asked.results()
    n_checks = len(checks_of(run.project))
    for done, found in enumerate(check_setup(parts.settings, run.project, backend_url=here), 1):
        results.append(found)
        progress(done, n_checks)
    return Checks(results)


CHECKS: Final = RunKind(
    "checks",
    "Checks of the set-up",
    "The set-up is checked in Label Studio",
    AskedChecks,
    Checks,
    _make,
    needs_model=False,
)
