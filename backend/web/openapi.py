"""Describe all routes as OpenAPI 3.1, from the routes and the structs that they take and answer."""

from __future__ import annotations

import re
from importlib.metadata import version
from inspect import getdoc
from typing import Any, Final

import msgspec
from flask import Flask
from werkzeug.routing import Rule

from backend.runs.kinds import KINDS
from backend.runs.run import Run
from backend.web.middleware.auth import OPEN_ROUTES
from backend.web.pages.forms import ActionRequest, Confirmation, JobRequest, RowRequest

_PACKAGE: Final = "clearclip-label-studio"

_TASKS: Final = {"type": "array", "items": {"type": "object"}}
_TEXT: Final = {"type": "string"}

#: Path -> the JSON schema of its body, where no struct of the pages is it.
_BODIES: Final = {
    "/setup": {"type": "object", "required": ["schema"], "properties": {"schema": _TEXT}},
    "/predict": {
        "type": "object",
        "required": ["tasks", "label_config"],
        "properties": {"tasks": _TASKS, "label_config": _TEXT, "params": {"type": "object"}},
    },
    "/webhook": {"type": "object", "properties": {"project": {"type": "object"}}},
}
_STRUCTS: Final[dict[str, type[msgspec.Struct]]] = {
    "/jobs": JobRequest,
    "/projects/{project}/learning/{action}": ActionRequest,
    "/projects/{project}/label-errors/confirm": Confirmation,
    "/projects/{project}/label-errors/take-back": Confirmation,
    "/projects/{project}/words/{run}/use": RowRequest,
    **{f"/projects/{{project}}/{kind.name}": kind.asked for kind in KINDS},
}

#: A part of a route: the name of its converter, what that is given, and the name of the parameter.
_PARAMETER: Final = re.compile(r"<(int|any)\(([^)]*)\):(\w+)>")


def description(app: Flask, *, has_password: bool) -> dict[str, Any]:
    """Describe the routes of an application.

    Args:
        has_password: whether the routes ask for a user name and a password.
    """
    reports = {f"/projects/{{project}}/{kind.name}": kind.report for kind in KINDS}
    structs = (*_STRUCTS.values(), Run, *reports.values())
    template = "#/components/schemas/{name}"
    refs, schemas = msgspec.json.schema_components(structs, ref_template=template)
    bodies = _BODIES | dict(zip(_STRUCTS, refs, strict=False))
    answers = dict(zip(reports, refs[-len(reports) :], strict=True))
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "ClearCLIP for Label Studio", "version": version(_PACKAGE)},
        "paths": {},
        "components": {"schemas": schemas},
    }
    for rule in app.url_map.iter_rules():
        path = _PARAMETER.sub(r"{\3}", rule.rule)
        operations = described["paths"].setdefault(path, {})
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            view = app.view_functions[rule.endpoint]
            operation = {
                "summary": (getdoc(view) or "").partition("\n")[0],
                "parameters": _parameters(rule),
                "responses": {"default": {"description": "See the page on the HTTP API."}},
            }
            if method == "POST" and path in bodies:
                body = {"application/json": {"schema": bodies[path]}}
                operation["requestBody"] = {"content": body}
            if method == "GET" and path in answers:
                report = {"anyOf": [answers[path], {"type": "null"}]}
                schema = {"type": "object", "properties": {"report": report}}
                content = {"application/json": {"schema": schema}}
                operation["responses"] = {"200": {"description": "The runs.", "content": content}}
            if has_password and path not in OPEN_ROUTES:
                operation["security"] = [{"basic": []}]
            operations[method.lower()] = operation
    if has_password:
        scheme = {"basic": {"type": "http", "scheme": "basic"}}
        described["components"]["securitySchemes"] = scheme
    return described


def _parameters(rule: Rule) -> list[dict[str, Any]]:
    """Describe the parameters of a route's path."""
    found = []
    for converter, given, name in _PARAMETER.findall(rule.rule):
        schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
        if converter == "any":
            schema = {"enum": re.findall(r"[\w-]+", given)}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    return found
