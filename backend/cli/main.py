"""``clearclip-backend``: the group of all commands."""

from __future__ import annotations

import click

from backend.cli.adapt import adapt
from backend.cli.database import database
from backend.cli.demo import demo
from backend.cli.doctor import doctor
from backend.cli.export import export
from backend.cli.import_masks import import_masks
from backend.cli.prelabel import prelabel
from backend.cli.report import report
from backend.cli.serve import serve
from backend.cli.settings import list_settings


@click.group()
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """ClearCLIP as a Label Studio ML backend."""


for _command in (
    *(serve, prelabel, import_masks, report, adapt, database),
    *(doctor, export, list_settings, demo),
):
    main.add_command(_command)
