"""The container files, as far as they can be held without an engine; `make check` lints them."""

from __future__ import annotations

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

#: What `.env` gives, as `docker compose` reads it: comments and blank lines apart.
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
SETTINGS = {variables(field)[0] for field in Settings.model_fields}
SECRETS = {"LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "POSTGRES_PASSWORD"}


def test_every_variable_is_used_and_is_in_the_example_or_a_setting() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE)) | {"COMPOSE_PROFILES"}
    assert set(EXAMPLE) <= used <= set(EXAMPLE) | SETTINGS


def test_the_example_gives_no_secret_and_compose_asks_for_each() -> None:
    assert {name for name, value in EXAMPLE.items() if not value} == SECRETS | {
        "BASIC_AUTH_USER",
        "BASIC_AUTH_PASS",
        "ALLOWED_HOSTS",
        "AUTO_PRELABEL",
        "DATABASE_URL",
    }
    for name in SECRETS:
        assert set(re.findall(rf"\$\{{{name}(.*?)\}}", COMPOSE)) == {":?"}


@pytest.mark.parametrize("name", BACKENDS)
def test_the_backend_is_told_every_setting_but_those_of_its_container(name: str) -> None:
    told = SERVICES[name]["environment"]
    assert set(told) == SETTINGS - {"HOST", "PORT", "MODEL_DIR"}
    for setting in SETTINGS - {"HOST", "PORT", "MODEL_DIR", "LABEL_STUDIO_URL"} - SECRETS:
        assert told[setting] == f"${{{setting}:-}}"


def test_label_studio_may_reach_a_private_address_and_waits_for_predictions() -> None:
    told = SERVICES["label-studio"]["environment"]
    assert told["ML_BLOCK_LOCAL_IP"] == told["SSRF_PROTECTION_ENABLED"] == "false"
    assert told["ff_front_dev_1682_model_version_dropdown_070622_short"] == "true"
    assert float(told["ML_TIMEOUT_PREDICT"]) > 100


def test_the_backend_has_the_token_of_label_studios_user_and_its_address() -> None:
    user = SERVICES["label-studio"]["environment"]
    assert user["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "true"
    for name in BACKENDS:
        told = SERVICES[name]["environment"]
        assert told["LABEL_STUDIO_API_KEY"] == user["LABEL_STUDIO_USER_TOKEN"]
        assert told["LABEL_STUDIO_URL"] == "http://label-studio:8080"


def test_there_is_one_backend_a_profile_and_both_have_the_same_address() -> None:
    assert {tuple(SERVICES[name]["profiles"]) for name in BACKENDS} == {("cpu",), ("gpu",)}
    assert {tuple(SERVICES[name]["networks"]["default"]["aliases"]) for name in BACKENDS} == {
        ("backend",)
    }
    (device,) = SERVICES["backend-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["backend-cpu"]


def test_images_are_pinned_and_what_people_open_is_published_on_an_address_one_chooses() -> None:
    published = {name for name, service in SERVICES.items() if "ports" in service}
    assert published == {"label-studio", *BACKENDS}
    for name in BACKENDS:
        assert SERVICES[name]["ports"] == ["${BACKEND_BIND:-127.0.0.1}:${BACKEND_PORT:-9090}:9090"]
    assert SERVICES["label-studio"]["ports"] == [
        "${LABEL_STUDIO_BIND:-127.0.0.1}:${LABEL_STUDIO_PORT:-8080}:8080"
    ]
    for name in ("label-studio", "postgres"):
        assert re.search(r":\d+\.\d+", SERVICES[name]["image"])


def test_named_volumes_hold_all_that_must_last() -> None:
    volumes = yaml.safe_load(COMPOSE)["volumes"]
    mounted = {
        mount.rsplit(":", 1)[0] for service in SERVICES.values() for mount in service["volumes"]
    }
    assert mounted == {"label-studio", "postgres", "${MODELS:-models}"}
    assert set(volumes) == {"label-studio", "postgres", "models"}


def test_every_service_has_a_healthcheck() -> None:
    assert "HEALTHCHECK" in DOCKERFILE  # the backends'
    assert all("healthcheck" in SERVICES[name] for name in ("label-studio", "postgres"))


def test_the_image_runs_as_nobody_special_and_keeps_weights_where_it_may_write() -> None:
    assert DOCKERFILE.index("USER 1000") < DOCKERFILE.index('CMD ["clearclip-backend", "serve"]')
    assert "MODEL_DIR=/models" in DOCKERFILE
    assert "--owner clearclip /models" in DOCKERFILE
    assert all(mount.endswith(":/models") for mount in SERVICES["backend-cpu"]["volumes"])


def test_the_image_takes_label_studio_ml_from_a_commit_without_its_dependencies() -> None:
    assert re.search(r"LABEL_STUDIO_ML=[0-9a-f]{40}\n", DOCKERFILE)
    assert re.search(r"--no-deps \\\n\s*\"https://github.com/HumanSignal/label-stud", DOCKERFILE)


def test_the_image_has_the_commit_of_label_studio_ml_that_the_extra_names() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (commit,) = re.findall(r"LABEL_STUDIO_ML=([0-9a-f]{40})\n", DOCKERFILE)
    archive = f"https://github.com/HumanSignal/label-studio-ml-backend/archive/{commit}.tar.gz"
    assert f'label-studio-ml = ["label-studio-ml @ {archive}"]' in project


def test_the_image_installs_what_the_project_asks_for_as_it_stands() -> None:
    assert "--requirement pyproject.toml --extra postgres" in re.sub(r"\\\n\s*", "", DOCKERFILE)


def test_the_build_context_holds_all_that_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    copied = {
        word.removeprefix("./")
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert {line[1:] for line in lines if line.startswith("!")} == copied
