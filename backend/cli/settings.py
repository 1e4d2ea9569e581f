"""``make settings``: write the settings into the docs and the example of Docker Compose."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from backend.cli.options import MAIN_SETTINGS, OUTPUT_FILE, sentences, write_text
from backend.settings import Settings, variables

#: Set by docker-compose.yml itself: addresses in its network, and folders in its containers.
COMPOSE_OWN = {"label_studio_url", "host", "port", "model_dir"}

#: The Markdown table stands in a page between these lines.
BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"

_COMPOSE = """\
# The settings of docker-compose.yml; `make settings` writes this file. Copy it to .env, fill in the
# three secrets, and run: docker compose up --build --detach
# Then open LABEL_STUDIO_HOST and log in. In a project's settings, under Model, connect the address
# http://backend:9090.

# == Secrets ==

# Password of Label Studio's first user.
LABEL_STUDIO_PASSWORD=
# That user's token. The backend fetches pictures, writes predictions and reads annotations with it.
# Make one: openssl rand -hex 20
LABEL_STUDIO_API_KEY=
# Password of Label Studio's database. Make one: openssl rand -hex 32
POSTGRES_PASSWORD=

# == Containers ==

# cpu, or gpu for one NVIDIA GPU (needs the NVIDIA Container Toolkit). With a comma after it:
# database makes the PostgreSQL database that DATABASE_URL below names; tls puts a proxy with TLS
# in front.
COMPOSE_PROFILES=cpu
# The build of torch in the gpu profile's image: cu130, or cu126 for cards before Turing.
TORCH_CUDA=cu130
# Label Studio's first user.
LABEL_STUDIO_USERNAME=admin@example.com
# The address of Label Studio that people type into their browsers.
LABEL_STUDIO_HOST=http://localhost:8080
# Where Label Studio listens: on 127.0.0.1 for this machine alone, on 0.0.0.0 for everyone who
# reaches it.
LABEL_STUDIO_BIND=127.0.0.1
LABEL_STUDIO_PORT=8080
# Where the backend's page listens. Set BASIC_AUTH_USER and BASIC_AUTH_PASS before others reach it.
BACKEND_BIND=127.0.0.1
BACKEND_PORT=9090
# The volume of weights, or a folder such as /srv/models, which user 1000 must own (chown -R 1000).
# Without network, put weights into it first: clearclip models --download NAME --to FOLDER
MODELS=models
# The most memory of the backend and of Label Studio. One that needs more is started again.
BACKEND_MEMORY=8g
LABEL_STUDIO_MEMORY=4g

# == TLS: profile tls ==

# The name in people's browsers; set LABEL_STUDIO_HOST=https:// and this name, too. The backend's
# page is at port 9443, where BACKEND_BIND listens.
PROXY_HOST=localhost
# internal: a certificate that browsers warn of. An e-mail address: one by ACME, such as Let's
# Encrypt's, for a public name. Or two paths in the container: certificate and key.
PROXY_TLS=internal
# Where ports 80 and 443 listen.
PROXY_BIND=0.0.0.0
"""

_BACKEND = """\
# The backend's settings follow. A line that begins with # shows the default: remove the # to change
# it. An empty value counts as not set.
"""


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "env"]),
    required=True,
    help="As Markdown, or as the .env.example of Docker Compose.",
)
@click.option(
    "--into",
    type=OUTPUT_FILE,
    help="Write to this file: Markdown between its lines settings:begin and settings:end.",
)
def list_settings(form: str, into: Path | None) -> None:
    """List every setting with its default and description."""
    text = settings_markdown() if form == "markdown" else env_example()
    if into is None:
        click.echo(text, nl=False)
    elif form == "env":
        write_text(into, text)
    else:
        with sentences():
            write_into(into, text)


def in_two_groups() -> dict[str, list[str]]:
    """Return the names of all settings: those that many people need, then those for tuning."""
    tuning = [each for each in Settings.model_fields if each not in MAIN_SETTINGS]
    return {"You may need": [*MAIN_SETTINGS], "Tuning": tuning}


def settings_markdown() -> str:
    """Return every setting as a row of one of two Markdown tables.

    >>> next(row for row in settings_markdown().splitlines() if row.startswith("| `METHOD`"))
    '| `METHOD` | `clearclip` | How dense features are read: clearclip, scclip, rfclip, \
sfp, pearl, naclip, sclip, maskclip, clip, clipsurgery or gem. |'
    """
    lines: list[str] = []
    for title, fields in in_two_groups().items():
        lines += ["", f"## {title}", "", "| variable | default | what it does |", "|---|---|---|"]
        for field in fields:
            names = " or ".join(f"`{name}`" for name in variables(field))
            default = _default(field)
            text = _description(field).replace("|", "\\|")
            lines.append(f"| {names} | {f'`{default}`' if default else ''} | {text} |")
    return "\n".join(lines[1:]) + "\n"


def env_example() -> str:
    """Return `.env.example`: the variables of docker-compose.yml, then the settings it hands on."""
    return "\n".join([_COMPOSE, _BACKEND, *_groups()])


def _groups() -> Iterator[str]:
    secrets = {"label_studio_api_key"}  # stands on top
    for title, fields in in_two_groups().items():
        entries = [_entry(field) for field in fields if field not in COMPOSE_OWN | secrets]
        yield f"# == {title} ==\n\n" + "".join(entries)


def _entry(field: str) -> str:
    comment = textwrap.fill(
        _description(field),
        100,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    default = _default(field)
    return f"{comment}\n{'#' if default else ''}{variables(field)[0]}={default}\n"


def write_into(page: Path, text: str) -> None:
    """Replace the text of a page between the lines `BEGIN` and `END`.

    Raises:
        ValueError: the page lacks one of the lines, or they are in the other order.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} needs the lines {BEGIN} and {END}: the table goes between them.")
    page.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


def _default(field: str) -> str:
    default = Settings.model_fields[field].default
    return "" if default is None else str(default)


def _description(field: str) -> str:
    return Settings.model_fields[field].description or ""


if __name__ == "__main__":
    list_settings()
