"""``clearclip-backend connect`` and ``doctor``: set projects up, and say how they stand."""

import time
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import click

from backend.cli.options import (
    NUMBER,
    SERVER_SETTINGS,
    STUDIO_SETTINGS,
    configure,
    settings_options,
    with_settings,
)
from backend.errors import BackendError, LabelConfigError
from backend.label_studio.client import required_client
from backend.label_studio.set_up import own_address
from backend.runs.checks import CheckFailed, Setup, check_setup
from backend.services import Services
from backend.settings import Settings

#: Longest wait for a backend that starts, and for a project to be set up, in seconds each: Label
#: Studio calls the backend meanwhile.
_TIMEOUT_S: Final = 60.0


@click.command()
@click.option("--project", "projects", type=NUMBER, multiple=True, help="Number of the project.")
@click.option("--all", "all_of_them", is_flag=True, help="All projects that can be predicted.")
@click.option(
    "--url",
    help="Address at which Label Studio reaches the backend; by default http://HOST:PORT, with "
    "this machine's name where HOST is 0.0.0.0.",
)
@click.option(
    "--labels",
    default="",
    help='For a project whose labeling config is empty: its labels, such as "sky,tree,horse".',
)
@click.option("--uniform", is_flag=True, help="Let tasks come at random (Uniform sampling).")
@click.option("--yes", is_flag=True, help="Change labeling configs without a question.")
@with_settings(*STUDIO_SETTINGS, *SERVER_SETTINGS)
def connect(
    settings: Settings,
    *,
    projects: tuple[int, ...],
    all_of_them: bool,
    url: str | None,
    labels: str,
    uniform: bool,
    yes: bool,
) -> None:
    """Connect the running backend to projects, and prelabel them.

    Switches interactive preannotations on, shows the predictions, offers a labeling config with
    tools that ask, checks the words, starts prelabeling and makes doctor's checks. It may be
    repeated. The exit status is 0 if all is well, else 1.
    """
    if bool(projects) == all_of_them:
        raise click.UsageError("Give either --project or --all.")
    client = required_client(Services(settings).page_client, "Projects are connected there")
    address = (url or own_address(settings)).rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise click.BadParameter(f"Expected http://HOST:PORT, but got {url}.", param_hint="--url")
    asked = {
        "url": address,
        "uniform": uniform,
        "labels": labels,
        "tools": "change" if yes else "offer",
    }

    # All are tried, also after one that fails.
    chosen = projects or sorted(client.project_titles())
    are_well = [_connect_one(settings, each, asked, may_be_left=all_of_them) for each in chosen]
    raise SystemExit(0 if all(are_well) else 1)


def _connect_one(
    settings: Settings, project: int, asked: dict[str, Any], *, may_be_left: bool
) -> bool:
    """Set a project up and check it, and tell what was found; return whether all is well.

    Args:
        settings: those of the backend.
        project: the project's number.
        asked: what `SetUp` is asked for.
        may_be_left: whether a project that cannot be predicted is no fault.
    """
    click.secho(f"Project {project}", bold=True)
    here = own_address(settings, is_here=True)
    is_well = True
    try:
        _set_up(Setup(settings, project, here), asked)
    except LabelConfigError as error:
        click.echo(f"It is left as it is: {error}")
        return may_be_left
    except (BackendError, CheckFailed) as error:
        click.echo(str(error))
        is_well = False

    for finding in check_setup(settings, project, backend_url=here):
        click.echo(finding)
        is_well = is_well and finding.mark != "FAIL"
    return is_well


def _set_up(backend: Setup, asked: dict[str, Any]) -> None:
    """Have the backend set a project up, and ask about the labeling config that it may offer.

    Raises:
        LabelConfigError: the project's labeling config has nothing to draw.
        CheckFailed: the backend cannot be reached, or refuses.
    """
    answer = _ask(backend, asked)
    if diff := answer.get("offer"):
        click.echo("No tool of the labeling config asks for masks. This one does:")
        click.echo("\n".join(diff))
        tools = "change" if click.confirm("Change it?") else "keep"
        answer = _ask(backend, asked | {"tools": tools})
    click.echo(f"{answer['said']} Its words are being checked, and its tasks predicted.".lstrip())


def _ask(backend: Setup, asked: dict[str, Any]) -> dict[str, Any]:
    """Ask the backend to set a project up, again while it starts or Label Studio is busy."""
    end = time.monotonic() + _TIMEOUT_S
    ask = partial(backend.ask_backend, "/set-up", _TIMEOUT_S, project=backend.project, **asked)
    while (answer := ask())[0] == HTTPStatus.SERVICE_UNAVAILABLE and time.monotonic() < end:
        time.sleep(1)

    status, told = answer
    if status == HTTPStatus.BAD_REQUEST:
        raise LabelConfigError(told.get("error", ""))
    if status not in (HTTPStatus.OK, HTTPStatus.CREATED):
        raise CheckFailed(f"The backend answers HTTP {status:d}: {told.get('error', '')}")
    return dict(told)


@click.command()
@click.option(
    "--project",
    type=NUMBER,
    help="Number of the project; by default only both servers are checked.",
)
@click.option(
    "--backend-url",
    help="Address of the backend from here, if it is not the one that Label Studio has.",
)
@settings_options(*STUDIO_SETTINGS, "basic_auth_user", "basic_auth_pass", "port")
def doctor(project: int | None, backend_url: str | None, **given: str | None) -> None:
    """Check Label Studio, a project and the running backend, in both directions.

    Give it the settings of the backend. The exit status is 0 if all is well, else 1.
    """
    settings = configure(given, "ERROR")
    marks = []
    for finding in check_setup(settings, project, backend_url=backend_url):
        click.echo(finding)
        marks.append(finding.mark)
    if "FAIL" in marks:
        raise SystemExit(1)
