"""Read the settings from the environment; no other module reads it."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.network.host_rules import HostRules
from clearclip_core import METHODS, Method


def _base_url(value: str) -> str:
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_base = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        is_base = False
    if not is_base or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("expected an address such as http://label-studio:8080")
    return url


def _projects_or_all(value: str) -> str:
    words = [word.strip().lower() for word in value.split(",") if word.strip()]
    if words == ["all"]:
        return "all"
    are_numbers = all(re.fullmatch("[0-9]{1,10}", word) for word in words)
    if not are_numbers or not all(0 < int(word) < 1 << 31 for word in words):
        raise ValueError("expected numbers of projects such as 7,12, or all")
    return ",".join(str(int(word)) for word in words)


def _hosts(value: str) -> str:
    HostRules.parse(value)
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError("expected auto, cpu, cuda, cuda:1 or mps")
    return value


def _template_count(value: int) -> int:
    if value not in (7, 80):
        raise ValueError("expected 7 or 80")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    """Return the URL, with the driver that is installed where a PostgreSQL names none."""
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:  # in clearclip-dataset, which has no database
        return value

    text = re.sub("(?i)^postgres(ql)?://", "postgresql+psycopg://", value.get_secret_value())
    try:
        url = make_url(text)
        kind = url.get_backend_name()
        is_sqlite = kind == "sqlite"
        # The part of a password after an @ or / would count as host or name, which are shown.
        is_plain = is_sqlite or "@" not in f"{url.host}{url.database}{url.query}"
    except (ArgumentError, ValueError):  # the port is not a number
        kind, is_plain = "", False
    if kind and kind not in ("sqlite", "postgresql"):
        raise ValueError(
            "expected SQLite, such as sqlite:////srv/clearclip.db, or PostgreSQL, such as "
            "postgresql+psycopg://user:password@host/name: no other database is supported"
        )
    if not is_plain:
        raise ValueError(
            "expected an address such as postgresql+psycopg://user:password@host/name, with @ and "
            "/ in a password written as %40 and %2F"
        )
    if kind == "postgresql" and url.drivername != "postgresql+psycopg":
        raise ValueError(
            "expected an address such as postgresql+psycopg://user:password@host/name: the driver "
            "is psycopg 3, and no other is supported"
        )
    return SecretStr(text)


#: The meaning of a prediction's score, by which Label Studio's data manager sorts tasks.
ScoreKind = Literal["confidence", "uncertainty", "effort"]
#: Whether predictions follow corrections: where held-out pictures gain, once asked for, or never.
Adapt = Literal["auto", "ask", "off"]

TemplateCount = Annotated[int, AfterValidator(_template_count)]
_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def _api_key(key: SecretStr) -> SecretStr:
    """Return a token without space around it; refuse what no request can send."""
    text = key.get_secret_value().strip()
    if re.fullmatch(r"[A-Za-z0-9._~+/=-]+", text) is None:
        raise ValueError(
            "it has a space, a quotation mark or another character that no token has: copy it "
            "again from Label Studio, under Account & Settings"
        )
    return SecretStr(text)


Device = Annotated[str, AfterValidator(_device)]
ProjectsOrAll = Annotated[str, AfterValidator(_projects_or_all)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Hosts = Annotated[str, AfterValidator(_hosts)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]


class Settings(BaseSettings):
    """The settings of a backend; frozen.

    Each field is an environment variable of the same name in capitals; an empty variable counts
    as not set. Values given to the constructor win over the environment.

    Raises:
        pydantic.ValidationError: a value is not allowed; `load_settings` makes sentences of it.

    >>> Settings(port=9191).port
    9191
    """

    model_config = SettingsConfigDict(
        allow_inf_nan=False,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),  # MODEL_DIR is ours, not pydantic's
    )

    label_studio_url: BaseUrl | None = Field(
        default=None,
        # the second is what label-studio-ml calls it
        validation_alias=AliasChoices("label_studio_url", "label_studio_host"),
        description="Where this backend reaches Label Studio; else the address that Label Studio "
        "sends when it connects.",
    )
    label_studio_browser_url: BaseUrl | None = Field(
        default=None,
        description="Where people open Label Studio, if that is another address, as with "
        "containers: links of the pages lead there.",
    )
    label_studio_api_key: ApiKey | None = Field(
        default=None,
        description="A legacy or a personal access token, to fetch pictures from Label Studio, "
        "write predictions and read annotations there; never sent to any other host.",
    )
    allowed_hosts: Hosts = Field(
        default="",
        description="Hosts without a public address that pictures may come from: names, addresses "
        "and networks, such as minio:9000, *.lab.example, 10.1.0.0/16.",
    )
    model: _Words = Field(
        default="ViT-B-16/openai",
        description="The model: arch/tag, arch@file, local-dir:path, hf-hub:org/repo or demo.",
    )
    method: _Words = Field(
        default="clearclip",
        description=f"How dense features are read: {', '.join(METHODS)}, or a method that another "
        "package adds.",
    )
    second_model: _Words | None = Field(
        default=None,
        description="A second encoder beside the model, which what is learned from corrections may "
        "use: a name of timm such as vit_small_patch14_dinov2.lvd142m, or name@file.",
    )
    second_short_side_px: int | None = Field(
        default=None,
        ge=64,
        le=2048,
        description="The short side of a picture is resized to this for SECOND_MODEL; more tells "
        "finer parts apart and takes longer. By default twice SHORT_SIDE_PX for networks of stride "
        "32, else SHORT_SIDE_PX, or the side that the encoder was trained on where that is larger.",
    )
    click_model: _Words | None = Field(
        default=None,
        description="A model that answers clicks and boxes in place of MODEL's features: SAM 2, "
        "SAM 3 or EdgeTAM in transformers' format, a folder or a repository such as "
        "facebook/sam2.1-hiera-tiny. Needs the extra [sam].",
    )
    regions: bool = Field(
        default=False,
        description="Regions that CLICK_MODEL proposes vote on predictions: each gets the label "
        "that most of its pixels have. It is asked at 1,024 points of each picture: for a GPU.",
    )
    device: Device = Field(
        default="auto", description="Where the model runs: auto, cpu, cuda, cuda:1, mps."
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto",
        description="Number format of the model; auto is fp16 on CUDA, else what the CPU is fast "
        "at.",
    )
    templates: TemplateCount = Field(
        default=7,
        description="Sentences in which each word of a label is embedded: the 7 best of CLIP's, "
        "or all 80, which takes eleven times as long.",
    )
    short_side_px: int | None = Field(
        default=None,
        ge=64,
        le=4096,
        description="The short side of a picture is resized to this; more sees smaller things "
        "and takes longer. By default as METHOD's authors chose it: 448, or 336 with naclip, "
        "pearl, proxyclip, scclip, sfp and rfclip.",
    )
    feature_cache_mb: int = Field(
        default=512,
        ge=0,
        description="Memory for features of pictures, so that new labels on a picture take no "
        "time; 0 keeps none.",
    )
    picture_cache_mb: int = Field(
        default=256,
        ge=0,
        description="Memory for pictures that annotators have open, so that a click needs no "
        "second download, and half as much again for what clicks on them need; 0 keeps none.",
    )
    picture_days: int = Field(
        default=30,
        ge=0,
        le=3650,
        description="Days for which small pictures stay on disk: copies of large ones for the "
        "review, at most 256 MB in the folder pictures of MODEL_DIR, and those in reports and "
        "learned versions; 0 keeps none.",
    )
    refine: bool = Field(
        default=True,
        description="Masks follow the edges of the picture instead of the model's patches.",
    )
    propagate: bool = Field(
        default=False,
        description="Scores are first drawn together where the picture has no edge, as PEARL does.",
    )
    score: ScoreKind = Field(
        default="confidence",
        description="Score that predictions are sorted by in Label Studio: confidence, uncertainty "
        'or effort; score="effort" on a control in the labeling config wins.',
    )
    model_dir: Path = Field(
        default=Path("~/.cache/clearclip"),
        description="Folder of model weights: looked for here first, kept here when downloaded.",
    )
    database_url: DatabaseUrl | None = Field(
        default=None,
        description="Database of jobs, read annotations and learned versions, "
        "such as postgresql+psycopg://user:password@host/name; else SQLite in "
        "MODEL_DIR/clearclip.db.",
    )
    predict_deadline_s: float = Field(
        default=80,
        gt=0,
        description="Seconds after which tasks are answered with what is ready; a job writes the "
        "rest. Keep it under Label Studio's ML_TIMEOUT_PREDICT (100).",
    )
    auto_prelabel: ProjectsOrAll = Field(
        default="",
        description="Projects whose new tasks are predicted at once: 7,12 or all; for others "
        'prelabel="auto" on a control in the labeling config. Needs LABEL_STUDIO_API_KEY.',
    )
    poll_interval_s: float = Field(
        default=15,
        ge=1,
        description="How often Label Studio is asked what has changed in connected projects, in "
        "seconds. Needs LABEL_STUDIO_API_KEY.",
    )
    adapt: Adapt = Field(
        default="auto",
        description="Whether predictions follow corrections: auto where held-out pictures gain, "
        "once somebody has looked at the first version, ask whenever somebody says so, or off; for "
        'one project adapt="..." on a control in the labeling config, which wins. Needs '
        "LABEL_STUDIO_API_KEY.",
    )
    adapt_every: int = Field(
        default=10,
        ge=1,
        description="Annotations that are new, changed or deleted before a project learns again; "
        "at least a tenth of those that count.",
    )
    adapt_label_loss: float = Field(
        default=3,
        ge=0,
        le=100,
        description="Points of IoU: what is learned is not taken over where held-out corrected "
        "pictures say that a label loses more.",
    )
    host: _Words = Field(
        default="127.0.0.1",
        description="Address to listen on; 0.0.0.0 lets other machines in (set BASIC_AUTH_* too).",
    )
    server_names: Hosts = Field(
        default="",
        description="Names with a dot under which this backend is opened, such as "
        "clearclip.lab.example or *.lab.example; without a password it answers under no others.",
    )
    port: int = Field(default=9090, ge=1, le=65535, description="Port to listen on.")
    threads: int = Field(
        default=16,
        ge=4,
        le=256,
        description="How many clicks and opened tasks are worked on at once; beside them a quarter "
        "of that number of batches.",
    )
    basic_auth_user: _Words | None = Field(
        default=None,
        description="User name that all requests bring but /health, /ready and /webhook.",
    )
    basic_auth_pass: SecretStr | None = Field(
        default=None, min_length=1, description="Password that goes with BASIC_AUTH_USER."
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=10,
        description="How many reverse proxies stand before this backend; what they say in "
        "X-Forwarded-For, -Host, -Proto and -Prefix is believed. 0 believes nobody.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What is logged: lines of this severity and of higher ones."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Log lines for people (text) or for machines (json)."
    )
    max_body_mb: int = Field(
        default=256,
        ge=1,
        description="Largest request; Label Studio sends all old annotations of each task along.",
    )
    max_image_mb: int = Field(default=100, ge=1, description="Largest image file.")
    max_image_megapixels: int = Field(
        default=150,
        ge=1,
        le=178,
        description="Largest image in millions of pixels; while it is read, each million takes 10 "
        "to 20 MB of memory.",
    )
    dataset_mb: int = Field(
        default=10_240, ge=1, description="Largest data set that is exported on the page."
    )
    download_timeout_s: float = Field(
        default=30, gt=0, description="Longest wait in seconds for an image to arrive."
    )
    min_island_share: float = Field(
        default=0.0005,
        ge=0,
        lt=1,
        description="Parts of a mask smaller than this share of the picture are dropped.",
    )

    @property
    def encoders(self) -> str:
        """The names of the model and, where there is one, of the second encoder."""
        if not self.second_model:
            return self.model
        size = f" at {self.second_short_side_px} px" if self.second_short_side_px else ""
        return f"{self.model} + {self.second_model}{size}"

    @property
    def resized_px(self) -> int:
        """The short side of a picture as the model reads it: as set, or as the method's authors."""
        return self.short_side_px or Method.of(self.method).sizes_px[0]

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if (self.basic_auth_user is None) != (self.basic_auth_pass is None):
            raise ValueError("BASIC_AUTH_USER and BASIC_AUTH_PASS go together: set both or none")
        if self.label_studio_api_key is not None and self.label_studio_url is None:
            raise ValueError(
                "LABEL_STUDIO_API_KEY needs LABEL_STUDIO_URL, the one host that it may be sent to"
            )
        if self.regions and self.click_model is None:
            raise ValueError("REGIONS needs CLICK_MODEL, the model that proposes them")
        object.__setattr__(self, "model_dir", self.model_dir.expanduser())
        return self


def prelabels(settings: Settings, project: int) -> bool:
    """Return whether the settings have new tasks of a project predicted at once.

    >>> prelabels(Settings(auto_prelabel="7, 12"), 12), prelabels(Settings(auto_prelabel="7"), 12)
    (True, False)
    """
    return settings.auto_prelabel == "all" or str(project) in settings.auto_prelabel.split(",")


def load_settings(**given: Any) -> Settings:
    """Read the settings from the environment, and from arguments that are not None, which win.

    Raises:
        ValueError: a value is wrong; the message has a sentence for each, and never a secret.

    >>> load_settings(port=70000)
    Traceback (most recent call last):
    ValueError: PORT: input should be less than or equal to 65535, but got '70000'.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        sentences = [_sentence(dict(problem)) for problem in error.errors()]
        raise ValueError(" ".join(sentences)) from None


#: Variables that label-studio-ml and its examples read -> what does the same here.
_FOREIGN: Final = {
    "WORKERS": "one process answers everybody, with THREADS threads",
    "MODEL_SCORE_THRESHOLD": "write model_score_threshold on a control of the labeling config",
    "LABEL_STUDIO_ACCESS_TOKEN": "set LABEL_STUDIO_API_KEY",
}


def foreign_settings() -> list[str]:
    """Return a sentence for each variable of label-studio-ml that is set and does nothing here."""
    given = (name for name in _FOREIGN if os.environ.get(name))
    return [f"{name} does nothing here: {_FOREIGN[name]}." for name in given]


def share_model_dir() -> None:
    """Set MODEL_DIR in the environment to its full path, for packages that read it."""
    os.environ["MODEL_DIR"] = str(load_settings().model_dir)


def _sentence(problem: dict[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return f"{message}."
    name = str(problem["loc"][0]).upper()
    value = str(problem["input"])
    secret = "@" in value or any(part in name for part in ("KEY", "TOKEN", "PASS", "DATABASE"))
    got = "" if secret else f", but got {value!r}"
    return f"{name}: {message[0].lower()}{message[1:]}{got}."
