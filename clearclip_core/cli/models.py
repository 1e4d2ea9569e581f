"""`clearclip models`: list model weights, or download some for another machine."""

from __future__ import annotations

from pathlib import Path

import click

from clearclip_core.cli.errors import click_errors
from clearclip_core.cli.options import MODEL_DIR_HELP
from clearclip_core.clip.weights import download_weights, known_models


@click.command()
@click.option("--download", metavar="NAME", help="Fetch these weights, such as ViT-B-16/openai.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Folder to fetch them to.")
@click.option("--model-dir", type=click.Path(path_type=Path), help=MODEL_DIR_HELP)
def models(download: str | None, folder: Path | None, model_dir: Path | None) -> None:
    """List models, their licences and what is on disk; or fetch one for another machine."""
    if download is not None:
        if folder is None:
            raise click.UsageError("--download needs --to FOLDER.")
        with click_errors():
            click.echo(download_weights(download, folder))
        return
    for model in known_models(model_dir):
        where = str(model.path) if model.path else "-"
        needs = f"  needs [{model.needs}]" if model.needs else ""
        click.echo(f"{model.name:48} {model.licence:18} {where}{needs}")
