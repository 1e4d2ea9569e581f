"""The container files, without an engine; `make check` lints them."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from backend.settings import Settings
from backend.web import server

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "backend" / "Dockerfile").read_text(encoding="utf-8")
CONFIGS: dict[str, dict[str, str]] = yaml.safe_load(COMPOSE)["configs"]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
BACKENDS = ["backend-cpu", "backend-gpu"]
STUDIO = SERVICES["label-studio"]
DEPLOY = ROOT / "deploy"

EXAMPLE_LINES = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
#: What `.env` gives, as `docker compose` reads it: comments and blank lines apart.
EXAMPLE = dict(line.split("=", 1) for line in EXAMPLE_LINES if line and not line.startswith("#"))
#: What it offers besides, each with its default behind a #.
OFFERED = dict(
    line[1:].split("=", 1) for line in EXAMPLE_LINES if re.match(r"#[A-Z][A-Z_]*=", line)
)
SETTINGS = {field.upper() for field in Settings.model_fields}
#: What is the container's own, whatever `.env` says.
OWN = {"HOST": "0.0.0.0", "PORT": "9090", "MODEL_DIR": "/models"}
OWN |= {"LABEL_STUDIO_BROWSER_URL": "http://localhost:8080"}
STUDIO_URL = {"LABEL_STUDIO_URL": "http://label-studio:8080"}
SECRETS = {"LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "POSTGRES_PASSWORD"}


def told(name: str, env_file: dict[str, str]) -> dict[str, str]:
    """The environment of a service, as Compose makes it: of two values, `environment` wins."""
    service = SERVICES[name]
    assert service["env_file"] == ".env"
    own = service["environment"].items()
    return env_file | {variable: insert(value, env_file) for variable, value in own}


def insert(value: str, variables: dict[str, str]) -> str:
    """Insert variables as Compose does: `${NAME:?}` needs one, `${NAME:-default}` may be empty."""
    return re.sub(
        r"\$\{(\w+):(?:\?[^}]*|-([^}]*))\}",
        lambda found: variables.get(found[1]) or found[2] or "",
        value,
    )


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_example_has_every_variable_that_is_used_and_every_setting_but_the_containers_own() -> (
    None
):
    used = set(re.findall(r"\$\{(\w+)", COMPOSE)) | {"COMPOSE_PROFILES"} | SETTINGS
    assert set(EXAMPLE) <= used <= set(EXAMPLE) | SETTINGS
    assert set(EXAMPLE) | set(OFFERED) >= SETTINGS - set(OWN)
    assert not (set(EXAMPLE) | set(OFFERED)) & set(OWN)
    assert not set(EXAMPLE) & set(OFFERED)


def test_what_the_example_offers_is_what_holds_without_it(bare: pytest.MonkeyPatch) -> None:
    there = Settings()
    for name in SETTINGS & (set(OFFERED) | set(EXAMPLE)):
        bare.setenv(name, (OFFERED | EXAMPLE)[name])
    assert Settings() == there


def test_the_example_gives_no_secret_and_compose_asks_for_each() -> None:
    for name in SECRETS:
        assert EXAMPLE[name] == ""
        assert re.search(rf"\$\{{{name}:", COMPOSE)
    assert "${LABEL_STUDIO_API_KEY:?copy .env.example to .env and fill it in}" in COMPOSE
    assert not re.findall(r"\$\{(?!LABEL_STUDIO_API_KEY)\w+:\?", COMPOSE), "the backend alone"
    assert all(SERVICES[name]["profiles"] for name in SERVICES)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_backend_is_told_every_setting_but_those_of_its_container(name: str) -> None:
    given = told(name, dict.fromkeys(SETTINGS, "as .env says"))
    assert {variable for variable in SETTINGS if given[variable] != "as .env says"} == set(OWN)
    assert given | OWN == given
    assert told(name, {})["LABEL_STUDIO_URL"] == STUDIO_URL["LABEL_STUDIO_URL"]
    host = {"LABEL_STUDIO_HOST": "https://label.example.org"}
    assert told(name, host)["LABEL_STUDIO_BROWSER_URL"] == host["LABEL_STUDIO_HOST"]
    secret = told(name, dict.fromkeys(SECRETS, "secret"))
    assert [key for key, value in secret.items() if value == "secret"] == ["LABEL_STUDIO_API_KEY"]


@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_empty_in_env_has_its_default(name: str, bare: pytest.MonkeyPatch) -> None:
    own: dict[str, Any] = {name.lower(): value for name, value in (OWN | STUDIO_URL).items()}
    expected = Settings(**own, label_studio_api_key="token")
    empty = dict.fromkeys(SETTINGS, "") | {"LABEL_STUDIO_API_KEY": "token"}
    for variable, value in told(name, empty).items():
        bare.setenv(variable, value)
    assert Settings() == expected


def test_label_studio_may_reach_the_backend_and_waits_for_predictions() -> None:
    told = STUDIO["environment"]
    assert told["ML_BLOCK_LOCAL_IP"] == "false"
    assert "SSRF_PROTECTION_ENABLED" not in told, "with it, import by URL reads any service"
    assert told["fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"] == "true"
    assert told["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "true"
    assert float(told["ML_TIMEOUT_PREDICT"]) > 100
    (config,) = STUDIO["configs"]
    assert STUDIO["command"][2].endswith(config["target"])
    ini = configparser.ConfigParser()
    ini.read(ROOT / CONFIGS[config["source"]]["file"])
    for limit in ("harakiri", "http-timeout"):
        assert ini.getint("uwsgi", limit) > float(told["ML_TIMEOUT_PREDICT"])
    (address,) = re.findall(r"http://(backend[^ ]*):9090", "\n".join(EXAMPLE_LINES))
    assert "." not in address  # for others Label Studio makes a webhook, which it may not call
    for name in BACKENDS:
        own = SERVICES[name]["environment"]
        assert own["LABEL_STUDIO_API_KEY"] == told["LABEL_STUDIO_USER_TOKEN"]
        assert address in SERVICES[name]["networks"]["default"]["aliases"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_gains_privileges_or_fills_the_machine(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert 0 < service["pids_limit"] <= 4096
    assert re.fullmatch(r"\d+[gm]|\$\{\w+_MEMORY:-\d+g\}", service["mem_limit"])
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if name not in ("label-studio", "postgres"):  # whose images write beside their volumes
        assert service["read_only"] is True
    if name not in BACKENDS:
        assert re.search(r":\d+\.\d+", service["image"]), "it is pinned"
    for port in service.get("ports", ()):
        kept = name == "proxy" or port.startswith(
            ("${BACKEND_BIND:-127", "${LABEL_STUDIO_BIND:-127")
        )
        assert kept, "only the proxy is open to other machines"
    for config in service.get("configs", ()):
        assert (ROOT / CONFIGS[config["source"]]["file"]).is_file()


def test_the_proxy_leaves_the_backend_connections_and_takes_no_larger_bodies() -> None:
    caddyfile = (ROOT / CONFIGS["caddyfile"]["file"]).read_text(encoding="utf-8")
    sizes = re.findall(r"max_size (\d+)MB", caddyfile)
    assert sizes == [str(Settings().max_body_mb)]
    (connections,) = re.findall(r"max_conns_per_host (\d+)", caddyfile)
    assert int(connections) < server._MAX_CONNECTIONS // 2
    assert caddyfile.count("read_header") == caddyfile.count("servers") == 2
    for name in BACKENDS:
        (place,) = SERVICES[name]["tmpfs"]
        memory = SERVICES[name]["mem_limit"].partition(":-")[2]
        in_gb = [int(re.findall(r"(\d+)g", size)[0]) for size in (place, memory)]
        assert 4 * in_gb[0] <= in_gb[1]
        assert in_gb[0] << 10 > 2 * Settings().max_body_mb


def test_the_image_runs_as_nobody_special_and_keeps_weights_where_it_may_write() -> None:
    image = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert image.index("USER 1000") < image.index('CMD ["clearclip-backend", "serve", "--wait"]')
    assert "MODEL_DIR=/models" in image
    assert all(mount.endswith(":/models") for mount in SERVICES["backend-cpu"]["volumes"])


def pinned(file: str) -> dict[str, Requirement]:
    """The requirements of a file by name, of those for Linux and the image's Python."""
    text = re.sub(r"\s*\\\n\s*--hash=\S+", "", (DEPLOY / file).read_text(encoding="utf-8"))
    (python,) = set(re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.MULTILINE))
    there = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
    }
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    kept = [one for one in found if one.marker is None or one.marker.evaluate(there)]
    assert len({one.name for one in kept}) == len(kept)
    return {one.name.lower().replace("_", "-"): one for one in kept}


def test_the_lock_file_and_torch_have_a_release_of_everything_that_is_asked_for() -> None:
    """The project's dependencies, three of its extras, and requirements.in."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (dependencies,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    extras = re.findall(r"^(?:postgres|dataset|sam) = \[(.*?)\]  #", project, re.MULTILINE)
    assert len(extras) == 3
    named = re.findall(r'"([^"]+)"', re.sub(r"#.*", "", dependencies) + " ".join(extras))
    there = pinned("requirements.lock") | pinned("torch.txt")
    for asked in [*map(Requirement, named), *pinned("requirements.in").values()]:
        if asked.marker is not None and not asked.marker.evaluate({"python_version": "3.12"}):
            continue
        (pin,) = there[asked.name.lower().replace("_", "-")].specifier
        assert pin.operator == "=="
        assert asked.specifier.contains(pin.version), f"make lock: {asked}"


def test_the_build_context_holds_all_that_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    copied = {
        word.removeprefix("./")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert {line[1:] for line in lines if line.startswith("!")} == copied
