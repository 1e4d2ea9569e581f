"""``clearclip-backend doctor``: check Label Studio and the backend in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import click

from backend.cli.doctor_backend import (
    check_backend,
    check_backend_token,
    check_prediction,
    check_setup_route,
)
from backend.cli.doctor_context import CheckContext, CheckFailed, CheckWarned, Finding
from backend.cli.doctor_label_config import check_exports, check_smart_tools
from backend.cli.doctor_label_studio import (
    check_connection,
    check_label_config,
    check_label_studio,
    check_project,
    check_settings,
    check_token,
)
from backend.cli.doctor_pictures import check_images
from backend.cli.options import configure, project_option, settings_options
from backend.settings import Settings

#: The checks in their order: name, checks that it needs, function.
_CHECKS: Final[tuple[tuple[str, tuple[str, ...], Callable[[CheckContext], str]], ...]] = (
    ("settings", (), check_settings),
    ("label studio", ("settings",), check_label_studio),
    ("token", ("label studio",), check_token),
    ("project", ("token",), check_project),
    ("label config", ("project",), check_label_config),
    ("exports", ("label config",), check_exports),
    ("connection", ("project",), check_connection),
    ("smart tools", ("connection", "label config"), check_smart_tools),
    ("backend", ("project",), check_backend),
    ("setup", ("backend", "label config"), check_setup_route),
    ("backend token", ("setup",), check_backend_token),
    ("picture", ("label config",), check_images),
    ("prediction", ("setup", "picture"), check_prediction),
)


@click.command()
@project_option
@click.option(
    "--backend-url",
    help="Address of the backend from here, if it is not the one that Label Studio has.",
)
@settings_options(
    "label_studio_url",
    "label_studio_api_key",
    "allowed_hosts",
    "basic_auth_user",
    "basic_auth_pass",
    "port",
)
def doctor(project: int, backend_url: str | None, **given: str | None) -> None:
    """Check Label Studio, a project and the running backend, in both directions.

    Give it the settings of the backend. The exit status is 0 if all is well, else 1.
    """
    settings = configure(given, "ERROR")
    failed = 0
    for finding in check_setup(settings, project, backend_url=backend_url):
        click.echo(finding)
        failed += finding.well is False
    if failed:
        raise SystemExit(1)


def check_setup(
    settings: Settings, project_id: int, *, backend_url: str | None = None
) -> Iterator[Finding]:
    """Make all checks of a set-up, in the order of `_CHECKS`.

    A check that needs one that failed is left out.

    Args:
        settings: those of the backend.
        project_id: the project in Label Studio.
        backend_url: address of the backend from here; by default the one that Label Studio has.

    Yields:
        One finding for each check.

    >>> from backend.settings import load_settings
    >>> print(next(check_setup(load_settings(), 7)))  # doctest: +ELLIPSIS
    FAIL  settings         LABEL_STUDIO_URL is not set. Set it to the address at which ...
    """
    context = CheckContext(settings, project_id, backend_url)
    passed: set[str] = set()
    for name, needs, check in _CHECKS:
        missing = [need for need in needs if need not in passed]
        if missing:
            yield Finding(name, None, f"Not checked: {' and '.join(missing)} must be well first.")
            continue
        try:
            yield Finding(name, True, check(context))
            passed.add(name)
        except CheckWarned as warned:
            yield Finding(name, True, *warned.finding, warns=True)
            passed.add(name)
        except CheckFailed as failed:
            yield Finding(name, False, *failed.finding)
