"""``clearclip-backend``: the group of all commands."""

from typing import Final

import click

from clearclip_core.cli.lazy_group import LazyGroup

#: The commands, in the order of the help.
BACKEND_COMMANDS: Final = {
    "serve": ("backend.cli.serve:serve", "Serve the backend for Label Studio."),
    "prelabel": (
        "backend.cli.prelabel:prelabel",
        "Predict all tasks of a project and write the predictions to Label Studio.",
    ),
    "withdraw": (
        "backend.cli.prelabel:withdraw",
        "Delete the predictions of a job again, where nobody has worked with them.",
    ),
    "report": (
        "backend.cli.report:report",
        "Report how much work the prelabels of a project save, and how many hours are left.",
    ),
    "task": ("backend.cli.task:task", "Say what has happened to a task."),
    "run": (
        "backend.cli.run:run",
        "Make a report on a project: words, label-errors, agreement, models, eval.",
    ),
    "adapt": (
        "backend.cli.adapt:adapt_group",
        "See and change what a project has learned from its corrections.",
    ),
    "database": (
        "backend.cli.database:database",
        "Back up and restore the database of the backend.",
    ),
    "connect": (
        "backend.cli.connect:connect",
        "Connect the running backend to projects, and prelabel them.",
    ),
    "doctor": (
        "backend.cli.connect:doctor",
        "Check Label Studio, a project and the running backend, and say what to do.",
    ),
    "make-tasks": (
        "backend.cli.make_tasks:make_tasks",
        "Write pictures as Label Studio tasks with predictions, ready to import.",
    ),
    "dataset": (
        "backend.cli.dataset:dataset",
        "Write the annotated pictures of a project as a training set.",
    ),
    "import-masks": (
        "backend.cli.import_masks:import_masks",
        "Bring masks that you have into a project, as predictions or annotations.",
    ),
    "demo": ("backend.cli.demo:demo", "Start Label Studio and the backend with a project to try."),
}


@click.group(cls=LazyGroup, sources=BACKEND_COMMANDS)
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """ClearCLIP as a Label Studio ML backend."""
