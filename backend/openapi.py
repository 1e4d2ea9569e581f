"""The description of the routes that the backend serves, as OpenAPI 3.1."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

Json = dict[str, Any]


def description(locked: bool = False) -> Json:
    """Describe the routes.

    Args:
        locked: whether they ask for a user name and a password.

    Returns:
        A new dictionary, as JSON has it.

    >>> sorted(description()["paths"])
    ['/', '/health', '/openapi.json', '/predict', '/setup', '/versions', '/webhook']
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
            "/": {"get": _operation("Is it up?", _HEALTH)},
            "/health": {"get": _operation("Is it up? Never asks for a password.", _HEALTH)},
            "/setup": {"post": _setup()},
            "/predict": {"post": _predict()},
            "/webhook": {"post": _webhook()},
            "/versions": {
                method: _operation("Model and method.", _object(versions=_list(_STRING)))
                for method in ("get", "post")
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
    described = _operation("Something happened in a project.", _object(status=_STRING))
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
