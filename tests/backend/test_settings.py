"""Settings from the environment and from flags."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.database.database import Database
from backend.settings import Settings, load_settings, share_model_dir, variables


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        for name in variables(field):
            monkeypatch.delenv(name, raising=False)


def test_defaults_stand_alone() -> None:
    settings = load_settings()
    assert (settings.model, settings.method, settings.port) == (
        "ViT-B-16/openai",
        "clearclip",
        9090,
    )
    assert settings.label_studio_url is None
    assert settings.label_studio_api_key is None
    assert settings.model_dir == Path.home() / ".cache" / "clearclip"


@pytest.mark.parametrize("name", ["LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"])
def test_both_names_of_the_url_are_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://studio:8080/label/")
    assert load_settings().label_studio_url == "http://studio:8080/label"


def test_what_label_studio_calls_its_host_is_for_people_where_the_url_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `.env` of Compose has it; an empty variable does not count."""
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://label-studio:8080")
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://localhost:8080/")
    monkeypatch.setenv("LABEL_STUDIO_BROWSER_URL", "")
    settings = load_settings()
    assert settings.label_studio_url == "http://label-studio:8080"
    assert settings.label_studio_browser_url == "http://localhost:8080"
    monkeypatch.setenv("LABEL_STUDIO_BROWSER_URL", "https://studio.example.com")
    assert load_settings().label_studio_browser_url == "https://studio.example.com"


@pytest.mark.parametrize("name", ["LABEL_STUDIO_API_KEY", "LABEL_STUDIO_ACCESS_TOKEN"])
def test_both_names_of_the_token_are_read_and_hidden(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv(name, "b" * 40)
    key = load_settings().label_studio_api_key
    assert key is not None
    assert key.get_secret_value() == "b" * 40
    assert "bbbb" not in repr(load_settings())


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1000")
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://environment:1")
    settings = load_settings(port=2000, label_studio_url="http://flag:2", model=None)
    assert (settings.port, settings.label_studio_url) == (2000, "http://flag:2")
    assert settings.model == "ViT-B-16/openai"


def test_empty_variables_count_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_USER", "PORT"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert settings.label_studio_url is None
    assert settings.basic_auth_user is None
    assert settings.port == 9090


@pytest.mark.parametrize(
    ("given", "shared"),
    [
        (None, Path.home() / ".cache" / "clearclip"),
        ("", Path.home() / ".cache" / "clearclip"),
        ("~/weights", Path.home() / "weights"),
        ("/models", Path("/models")),
    ],
)
def test_the_folder_of_weights_is_shared_in_full(
    monkeypatch: pytest.MonkeyPatch, given: str | None, shared: Path
) -> None:
    monkeypatch.setenv("MODEL_DIR", given or "")
    if given is None:
        monkeypatch.delenv("MODEL_DIR")
    share_model_dir()
    assert os.environ["MODEL_DIR"] == str(shared)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("LABEL_STUDIO_URL", "studio:8080"),
        ("LABEL_STUDIO_HOST", "http://user:pass@studio"),
        ("LABEL_STUDIO_URL", "http://studio:port"),
        ("PRECISION", "int4"),
        ("MIN_ISLAND_SHARE", "1.5"),
        ("DOWNLOAD_TIMEOUT_S", "0"),
        ("DOWNLOAD_TIMEOUT_S", "inf"),
        ("PREDICT_DEADLINE_S", "inf"),
        ("PREDICT_DEADLINE_S", "nan"),
        ("MODEL", "  "),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("SCORE", "margin"),
        ("FEATURE_CACHE_MB", "-1"),
        ("ALLOWED_HOSTS", "http://minio"),
        ("ALLOWED_HOSTS", "http://user:pass@minio"),
        ("SERVER_NAMES", "https://clearclip.lab.example"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"^[A-Z_ or]*{name}[A-Z_ or]*: .*\.$") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value)
    assert str(caught.value).count("but got") <= 1


@pytest.mark.parametrize("key", ["'c0ffee'", "c0f fee", "c0ffeé", "c0ffee\nX: y", "  "])
def test_a_mistyped_token_is_refused_before_it_is_sent(key: str) -> None:
    with pytest.raises(ValueError, match="copy it again from Label Studio") as caught:
        load_settings(label_studio_url="http://studio", label_studio_api_key=key)
    assert "c0f" not in str(caught.value)


@pytest.mark.parametrize("given", [{"basic_auth_user": "ann"}, {"basic_auth_pass": "s3cret"}])
def test_basic_auth_needs_both_halves(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="set both or none") as caught:
        load_settings(**given)
    assert "s3cret" not in str(caught.value)


def test_an_empty_password_is_none() -> None:
    with pytest.raises(ValueError, match="BASIC_AUTH_PASS"):
        load_settings(basic_auth_user="ann", basic_auth_pass="")


def test_a_token_needs_a_host_to_go_to() -> None:
    with pytest.raises(ValueError, match="needs LABEL_STUDIO_URL") as caught:
        load_settings(label_studio_api_key="s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://cc:p@ss/w0rd@db:5432/cc",
        "postgresql+psycopg://cc:12@34:56@db/cc",
        "postgresql+psycopg://cc:w0rd@x@db/cc",
        "postgresql+psycopg://c/c:w0rd@db/cc",
        "postgresql+psycopg://db:w0rd/cc",
        "w0rd",
    ],
)
def test_a_database_whose_address_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL: expected an address such as") as caught:
        load_settings(database_url=url)
    assert not any(part in str(caught.value) for part in ("p@ss", "w0rd", "34"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://cc:p%40ss%2Fw0rd@db:5432/cc?sslmode=require",
        "postgresql+psycopg://ann@cloud:p%40ss@db/cc",
        "sqlite:////home/ann@lab/jobs.db",
    ],
)
def test_databases_whose_address_can_be_read(url: str) -> None:
    found = load_settings(database_url=url).database_url
    assert found is not None
    assert found.get_secret_value() == url


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "PostgreSQL", "postgresql+psycopg"])
def test_a_postgresql_without_a_driver_is_read_with_psycopg(scheme: str) -> None:
    found = load_settings(database_url=f"{scheme}://cc:p%40ss@db:5432/cc?sslmode=require")
    assert found.database_url is not None
    url = found.database_url.get_secret_value()
    assert url == "postgresql+psycopg://cc:p%40ss@db:5432/cc?sslmode=require"
    assert Database.from_settings(found).url.get_dialect().driver == "psycopg"


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg", "pg8000"])
def test_another_driver_is_refused_with_the_one_that_is_supported(driver: str) -> None:
    with pytest.raises(
        ValueError, match=r"DATABASE_URL: .*postgresql\+psycopg://.*no other"
    ) as said:
        load_settings(database_url=f"postgresql+{driver}://cc:w0rd@db/cc")
    assert "w0rd" not in str(said.value)


@pytest.mark.parametrize("url", ["mysql://x", "mysql+pymysql://cc:w0rd@db/cc"])
def test_a_database_of_another_kind_is_refused_with_those_that_are_supported(url: str) -> None:
    with pytest.raises(
        ValueError, match=r"DATABASE_URL: expected SQLite.* or PostgreSQL"
    ) as caught:
        load_settings(database_url=url)
    assert "w0rd" not in str(caught.value)


@pytest.mark.parametrize("projects", ["0", "7,0", "00", "2147483648", "all,7", "-7"])
def test_numbers_that_no_project_has_are_not_prelabeled(projects: str) -> None:
    with pytest.raises(ValueError, match="AUTO_PRELABEL: expected numbers of projects"):
        load_settings(auto_prelabel=projects)


def test_space_around_a_token_is_none_of_it() -> None:
    read = load_settings(label_studio_url="http://studio", label_studio_api_key=" c0ffee\n")
    assert read.label_studio_api_key is not None
    assert read.label_studio_api_key.get_secret_value() == "c0ffee"
