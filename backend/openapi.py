"""The description of the routes that the backend serves, as OpenAPI 3.1."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from backend.plots import PLOTS
from backend.tutor import TURNS

Json = dict[str, Any]


def description(locked: bool = False) -> Json:
    """Describe the routes.

    Args:
        locked: whether they ask for a user name and a password.

    Returns:
        A new dictionary, as JSON has it.

    >>> sorted(description()["paths"]["/jobs"])
    ['get', 'post']
    """
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "ClearCLIP for Label Studio",
            "version": _version(),
            "description": "A Label Studio ML backend. Errors are one sentence each.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/": {"get": _page(_operation("Is it up? For browsers, the page.", _HEALTH))},
            "/health": {"get": _operation("Is it up? Never asks for a password.", _HEALTH)},
            "/setup": {"post": _setup()},
            "/predict": {"post": _predict()},
            "/webhook": {"post": _webhook()},
            "/versions": {
                method: _operation("Model and method.", _object(versions=_list(_STRING)))
                for method in ("get", "post")
            },
            "/ready": {"get": _ready()},
            "/status": {"get": _operation("All that can be seen.", {"type": "object"})},
            "/metrics": {"get": _metrics()},
            "/jobs": {"get": _jobs(), "post": _start_job()},
            "/jobs/{job}": {
                "get": _page(_of_job(_operation("A job and its failures.", _JOB))),
                "delete": _of_job(_operation("Cancel a job.", _JOB, _403=_CROSS_SITE, _409=_OVER)),
            },
            "/jobs/{job}/{turn}": {"post": _turn_job()},
            "/projects/{project}/report": {
                "get": _page(_report("What the prelabels save.", _REPORT))
            },
            "/projects/{project}/report.json": {"get": _report("The same as JSON.", _REPORT)},
            "/projects/{project}/report.csv": {"get": _report("The same as a table.", "text/csv")},
            "/projects/{project}/report/{plot}.svg": {"get": _plot()},
            "/projects/{project}/learning": {
                "get": _page(_of_project(_operation("What a project has learned.", _LEARNED)))
            },
            "/projects/{project}/learning/{turn}": {"post": _steer()},
            "/projects/{project}/learning/version": {
                "get": _of_project(
                    _operation("The live version, as a file.", _VERSION_FILE, _409=_NOT_SO)
                ),
                "post": _bring(),
            },
            "/openapi.json": {"get": _operation("This description.", {"type": "object"})},
        },
        "components": {"schemas": {"Error": _ERROR}},
    }
    if locked:
        _lock(described)
    return described


def _version() -> str:
    try:
        return version("clearclip-label-studio")
    except PackageNotFoundError:  # run from its folder
        return "0"


def _object(*, required: tuple[str, ...] | None = None, **properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


_STRING: Json = {"type": "string"}
_ERROR = _object(error={"type": "string", "description": "What is wrong, and what to do."})
_HEALTH = _object(
    status={"const": "UP"},
    model=_STRING,
    state={"enum": ["loading", "ready", "failed"]},
)
_PROJECT: Json = {
    "type": ["string", "integer", "null"],
    "description": "Its number, or <number>.<time of creation>.",
    "examples": ["7.1700000000"],
}
_LABEL_CONFIG: Json = {
    "type": "string",
    "description": "The project's labeling config.",
    "examples": [
        '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
        '<Label value="sky"/></BrushLabels></View>'
    ],
}


_JOB = _object(
    required=("id", "project", "state", "done", "skipped", "failed"),
    id={"type": "integer"},
    project={"type": "integer"},
    state={"enum": ["queued", "running", "paused", "cancelled", "done", "failed"]},
    total={"type": ["integer", "null"]},
    done={"type": "integer"},
    skipped={"type": "integer"},
    failed={"type": "integer"},
    remaining={"type": ["integer", "null"]},
    rate={"type": "number", "description": "Predictions a second."},
    eta_s={"type": ["number", "null"]},
)
_NUMBER: Json = {"type": "integer", "minimum": 1, "maximum": 999_999_999}


def _operation(summary: str, answer: Json, body: Json | None = None, **errors: str) -> Json:
    """One method of a path; `errors` are named by their status, `_400`."""
    described: Json = {
        "summary": summary,
        "responses": {"200": _answers("It is done.", answer)},
    }
    for status, reason in errors.items():
        schema = {"$ref": "#/components/schemas/Error"}
        described["responses"][status.strip("_")] = _answers(reason, schema)
    if body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return described


def _answers(reason: str, schema: Json) -> Json:
    return {"description": reason, "content": {"application/json": {"schema": schema}}}


_UNREADABLE = "No JSON object, or a label config that asks for nothing that can be drawn."
_TOO_SLOW = "The body did not arrive within REQUEST_TIMEOUT_S."
_TOO_LARGE = "The body is larger than MAX_BODY_MB."
_NO_MODEL = "The model cannot be loaded."
_BUSY = "Too much is asked for at once: come again after Retry-After seconds."


_NO_PROJECT = "No number of a project, or a value that cannot be."
_CROSS_SITE = "A browser has sent this for a page of another site."
_NO_JOB = "There is no job of that number."
_OVER = "The job is over."
_HTML: Json = {"text/html": {"schema": _STRING}}


def _page(described: Json) -> Json:
    """The same for browsers, which get a page."""
    described["responses"]["200"]["content"] |= _HTML
    return described


_FIGURES = _object(
    required=("annotations", "total", "labels", "seconds"),
    name={"type": "string", "description": "The first day of a period, or a model version."},
    annotations={"type": "integer", "description": "How many of them are compared."},
    total={"type": "object"},
    labels={"type": "object", "description": "By the name of a label, as `total`."},
    seconds={"type": "object"},
)
_REPORT = _object(
    required=(
        "project",
        "annotations",
        "all",
        "periods",
        "versions",
        "harmful",
        "missing",
        "definitions",
    ),
    project={"type": "integer"},
    annotations={"type": "object", "description": "How many there are of each kind."},
    waiting={"type": "integer", "description": "How many are still to be read."},
    all=_FIGURES,
    step={"enum": ["day", "week"]},
    periods=_list(_FIGURES),
    versions=_list(_FIGURES),
    harmful={"type": "object", "description": "Labels that cost more than they save: what to do."},
    missing={"type": "object", "description": "Labels that are mostly missed: what to do."},
    broken={"type": "object", "description": "Annotations that cannot be read: why."},
    definitions={"type": "object", "description": "What each figure is."},
)


def _report(summary: str, answer: Json | str) -> Json:
    """A part of the report; `answer` is a schema, or a type of text."""
    step = "A step that is none."
    described = _operation(summary, _STRING if isinstance(answer, str) else answer, _400=step)
    if isinstance(answer, str):
        described["responses"]["200"]["content"] = {answer: {"schema": _STRING}}
    number: Json = {"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1}
    described["parameters"] = [
        {"name": "project", "in": "path", "required": True, "schema": number},
        {"name": "step", "in": "query", "schema": {"enum": ["day", "week"]}},
        {"name": "label", "in": "query", "schema": _STRING, "description": "This one only."},
    ]
    return described


def _plot() -> Json:
    described = _report("A plot of it, as a file.", "image/svg+xml")
    plot: Json = {"enum": list(PLOTS)}
    described["parameters"].append({"name": "plot", "in": "path", "required": True, "schema": plot})
    schema = {"$ref": "#/components/schemas/Error"}
    described["responses"]["404"] = _answers("There is nothing yet that it could show.", schema)
    return described


_SHARE: Json = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_SHARES: Json = {"type": "object", "description": "By the name of a label."}
_COUNT: Json = {"type": "integer", "minimum": 0, "maximum": (1 << 31) - 1}
_LEARNED_VERSION = _object(
    required=("number", "annotations", "better", "live"),
    number=_COUNT,
    annotations={"type": "integer", "description": "How many it has learned from."},
    pictures=_COUNT,
    better={"type": "boolean", "description": "Whether it is at least as good as the words alone."},
    live={"type": "boolean", "description": "Whether predictions use it."},
    text_iou=_SHARE,
    adapted_iou=_SHARE,
    thresholds=_SHARES,
    created={"type": "number"},
)
_LEARNED = _object(
    required=("project", "live", "pinned", "changed", "versions", "labels"),
    project=_COUNT,
    live={"type": ["integer", "null"], "description": "The version in use; null: words alone."},
    pinned={"type": "boolean"},
    changed={"type": "integer", "description": "Annotations that changed since the last step."},
    annotations=_COUNT,
    pictures=_COUNT,
    versions=_list(_LEARNED_VERSION),
    labels={"type": "object", "description": "Thresholds that corrections suggest, by label."},
)
_VERSION_FILE = _object(
    required=("format", "model", "adaptation"),
    format={"const": 1},
    model={"type": "object"},
    adaptation={"type": ["string", "null"]},
)
_NOT_SO = "It is pinned, or there is nothing to learn or go back to."
_UNFIT = "No such body, or what was learned with another model."


def _of_project(described: Json) -> Json:
    number: Json = {"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1}
    described["parameters"] = [
        {"name": "project", "in": "path", "required": True, "schema": number}
    ]
    return described


def _steer() -> Json:
    body = _object(
        required=(),
        number={"type": "integer", "minimum": 0, "maximum": 999_999_999},
        keep_evidence={"type": "boolean"},
    )
    described = _of_project(
        _operation(
            "Let a project learn now, stay, move again, go back, or forget.",
            _LEARNED,
            body | {"additionalProperties": False},
            _400=_UNFIT,
            _403=_CROSS_SITE,
            _408=_TOO_SLOW,
            _409=_NOT_SO,
            _413=_TOO_LARGE,
        )
    )
    turns: Json = {"enum": list(TURNS)}
    described["parameters"].append(
        {"name": "turn", "in": "path", "required": True, "schema": turns}
    )
    described["requestBody"]["required"] = False
    return described


def _bring() -> Json:
    return _of_project(
        _operation(
            "Take a version that was exported, and use it.",
            _LEARNED,
            _VERSION_FILE,
            _400=_UNFIT,
            _403=_CROSS_SITE,
            _408=_TOO_SLOW,
            _409=_NOT_SO,
            _413=_TOO_LARGE,
        )
    )


def _ready() -> Json:
    state = _object(state=_STRING, reason=_STRING)
    described = _operation("Is the model loaded?", state)
    described["responses"]["503"] = _answers("Not yet, or it cannot be.", state)
    return described


def _metrics() -> Json:
    described = _operation("For Prometheus.", _STRING)
    described["responses"]["200"]["content"] = {"text/plain": {"schema": _STRING}}
    return described


def _jobs() -> Json:
    described = _operation("The newest jobs.", _object(jobs=_list(_JOB)), _400=_NO_PROJECT)
    described["parameters"] = [{"name": "project", "in": "query", "schema": _NUMBER}]
    return described


def _start_job() -> Json:
    body = _object(
        required=("project",),
        project=_NUMBER,
        filter={"enum": ["unlabeled", "all"]},
        view=_NUMBER,
        limit=_NUMBER,
    )
    described = _operation(
        "Prelabel a project.", _JOB, body, _400=_NO_PROJECT, _403=_CROSS_SITE, _413=_TOO_LARGE
    )
    described["responses"]["201"] = described["responses"].pop("200")
    return _as_form(described, body)


def _turn_job() -> Json:
    described = _operation("Steer a job.", _JOB, _403=_CROSS_SITE, _409=_OVER)
    turn: Json = {"enum": ["pause", "resume", "cancel"]}
    described["parameters"] = [{"name": "turn", "in": "path", "required": True, "schema": turn}]
    described["requestBody"] = {"content": {}}
    return _as_form(_of_job(described), {"type": "object"})


def _of_job(described: Json) -> Json:
    number: Json = {"name": "job", "in": "path", "required": True, "schema": _NUMBER}
    described["parameters"] = [number, *described.get("parameters", ())]
    described["responses"]["404"] = _answers(_NO_JOB, {"$ref": "#/components/schemas/Error"})
    return described


def _as_form(described: Json, body: Json) -> Json:
    """The same as a form of the page sends it, which leads back there."""
    described["requestBody"]["content"]["application/x-www-form-urlencoded"] = {"schema": body}
    for status, answer in described["responses"].items():
        if status >= "400":
            answer["content"] |= _HTML
    described["responses"]["303"] = {"description": "To the page."}
    return described


def _setup() -> Json:
    body = _object(
        required=("schema",),
        schema=_LABEL_CONFIG,
        project=_PROJECT,
        hostname={"type": "string", "description": "Label Studio's own address."},
        access_token={"type": "string", "description": "A token for that address."},
    )
    return _operation(
        "A project introduces itself.",
        _object(model_version=_STRING),
        body,
        _400=_UNREADABLE,
        _408=_TOO_SLOW,
        _413=_TOO_LARGE,
        _503=_NO_MODEL,
    )


def _predict() -> Json:
    task = _object(
        required=("data",),
        id={"type": ["integer", "string", "null"]},
        project={"type": ["integer", "null"]},
        data={"type": "object", "description": "What the label config's variables stand for."},
    )
    context: Json = {
        "type": ["object", "null"],
        "description": "What an annotator just drew or typed, waiting for an answer.",
        "properties": {"result": _list({"type": "object"})},
        "required": ["result"],
    }
    body = _object(
        required=("tasks", "label_config"),
        tasks=_list(task),
        label_config=_LABEL_CONFIG,
        project=_PROJECT,
        params={"type": ["object", "null"], "properties": {"context": context}},
    )
    prediction = _object(
        required=("result",),
        model_version=_STRING,
        score={"type": "number", "minimum": 0, "maximum": 1},
        result=_list({"type": "object"}),
    )
    none: Json = {"type": "array", "maxItems": 0, "description": "Ask for this task again."}
    results = _list({"anyOf": [prediction, none]})
    return _operation(
        "Masks for tasks, one entry a task, in their order.",
        _object(results=results),
        body,
        _400=_UNREADABLE,
        _408=_TOO_SLOW,
        _413=_TOO_LARGE,
        _429=_BUSY,
        _503=_NO_MODEL,
    )


def _webhook() -> Json:
    status = {"enum": ["queued", "noted", "ignored"]}
    answer = _object(required=("status",), status=status, job={"type": "integer"})
    described = _operation(
        "Something happened in a project.", answer, _400=_UNREADABLE, _413=_TOO_LARGE
    )
    described["requestBody"] = {"content": {"application/json": {"schema": {}}}}
    return described


def _lock(described: Json) -> None:
    """Ask for a password everywhere but for health; the webhook has a token of its own, too."""
    described["components"]["securitySchemes"] = {
        "basic": {"type": "http", "scheme": "basic"},
        "webhook": {"type": "http", "scheme": "bearer"},
        "webhookAddress": {"type": "apiKey", "in": "query", "name": "token"},
    }
    password: list[Json] = [{"basic": []}]
    token: list[Json] = [{"webhook": []}, {"webhookAddress": []}]
    refusal = _answers("The password is missing or wrong.", {"$ref": "#/components/schemas/Error"})
    for path, methods in described["paths"].items():
        for operation in methods.values():
            if path == "/health":
                operation["security"] = []
                continue
            operation["security"] = password + (token if path == "/webhook" else [])
            operation["responses"]["401"] = refusal
