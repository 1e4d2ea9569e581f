"""Settings from the environment and from flags."""

from pathlib import Path
from typing import Any

import pytest

from backend.database.database import Database
from backend.settings import Settings, foreign_settings, load_settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)


def test_defaults_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = load_settings()
    assert (bare.model, bare.method, bare.port) == ("ViT-B-16/openai", "clearclip", 9090)
    assert (bare.label_studio_url, bare.label_studio_api_key, bare.basic_auth_user) == (None,) * 3
    assert bare.model_dir == Path.home() / ".cache" / "clearclip"
    for field in Settings.model_fields:
        monkeypatch.setenv(field.upper(), "")
    assert load_settings() == bare


def test_a_token_is_stripped_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080/label/")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", f" {'b' * 40}\n")
    settings = load_settings()
    assert settings.label_studio_url == "http://studio:8080/label"
    assert settings.label_studio_api_key.get_secret_value() == "b" * 40
    assert "bbbb" not in repr(settings)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1000")
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://environment:1")
    settings = load_settings(port=2000, label_studio_url="http://flag:2", model=None)
    assert (settings.port, settings.label_studio_url) == (2000, "http://flag:2")
    assert settings.model == "ViT-B-16/openai"


def test_the_names_of_label_studio_ml_are_read_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://studio:8080")
    assert load_settings().label_studio_url == "http://studio:8080"
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://wins:8080")
    assert load_settings().label_studio_url == "http://wins:8080"
    monkeypatch.setenv("WORKERS", "4")
    (said,) = foreign_settings()
    assert said.startswith("WORKERS does nothing here")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PORT", "http"), ("PORT", "0"), ("LABEL_STUDIO_URL", "studio:8080")),
        ("LABEL_STUDIO_BROWSER_URL", "http://user:pass@studio"),
        *(("LABEL_STUDIO_URL", "http://studio:port"), ("PRECISION", "int4")),
        *(("DEVICE", "abacus"), ("MIN_ISLAND_SHARE", "1.5"), ("DOWNLOAD_TIMEOUT_S", "inf")),
        *(("PREDICT_DEADLINE_S", "nan"), ("MODEL", "  "), ("LOG_LEVEL", "loud")),
        *(("ALLOWED_HOSTS", "http://user:pass@minio"), ("AUTO_PRELABEL", "7,0")),
        *(("AUTO_PRELABEL", "2147483648"), ("AUTO_PRELABEL", "all,7"), ("TEMPLATES", "8")),
    ],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"^{name}: .*\.$") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value)
    assert str(caught.value).count("but got") <= 1


STUDIO = {"label_studio_url": "http://studio"}
BROKEN_KEYS = ["'s3cret'", "s3c ret", "s3cret\u00e9", "s3cret\nX: y", "  "]
PLACES = ["cc:p@s3c/ret@db:5432", "cc:12@s3cret:56@db", "cc:s3cret@x@db", "c/c:s3cret@db"]
BROKEN_URLS = [f"postgresql+psycopg://{place}/cc" for place in (*PLACES, "db:s3cret")]
BROKEN_URLS += ["postgresql+asyncpg://cc:s3cret@db/cc", "s3cret"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        *((STUDIO | {"label_studio_api_key": key}, "copy it again") for key in BROKEN_KEYS),
        ({"basic_auth_user": "ann"}, "set both or none"),
        ({"basic_auth_pass": "s3cret"}, "set both or none"),
        ({"basic_auth_user": "ann", "basic_auth_pass": ""}, "BASIC_AUTH_PASS"),
        ({"label_studio_api_key": "s3cret"}, "needs LABEL_STUDIO_URL"),
        *(({"database_url": url}, "DATABASE_URL: expected an address") for url in BROKEN_URLS),
        ({"database_url": "mysql://cc:s3cret@db/cc"}, "DATABASE_URL: expected SQLite"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        load_settings(**given)
    assert "s3c" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://cc:p%40ss%2Fw0rd@db:5432/cc?sslmode=require",
        "postgresql+psycopg://ann@cloud:p%40ss@db/cc",
        "sqlite:////home/ann@lab/jobs.db",
    ],
)
def test_databases_whose_address_can_be_read(url: str) -> None:
    postgres = "postgresql+psycopg"
    for written in (url, url.replace("+psycopg", ""), url.replace(postgres, "postgres")):
        settings = load_settings(database_url=written)
        assert settings.database_url.get_secret_value() == url
        assert Database.from_settings(settings).url.get_dialect().driver in ("psycopg", "pysqlite")
