"""Model names, and the files that they stand for."""

import os
import re
import shutil
import socket
import ssl
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
from open_clip import pretrained

from clearclip_core import WeightsNotFoundError, weights_id
from clearclip_core.clip.weights import (
    DEMO_FOLDER,
    ModelName,
    _tags,
    download_weights,
    find_weights,
    known_models,
    known_second_encoders,
    licence_of,
    uses_quick_gelu,
    verify_checksum,
)


def test_known_models_and_their_licences() -> None:
    models = {model.name: model for model in known_models()}
    assert next(iter(models)) == "demo"
    assert models["ViT-B-16/openai"].licence == "MIT"
    assert models["ViT-L-14-336/openai"].licence == "MIT"
    assert models["ViT-B-16/metaclip_400m"].licence == "CC-BY-NC-4.0"
    assert models["ViT-H-14/laion2b_s32b_b79k"].needs == ""
    assert models["roberta-ViT-B-32/laion2b_s12b_b32k"].needs == "hf"
    assert models["ViT-H-14-worldwide/metaclip2_worldwide"].needs == "hf"
    assert models["ViT-B-16-SigLIP2/webli"].licence == "Apache-2.0"
    assert models["PE-Core-B-16/meta"].licence == "Apache-2.0"
    assert models["MobileCLIP-S1/datacompdr"].licence == "Apple ML research"
    assert not any("-quickgelu/" in name for name in models)
    assert licence_of("something_new") == "ask its publisher"


@pytest.mark.parametrize(
    ("arch", "tag", "quick_gelu"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-B-32", "laion400m_e32", True),
        ("ViT-L-14", "laion400m_e32", False),
        ("ViT-B-16", "metaclip_400m", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", True),  # its architecture says so, not its tag
    ],
)
def test_quick_gelu_is_the_weights_own(arch: str, tag: str, quick_gelu: bool) -> None:
    assert uses_quick_gelu(arch, tag) is quick_gelu


def test_second_encoders_that_were_brought_are_known_by_name(tmp_path: Path) -> None:
    name = "vit_small_patch14_dinov2.lvd142m"
    others = ("ViT-B-16--openai.pt", "notes.txt", f"{name}.safetensors.sha256", "unknown.pt")
    for file in (f"{name}.safetensors", *others):
        (tmp_path / file).touch()
    assert known_second_encoders(tmp_path) == [name]


def test_an_id_is_a_tags_name_and_follows_a_files_content(tmp_path: Path) -> None:
    for name in ("ViT-B-16/openai", "hf-hub:org/repo", "ViT-B-16/random"):
        assert weights_id(name) == name
    path = tmp_path / "clip.pt"
    path.write_bytes(b"one")
    first = weights_id(f"ViT-B-16@{path}")
    assert first.startswith("ViT-B-16-")
    assert weights_id(f"ViT-B-16@{path}") == first
    ids = {first}
    for content in (b"two", b"ones", bytes(1 << 17), bytes((1 << 17) + 1)):
        path.write_bytes(content)
        ids.add(weights_id(f"ViT-B-16@{path}"))
    assert len(ids) == 5
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copyfile(path, other / path.name)
    assert weights_id(f"ViT-B-16@{other / path.name}") == weights_id(f"ViT-B-16@{path}")


def test_a_folders_id_follows_weights_and_config(tmp_path: Path) -> None:
    name = f"local-dir:{tmp_path}"
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    ids = [weights_id(name)]
    (tmp_path / "README.md").write_text("no part of the model")
    assert weights_id(name) == ids[0]
    (tmp_path / "model.safetensors").write_bytes(b"two")
    ids.append(weights_id(name))
    (tmp_path / "open_clip_config.json").write_text("{ }")
    ids.append(weights_id(name))
    assert len(set(ids)) == 3


def test_missing_files_have_no_id_nor_folders_as_files_or_files_as_folders(tmp_path: Path) -> None:
    (tmp_path / "clip.pt").write_bytes(b"one")
    for kind in ("ViT-B-16@{}/none.pt", "local-dir:{}/none", "ViT-B-16@{}", "local-dir:{}/clip.pt"):
        with pytest.raises(WeightsNotFoundError, match=f"no weights at {tmp_path}"):
            weights_id(kind.format(tmp_path))


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: None) -> bytes:
    """The network gives these bytes, whatever is asked."""
    content = os.urandom(100)
    (tmp_path / "network").mkdir()
    source = tmp_path / "network" / "open_clip_model.safetensors"
    source.write_bytes(content)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: str(source))
    return content


@pytest.mark.usefixtures("fetched")
def test_a_file_with_an_empty_checksum_is_refused(tmp_path: Path) -> None:
    path = download_weights("ViT-B-16/openai", tmp_path)
    path.with_name(f"{path.name}.sha256").write_text("")
    with pytest.raises(WeightsNotFoundError, match=r"safetensors is damaged: its checksum"):
        verify_checksum(path)


def test_half_a_download_is_not_taken_for_a_whole(
    tmp_path: Path, fetched: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: Path, target: Path) -> None:
        Path(target).write_bytes(fetched[:50])
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(OSError, match="No space left"):
        download_weights("ViT-B-16/openai", tmp_path / "to")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert find_weights(ModelName.parse("ViT-B-16/openai"), tmp_path / "to") is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ViT-B-16/openai", ("tag", "ViT-B-16", "openai")),
        ("ViT-B-32/random", ("random", "ViT-B-32", "random")),
        ("ViT-L-14@/models/clip.pt", ("file", "ViT-L-14", "/models/clip.pt")),
        ("ViT-L-14-gelu@a/b@c.pt", ("file", "ViT-L-14", "a/b@c.pt")),
        ("ViT-B-16-quickgelu@x.pt", ("file", "ViT-B-16-quickgelu", "x.pt")),
        ("ViT-B-16-plus-240-quickgelu@x.pt", ("file", "ViT-B-16-plus-240", "x.pt")),
        ("local-dir:models/mine", ("local-dir", "", "models/mine")),
        ("hf-hub:laion/CLIP@x/y", ("hf-hub", "", "laion/CLIP@x/y")),
        ("demo", ("demo", "", str(DEMO_FOLDER))),
    ],
)
def test_every_form_of_name(name: str, parts: tuple[str, str, str]) -> None:
    parsed = ModelName.parse(name)
    assert (parsed.name, parsed.kind, parsed.arch, parsed.source) == (name, *parts)


REFUSED = {
    r"'hf-hub:org/repo' or 'demo', but got": ["", "ViT-B-16", "ViT-B-16/", "ViT-B-16@", "hf-hub:"],
    r"knows no architecture.*`clearclip models` lists": ["ViT-Q-99/openai", "ViT-Q-99@x.pt", "@x"],
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_other_names_are_refused_with_what_works(sentence: str) -> None:
    for name in REFUSED[sentence]:
        with pytest.raises(ValueError, match=sentence):
            ModelName.parse(name)


CAUSES = {
    "the name of https://hub.test is not found": socket.gaierror("No such name.\nAt all."),
    "SSL_CERT_FILE names your network's own": ssl.SSLCertVerificationError("self-signed"),
    "cannot be fetched: OSError: No space left.": OSError("No space left"),
}


@pytest.mark.parametrize("sentence", CAUSES)
def test_a_download_that_fails_says_why_in_a_line(
    sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise ConnectionError("tried again") from CAUSES[sentence]

    monkeypatch.setattr(huggingface_hub, "get_session", away)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.test")
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    with pytest.raises(WeightsNotFoundError, match=re.escape(sentence)) as raised:
        download_weights("ViT-B-16/openai", tmp_path)
    assert "\n" not in str(raised.value)
    assert "models --download" not in str(raised.value)  # it was just typed
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.test:3128")
    with pytest.raises(WeightsNotFoundError) as raised:
        download_weights("ViT-B-16/openai", tmp_path)
    assert ("the proxy of HTTPS_PROXY" in str(raised.value)) == ("hub.test" in sentence)
    assert "secret" not in str(raised.value)


def test_tags_are_those_of_open_clip() -> None:
    tags = _tags()
    assert tags.list_pretrained() == pretrained.list_pretrained()
    for arch, tag in pretrained.list_pretrained():
        assert tags.get_pretrained_cfg(arch, tag) == pretrained.get_pretrained_cfg(arch, tag)
