"""The container files, as far as they can be held without an engine; `make check` lints them."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.settings import Settings, variables

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "backend" / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
BACKENDS = ["backend-cpu", "backend-gpu"]
DEPLOY = ROOT / "deploy"

EXAMPLE_LINES = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
#: What `.env` gives, as `docker compose` reads it: comments and blank lines apart.
EXAMPLE = dict(line.split("=", 1) for line in EXAMPLE_LINES if line and not line.startswith("#"))
#: What it offers besides, each with its default behind a #.
OFFERED = dict(
    line[1:].split("=", 1) for line in EXAMPLE_LINES if re.match(r"#[A-Z][A-Z_]*=", line)
)
SETTINGS = {variables(field)[0] for field in Settings.model_fields}
#: What is the container's own, whatever `.env` says.
OWN = {
    "HOST": "0.0.0.0",
    "PORT": "9090",
    "MODEL_DIR": "/models",
    "LABEL_STUDIO_URL": "http://label-studio:8080",
}
SECRETS = {"LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "POSTGRES_PASSWORD"}


def told(name: str, env_file: dict[str, str]) -> dict[str, str]:
    """The environment of a service, as Compose makes it: of two values, `environment` wins."""
    service = SERVICES[name]
    assert service["env_file"] == ".env"
    inserted = {
        variable: insert(value, env_file) for variable, value in service["environment"].items()
    }
    return env_file | inserted


def insert(value: str, variables: dict[str, str]) -> str:
    """Insert variables as Compose does: `${NAME:?}` needs one, `${NAME:-default}` may be empty."""
    return re.sub(
        r"\$\{(\w+):(?:\?|-([^}]*))\}",
        lambda found: variables.get(found[1]) or found[2] or "",
        value,
    )


def test_every_variable_is_used_and_is_in_the_example_or_a_setting() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE)) | {"COMPOSE_PROFILES"} | SETTINGS
    assert set(EXAMPLE) <= used <= set(EXAMPLE) | SETTINGS


def test_the_example_has_every_setting_that_is_not_the_containers_own() -> None:
    assert set(EXAMPLE) | set(OFFERED) >= SETTINGS - set(OWN)
    assert not (set(EXAMPLE) | set(OFFERED)) & set(OWN)
    assert not set(EXAMPLE) & set(OFFERED)


def test_what_the_example_offers_is_what_holds_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bare(monkeypatch)
    there = Settings()
    for name, value in (
        OFFERED | {name: EXAMPLE[name] for name in set(EXAMPLE) & SETTINGS}
    ).items():
        monkeypatch.setenv(name, value)
    assert Settings() == there


def test_the_example_gives_no_secret_and_compose_asks_for_each() -> None:
    assert {name for name, value in EXAMPLE.items() if not value} == SECRETS | {
        "BASIC_AUTH_USER",
        "LABEL_STUDIO_BROWSER_URL",
        "BASIC_AUTH_PASS",
        "ALLOWED_HOSTS",
        "SERVER_NAMES",
        "AUTO_PRELABEL",
        "DATABASE_URL",
    }
    for name in SECRETS:
        assert set(re.findall(rf"\$\{{{name}(.*?)\}}", COMPOSE)) == {":?"}


def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        for name in variables(field):
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_backend_is_told_every_setting_but_those_of_its_container(name: str) -> None:
    given = told(name, dict.fromkeys(SETTINGS, "as .env says"))
    assert {variable for variable in SETTINGS if given[variable] != "as .env says"} == set(OWN)
    assert given | OWN == given


@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_empty_in_env_has_its_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare(monkeypatch)
    own = {variable.lower(): value for variable, value in OWN.items()}
    host = "http://localhost:8080"  # Label Studio's own default here
    expected = Settings(**own, label_studio_api_key="token", label_studio_browser_url=host)  # type: ignore[arg-type]
    empty = dict.fromkeys(SETTINGS, "") | {"LABEL_STUDIO_API_KEY": "token"}
    for variable, value in told(name, empty).items():
        monkeypatch.setenv(variable, value)
    assert Settings() == expected


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("host", ["", "https://label.example.org"])
def test_links_lead_to_the_address_that_label_studio_has(name: str, host: str) -> None:
    of_shell = {"LABEL_STUDIO_HOST": host, "LABEL_STUDIO_API_KEY": "token"}
    studio = insert(SERVICES["label-studio"]["environment"]["LABEL_STUDIO_HOST"], of_shell)
    backend = insert(SERVICES[name]["environment"]["LABEL_STUDIO_HOST"], of_shell)
    assert backend == studio == (host or "http://localhost:8080")


@pytest.mark.parametrize("name", BACKENDS)
def test_the_backend_is_told_no_secret_of_another_service(name: str) -> None:
    secret = dict.fromkeys(SECRETS, "secret")
    assert {key for key, value in told(name, secret).items() if value == "secret"} == {
        "LABEL_STUDIO_API_KEY"
    }


def test_label_studio_may_reach_a_private_address_and_waits_for_predictions() -> None:
    told = SERVICES["label-studio"]["environment"]
    assert told["ML_BLOCK_LOCAL_IP"] == "false"
    assert "SSRF_PROTECTION_ENABLED" not in told, "with it, import by URL reads any service"
    assert told["ff_front_dev_1682_model_version_dropdown_070622_short"] == "true"
    assert float(told["ML_TIMEOUT_PREDICT"]) > 100


def test_label_studio_runs_under_a_server_that_waits_longer_than_label_studio_itself() -> None:
    service = SERVICES["label-studio"]
    (shell, _, command) = service["command"]
    assert shell == "sh"
    assert re.fullmatch(r"label-studio init && exec uwsgi --ini (\S+)", command)
    (config,) = service["configs"]
    assert command.endswith(config["target"])
    ini = uwsgi_ini()
    for limit in ("harakiri", "http-timeout"):
        assert ini.getint("uwsgi", limit) > float(service["environment"]["ML_TIMEOUT_PREDICT"])
    assert ini["uwsgi"]["http"].endswith(":8080")  # the port that is published and asked for health


def uwsgi_ini() -> configparser.ConfigParser:
    """Return the configuration of Label Studio's server that Compose mounts."""
    (config,) = SERVICES["label-studio"]["configs"]
    ini = configparser.ConfigParser()
    ini.read(ROOT / yaml.safe_load(COMPOSE)["configs"][config["source"]]["file"])
    return ini


def test_the_proxy_leads_to_both_services_and_sets_no_time_limit() -> None:
    proxy = SERVICES["proxy"]
    assert proxy["profiles"] == ["tls"]
    caddyfile = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    aliases = SERVICES["backend-cpu"]["networks"]["default"]["aliases"]
    for host, port in re.findall(r"reverse_proxy (\S+):(\d+)", caddyfile):
        assert (host == "label-studio" and port == "8080") or (host in aliases and port == "9090")
    assert "timeout" not in re.sub(r"#.*", "", caddyfile)
    assert set(re.findall(r"\{\$(\w+)\}", caddyfile)) == set(proxy["environment"])
    # Where one of its ports is taken, the others have started.
    assert set(proxy["depends_on"]) == {"label-studio", *BACKENDS}
    # Django refuses forms of another origin, and the proxy's is one: Caddy asks without TLS.
    origin = SERVICES["label-studio"]["environment"]["CSRF_TRUSTED_ORIGINS"]
    assert origin == "https://" + proxy["environment"]["PROXY_HOST"]


def test_a_profile_makes_the_database_before_the_backend_starts() -> None:
    service = SERVICES["create-database"]
    assert service["profiles"] == ["database"]
    assert service["restart"] == "no"
    assert service["image"] == SERVICES["postgres"]["image"]
    assert service["environment"]["PGPASSWORD"] == "${POSTGRES_PASSWORD:?}"
    for name in BACKENDS:
        assert SERVICES[name]["depends_on"]["create-database"] == {
            "condition": "service_completed_successfully",
            "required": False,
        }


def test_every_file_that_is_handed_to_a_service_is_there() -> None:
    configs = yaml.safe_load(COMPOSE)["configs"]
    used = [
        config["source"] for service in SERVICES.values() for config in service.get("configs", [])
    ]
    assert sorted(used) == sorted(configs)
    assert all((ROOT / config["file"]).is_file() for config in configs.values())


def test_the_backend_has_the_token_of_label_studios_user_and_its_address() -> None:
    user = SERVICES["label-studio"]["environment"]
    assert user["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "true"
    for name in BACKENDS:
        told = SERVICES[name]["environment"]
        assert told["LABEL_STUDIO_API_KEY"] == user["LABEL_STUDIO_USER_TOKEN"]
        assert told["LABEL_STUDIO_URL"] == "http://label-studio:8080"


def test_label_studio_makes_no_webhook_for_the_address_to_connect() -> None:
    (address,) = re.findall(r"http://(backend[^ ]*):9090", "\n".join(EXAMPLE_LINES))
    assert "." not in address  # for others Label Studio makes one, which it may not call
    for name in BACKENDS:
        assert address in SERVICES[name]["networks"]["default"]["aliases"]
        assert address == SERVICES[name]["hostname"]  # as the backend's log says


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_gains_privileges_or_fills_the_machine(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service["init"] is True
    assert 0 < service["pids_limit"] <= 4096
    assert re.fullmatch(r"\d+[gm]|\$\{\w+_MEMORY:-\d+g\}", service["mem_limit"])
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if name not in ("label-studio", "postgres"):  # whose images write beside their volumes
        assert service["read_only"] is True


def test_images_are_pinned_and_what_people_open_is_published_on_an_address_one_chooses() -> None:
    published = {name for name, service in SERVICES.items() if "ports" in service}
    assert published == {"label-studio", "proxy", *BACKENDS}
    for name in BACKENDS:
        assert SERVICES[name]["ports"] == ["${BACKEND_BIND:-127.0.0.1}:${BACKEND_PORT:-9090}:9090"]
    assert SERVICES["label-studio"]["ports"] == [
        "${LABEL_STUDIO_BIND:-127.0.0.1}:${LABEL_STUDIO_PORT:-8080}:8080"
    ]
    assert SERVICES["proxy"]["ports"] == [
        "${PROXY_BIND:-0.0.0.0}:80:80",
        "${PROXY_BIND:-0.0.0.0}:443:443",
        "${BACKEND_BIND:-127.0.0.1}:9443:9443",
    ]
    for name in set(SERVICES) - set(BACKENDS):
        assert re.search(r":\d+\.\d+", SERVICES[name]["image"])
