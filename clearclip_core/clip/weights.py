"""Model names, and where their weights lie: on disk, in open_clip's caches, or to be fetched.

==================  ===========================================================================
``arch/tag``        open_clip's own pair, such as ``ViT-B-16/openai``; from the folder given, else
                    open_clip's cache, else downloaded
``arch@file``       a weights file: safetensors, a state dict, or OpenAI's TorchScript archive
``local-dir:path``  a folder with ``open_clip_config.json`` and weights
``hf-hub:org/repo`` the same from Hugging Face
``demo``            the tiny model in this package, for drawn scenes only
``arch/random``     random weights, always the same ones, for benchmarks only
==================  ===========================================================================
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import huggingface_hub
import open_clip

WeightsSource = Literal["tag", "file", "local-dir", "hf-hub", "demo", "random"]

DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "weights"

#: Where weights are looked for when no folder is given: where the backend keeps its own.
DEFAULT_FOLDER = Path("~/.cache/clearclip")

_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}

#: Tag prefixes and the licence under which their publishers give the weights away.
_LICENCES = {
    "openai": "MIT",
    "laion": "MIT",
    "datacomp": "MIT",
    "commonpool": "MIT",
    "metaclip": "CC-BY-NC-4.0",
    "dfn": "Apple ML research",
    "frozen_laion": "MIT",
}


class WeightsNotFoundError(FileNotFoundError):
    """Weights that are not on disk and could not be fetched; says how to bring them."""


@dataclass(frozen=True)
class ModelName:
    """A model name, taken apart.

    Attributes:
        name: as it was written.
        kind: which of the forms of this module's docstring it has.
        arch: open_clip's architecture, ``""`` where a folder's config tells it.
        source: tag, file, folder or repository.
    """

    name: str
    kind: WeightsSource
    arch: str
    source: str

    @classmethod
    def parse(cls, name: str) -> ModelName:
        """Take a model name apart; nothing is loaded.

        Raises:
            ValueError: not one of the forms, or an unknown architecture or tag.

        >>> ModelName.parse("ViT-B-16/openai").source
        'openai'
        """
        kind: WeightsSource
        for kind in ("local-dir", "hf-hub"):
            if name.startswith(f"{kind}:"):
                return cls(name, kind, "", _named(name, name.removeprefix(f"{kind}:")))
        if name == "demo":
            return cls(name, "demo", "", str(DEMO_FOLDER))
        if "@" in name:
            arch, path = name.split("@", 1)
            return cls(name, "file", _checked_arch(_file_arch(arch)), _named(name, path))
        arch, _, tag = name.partition("/")
        if not tag:
            raise _not_a_name(name)
        _checked_arch(arch)
        if tag != "random" and tag not in open_clip.list_pretrained_tags_by_model(arch):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
            raise ValueError(f"{arch} has no weights named {tag!r}; open_clip knows: {tags}.")
        return cls(name, "random" if tag == "random" else "tag", arch, tag)


def _named(name: str, source: str) -> str:
    if not source:
        raise _not_a_name(name)
    return source


def _not_a_name(name: str) -> ValueError:
    return ValueError(
        "Expected a model name of the form 'arch/tag', 'arch@file', 'local-dir:path', "
        f"'hf-hub:org/repo' or 'demo', but got {name!r}. `clearclip models` lists them."
    )


def _file_arch(written: str) -> str:
    """The architecture in `arch@file`, where any may be followed by -gelu or -quickgelu."""
    if written.endswith("-quickgelu") and open_clip.get_model_config(written) is None:
        return written.removesuffix("-quickgelu")
    return written.removesuffix("-gelu")


def weights_id(name: str) -> str:
    """What tells these weights from others, without loading them.

    A tag is its own name; of a file its size and first 64 KiB are hashed (a safetensors header
    lies there), of a folder its config as well.

    Raises:
        ValueError: unknown name.
        WeightsNotFoundError: the file or folder is missing.
    """
    parsed = ModelName.parse(name)
    if parsed.kind in ("tag", "hf-hub", "random"):
        return name
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
    """A row of ``clearclip models``.

    Attributes:
        name: the model name.
        licence: of the weights, as their publisher states it.
        path: where the weights lie on disk, or None.
        needs: an extra that has to be installed, or ``""``.
    """

    name: str
    licence: str
    path: Path | None
    needs: str


def known_models(folder: Path | None = None) -> list[KnownModel]:
    """Every pair of architecture and weights of open_clip that can be read out densely."""
    rows = [KnownModel("demo", "Apache-2.0", DEMO_FOLDER, "")]
    for arch, tag in open_clip.list_pretrained():
        # A name with and one without -quickgelu are the same weights: the tag decides.
        if arch.endswith("-quickgelu") or not _is_native(arch):
            continue
        name = ModelName(f"{arch}/{tag}", "tag", arch, tag)
        needs = "hf" if _needs_hf(arch) else ""
        rows.append(KnownModel(name.name, licence_of(tag), find_weights(name, folder), needs))
    return rows


def licence_of(tag: str) -> str:
    """Licence of a tag's weights, as far as known.

    >>> licence_of("laion2b_s34b_b88k")
    'MIT'
    """
    for prefix, licence in _LICENCES.items():
        if tag.startswith(prefix):
            return licence
    return "ask its publisher"


def find_weights(name: ModelName, folder: Path | None = None) -> Path | None:
    """Where a tag's weights lie: in `folder`, else in open_clip's own caches; None if nowhere.

    In a folder, by default `DEFAULT_FOLDER`, both what `download_weights` wrote and what
    `fetch_weights` keeps there is found.
    """
    folder = folder or DEFAULT_FOLDER.expanduser()
    for path in sorted(folder.glob(f"{_file_stem(name)}.*")):
        if path.suffix in _SUFFIXES:
            return path
    config = open_clip.get_pretrained_cfg(name.arch, name.source)
    for cache in (folder, None):
        hub, url = config.get("hf_hub", ""), config.get("url", "")
        found = _in_hub_cache(hub, cache) or _in_url_cache(url, cache)
        if found is not None:
            return found
    return None


def download_weights(name: str, folder: Path) -> Path:
    """Fetch a tag's weights into a folder that can be carried to a machine without network.

    Writes ``<arch>--<tag>.<suffix>`` and beside it ``….sha256`` in the format of ``sha256sum``,
    which is checked whenever the weights are loaded.

    Raises:
        ValueError: not of the form ``arch/tag``.
        WeightsNotFoundError: the download failed.
    """
    parsed = ModelName.parse(name)
    if parsed.kind != "tag":
        raise ValueError(f"Expected a model name of the form 'arch/tag', but got {name!r}.")
    source = fetch_weights(parsed)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{_file_stem(parsed)}{source.suffix}"
    part = target.with_name(f"{target.name}.part")  # half a file never bears the name of a whole
    shutil.copyfile(source, part)
    part.replace(target)
    _checksum_file(target).write_text(f"{_sha256(target)}  {target.name}\n")
    return target


def tag_of_checksum(arch: str, path: Path) -> str | None:
    """The tag of a file that `download_weights` named, or whose URL carries its checksum.

    Expects that `verify_checksum` has been asked before.
    """
    tags = open_clip.list_pretrained_tags_by_model(arch)
    stems = {_file_stem(ModelName("", "tag", arch, tag)): tag for tag in tags}
    if path.stem in stems and _checksum_file(path).exists():
        return str(stems[path.stem])
    checksum = _sha256(path)
    for tag in tags:
        url = open_clip.get_pretrained_cfg(arch, tag).get("url") or ""
        if checksum in url or (f"-{checksum[:8]}." in url):
            return str(tag)
    return None


def _checked_arch(arch: str) -> str:
    if open_clip.get_model_config(arch) is None:
        raise ValueError(
            f"open_clip knows no architecture {arch!r}; `clearclip models` lists them."
        )
    if not _is_native(arch):
        raise ValueError(
            f"{arch} cannot be read out densely: ClearCLIP needs a native Vision Transformer with "
            "a CLS token, without attention pooling or a norm after pooling. `clearclip models` "
            "lists what works."
        )
    if _needs_hf(arch) and importlib.util.find_spec("transformers") is None:
        raise ValueError(f"{arch} needs the extra: pip install 'clearclip-label-studio[hf]'.")
    return arch


def _needs_hf(arch: str) -> bool:
    """Whether the text tower, or its tokenizer alone, comes from Hugging Face."""
    text = open_clip.get_model_config(arch)["text_cfg"]
    return "hf_model_name" in text or "hf_tokenizer_name" in text


def _is_native(arch: str) -> bool:
    config = open_clip.get_model_config(arch)
    vision = config["vision_cfg"]
    return (
        "timm_model_name" not in vision
        and isinstance(vision.get("layers", 12), int)
        and not vision.get("attentional_pool")
        and not vision.get("final_ln_after_pool")
        and "multimodal_cfg" not in config
    )


def uses_quick_gelu(arch: str, tag: str) -> bool:
    """Whether a tag's weights were trained with QuickGELU: the tag or its architecture says so."""
    config = {**open_clip.get_model_config(arch), **open_clip.get_pretrained_cfg(arch, tag)}
    return bool(config.get("quick_gelu"))


def existing_path(name: ModelName) -> Path:
    path = Path(name.source).expanduser()
    if not (path.is_file() if name.kind == "file" else path.is_dir()):
        raise WeightsNotFoundError(f"There are no weights at {path}.")
    return path


def fetch_weights(name: ModelName, folder: Path | None = None) -> Path:
    """Download a tag's weights as open_clip does, into `folder` or its own cache.

    Raises:
        WeightsNotFoundError: the download failed.
    """
    config = open_clip.get_pretrained_cfg(name.arch, name.source)
    try:
        return Path(open_clip.download_pretrained(config, cache_dir=folder))
    except (OSError, RuntimeError) as error:  # hub and URL errors alike
        raise WeightsNotFoundError(how_to_bring(name)) from error


def require_weights(name: str, folder: Path | None = None) -> None:
    """Find out before hours of work whether a model's weights are there; a tag's are fetched.

    A repository of ``hf-hub:`` is asked for only when it is loaded.

    Raises:
        ValueError: unknown name.
        WeightsNotFoundError: no weights.
    """
    parsed = ModelName.parse(name)
    if parsed.kind in ("file", "local-dir"):
        existing_path(parsed)
    elif parsed.kind == "tag" and find_weights(parsed, folder) is None:
        fetch_weights(parsed, folder)


def how_to_bring(name: ModelName) -> str:
    if name.kind == "hf-hub":
        return (
            f"The weights of {name.name} are not on this machine and could not be fetched: bring "
            "the repository's folder and set the model to local-dir:FOLDER, or to demo to try."
        )
    return (
        f"The weights of {name.name} are not on this machine and could not be fetched: on a "
        f"machine with network run `clearclip models --download {name.name} --to FOLDER` and copy "
        "the files in FOLDER into the folder of weights here (MODEL_DIR, --model-dir); or set the "
        f"model to {name.arch}@FILE, or to demo to try."
    )


def _file_stem(name: ModelName) -> str:
    return f"{name.arch}--{name.source}"


def _in_hub_cache(repository: str, cache: Path | None) -> Path | None:
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
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry for entry in archive.namelist())


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def verify_checksum(path: Path) -> None:
    expected = _checksum_file(path)
    if expected.exists() and expected.read_text().split()[:1] != [_sha256(path)]:
        raise WeightsNotFoundError(f"{path} is damaged: its checksum is not that of {expected}.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
