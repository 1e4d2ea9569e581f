"""What attaches the backend to a Label Studio in Docker, with a pretended docker command."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import attach
from tests.backend.fakes.local_server import Answer, LocalServer

ROOT = Path(__file__).parents[2]
#: Answers as the file `docker.json` beside it says, and keeps what it was asked.
DOCKER = f"""#!{sys.executable}
import json, pathlib, sys
words, here = sys.argv[1:], pathlib.Path(__file__).parent
with (here / "asked").open("a") as file:
    file.write(" ".join(words) + "\\n")
answers = json.loads((here / "docker.json").read_text())
found = [answer for start, answer in answers.items() if " ".join(words).startswith(start)]
if not found:
    sys.exit("Cannot connect to the Docker daemon.")
print(found[0] if isinstance(found[0], str) else json.dumps(found[0]))
"""


def container(name: str, image: str = "heartexlabs/label-studio:latest", **given: Any) -> Any:
    """Return an entry of `docker inspect`: a container of Label Studio on the default network."""
    labels = {}
    if "service" in given:
        labels = {
            "com.docker.compose.project": given.get("project", "studio"),
            "com.docker.compose.service": given["service"],
        }
    networks = given.get("networks", {"bridge": {"Aliases": None}})
    ports = given.get("ports", {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]})
    return {
        "Name": f"/{name}",
        "Config": {"Image": image, "Env": given.get("env", []), "Labels": labels},
        "NetworkSettings": {"Ports": ports, "Networks": networks},
    }


class Machine:
    """A checkout with Compose's files, and what its Docker runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked_file = folder / "bin" / "asked"
        (folder / "bin").mkdir()
        docker = folder / "bin" / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        shutil.copy(ROOT / ".env.example", folder)
        self.run()

    def run(self, *containers: Any, gateway: str = "", **answers: Any) -> None:
        """Have these containers run."""
        there = {
            "compose version": "2.26.1",
            "ps": "\n".join(str(number) for number in range(len(containers))),
            "inspect": [*containers],
            "network ls": "bridge\nhost",
            "network inspect bridge": [{"IPAM": {"Config": [{"Gateway": gateway}]}}],
            "network": "",
            "compose": "",
        }
        there |= {name.replace("_", " "): answer for name, answer in answers.items()}
        (self.folder / "bin" / "docker.json").write_text(json.dumps(there))

    @property
    def env(self) -> dict[str, str]:
        """What `.env` says."""
        return attach.read_env((self.folder / ".env").read_text())

    @property
    def changes(self) -> list[str]:
        """The commands of Docker that change something."""
        asked = self.asked_file.read_text().splitlines()
        start = ("network create", "network connect", "compose up", "compose exec")
        return [line for line in asked if line.startswith(start)]

    @property
    def networks(self) -> Any:
        """The networks of compose.override.yml."""
        return yaml.safe_load((self.folder / "compose.override.yml").read_text())["networks"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(attach, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "token")
    return Machine(tmp_path)


OFFICIAL = [
    container(
        "studio-app-1",
        service="app",
        ports={"8000/tcp": None},
        networks={"studio_default": {"Aliases": ["studio-app-1", "app"]}},
        env=["LABEL_STUDIO_HOST=", "ML_BLOCK_LOCAL_IP=false"],
    ),
    container(
        "studio-nginx-1",
        service="nginx",
        ports={"8085/tcp": [{"HostIp": "", "HostPort": "8080"}], "8086/tcp": None},
        networks={"studio_default": {"Aliases": ["studio-nginx-1", "nginx"]}},
    ),
    container("studio-db-1", image="postgres:17", service="db", ports={"5432/tcp": None}),
]


def test_label_studios_own_compose_file(machine: Machine) -> None:
    machine.run(*OFFICIAL)
    assert attach.main(["--project", "7", "--labels", "sky,pine tree", "--yes"]) == 0
    assert machine.env["COMPOSE_PROFILES"] == "cpu"
    assert machine.env["LABEL_STUDIO_URL"] == "http://nginx:8085"
    assert machine.env["LABEL_STUDIO_HOST"] == "http://localhost:8080"
    assert machine.networks == {"default": {"name": "studio_default", "external": True}}
    connect = "connect --url http://backend:9090 --project 7 --labels sky,pine tree --yes"
    assert machine.changes == [
        "compose up --build --detach --wait",
        f"compose exec backend-cpu clearclip-backend {connect}",
    ]


def test_docker_run_on_the_default_network_joins_one_with_names(machine: Machine) -> None:
    machine.run(container("old_name", env=["LABEL_STUDIO_HOST=https://label.example"]))
    assert attach.main([]) == 0
    assert machine.env["LABEL_STUDIO_URL"] == "http://label-studio:8080"
    assert machine.env["LABEL_STUDIO_HOST"] == "https://label.example"
    assert machine.changes[:2] == [
        "network create clearclip-label-studio",
        "network connect --alias label-studio clearclip-label-studio old_name",
    ]


def test_a_second_run_joins_nothing_twice(machine: Machine) -> None:
    own = {"Aliases": ["label-studio"], "DNSNames": ["studio", "label-studio"]}
    machine.run(container("studio", networks={"bridge": {}, attach.OWN_NETWORK: own}))
    (machine.folder / "compose.override.yml").write_text(attach.override("other"))
    assert attach.main([]) == 0
    assert machine.changes[0].startswith("compose up")
    assert machine.env["LABEL_STUDIO_URL"] == "http://label-studio:8080"
    assert machine.networks["default"]["name"] == "clearclip-label-studio"


def test_on_the_host(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalServer(lambda _: Answer(body=b'{"label-studio-os-package": {}}')) as server:
        port = int(server.url.rpartition(":")[2])
        machine.run(gateway="127.0.0.1")
        assert attach.main(["--port", str(port), "--project", "1"]) == 0
    assert machine.env["LABEL_STUDIO_URL"] == f"http://host.docker.internal:{port}"
    assert "--url http://localhost:9090" in machine.changes[-1]
    assert not (machine.folder / "compose.override.yml").exists()


def test_on_the_host_but_for_containers(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalServer(lambda _: Answer(body=b'{"label-studio-os-package": {}}')) as server:
        machine.run(gateway="127.0.0.2")
        assert attach.main(["--port", server.url.rpartition(":")[2]]) == 1
    assert "--internal-host 0.0.0.0" in capsys.readouterr().err


def test_a_dry_run_changes_nothing_and_shows_no_token(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.run(*OFFICIAL)
    assert attach.main(["--dry-run"]) == 0
    assert machine.changes == []
    assert not (machine.folder / ".env").exists()
    said = capsys.readouterr().out
    assert "http://nginx:8085" in said
    assert not re.search(r"\btoken\b", said)


def test_what_stands_in_env_stays(machine: Machine) -> None:
    (machine.folder / ".env").write_text(
        "COMPOSE_PROFILES=gpu,label-studio,tls\nMODEL=demo\nLABEL_STUDIO_URL=\n"
    )
    machine.run(*OFFICIAL)
    assert attach.main([]) == 0
    assert machine.env["COMPOSE_PROFILES"] == "cpu,tls"
    assert machine.env["MODEL"] == "demo"


def test_the_token_that_label_studio_was_started_with_is_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    machine.run(container("studio", env=["LABEL_STUDIO_USER_TOKEN=a$b"]))
    assert attach.main([]) == 0
    assert "LABEL_STUDIO_API_KEY='a$b'\n" in (machine.folder / ".env").read_text()
    assert (machine.folder / ".env").stat().st_mode & 0o77 == 0


LONELY = container("studio", ports={"8080/tcp": None})
UNNAMED = container("a_b", networks={"lab": {"Aliases": ["a_b"]}})
TAKEN = [
    container("studio", networks={"lab": {"Aliases": ["studio"]}}),
    container("web", image="web", networks={"lab": {"Aliases": ["backend"]}}),
]


@pytest.mark.parametrize(
    ("containers", "arguments", "sentence"),
    [
        ([], ["--port", "9"], "No container of Label Studio runs, and none answers"),
        ([container("a"), container("b")], [], "Several Label Studios run: a, b."),
        ([container("a")], ["--container", "c"], "No container c runs. Those that do: a."),
        ([LONELY], [], "Say so by --browser-url"),
        ([UNNAMED], [], "No name of the container a_b on the network lab"),
        (TAKEN, [], "The container web is called backend on the network lab"),
    ],
)
def test_what_is_not_found_has_a_sentence(
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    containers: list[Any],
    arguments: list[str],
    sentence: str,
) -> None:
    machine.run(*containers)
    assert attach.main(arguments) == 1
    assert sentence in capsys.readouterr().err
    assert machine.changes == []


def test_no_token(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    machine.run(*OFFICIAL)
    assert attach.main([]) == 1
    assert "copy one at http://localhost:8080, under Account" in capsys.readouterr().err


def test_an_old_compose_and_no_docker(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.run(compose_version="1.29.2")
    assert attach.main([]) == 1
    monkeypatch.setenv("PATH", "/nowhere")
    assert attach.main([]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Docker Compose 2.20 or later is needed, and this is 1.29.2."
    assert said[1].startswith("There is no docker command here")


def test_an_engine_that_does_not_answer(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine.folder / "bin" / "docker.json").write_text("{}")
    assert attach.main([]) == 1
    assert capsys.readouterr().err == "docker compose fails: Cannot connect to the Docker daemon.\n"


def test_an_override_of_ones_own_is_left(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.run(*OFFICIAL)
    (machine.folder / "compose.override.yml").write_text("services: {}\n")
    assert attach.main([]) == 1
    assert "compose.override.yml is yours and stays as it is" in capsys.readouterr().err
    assert machine.changes == []


@pytest.mark.parametrize("value", [None, "true"])
def test_a_label_studio_that_refuses_private_addresses_is_named(
    machine: Machine, capsys: pytest.CaptureFixture[str], value: str | None
) -> None:
    machine.run(container("studio", env=[f"ML_BLOCK_LOCAL_IP={value}"] if value else []))
    attach.main(["--dry-run"])
    assert "without ML_BLOCK_LOCAL_IP=false" in capsys.readouterr().out
    machine.run(*OFFICIAL)
    attach.main(["--dry-run"])
    assert "ML_BLOCK_LOCAL_IP" not in capsys.readouterr().out
