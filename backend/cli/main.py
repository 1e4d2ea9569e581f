"""``clearclip-backend``: the group of all commands."""

from __future__ import annotations

from typing import Final

import click

from clearclip_core.cli.main import CommandSource, LazyGroup

#: The commands, in the order of the help.
BACKEND_COMMANDS: Final = {
    "serve": CommandSource(
        "backend.cli.serve",
        "serve",
        "Serve the backend: one process, one model, a thread for each request.",
    ),
    "prelabel": CommandSource(
        "backend.cli.prelabel",
        "prelabel",
        "Predict all tasks of a project and write the predictions to Label Studio.",
    ),
    "withdraw": CommandSource(
        "backend.cli.prelabel",
        "withdraw",
        "Delete the predictions of a job in Label Studio that nobody has worked with.",
    ),
    "report": CommandSource(
        "backend.cli.report",
        "report",
        "Report how much work the prelabels of a project save, and how many hours are left.",
    ),
    "eval": CommandSource(
        "backend.cli.evaluate",
        "evaluate_project",
        "Measure how well the annotations of a project are predicted, and write nothing there.",
    ),
    "run": CommandSource(
        "backend.cli.run",
        "run",
        "Make a report on a whole project, and keep it for the page.",
    ),
    "words": CommandSource(
        "backend.cli.run",
        "words",
        "Try words for a label on pictures of a project, or check the words of all its labels.",
    ),
    "label-errors": CommandSource(
        "backend.cli.run",
        "label_errors",
        "List the annotations of a project that disagree most with what the others teach.",
    ),
    "agreement": CommandSource(
        "backend.cli.run",
        "agreement",
        "Measure how far the annotators of a project agree, on tasks that several have annotated.",
    ),
    "next-tasks": CommandSource(
        "backend.cli.run",
        "next_tasks",
        "Choose tasks to correct next: at random, and no picture nearly like another.",
    ),
    "adapt": CommandSource(
        "backend.cli.adapt",
        "adapt_group",
        "See and steer what a project has learned from its corrections.",
    ),
    "database": CommandSource(
        "backend.cli.database",
        "database",
        "Upgrade, back up and restore the database of the backend.",
    ),
    "doctor": CommandSource(
        "backend.cli.doctor",
        "doctor",
        "Check Label Studio, a project and the running backend, in both directions.",
    ),
    "export": CommandSource(
        "backend.cli.export",
        "export_folder",
        "Write pictures as Label Studio tasks with predictions, ready to import.",
    ),
    "dataset": CommandSource(
        "backend.cli.dataset",
        "dataset",
        "Write the annotated pictures of a project as a training set.",
    ),
    "import-masks": CommandSource(
        "backend.cli.import_masks",
        "import_masks",
        "Bring masks that exist already into a project, to be corrected or as annotations.",
    ),
    "settings": CommandSource(
        "backend.cli.settings",
        "list_settings",
        "List every setting with its default and description; values that are set are not shown.",
    ),
    "demo": CommandSource(
        "backend.cli.demo",
        "demo",
        "Start the real Label Studio beside the backend and prelabel a project.",
    ),
}


@click.group(cls=LazyGroup, sources=BACKEND_COMMANDS)
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """ClearCLIP as a Label Studio ML backend."""
