"""Weights: find them on disk and in open_clip's caches, download them, check them.

Names and files are checked without torch, which takes seconds to import. timm, which imports it, is
asked only where a second encoder has neither a tag nor a file, or is not in the folder of weights.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import re
import runpy
import shutil
import socket
import ssl
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal
from urllib.request import getproxies

import huggingface_hub

from clearclip_core.clip.families import ModelSize, family_of, model_sizes

WeightsSource = Literal[
    "tag", "file", "local-dir", "hf-hub", "demo", "random", "timm", "transformers"
]

DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "weights"

_HUB_TIMEOUT_S: Final = 5.0  # how long the hub of weights may take to answer at all, in seconds


_OPEN_CLIP: Final = Path(importlib.util.find_spec("open_clip").origin).parent  # type: ignore

#: The file of each architecture that open_clip brings.
_ARCHITECTURES: Final = {file.stem: file for file in _OPEN_CLIP.glob("model_configs/*.json")}


@functools.cache
def _tags() -> Any:
    """Return open_clip's module that lists tags and their sources, without its optional imports.

    One of these is torch. What it imports from files beside it are constants and the release.
    """
    module = ast.parse((_OPEN_CLIP / "pretrained.py").read_text(encoding="utf-8"))
    module.body = [
        each
        for each in module.body
        if not isinstance(each, ast.Try) and not (isinstance(each, ast.ImportFrom) and each.level)
    ]
    names = runpy.run_path(str(_OPEN_CLIP / "constants.py"))
    exec(compile(module, "pretrained.py", "exec"), names)
    return SimpleNamespace(**names)


@functools.cache
def _timm_names() -> frozenset[str]:
    """Return names of timm's models, with and without a tag: those that its files spell out."""
    folder = Path(importlib.util.find_spec("timm").origin).parent  # type: ignore
    text = "".join(each.read_text(encoding="utf-8") for each in folder.glob("models/*.py"))
    names = {*re.findall(r"@register_model\s+def (\w+)", text)}
    tagged = re.findall(r"(?m)^\s*['\"]((\w+)\.\w+)['\"]\s*:", text)
    return frozenset(names | {each for each, name in tagged if name in names})


def _full_name(arch: str) -> str:
    """Return a name of timm with its tag, timm's own choice where no tag is given; or ""."""
    import timm

    try:
        config = timm.get_pretrained_cfg(arch) if timm.is_model(arch) else None
    except RuntimeError:  # no such tag
        config = None
    return f"{config.architecture}.{config.tag}" if config else ""


def _timm_file(name: ModelName) -> str:
    """Return the repository and the file of a second encoder's weights; "" where it has none."""
    import timm

    config = timm.get_pretrained_cfg(name.arch)
    if config is None or not config.hf_hub_id:
        return ""
    return f"{config.hf_hub_id}/{config.hf_hub_filename or 'model.safetensors'}"


def _config_of(arch: str) -> dict[str, Any]:
    """Return the config of an architecture of open_clip, empty for one that it does not know."""
    if arch in _ARCHITECTURES:
        return dict(json.loads(_ARCHITECTURES[arch].read_text(encoding="utf-8")))
    # What a process has added to open_clip is there once it is imported.
    loaded = sys.modules.get("open_clip")
    return {} if loaded is None else loaded.get_model_config(arch) or {}


@dataclass(frozen=True)
class ModelName:
    """A parsed model name."""

    name: str
    kind: WeightsSource
    #: Open_clip's architecture, ``""`` where a folder's config holds it; of a second encoder
    #: timm's, with the tag where there is no file.
    arch: str
    source: str  # tag, path, or repository; "" of timm's

    @classmethod
    def parse(cls, name: str) -> ModelName:
        """Parse a model name without loading anything.

        Raises:
            ValueError: another form, an unknown architecture or tag, or an architecture that
                cannot be read out densely.

        >>> ModelName.parse("ViT-B-16/openai").source
        'openai'
        """
        prefix, colon, source = name.partition(":")
        if colon and prefix in ("local-dir", "hf-hub"):
            return cls(name, _kind_of(prefix, source), "", _source(name, source))
        if name == "demo":
            return cls(name, "demo", "", str(DEMO_FOLDER))

        if "@" in name:
            arch, path = name.split("@", 1)
            return cls(name, "file", _checked_arch(_file_arch(arch)), _source(name, path))

        arch, _, tag = name.partition("/")
        if not tag:
            raise _not_a_name(name)
        _checked_arch(arch)
        tags = _tags().list_pretrained_tags_by_model(arch)
        if tag not in ("random", *tags):
            known = ", ".join(tags) or "none"
            raise ValueError(f"{arch} has no weights named {tag!r}; open_clip knows: {known}.")
        return cls(name, "random" if tag == "random" else "tag", arch, tag)

    @classmethod
    def parse_second(cls, name: str) -> ModelName:
        """Parse the name of a second encoder, ``name`` or ``name@file`` of a model of timm.

        Raises:
            ValueError: another form, or a model or tag that timm does not have.

        >>> ModelName.parse_second("vit_small_patch14_dinov2").arch
        'vit_small_patch14_dinov2.lvd142m'
        """
        arch, at, path = name.partition("@")
        is_listed = arch in _timm_names() and ("." in arch or path)
        full = arch if is_listed else _full_name(arch)
        if not full or (at and not path):
            raise ValueError(
                "Expected the second encoder to be one of timm's models, by name such as "
                f"vit_small_patch14_dinov2.lvd142m or as NAME@FILE, but got {name!r}."
            )
        return cls(name, "file", arch, path) if at else cls(full, "timm", full, "")

    @classmethod
    def parse_click(cls, name: str) -> ModelName:
        """Parse the name of a click model: a folder, or a repository ``org/name``.

        Raises:
            ValueError: another form, or transformers is not installed.

        >>> ModelName.parse_click("./sam2").kind
        'local-dir'
        """
        path = name.removeprefix("local-dir:")
        is_repository = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not Path(name).is_dir()
        if not path or not (is_repository or path != name or "/" in name):
            raise ValueError(
                "Expected the click model to be a folder such as /models/sam2, or a repository "
                f"such as facebook/sam2.1-hiera-tiny, but got {name!r}."
            )
        if importlib.util.find_spec("transformers") is None:
            raise ValueError(
                f"The click model {name} needs the extra: pip install "
                "'clearclip-label-studio[sam]'."
            )
        if is_repository:
            return cls(name, "transformers", "", name)
        return cls(name, "local-dir", "", path)


def _kind_of(prefix: str, source: str) -> WeightsSource:
    """Return the kind of a name with a prefix; TIPSv2's repositories have their own."""
    if prefix == "local-dir":
        return "local-dir"
    if source not in TIPSV2_MODELS:
        return "hf-hub"
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(f"{source} needs the extra: pip install 'clearclip-label-studio[hf]'.")
    return "transformers"


def _source(name: str, source: str) -> str:
    """Return the part of a name after its prefix, which must not be empty."""
    if not source:
        raise _not_a_name(name)
    return source


def _not_a_name(name: str) -> ValueError:
    return ValueError(
        "Expected a model name of the form 'arch/tag', 'arch@file', 'local-dir:path', "
        f"'hf-hub:org/repo' or 'demo', but got {name!r}. `clearclip models` lists them."
    )


def _file_arch(written: str) -> str:
    """Return the architecture of `arch@file`, without a suffix -gelu or -quickgelu."""
    if written.endswith("-quickgelu") and not _config_of(written):
        return written.removesuffix("-quickgelu")
    return written.removesuffix("-gelu")


def _checked_arch(arch: str) -> str:
    if not _config_of(arch):
        raise ValueError(
            f"open_clip knows no architecture {arch!r}; `clearclip models` lists them."
        )
    if needs_hf(arch) and importlib.util.find_spec("transformers") is None:
        raise ValueError(f"{arch} needs the extra: pip install 'clearclip-label-studio[hf]'.")
    return arch


def needs_hf(arch: str) -> bool:
    """Whether the text tower, or its tokenizer alone, comes from Hugging Face."""
    text = _config_of(arch)["text_cfg"]
    return "hf_model_name" in text or "hf_tokenizer_name" in text


def has_timm_tower(arch: str) -> bool:
    """Whether the image tower of an architecture of open_clip is one of timm's."""
    return "timm_model_name" in _config_of(arch)["vision_cfg"]


#: Folder of weights by default, which the backend shares.
DEFAULT_FOLDER = Path("~/.cache/clearclip")

_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}

#: Prefix of a tag -> licence under which its publisher provides the weights.
_LICENCES = {
    "openai": "MIT",
    "laion": "MIT",
    "datacompdr": "Apple ML research",
    "datacomp1b": "ask its publisher",
    "datacomp": "MIT",
    "commonpool": "MIT",
    "metaclip": "CC-BY-NC-4.0",
    "dfn": "Apple ML research",
    "frozen_laion": "MIT",
    "webli": "Apache-2.0",
    "meta": "Apache-2.0",
}


#: Repository of a click model -> licence under which its publisher provides the weights.
CLICK_MODELS: Final = {
    "facebook/sam2.1-hiera-tiny": "Apache-2.0",
    "facebook/sam2.1-hiera-small": "Apache-2.0",
    "facebook/sam2.1-hiera-base-plus": "Apache-2.0",
    "facebook/sam2.1-hiera-large": "Apache-2.0",
    "facebook/sam3": "SAM License",
    "yonigozlan/EdgeTAM-hf": "Apache-2.0",
}

#: Repository of a TIPSv2 model -> licence under which its publisher provides the weights.
TIPSV2_MODELS: Final = {
    "google/tipsv2-b14": "Apache-2.0",
    "google/tipsv2-l14": "Apache-2.0",
    "google/tipsv2-so400m14": "Apache-2.0",
    "google/tipsv2-g14": "Apache-2.0",
}

#: What a model in transformers' format is made of: no code, and no weights that would be unpickled.
_SNAPSHOT_FILES: Final = ("*.json", "*.safetensors", "tokenizer.model")


class WeightsNotFoundError(FileNotFoundError):
    """Raised where weights are not on disk and could not be downloaded; says how to get them."""


def weights_id(name: str, second: str | None = None) -> str:
    """Identify the weights of a model, and of a second encoder beside it, without loading them.

    A tag, a Hugging Face repository and random weights are identified by the model name, a file by
    a hash of its name, size and first 64 KiB (with the header of a safetensors file), a folder by
    a hash of these for its weights and its config.

    Args:
        name: name of a model, see `Segmenter.load`.
        second: name of a second encoder in timm, or ``name@file``; None: without one.

    Raises:
        ValueError: unknown name.
        WeightsNotFoundError: the file or folder is missing.
    """
    return "+".join(map(_id_of, _parse_all(name, second)))


def _parse_all(name: str, second: str | None, click: str | None = None) -> list[ModelName]:
    parsed = [ModelName.parse(name)]
    if second:
        parsed.append(ModelName.parse_second(second))
    if click:
        parsed.append(ModelName.parse_click(click))
    return parsed


def _id_of(parsed: ModelName) -> str:
    if parsed.kind in ("tag", "hf-hub", "random", "timm", "transformers"):
        return parsed.name
    path = existing_path(parsed)
    digest = hashlib.sha256()
    inside = (file for file in path.glob("*") if file.suffix in _SUFFIXES | {".json"})
    for file in sorted(inside) if path.is_dir() else [path]:
        digest.update(f"{file.name}{file.stat().st_size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
    return f"{parsed.arch or parsed.kind}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class KnownModel:
    """A row of ``clearclip models``."""

    name: str
    licence: str  # licence of the weights, as their publisher states it
    path: Path | None  # file or folder of the weights, None where they are not on disk
    needs: str  # extra that has to be installed, or ``""``
    family: str = ""  # what kind of image tower it has
    size: ModelSize | None = None  # None where it is not known


def known_models(folder: Path | None = None) -> list[KnownModel]:
    """List what can be read out densely: TIPSv2, and open_clip's pairs of architecture and weights.

    Args:
        folder: folder of weights; `DEFAULT_FOLDER` by default.
    """
    sizes = model_sizes()
    rows = [KnownModel("demo", "Apache-2.0", DEMO_FOLDER, "", "demo", sizes["demo"])]
    for repository, licence in TIPSV2_MODELS.items():
        name = ModelName(f"hf-hub:{repository}", "transformers", "", repository)
        path = find_weights(name, folder)
        rows.append(
            KnownModel(name.name, licence, path, "hf", family_of(repository), sizes[name.name])
        )

    for arch, tag in _tags().list_pretrained():
        # A name with and one without -quickgelu are the same weights: the tag decides.
        if arch.endswith("-quickgelu"):
            continue
        name = ModelName(f"{arch}/{tag}", "tag", arch, tag)
        needs = "hf" if needs_hf(arch) else ""
        path = find_weights(name, folder)
        rows.append(
            KnownModel(name.name, licence_of(tag), path, needs, family_of(arch), sizes.get(arch))
        )
    return rows


def known_click_models(folder: Path | None = None) -> list[KnownModel]:
    """List the click models that `download_weights` fetches.

    Args:
        folder: folder of weights; `DEFAULT_FOLDER` by default.
    """
    rows = []
    for repository, licence in CLICK_MODELS.items():
        name = ModelName(repository, "transformers", "", repository)
        path = find_weights(name, folder)
        rows.append(KnownModel(repository, licence, path, "sam", "clicks"))
    return rows


def known_second_encoders(folder: Path | None = None) -> list[str]:
    """List the second encoders whose weights `download_weights` has written into a folder.

    Args:
        folder: folder of weights; `DEFAULT_FOLDER` by default.

    Returns:
        Names of timm's models with their tags, sorted.
    """
    files = Path(folder or DEFAULT_FOLDER).expanduser().glob("*")
    stems = (path.name.removesuffix(path.suffix) for path in files if path.suffix in _SUFFIXES)
    return sorted({stem for stem in stems if "." in stem and stem in _timm_names()})


def licence_of(tag: str) -> str:
    """Return the licence of a tag's weights, or whom to ask for it.

    >>> licence_of("laion2b_s34b_b88k")
    'MIT'
    """
    for prefix, licence in _LICENCES.items():
        if tag.startswith(prefix):
            return licence
    return "ask its publisher"


def find_weights(name: ModelName, folder: Path | str | None = None) -> Path | None:
    """Find the weights of a tag, a hub repository, a second encoder or a click model on disk.

    A folder with files of `download_weights` or `fetch_weights`, by default `DEFAULT_FOLDER`, is
    searched first, then the caches of open_clip and of the hub.
    """
    if name.kind == "hf-hub":
        return _in_hub_cache(f"{name.source}/", folder)
    folder = Path(folder or DEFAULT_FOLDER).expanduser()
    if name.kind == "transformers":
        return _find_snapshot(name, folder)
    for path in sorted(folder.glob(f"{_file_stem(name)}.*")):
        if path.suffix in _SUFFIXES:
            return path
    return _find_in_caches(name, folder)


def _find_in_caches(name: ModelName, folder: Path) -> Path | None:
    """Find the file of a tag or a second encoder in the caches of open_clip and of the hub."""
    if name.kind == "timm":
        file = _timm_file(name)
        return _in_hub_cache(file, folder) or _in_hub_cache(file, None)
    config = _tags().get_pretrained_cfg(name.arch, name.source)
    for cache in (folder, None):
        hub, url = config.get("hf_hub", ""), config.get("url", "")
        found = _in_hub_cache(hub, cache) or _in_url_cache(url, cache)
        if found is not None:
            return found
    return None


def _find_snapshot(name: ModelName, folder: Path) -> Path | None:
    """Find a folder of transformers' format: of `download_weights`, or the hub's in its cache."""
    found = [folder / _file_stem(name)]
    for cache in (folder, None):
        config = huggingface_hub.try_to_load_from_cache(name.source, "config.json", cache_dir=cache)
        if isinstance(config, str):
            found.append(Path(config).parent)
    return next((each for each in found if _is_snapshot(each)), None)


def _is_snapshot(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def snapshot_folder(name: ModelName, folder: Path | None, download: bool) -> Path:
    """Return a folder of transformers' format with right checksums; `download` may fetch it.

    Raises:
        WeightsNotFoundError: there is none, or a file of it is damaged.
    """
    found: Path | None
    if name.kind == "local-dir":
        found = existing_path(name)
        if not _is_snapshot(found):
            raise WeightsNotFoundError(
                f"{found} holds no model in transformers' format: expected config.json and weights "
                "in safetensors."
            )
    else:
        found = find_weights(name, folder) or (fetch_weights(name, folder) if download else None)
    if found is None:
        raise WeightsNotFoundError(missing_weights_help(name))
    for file in sorted(found.iterdir()):
        if file.suffix in (".json", ".safetensors", ".model"):
            verify_checksum(file)
    return found


def download_weights(name: str, folder: Path) -> Path:
    """Download a tag's weights into a folder that can be copied to a machine without network.

    Writes ``<arch>--<tag>.<suffix>`` and a file ``….sha256`` in the format of ``sha256sum``, which
    is checked whenever the weights are loaded. A second encoder is named as timm names it; of one
    of `CLICK_MODELS` or `TIPSV2_MODELS` a folder ``<org>--<name>`` is written.

    Returns:
        The file of the weights, or the folder.

    Raises:
        ValueError: another form.
        WeightsNotFoundError: the download failed.
    """
    parsed = _parse_any(name)
    if parsed.kind not in ("tag", "timm", "transformers"):
        raise ValueError(f"Expected a model name of the form 'arch/tag', but got {name!r}.")
    try:
        source = fetch_weights(parsed)
    except WeightsNotFoundError as error:
        raise WeightsNotFoundError(f"{name} cannot be fetched: {_cause(error)}.") from None
    if parsed.kind != "transformers":
        return _copy_checked(source, folder / f"{_file_stem(parsed)}{source.suffix}")
    target = folder / _file_stem(parsed)
    # The config comes last: a folder without it counts as none.
    files = [file for pattern in reversed(_SNAPSHOT_FILES) for file in sorted(source.glob(pattern))]
    for file in sorted(files, key=lambda each: each.name == "config.json"):
        _copy_checked(file, target / file.name)
    return target


def _parse_any(name: str) -> ModelName:
    """Parse the name of what `download_weights` fetches: its form says what it is."""
    if name in CLICK_MODELS:
        return ModelName(name, "transformers", "", name)
    is_clip = name == "demo" or "/" in name or ":" in name
    return ModelName.parse(name) if is_clip else ModelName.parse_second(name)


def _copy_checked(source: Path, target: Path) -> Path:
    """Copy a file of weights, and write its checksum beside it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")  # a partial download never has the final name
    shutil.copyfile(source, part)
    part.replace(target)
    _checksum_file(target).write_text(f"{_sha256(target)}  {target.name}\n")
    return target


def tag_of_file(arch: str, path: Path) -> str | None:
    """Return the tag of a weights file that `download_weights` named, else None."""
    tag = path.stem.removeprefix(f"{arch}--")
    known = tag in _tags().list_pretrained_tags_by_model(arch)
    return tag if known and tag != path.stem and _checksum_file(path).exists() else None


def uses_quick_gelu(arch: str, tag: str) -> bool:
    """Whether a tag's weights were trained with QuickGELU: the tag or its architecture says so."""
    config = {**_config_of(arch), **_tags().get_pretrained_cfg(arch, tag)}
    return bool(config.get("quick_gelu"))


def existing_path(name: ModelName) -> Path:
    """Return the file or folder of a model name.

    Raises:
        WeightsNotFoundError: it does not exist.
    """
    path = Path(name.source).expanduser()
    if not (path.is_file() if name.kind == "file" else path.is_dir()):
        raise WeightsNotFoundError(f"There are no weights at {path}.")
    return path


def fetch_weights(name: ModelName, folder: Path | None = None) -> Path:
    """Download a tag's weights as open_clip does, or other models' from their repository.

    They are kept in `folder`, or in open_clip's own cache.

    Returns:
        The file, or of a model in transformers' format the folder.

    Raises:
        WeightsNotFoundError: the download failed.
    """
    import open_clip

    _check_hub(name)
    try:
        if name.kind == "timm":
            repository, _, file = _timm_file(name).rpartition("/")
            return Path(huggingface_hub.hf_hub_download(repository, file, cache_dir=folder))
        if name.kind == "transformers":
            patterns = list(_SNAPSHOT_FILES)
            return Path(
                huggingface_hub.snapshot_download(
                    name.source, cache_dir=folder, allow_patterns=patterns
                )
            )
        config = _tags().get_pretrained_cfg(name.arch, name.source)
        return Path(open_clip.download_pretrained(config, cache_dir=folder))
    except (OSError, RuntimeError, ValueError) as error:  # hub and URL errors alike
        raise WeightsNotFoundError(missing_weights_help(name, error)) from None


def weights_file(name: ModelName, folder: Path | None, download: bool) -> Path:
    """Return the file of a model's weights, whose checksum is right; `download` may fetch it.

    Raises:
        WeightsNotFoundError: there is none, or it is damaged.
    """
    if name.kind == "file":
        found: Path | None = existing_path(name)
    else:
        found = find_weights(name, folder) or (fetch_weights(name, folder) if download else None)
    if found is None:
        raise WeightsNotFoundError(missing_weights_help(name))
    verify_checksum(found)
    return found


def check_weights(
    name: str,
    folder: Path | str | None = None,
    second: str | None = None,
    click: str | None = None,
) -> None:
    """Check that the weights of all models are on disk, or that the hub answers.

    Args:
        name: of the model.
        folder: folder of weights; `DEFAULT_FOLDER` by default.
        second: name of a second encoder.
        click: name of a click model.

    Raises:
        ValueError: unknown name.
        WeightsNotFoundError: neither; the message says how to bring them.
    """
    for parsed in _parse_all(name, second, click):
        if parsed.kind in ("file", "local-dir"):
            existing_path(parsed)
    for parsed in missing_weights(name, folder, second, click):
        _check_hub(parsed)


def missing_weights(
    name: str,
    folder: Path | str | None = None,
    second: str | None = None,
    click: str | None = None,
) -> list[ModelName]:
    """Return those models whose weights are not on disk and can be fetched.

    Args:
        name: of the model.
        folder: folder of weights, as in `check_weights`.
        second: second encoder, as in `check_weights`.
        click: click model, as in `check_weights`.
    """
    fetched = ("tag", "hf-hub", "timm", "transformers")
    return [
        parsed
        for parsed in _parse_all(name, second, click)
        if parsed.kind in fetched and find_weights(parsed, folder) is None
    ]


def _cause(error: BaseException) -> str:
    """Say in a sentence why a download failed, from the first of the errors that led to one."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    proxy = "the proxy of HTTPS_PROXY" if getproxies().get("https") else ""
    if isinstance(error, ssl.SSLError):
        return f"the certificate is refused: SSL_CERT_FILE names your network's own ({said})"
    if isinstance(error, socket.gaierror):
        asked = proxy or huggingface_hub.constants.ENDPOINT
        return f"the name of {asked} is not found: no network, or no DNS ({said})"
    is_of_disk = type(error) is OSError
    return f"{said}, through {proxy}" if proxy and not is_of_disk else said


def _check_hub(name: ModelName) -> None:
    """Ask the hub once: a download that cannot reach it tries again for a minute.

    The few weights that have another address are not asked for: their download tries once.
    """
    if name.kind == "tag" and not _tags().get_pretrained_cfg(name.arch, name.source).get("hf_hub"):
        return
    try:
        huggingface_hub.get_session().head(
            huggingface_hub.constants.ENDPOINT, timeout=_HUB_TIMEOUT_S
        )
    except Exception as error:  # noqa: BLE001 -- the hub's release decides its client
        raise WeightsNotFoundError(missing_weights_help(name, error)) from None


def missing_weights_help(name: ModelName, error: BaseException | None = None) -> str:
    """Explain how to get the weights of a model onto this machine, and why a download failed."""
    why = "could not be fetched" + (f": {_cause(error)}" if error else "")
    return f"The weights of {name.name} are not on this machine and {why}. {_how_to_bring(name)}"


def _how_to_bring(name: ModelName) -> str:
    """Say how the weights of a model come to a machine without network, and what else may do."""
    if name.kind == "hf-hub":
        return (
            "Bring the repository's folder and set the model to local-dir:FOLDER, or to demo to "
            "try."
        )
    is_listed = name.source in CLICK_MODELS or name.source in TIPSV2_MODELS
    if name.kind == "transformers" and not is_listed:
        return "Bring the repository's folder and set CLICK_MODEL to its path."

    fetch = f"On a machine with network run `clearclip models --download {name.name} --to FOLDER`"
    if name.kind == "transformers":
        return (
            f"{fetch} and copy {_file_stem(name)} in FOLDER into the folder of weights here "
            "(MODEL_DIR, --model-dir)."
        )
    instead = "SECOND_MODEL to " if name.kind == "timm" else "the model to demo to try, or to "
    return (
        f"{fetch} and copy the files in FOLDER into the folder of weights here (MODEL_DIR, "
        f"--model-dir); or set {instead}{name.arch}@FILE."
    )


def _file_stem(name: ModelName) -> str:
    if name.kind == "transformers":
        return name.source.replace("/", "--")
    return name.arch if name.kind == "timm" else f"{name.arch}--{name.source}"


def _in_hub_cache(repository: str, cache: Path | str | None) -> Path | None:
    if not repository:
        return None
    repo_id, _, file = repository.rpartition("/")
    names = [file] if file else []
    names += ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"]
    names += ["open_clip_pytorch_model.bin"]
    for filename in names:
        path = huggingface_hub.try_to_load_from_cache(repo_id, filename, cache_dir=cache)
        if isinstance(path, str):
            return Path(path)
    return None


def _in_url_cache(url: str, cache: Path | None) -> Path | None:
    path = (cache or Path("~/.cache/clip").expanduser()) / Path(url).name
    return path if url and path.is_file() else None


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry for entry in archive.namelist())


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def verify_checksum(path: Path) -> None:
    """Check a weights file against the checksum file beside it, if there is one.

    Raises:
        WeightsNotFoundError: the checksums differ.
    """
    expected = _checksum_file(path)
    if expected.exists() and expected.read_text().split()[:1] != [_sha256(path)]:
        raise WeightsNotFoundError(f"{path} is damaged: its checksum is not that of {expected}.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
