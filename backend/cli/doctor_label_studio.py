"""The checks of Label Studio: its token, the project, the connection, and pictures of the tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree.ElementTree import Element

import requests
from defusedxml.ElementTree import fromstring

from backend.cli.doctor_context import (
    TIMEOUT_S,
    CheckContext,
    CheckFailed,
    CheckWarned,
    MlBackend,
    json_object,
)
from backend.errors import BackendError
from backend.label_studio.label_config import CONTROL_KINDS, ControlKind
from backend.label_studio.label_config_parser import attribute_of, parse_label_config
from backend.label_studio.records import ProjectRow, SummaryRow, TaskPage, TitlePage, UserRow
from backend.label_studio.requests import Task
from backend.label_studio.tokens import token_kind
from backend.label_studio_services import LabelStudioServices
from clearclip_core.quantities import quantity

#: States of a connection, as Label Studio's API has them.
_CONNECTED: Final = "CO"
_DISCONNECTED: Final = "DI"

_PROJECTS_SHOWN: Final = 20


def check_settings(context: CheckContext) -> str:
    """Check that the settings name Label Studio and a token."""
    if not context.settings.label_studio_url:
        raise CheckFailed(
            "LABEL_STUDIO_URL is not set.",
            "Set it to the address at which this machine reaches Label Studio.",
        )
    if not context.settings.label_studio_api_key:
        raise CheckFailed(
            "LABEL_STUDIO_API_KEY is not set.",
            "Make a token in Label Studio under Account & Settings and set it.",
        )
    locked = "basic auth is on" if context.auth else "no basic auth, anybody may ask the backend"
    return f"LABEL_STUDIO_URL is {context.studio_url}; {locked}."


def check_label_studio(context: CheckContext) -> str:
    """Check that Label Studio answers at its address."""
    url = f"{context.studio_url}/api/version/"
    try:
        response = requests.get(url, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise CheckFailed(
            f"{context.studio_url} cannot be reached from here ({type(error).__name__}).",
            "Start Label Studio, or correct LABEL_STUDIO_URL; inside of containers localhost is "
            "the container itself.",
        ) from None
    release = json_object(response).get("release")
    if not isinstance(release, str):
        raise CheckFailed(
            f"{url} answers HTTP {response.status_code}, but not as Label Studio does.",
            "Correct LABEL_STUDIO_URL: another server is there, or it lacks a path.",
        )
    return f"{context.studio_url} is Label Studio {release}."


def check_token_works(context: CheckContext) -> str:
    """Check that Label Studio accepts the token, and that it lasts."""
    key = context.settings.label_studio_api_key
    kind = token_kind(key.get_secret_value() if key else "")
    advice = {
        "legacy": "Copy it again from Account & Settings: Reset there makes a new one, and the old "
        "one is refused. Or legacy tokens are off, as in new organizations: switch them on under "
        "Organization, API Tokens Settings, or set LABEL_STUDIO_API_KEY to a personal access "
        "token.",
        "personal": "Make a new personal access token and set LABEL_STUDIO_API_KEY.",
        "access": "That is a token which lives for minutes: set LABEL_STUDIO_API_KEY to the "
        "personal access token that it was made from.",
    }[kind]
    user = context.ask(
        lambda studio: studio.send("GET", "/api/current-user/whoami", UserRow),
        f"its {kind} token",
        advice,
    )
    if kind == "access":
        raise CheckFailed("The token ends within minutes.", advice)
    return f"The {kind} token is of {user.email}."


def check_project(context: CheckContext) -> str:
    """Check that the project exists, and read its labeling config."""
    project = context.ask(
        lambda studio: studio.send("GET", f"/api/projects/{context.project_id}/", ProjectRow),
        f"project {context.project_id}",
        "Give the number that stands in the project's address, and a token of one of its members.",
    )
    context.xml = project.label_config
    context.shows = project.model_version or ""
    return f"Project {context.project_id} is {project.title!r}."


def check_projects(context: CheckContext) -> str:
    """List projects, to choose one."""
    found = context.ask(
        lambda studio: studio.send(
            "GET", "/api/projects/", TitlePage, include="id,title", page_size=_PROJECTS_SHOWN
        ),
        "its projects",
        "The token's user must be a member of an organization.",
    )
    names = ", ".join(f"{each.id} ({each.title})" for each in found.results)
    more = found.count - len(found.results)
    if not names:
        return "Label Studio has no project yet."
    return f"Give --project to check one of: {names}{f' and {more} more' if more > 0 else ''}."


def check_labels(context: CheckContext) -> str:
    """Warn of regions whose label the config no longer has."""
    assert context.config is not None
    found = context.ask(
        lambda studio: studio.send(
            "GET", f"/api/projects/{context.project_id}/summary/", SummaryRow
        ),
        "the summary of the project",
        "The token's user must be a member of the project.",
    )
    unknown = context.config.unknown_labels(found.created_labels or {})
    if not unknown:
        return "The label config has the labels of all regions."
    names = ", ".join(f"“{label}” ({count})" for label, count in [*unknown.items()][:5])
    count = sum(unknown.values())
    raise CheckWarned(
        f"{quantity(count, 'region')} of annotations {'has' if count == 1 else 'have'} a label "
        f"that the config no longer has: {names}. They count nowhere.",
        f'If it was renamed, write the old name as alias: <Label value="NEW NAME" '
        f'alias="{next(iter(unknown))}"/>.',
    )


def check_label_config(context: CheckContext) -> str:
    """Check that the labeling config can be predicted."""
    try:
        context.config = config = parse_label_config(context.xml)
    except BackendError as error:
        raise CheckFailed(
            str(error), "Change it in the project's settings, under Labeling Interface."
        ) from None
    of_tasks = [
        f'<{element.tag} value="{value}">'
        for element in _elements(context)
        if element.tag.lower() in CONTROL_KINDS and (value := attribute_of(element, "value"))
    ]
    if of_tasks:
        raise CheckWarned(
            f"Labels that come from the task are not predicted: {', '.join(of_tasks)}.",
            "Write them as <Label> tags in the labeling config.",
        )
    names = ", ".join(f"“{label.name}”" for label in config.labels[:5])
    more = ", ..." if len(config.labels) > 5 else ""
    controls = quantity(len(config.controls), "control")
    return f"{controls}, {quantity(len(config.labels), 'label')}: {names}{more}."


def check_connection(context: CheckContext) -> str:
    """Check that Label Studio reaches the backend.

    When Label Studio lists backends, it asks each of them for health and setup.
    """
    connected = context.ask(
        lambda studio: studio.send("GET", "/api/ml/", list[MlBackend], project=context.project_id),
        "the project's backends",
        "The token's user must be a member of the project.",
    )
    if not connected:
        raise CheckFailed(
            "No backend is connected to the project.",
            "Connect this one in the project's settings, under Model, at an address that Label "
            "Studio reaches, such as http://localhost:9090.",
        )
    first = min(connected, key=lambda backend: backend.id)
    context.ml = first
    context.backend_url = context.backend_url or first.url
    if first.state == _CONNECTED and not context.shows:
        raise CheckWarned(
            f"Label Studio reaches {first.url}, but the project shows nobody's predictions.",
            "Choose the model in the project's settings, under Annotation, Prelabeling.",
        )
    if first.state == _CONNECTED:
        others = f", the first of {len(connected)}: only it is used" if len(connected) > 1 else ""
        return f"Label Studio reaches {first.url}{others}."
    if first.state == _DISCONNECTED:
        raise CheckFailed(
            f"Label Studio cannot reach {first.url} within a second.",
            "Start the backend there, or correct the address under Model: it is Label Studio that "
            "must reach it. For private addresses Label Studio needs ML_BLOCK_LOCAL_IP=false.",
        )
    message = str(first.error_message or "")
    if "401" in message:
        raise CheckFailed(
            f"{first.url} refuses what Label Studio sends as user name and password.",
            "Type BASIC_AUTH_USER and BASIC_AUTH_PASS into the Model dialog.",
        )
    raise CheckFailed(
        f"{first.url} refuses the project: {message[:300]}",
        "Do what that says, and run this again.",
    )


# ---- the labeling config ----------------------------------------------------------------------

#: Shapes whose labels Label Studio's exports lose beside ``<KeyPointLabels>``.
_SHAPES: Final[dict[ControlKind, str]] = {
    "polygonlabels": "PolygonLabels",
    "rectanglelabels": "RectangleLabels",
}


def check_smart_tools(context: CheckContext) -> str:
    """Check that Label Studio asks the backend where an annotator uses a smart tool."""
    tools = sorted({element.tag for element in _elements(context) if _is_smart(element)})
    if not tools:
        return "The label config has no smart tools."
    if context.ml.is_interactive is False:
        raise CheckFailed(
            f"Interactive preannotations are off, but the label config has smart tools "
            f"({', '.join(tools)}): they ask nothing.",
            "Switch them on in the project's settings, under Model, where you edit the connection.",
        )
    if context.config is not None and any(
        control.kind == "bitmasklabels" for control in context.config.controls
    ):
        raise CheckWarned(
            "<BitmaskLabels>: a click on a spot that a region covers asks nothing, nor with Ctrl.",
            "Use <BrushLabels> where people correct with clicks.",
        )
    return f"Interactive preannotations are on, for {', '.join(tools)}."


def check_exports(context: CheckContext) -> str:
    """Warn of controls whose labels Label Studio's own exports lose (seen in 1.23.2)."""
    assert context.config is not None
    drawn = {control.kind for control in context.config.controls}
    has_points = any(element.tag.lower() == "keypointlabels" for element in _elements(context))
    warnings, advice = [], []
    shapes = [f"<{name}>" for kind, name in _SHAPES.items() if kind in drawn]
    if shapes and has_points:
        lost = ", and its YOLO export leaves polygons out" if "polygonlabels" in drawn else ""
        warnings.append(
            f"<KeyPointLabels> beside {' and '.join(shapes)}: Label Studio's COCO export names "
            f'every label "default"{lost}.'
        )
        advice.append(
            "Export JSON and convert it with a label config without <KeyPointLabels>, or ask with "
            '<RectangleLabels smart="true"> in its place.'
        )
    if "bitmasklabels" in drawn:
        warnings.append(
            "<BitmaskLabels>: Label Studio's COCO, YOLO, PNG and NumPy exports have none of its "
            "masks, only JSON and CSV have."
        )
        advice.append("Use <BrushLabels> where you need PNG or NumPy.")
    if warnings:
        raise CheckWarned(" ".join(warnings), " ".join(advice))
    return "Label Studio's exports keep the labels of all controls."


def _elements(context: CheckContext) -> Iterator[Element]:
    root: Element = fromstring(context.xml.strip(), forbid_dtd=True)
    return root.iter()


def _is_smart(element: Element) -> bool:
    smart = {
        text.strip().lower()
        for name, text in element.attrib.items()
        if name.lower() in ("smart", "smartonly")
    }
    return "true" in smart


# ---- pictures ----------------------------------------------------------------------------------

#: Tasks that are asked for from each end of a project: what another storage has comes last.
_TASKS_AT_AN_END: Final = 25

#: Kinds of address of which a picture is read.
_MOST_KINDS: Final = 12

#: What addresses of one kind begin with: a scheme and a host or bucket, or a path's first folders.
_KIND: Final = re.compile(r"data:|[A-Za-z][A-Za-z0-9+.-]*://[^/?]*/?|/[^/?]*/[^/?]*/?")


def kind_of(source: str) -> str:
    """Return what all addresses of one kind begin with; the address itself where it is of none.

    >>> kind_of("https://host:81/a/b.png"), kind_of("s3://bucket/a.png"), kind_of("a.png")
    ('https://host:81/', 's3://bucket/', 'a.png')
    >>> kind_of("/data/upload/7/a.png"), kind_of("/data/local-files/?d=a.png")
    ('/data/upload/', '/data/local-files/')
    """
    found = _KIND.match(source)
    return found[0] if found else source


def check_images(context: CheckContext) -> str:
    """Check that a picture of each kind of address in the project can be read."""
    read: list[str] = []
    failures: list[str] = []
    images = LabelStudioServices(context.settings).images
    first, last = _tasks(context, "tasks:id"), _tasks(context, "-tasks:id")
    examples = _examples(context, [*first, *reversed(last)])
    for kind, (source, task) in [*examples.items()][:_MOST_KINDS]:
        try:
            rgb = images.read(source, task)
        except BackendError as error:
            failures.append(f"Task {task.id}: {error}")
            continue
        if not read:
            context.task = {"id": task.id, "project": context.project_id, "data": dict(task.data)}
        read.append(f"{kind} (task {task.id}, {rgb.shape[1]} x {rgb.shape[0]} px)")
    if failures:
        which = f"{len(failures)} of {len(read) + len(failures)} kinds of address cannot be read. "
        raise CheckFailed(
            (which if len(read) + len(failures) > 1 else "") + " ".join(failures),
            "The backend cannot read it either.",
        )
    return f"A picture of each kind of address can be read: {', '.join(read)}."


def _examples(context: CheckContext, tasks: Sequence[Task]) -> dict[str, tuple[str, Task]]:
    """Return the first address of each kind, with its task.

    Raises:
        CheckFailed: there is no task, or none has an address for one of the image tags.
    """
    assert context.config is not None
    if not tasks:
        raise CheckFailed("The project has no task yet.", "Import pictures, and run this again.")
    found: dict[str, tuple[str, Task]] = {}
    for tag in context.config.images:
        errors: list[str] = []
        for task in tasks:
            try:
                sources = [source.strip() for source in tag.sources(task.data)]
            except BackendError as error:
                errors.append(f"Task {task.id}: {error}")
                continue
            for source in sources:
                found.setdefault(kind_of(source), (source, task))
        if len(errors) == len(tasks):
            raise CheckFailed(errors[0], "The backend cannot read it either.")
    return found


def _tasks(context: CheckContext, order: str) -> list[Task]:
    """Return the first tasks of the project in an order of the data manager."""
    page = context.ask(
        lambda studio: studio.send(
            "GET",
            "/api/tasks/",
            TaskPage,
            project=context.project_id,
            page_size=_TASKS_AT_AN_END,
            fields="task_only",
            resolve_uri="false",
            query=json.dumps({"ordering": [order]}),
        ),
        "its tasks",
        "The token's user must be a member of the project.",
    )
    return [Task(row.id, context.project_id, row.data) for row in page.tasks]
