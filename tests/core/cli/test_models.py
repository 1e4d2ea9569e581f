"""`clearclip models` as a person uses it."""

from __future__ import annotations

import os
from pathlib import Path

import open_clip
import pytest

from tests.core.cli.clearclip import clearclip


def test_models_are_listed_with_their_licences(tmp_path: Path) -> None:
    carried = tmp_path / "ViT-B-32--openai.safetensors"
    carried.write_bytes(b"one")
    result = clearclip("models", "--model-dir", tmp_path)
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.output.splitlines()}
    assert rows["demo"][1] == "Apache-2.0"
    assert rows["ViT-B-16/openai"][1] == "MIT"
    assert rows["ViT-B-32/openai"] == ["ViT-B-32/openai", "MIT", str(carried)]
    assert rows["roberta-ViT-B-32/laion2b_s12b_b32k"][-2:] == ["needs", "[hf]"]


def test_models_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(os.urandom(10))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: str(source))
    result = clearclip("models", "--download", "ViT-B-16/openai", "--to", tmp_path / "to")
    assert result.exit_code == 0
    target = tmp_path / "to" / "ViT-B-16--openai.safetensors"
    assert result.output.strip() == str(target)
    assert target.read_bytes() == source.read_bytes()


def test_models_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(config: object, cache_dir: Path | None = None) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    failed = clearclip("models", "--download", "ViT-B-16/openai", "--to", tmp_path)
    assert failed.exit_code == 1
    assert failed.output.startswith("Error: The weights of ViT-B-16/openai are not on this")
    nowhere = clearclip("models", "--download", "ViT-B-16/openai")
    assert nowhere.exit_code == 2
    assert "--download needs --to FOLDER." in nowhere.output
    unknown = clearclip("models", "--download", "demo", "--to", tmp_path)
    assert unknown.exit_code == 1
    assert "of the form 'arch/tag'" in unknown.output
