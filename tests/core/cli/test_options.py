"""Options, the list of models, and what a command imports."""

import os
from pathlib import Path

import click
import open_clip
import pytest

from clearclip_core.cli.options import parse_threshold, thresholds_by_label
from tests.core.cli.clearclip import clearclip


def test_one_for_a_label_wins_over_one_for_all() -> None:
    given = [parse_threshold(text) for text in ("car=0.5", "0.2", "red car = 0.7")]
    assert thresholds_by_label(given, ["sky", "car", "red car"]) == (0.2, 0.5, 0.7)
    assert thresholds_by_label(given[:1], ["sky", "car"], [0.3, 0.4]) == (0.3, 0.5)
    for text in ("car=", "car=2", "nan"):
        with pytest.raises(click.BadParameter):
            parse_threshold(text)
    with pytest.raises(ValueError, match=r"to name a label \(sky, car\), but got 'bus'"):
        thresholds_by_label([("bus", 0.5)], ["sky", "car"])


def test_models_are_listed_with_their_licences(tmp_path: Path) -> None:
    carried = tmp_path / "ViT-B-32--openai.safetensors"
    carried.write_bytes(b"one")
    result = clearclip("models", "--model-dir", tmp_path)
    assert result.exit_code == 0
    rows = {line.split(" ")[0]: line.split()[1:] for line in result.output.splitlines()}
    assert rows["demo"][-2] == "Apache-2.0"
    assert rows["ViT-B-16/openai"] == ["ViT", "86+63", "M", "0.8", "GB", "MIT", "-"]
    assert rows["ViT-B-32/openai"][-2:] == ["MIT", str(carried)]
    assert rows["facebook/sam3"][-5:] == ["SAM", "License", "-", "needs", "[sam]"]
    assert rows["roberta-ViT-B-32/laion2b_s12b_b32k"][-2:] == ["needs", "[hf]"]


@pytest.mark.usefixtures("hub")
def test_models_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(os.urandom(10))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: str(source))
    result = clearclip("models", "--download", "ViT-B-16/openai", "--to", tmp_path / "to")
    assert result.exit_code == 0
    target = tmp_path / "to" / "ViT-B-16--openai.safetensors"
    assert result.output.strip() == str(target)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.usefixtures("hub")
def test_models_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(config: object, cache_dir: Path | None = None) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    failed = clearclip("models", "--download", "ViT-B-16/openai", "--to", tmp_path)
    assert failed.exit_code == 1
    assert failed.output == (
        "Error: ViT-B-16/openai cannot be fetched: OSError: Name or service not known.\n"
    )
    nowhere = clearclip("models", "--download", "ViT-B-16/openai")
    assert nowhere.exit_code == 2
    assert "--download needs --to FOLDER." in nowhere.output
    unknown = clearclip("models", "--download", "demo", "--to", tmp_path)
    assert unknown.exit_code == 1
    assert "of the form 'arch/tag'" in unknown.output
