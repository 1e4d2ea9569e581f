"""Serve the record of a task, as a page and as JSON, and its picture with its masks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from flask import Blueprint, Response

from backend.errors import NotFound
from backend.label_studio.client import required_client
from backend.services import Services
from backend.views.task_record import task_record
from backend.web.middleware.errors import json_response
from backend.web.pages.forms import PROJECT, URL_NUMBER
from backend.web.pages.html import html_page, is_for_people

_USE: Final = "Pictures are read from Label Studio"
_TASK: Final = f"{PROJECT}/tasks/<{URL_NUMBER}:task>"


@dataclass(frozen=True, eq=False)
class TaskRoutes:
    """Answer ``/projects/<id>/tasks/<id>``."""

    services: Services
    draw: Callable[[int, int, int], Response]  # draws a task's prediction: `ReviewRoutes.picture`

    def blueprint(self) -> Blueprint:
        routes = Blueprint("task", __name__)
        routes.add_url_rule(_TASK, "page", self.page, methods=["GET"])
        routes.add_url_rule(f"{_TASK}/picture", "picture", self.picture, methods=["GET"])
        return routes

    def page(self, project: int, task: int) -> Response:
        """Answer a browser with the page, and a program with the record as JSON."""
        record = task_record(self.services, project, task)
        if record is None:
            raise NotFound(f"Project {project} has no task {task}, or has it no more.")
        if not is_for_people():
            return json_response(msgspec.to_builtins(record))
        return html_page("task.html", record=record)

    def picture(self, project: int, task: int) -> Response:
        """Answer with the picture of a task and the masks of its newest prediction, as a JPEG."""
        contents = required_client(self.services.page_client, _USE).contents(task)
        newest = max((each.id for each in contents.predictions), default=0) if contents else 0
        if not newest:
            raise NotFound(f"Task {task} has no prediction, or has it no more.")
        return self.draw(project, task, newest)
