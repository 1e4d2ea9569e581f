"""``clearclip-backend adapt``: see and steer what a project has learned from its corrections."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from backend.cli.options import (
    MODEL_SETTINGS,
    NUMBER_OR_ZERO,
    Command,
    check_model,
    project_option,
    stopped_by_signals,
    with_settings,
)
from backend.cli.report import read_annotations
from backend.label_studio.client import required_client
from backend.services import Services
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.learning.learner import Learner

#: The settings that name the model and the database.
_LEARNING_SETTINGS = (
    "model",
    "method",
    "second_model",
    "second_short_side_px",
    "short_side_px",
    "model_dir",
    "database_url",
    "adapt",
)


@click.group("adapt")
def adapt_group() -> None:
    """See and steer what a project has learned from its corrections.

    Give it the settings of the backend, above all MODEL and DATABASE_URL.
    """


def _learner_command(name: str) -> Callable[[Command], Command]:
    """Make a command of `adapt` whose first arguments are the services and the project.

    It loads no model, and prints what the project has learned then.
    """

    def add(command: Command) -> Command:
        @with_settings(*_LEARNING_SETTINGS)
        @wraps(command)
        def run(settings: Settings, project: int, **own: Any) -> None:
            services = Services(settings)
            services.database.check()
            command(services, project, **own)
            _print_status(services.learner, project)

        return adapt_group.command(name)(project_option(run))

    return add


@_learner_command("status")
def status(_services: Services, _project: int) -> None:
    """Show what a project has learned, and its versions."""


@_learner_command("use")
@click.argument("number", type=NUMBER_OR_ZERO)
def use(services: Services, project: int, number: int) -> None:
    """Use the version of that number, 0: the words alone; pin it, unless adapt is ask."""
    services.learner.use(project, number)


@_learner_command("unpin")
def unpin(services: Services, project: int) -> None:
    """Let new versions go live again."""
    services.learner.versions.unpin(project)


@_learner_command("keep-words")
@click.argument("label")
@click.option("--learn-again", is_flag=True, help="Take that back.")
def keep_words(services: Services, project: int, label: str, learn_again: bool) -> None:
    """Leave LABEL as the words have it, from the next version on."""
    client = None if learn_again else services.page_client
    if client and label not in (names := client.config(project).names):
        raise ValueError(f"Project {project} has no label {label!r}, but {', '.join(names)}.")
    services.learner.versions.keep_words(project, label, kept=not learn_again)


@_learner_command("without")
@click.argument("person")
@click.option("--learn-again", is_flag=True, help="Take that back.")
def without(services: Services, project: int, person: str, learn_again: bool) -> None:
    """Learn without the annotations of PERSON, whom a version names, from the next version on."""
    services.learner.versions.leave_out(project, person, left_out=not learn_again)


@_learner_command("reset")
def reset(services: Services, project: int) -> None:
    """Delete all versions, and what annotations have taught; `adapt step` reads them again."""
    services.learner.versions.reset(project)


@adapt_group.command()
@project_option
@with_settings(*MODEL_SETTINGS)
def step(settings: Settings, project: int) -> None:
    """Learn from all corrections of a project now: read those that are new, and make a version.

    A backend that serves does so by itself, see ADAPT_EVERY.
    """
    services = Services(settings)
    client = required_client(services.client, "Annotations are read from Label Studio")
    check_model(settings)
    with ExitStack() as stack:
        services.database.check()
        learner = services.learner
        learner.check()
        client.label_config(project)  # raises now where there is none: the model takes seconds
        engine = stack.enter_context(services.engine)
        engine.segmenter()  # raises now where no model can be loaded: learning needs one
        stack.enter_context(stopped_by_signals(services.stopping))
        if not learner.versions.state(project).annotations:  # of this model, or since a reset
            services.annotations.mark_all(project)
        read_annotations(services, client, project, learner)
        if services.stopping.is_set():
            raise SystemExit(130)
        learner.step(project, client)
        _print_status(learner, project)


def _print_status(learner: Learner, project: int) -> None:
    from backend.views.learned import LearningView
    from backend.views.learned_text import learned_text

    click.echo(learned_text(LearningView.read(learner, project)))
