#!/usr/bin/env python3
"""Start the backend with Docker Compose beside the Label Studio that runs on this machine.

    python3 deploy/attach.py --dry-run     # say what it found and would do
    python3 deploy/attach.py --project 1   # do it, and connect project 1

It looks for Label Studio among Docker's containers, else on a port of this machine, writes `.env`
and `compose.override.yml`, so that each of the two reaches the other, and starts the backend. It
may be repeated, and needs Python 3.9 or later, Docker and Compose, and no packages.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: The first line of a compose.override.yml that this script has written, and may write again.
MARK = "# Written by deploy/attach.py: take this line off to keep what you change below."
#: The network that is made for a Label Studio on Docker's default one, where names are not known.
OWN_NETWORK = "clearclip-label-studio"
_OWN_NAME = "label-studio"  # Label Studio's there
#: Networks of Docker itself: containers on them do not know each other by name.
_NAMELESS = {"bridge", "host", "none"}
_OLDEST_COMPOSE = (2, 20)


class AttachError(Exception):
    """Something cannot be found or done; the message says what, and what to do."""


@dataclass(frozen=True)
class Container:
    """What `docker inspect` says of a container that runs."""

    name: str
    project: str  # of Docker Compose; empty without
    service: str  # of Docker Compose; empty without
    image: str
    variables: dict[str, str]
    ports: dict[int, int | None]  # the container's TCP ports -> this machine's, None: not published
    networks: dict[str, list[str]]  # name -> the names by which others on it reach the container

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Container:
        """Read an entry of `docker inspect`."""
        config, settings = entry["Config"], entry["NetworkSettings"]
        labels = config.get("Labels") or {}
        pairs = (each.partition("=") for each in config.get("Env") or [])

        return cls(
            name=entry["Name"].lstrip("/"),
            project=labels.get("com.docker.compose.project", ""),
            service=labels.get("com.docker.compose.service", ""),
            image=config["Image"],
            variables={name: value for name, _, value in pairs},
            ports=_ports(settings.get("Ports") or {}),
            networks=_networks(settings.get("Networks") or {}),
        )

    @property
    def is_label_studio(self) -> bool:
        """Whether it is made of Label Studio's image, whatever that is called here."""
        if self.project == "clearclip" and self.service != "label-studio":
            return False
        name = self.image.rpartition("/")[2].partition(":")[0]
        settings = self.variables.get("DJANGO_SETTINGS_MODULE", "")
        return name == "label-studio" or settings == "core.settings.label_studio"

    @property
    def port(self) -> int | None:
        """The port where it listens: one that is published, else 8080, else any."""
        published = [port for port, here in self.ports.items() if here]
        usual = [port for port in self.ports if port == 8080]
        return next(iter([*published, *usual, *self.ports]), None)


def _ports(bindings: dict[str, list[dict[str, str]] | None]) -> dict[int, int | None]:
    """Read entries such as ``"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]``."""
    return {
        int(port.partition("/")[0]): int(bound[0]["HostPort"]) if bound else None
        for port, bound in bindings.items()
        if port.endswith("/tcp")
    }


def _networks(entries: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Read the names of a container on each of its networks."""
    return {
        name: [*(entry.get("Aliases") or []), *(entry.get("DNSNames") or [])]
        for name, entry in entries.items()
    }


@dataclass(frozen=True)
class Place:
    """Where a Label Studio is, and how the two reach each other."""

    found: str  # a sentence
    url: str  # where the backend's container reaches it
    browser_url: str  # empty: it does not say
    network: str | None = None  # that the backend joins
    joins: str | None = None  # the container that has to join `network` first
    backend_url: str = "http://backend:9090"  # where it reaches the backend
    token: str = ""  # of its first user, where its container was started with one


# ---- finding ---------------------------------------------------------------------------------


def docker(*words: str) -> str:
    """Run a command of Docker, and return what it prints."""
    try:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, cwd=ROOT)
    except FileNotFoundError:
        raise AttachError(
            "There is no docker command here: install Docker with Compose, or serve without them, "
            "see docs/getting-started/install-and-connect.md."
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise AttachError(f"docker {words[0]} fails: {said[-1] if said else 'without a word'}")
    return done.stdout


def check_compose() -> None:
    """Raise `AttachError` where Docker Compose is missing or too old for docker-compose.yml."""
    said = docker("compose", "version", "--short").strip()
    numbers = re.match(r"v?(\d+)\.(\d+)", said)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST_COMPOSE:
        raise AttachError(f"Docker Compose 2.20 or later is needed, and this is {said or 'none'}.")


def running_containers() -> list[Container]:
    """Return all containers that run."""
    ids = docker("ps", "--quiet").split()
    if not ids:
        return []
    return [Container.read(entry) for entry in json.loads(docker("inspect", *ids))]


def choose(containers: list[Container], name: str | None) -> Container | None:
    """Return Label Studio's container, or None without one.

    Of those of one Compose project it is the one that is published, such as the nginx of Label
    Studio's own docker-compose.yml.
    """
    if name is not None:
        return _named(containers, name)

    found = [each for each in containers if each.is_label_studio]
    groups: dict[str, Container] = {}
    for each in sorted(found, key=lambda one: not any(one.ports.values())):
        groups.setdefault(each.project or each.name, each)
    if len(groups) > 1:
        names = ", ".join(sorted(each.name for each in groups.values()))
        raise AttachError(f"Several Label Studios run: {names}. Choose one by --container NAME.")
    return next(iter(groups.values()), None)


def _named(containers: list[Container], name: str) -> Container:
    for each in containers:
        if name in (each.name, each.service):
            return each
    running = ", ".join(sorted(each.name for each in containers)) or "none"
    raise AttachError(f"No container {name} runs. Those that do: {running}.")


def variables_of(container: Container, containers: list[Container]) -> dict[str, str]:
    """Return the variables of a container, and of Label Studio's others in its Compose project."""
    variables: dict[str, str] = {}
    for each in containers:
        is_beside = container.project != "" and each.project == container.project
        if each.is_label_studio and is_beside:
            variables |= {name: value for name, value in each.variables.items() if value}
    return variables | {name: value for name, value in container.variables.items() if value}


def place_of(container: Container, containers: list[Container]) -> Place:
    """Return how the backend and a container reach each other."""
    variables = variables_of(container, containers)
    if "host" in container.networks:
        return place_here(int(variables.get("LABEL_STUDIO_PORT") or 8080))

    port = container.port
    if port is None:
        raise AttachError(f"The container {container.name} has no port: is it Label Studio?")
    named = next((name for name in container.networks if name not in _NAMELESS), None)
    network = named or OWN_NETWORK
    _check_name_is_free(network, containers)

    where = f"the network {network}" if named else f"Docker's default network; it joins {network}"
    return Place(
        found=f"Label Studio is the container {container.name} on {where}.",
        url=f"http://{_host_on(container, named)}:{port}",
        browser_url=variables.get("LABEL_STUDIO_HOST") or _published(container, port),
        network=network,
        joins=None if named else container.name,
        token=variables.get("LABEL_STUDIO_USER_TOKEN", ""),
    )


def _published(container: Container, port: int) -> str:
    """Return where this machine's browsers reach a port of a container, or an empty text."""
    here = container.ports[port]
    return f"http://localhost:{here}" if here else ""


def _host_on(container: Container, network: str | None) -> str:
    """Return a name for it on a network; Label Studio refuses those with an underscore.

    Without a network, it is the name that it gets on the one that it will join.
    """
    if network is None:
        return _OWN_NAME
    for name in (container.service, *container.networks[network], container.name):
        if re.fullmatch(r"[a-z0-9-]+", name):
            return name
    raise AttachError(
        f"No name of the container {container.name} on the network {network} is one for a web "
        f"address. Give it one: docker network disconnect {network} {container.name}; docker "
        f"network connect --alias label-studio {network} {container.name}"
    )


def _check_name_is_free(network: str, containers: list[Container]) -> None:
    """Raise `AttachError` where another container is called backend on a network."""
    for each in containers:
        if each.project != "clearclip" and "backend" in each.networks.get(network, []):
            raise AttachError(
                f"The container {each.name} is called backend on the network {network}, as this "
                "backend would be: give that one another name there, or set this one up by hand."
            )


def place_here(port: int) -> Place:
    """Return how the backend reaches a Label Studio of this machine, without Docker."""
    if not _is_label_studio(f"http://127.0.0.1:{port}"):
        raise AttachError(
            "No container of Label Studio runs, and none answers at "
            f"http://localhost:{port}. Start it, or name its container (--container) or "
            "its port on this machine (--port)."
        )
    if platform.system() == "Linux":  # elsewhere Docker's own machine reaches this one's localhost
        gateway = _gateway()
        if gateway and not _is_label_studio(f"http://{gateway}:{port}"):
            raise AttachError(
                f"Label Studio at port {port} listens on localhost alone, where no container "
                "reaches it: start it with --internal-host 0.0.0.0."
            )
    return Place(
        found=f"Label Studio is on this machine, at port {port}.",
        url=f"http://host.docker.internal:{port}",
        browser_url=f"http://localhost:{port}",
        backend_url="http://localhost:9090",
    )


def _gateway() -> str:
    """Return the address of this machine on Docker's default network."""
    (network,) = json.loads(docker("network", "inspect", "bridge"))
    configs = network["IPAM"]["Config"] or [{}]
    return str(configs[0].get("Gateway", ""))


def _is_label_studio(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/version", timeout=5) as answer:
            return "label-studio" in answer.read().decode(errors="replace")
    except (urllib.error.URLError, OSError):
        return False


# ---- writing ---------------------------------------------------------------------------------


def read_env(text: str) -> dict[str, str]:
    """Read what an `.env` says, without quotes."""
    lines = re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)
    return {name: value.strip().strip("'\"") for name, value in lines}


def write_env(text: str, values: dict[str, str]) -> str:
    """Return an `.env` with some values set; all other lines stay as they are."""
    for name, value in values.items():
        line = f"{name}='{value}'" if "$" in value else f"{name}={value}"
        pattern = rf"^#?{name}=.*$"
        if re.search(pattern, text, re.MULTILINE):
            text = re.sub(pattern, line.replace("\\", r"\\"), text, count=1, flags=re.MULTILINE)
        else:
            text = f"{text.rstrip()}\n{line}\n"
    return text


def profiles(before: str, gpu: bool) -> str:
    """Return COMPOSE_PROFILES without a Label Studio of its own."""
    kept = [name for name in before.split(",") if name not in ("", "cpu", "gpu", "label-studio")]
    return ",".join(["gpu" if gpu else "cpu", *kept])


def override(network: str) -> str:
    """Return a compose.override.yml in which the backend joins a network."""
    name = json.dumps(network)
    return f"{MARK}\nnetworks:\n  default: {{name: {name}, external: true}}\n"


def check_override(file: Path) -> None:
    """Raise `AttachError` where an override is somebody's own."""
    if file.exists() and not file.read_text(encoding="utf-8").startswith(MARK):
        raise AttachError(
            f"{file.name} is yours and stays as it is. Let the backend join the network there, see "
            "docs/getting-started/docker-compose.md, and run: docker compose up --build --detach"
        )


# ---- doing -----------------------------------------------------------------------------------


def values_of(place: Place, given: argparse.Namespace, before: dict[str, str]) -> dict[str, str]:
    """Return what `.env` is to say."""
    browser_url = given.browser_url or place.browser_url
    if not browser_url:
        raise AttachError(
            "The container of Label Studio publishes no port, and has no LABEL_STUDIO_HOST: where "
            "do people open it? Say so by --browser-url."
        )
    token = given.token or before.get("LABEL_STUDIO_API_KEY") or place.token
    if not token:
        raise AttachError(
            f"A token is needed: copy one at {browser_url}, under "
            "Account & Settings, and give it as LABEL_STUDIO_API_KEY=... python3 deploy/attach.py"
        )
    return {
        "COMPOSE_PROFILES": profiles(before.get("COMPOSE_PROFILES", ""), given.gpu),
        "LABEL_STUDIO_URL": place.url,
        "LABEL_STUDIO_HOST": browser_url,
        "LABEL_STUDIO_API_KEY": token,
    }


def commands(place: Place, given: argparse.Namespace) -> list[list[str]]:
    """Return what is to be done with Docker, after the files are written."""
    found = []
    if place.joins is not None:
        found.append(["network", "create", OWN_NETWORK])
        join = ["network", "connect", "--alias", _OWN_NAME, OWN_NETWORK, place.joins]
        found.append(join)
    found.append(["compose", "up", "--build", "--detach", "--wait"])

    command = ["compose", "exec", "backend-gpu" if given.gpu else "backend-cpu"]
    command += ["clearclip-backend", "connect" if given.project else "doctor"]
    if given.project:
        command += ["--url", place.backend_url]
        for number in given.project:
            command += ["--project", str(number)]
        if given.labels:
            command += ["--labels", given.labels]
        if given.yes:
            command.append("--yes")
    return [*found, command]


def attach(given: argparse.Namespace) -> int:
    """Find Label Studio, write the files, and start the backend; return the exit status."""
    check_compose()
    containers = running_containers()
    container = choose(containers, given.container)
    place = place_of(container, containers) if container else place_here(given.port)
    print(place.found)
    _tell_of_private_addresses(container, containers)

    env_file, override_file = ROOT / ".env", ROOT / "compose.override.yml"
    check_override(override_file)
    start = env_file if env_file.exists() else ROOT / ".env.example"
    text = start.read_text(encoding="utf-8")
    values = values_of(place, given, read_env(text))
    print("\n.env:")
    for name, value in values.items():
        print(f"  {name}={'...' if name == 'LABEL_STUDIO_API_KEY' else value}")
    print(f"\n{override_file.name}:")
    print(f"  the network {place.network}" if place.network else "  none")
    steps = commands(place, given)
    if given.dry_run:
        print("\nThen:", *(f"  docker {shlex.join(step)}" for step in steps), sep="\n")
        return 0

    env_file.touch(mode=0o600)
    env_file.write_text(write_env(text, values), encoding="utf-8")
    if place.network:
        override_file.write_text(override(place.network), encoding="utf-8")
    elif override_file.exists():
        override_file.unlink()
    return _take(steps, given, place)


def _tell_of_private_addresses(container: Container | None, containers: list[Container]) -> None:
    """Say so where Label Studio was not told to call private addresses."""
    if container is None:
        print("It must have been started with ML_BLOCK_LOCAL_IP=false, or it refuses the backend.")
        return
    told = variables_of(container, containers).get("ML_BLOCK_LOCAL_IP", "")
    if told.lower() not in ("false", "0", "no"):
        print(
            "It was started without ML_BLOCK_LOCAL_IP=false: it will refuse the backend's address. "
            "Add that to its environment, and start it again."
        )


def _take(steps: list[list[str]], given: argparse.Namespace, place: Place) -> int:
    """Run the commands before people's eyes; return the last one's exit status."""
    status = 0
    for step in steps:
        if step[:2] == ["network", "create"] and OWN_NETWORK in _network_names():
            continue
        print(f"\ndocker {shlex.join(step)}", flush=True)
        status = subprocess.run(["docker", *step], cwd=ROOT).returncode
        if status and step is not steps[-1]:
            raise AttachError(f"docker {step[0]} fails: see above.")

    if not given.project:
        exec_ = shlex.join(steps[-1][:-1])
        print(f"\nNow: docker {exec_} connect --url {place.backend_url} --project 1")
    if place.joins is not None:
        print(f"Once {place.joins} is made anew, run this again: it has to join {place.network}.")
    return status


def _network_names() -> list[str]:
    return docker("network", "ls", "--format", "{{.Name}}").split()


def main(arguments: list[str] | None = None) -> int:
    """Read the options, and attach."""
    about, _, _ = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument(
        "--project", type=int, action="append", default=[], help="number of a project to connect"
    )
    parser.add_argument("--labels", default="", help="of a project without any: sky,tree")
    parser.add_argument("--yes", action="store_true", help="change labeling configs unasked")
    parser.add_argument("--container", help="Label Studio's, where several run")
    parser.add_argument("--port", type=int, default=8080, help="Label Studio's without Docker")
    parser.add_argument("--browser-url", default="", help="where people open Label Studio")
    parser.add_argument("--gpu", action="store_true", help="on one NVIDIA GPU")
    given = parser.parse_args(arguments)
    given.token = os.environ.get("LABEL_STUDIO_API_KEY", "")
    try:
        return attach(given)
    except AttachError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
