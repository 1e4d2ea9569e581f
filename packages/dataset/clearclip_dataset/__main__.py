"""Run the commands ``dataset`` and ``import-masks`` of ClearCLIP's backend, from a copy of it."""

import sys
from pathlib import Path

import click

#: Modules of `backend` and `clearclip_core`, as setup.py has chosen them. They lie here and not
#: beside other packages, so that the whole backend may be installed in the same environment.
SOURCES = Path(__file__).parent / "sources"


def main() -> None:
    """Run the command line."""
    sys.path.insert(0, str(SOURCES))
    from backend.cli.dataset import dataset
    from backend.cli.import_masks import import_masks

    commands = {"dataset": dataset, "import-masks": import_masks}
    group = click.Group("clearclip-dataset", commands, help="Training sets of Label Studio.")
    click.version_option(package_name="clearclip-dataset")(group)()


if __name__ == "__main__":
    main()
