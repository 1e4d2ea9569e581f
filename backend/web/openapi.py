"""Describe all routes as OpenAPI 3.1: what `openapi.yaml` says, and the structs of runs."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

import msgspec
import yaml

from backend.runs.kinds import KINDS
from backend.runs.run import Run, RunKind


def description(has_password: bool = False) -> dict[str, Any]:
    """Describe the routes.

    Args:
        has_password: whether the routes ask for a user name and a password.

    Returns:
        A new JSON object, which the caller may change.

    >>> sorted(description()["paths"]["/jobs"])
    ['get', 'post']
    """
    described = deepcopy(_read())
    del described["x-shared"]
    del described["x-run"]
    password = described.pop("x-password")
    described["info"]["version"] = _version()
    if has_password:
        _add_password(described, password)
    return described


@cache
def _read() -> dict[str, Any]:
    text = (files("backend") / "web" / "openapi.yaml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.safe_load(text)
    for kind in KINDS:
        _add_run(read, kind)
    return read


def _add_run(read: dict[str, Any], kind: RunKind[Any, Any]) -> None:
    """Add the routes of a kind of run, and the schemas of its structs."""
    template = "#/components/schemas/{name}"
    refs, schemas = msgspec.json.schema_components(
        (kind.asked, kind.report, Run), ref_template=template
    )
    read["components"]["schemas"] |= schemas
    text = json.dumps(read["x-run"]["paths"])
    for name, ref in zip(("ASKED", "REPORT"), refs, strict=False):
        text = text.replace(f'"{name}"', json.dumps(ref["$ref"]))
    for end, operations in json.loads(text).items():
        if end != "/view" or kind.tasks is not None:
            read["paths"][f"/projects/{{project}}/{kind.name}{end}"] = operations


def _version() -> str:
    try:
        return version("clearclip-label-studio")
    except PackageNotFoundError:  # not installed: run from the repository
        return "0"


def _add_password(described: dict[str, Any], password: dict[str, Any]) -> None:
    """Ask for the password on all routes but ``/health`` and ``/webhook``."""
    described["components"]["securitySchemes"] = password["securitySchemes"]
    basic: list[dict[str, Any]] = [{"basic": []}]
    for path, methods in described["paths"].items():
        for operation in methods.values():
            if path in ("/health", "/webhook"):
                operation["security"] = []
                continue
            operation["security"] = basic
            operation["responses"]["401"] = password["refusal"]
            operation["responses"].setdefault("429", password["guesses"])
