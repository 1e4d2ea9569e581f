"""Models from every kind of file, of a size that loads in a blink."""

import contextlib
import copy
import functools
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import torch
from open_clip import pretrained

from clearclip_core import Segmenter, WeightsNotFoundError, missing_weights, render_scene
from clearclip_core.clip import loading, weights
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.weights import download_weights
from tests.core.clip.siglip_models import write_siglip
from tests.core.conftest import make_clip

SENTENCES = ["a photo of a dog.", "snow"]


@functools.cache
def tokens() -> torch.Tensor:
    return open_clip.SimpleTokenizer(context_length=16)(SENTENCES)


def features(model: open_clip.CLIP) -> torch.Tensor:
    """What tells a model from others: an image and texts through both towers."""
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return torch.cat([model.encode_image(pixels), model.encode_text(tokens())])


def assert_same(model: object, expected: open_clip.CLIP) -> None:
    assert isinstance(model, open_clip.CLIP)
    assert not model.training
    torch.testing.assert_close(features(model), features(expected), rtol=1e-4, atol=1e-5)


def with_quick_gelu(model: open_clip.CLIP) -> open_clip.CLIP:
    other = make_clip(quick_gelu=True)
    other.load_state_dict(model.state_dict())
    return other


def test_a_model_folder(model_folder: Path, clip_model: open_clip.CLIP) -> None:
    loaded = load_model(f"local-dir:{model_folder}", device="cpu", precision="fp32")
    assert_same(loaded.clip, clip_model)
    assert loaded.name == f"local-dir:{model_folder}"
    assert loaded.mean == pytest.approx((25.5, 51, 102))
    assert loaded.std == pytest.approx((127.5, 153, 204))
    assert loaded.notice is None
    assert "wall" in loaded.contrast
    assert torch.equal(loaded.tokenize(SENTENCES), tokens())
    expected = clip_model.encode_text(tokens())
    torch.testing.assert_close(loaded.embed(SENTENCES), expected, rtol=1e-4, atol=1e-5)


def test_precision_is_that_of_the_weights(model_folder: Path) -> None:
    loaded = load_model(f"local-dir:{model_folder}", device="cpu", precision="bf16")
    assert {p.dtype for p in loaded.clip.parameters()} == {torch.bfloat16}
    assert loaded.embed(SENTENCES).dtype == torch.float32
    assert not any(p.requires_grad for p in loaded.clip.parameters())


@pytest.mark.parametrize("content", ["no config", "no json", "no weights", "other weights"])
def test_other_folders_are_refused(tmp_path: Path, model_folder: Path, content: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    config = folder / "open_clip_config.json"
    if content == "no config":
        config.unlink()
    elif content == "no json":
        config.write_text("{")
    elif content == "no weights":
        (folder / "open_clip_model.safetensors").unlink()
    else:
        values = json.loads(config.read_text())
        values["model_cfg"]["vision_cfg"]["width"] = 32
        config.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=str(folder)) as caught:
        load_model(f"local-dir:{folder}", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["safetensors", "pt", "training checkpoint"])
@pytest.mark.parametrize("activation", ["gelu", "quickgelu"])
def test_a_bare_file(
    tmp_path: Path,
    tiny_arch: str,
    clip_model: open_clip.CLIP,
    safetensors_file: Path,
    form: str,
    activation: str,
) -> None:
    path = safetensors_file
    if form != "safetensors":
        path = tmp_path / "clip.pt"
        state = clip_model.state_dict()
        wrapped = {"state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(state if form == "pt" else wrapped, path)
    loaded = load_model(f"{tiny_arch}-{activation}@{path}", device="cpu", precision="fp32")
    quick = activation == "quickgelu"
    assert_same(loaded.clip, with_quick_gelu(clip_model) if quick else clip_model)


def name_tags(monkeypatch: pytest.MonkeyPatch, arch: str, tags: dict[str, dict[str, Any]]) -> None:
    """In open_clip's table, and in ours that is read from its file."""
    for table in (pretrained._PRETRAINED, weights._tags()._PRETRAINED):
        monkeypatch.setitem(table, arch, tags)


@pytest.fixture
def tags(tiny_arch: str, monkeypatch: pytest.MonkeyPatch, safetensors_file: Path, hub: None) -> str:
    """The small architecture gets two tags; the network gives the small weights for both."""
    mean_std = {"mean": (0.2, 0.3, 0.4), "std": (1.0, 0.5, 0.1)}
    entries = {
        "quick": {"url": "", "hf_hub": "org/quick/", "quick_gelu": True, **mean_std},
        "plain": {"url": "", "hf_hub": "org/plain/", **mean_std},
    }
    name_tags(monkeypatch, tiny_arch, entries)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: str(safetensors_file))
    return tiny_arch


@pytest.mark.parametrize("tag", ["quick", "plain"])
def test_a_tags_weights_get_its_activation_and_statistics(
    tags: str, tag: str, clip_model: open_clip.CLIP
) -> None:
    loaded = load_model(f"{tags}/{tag}", device="cpu", precision="fp32")
    assert_same(loaded.clip, with_quick_gelu(clip_model) if tag == "quick" else clip_model)
    assert loaded.mean == pytest.approx((51, 76.5, 102))
    assert loaded.std == pytest.approx((255, 127.5, 25.5))


def test_weights_carried_to_a_machine_without_network(
    tags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip_model: open_clip.CLIP
) -> None:
    path = download_weights(f"{tags}/quick", tmp_path)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: pytest.fail("fetched"))
    quick = with_quick_gelu(clip_model)
    by_tag = load_model(f"{tags}/quick", "cpu", "fp32", folder=tmp_path, download=False)
    assert_same(by_tag.clip, quick)
    by_file = load_model(f"{tags}@{path}", "cpu", "fp32")  # its name and checksum tell the tag
    assert_same(by_file.clip, quick)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    for name in (f"{tags}/quick", f"{tags}@{path}", f"{tags}-quickgelu@{path}"):
        with pytest.raises(WeightsNotFoundError, match="is damaged"):
            load_model(name, "cpu", folder=tmp_path, download=False)


def test_what_is_downloaded_stays_in_the_folder(
    tiny_arch: str,
    tmp_path: Path,
    safetensors_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    clip_model: open_clip.CLIP,
) -> None:
    """By open_clip's own downloader; a file URL stands for the network."""
    name_tags(monkeypatch, tiny_arch, {"here": {"url": safetensors_file.as_uri()}})
    folder, given = tmp_path / "models", (f"{tiny_arch}/here", "clearclip", "cpu", "fp32", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsNotFoundError):
        Segmenter.load(*given, folder="~/models", download=False)
    Segmenter.load(*given, folder="~/models")
    assert [path.name for path in folder.iterdir()] == [safetensors_file.name]
    assert not missing_weights(given[0], str(folder))
    assert_same(load_model(given[0], "cpu", "fp32", folder, download=False).clip, clip_model)


def test_absent_weights_say_how_to_bring_them(
    tags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: pytest.fail("fetched"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    sentence = f"`clearclip models --download {tags}/quick --to FOLDER` and copy.*{tags}@FILE"
    with pytest.raises(WeightsNotFoundError, match=sentence):
        load_model(f"{tags}/quick", device="cpu", folder=tmp_path, download=False)


def test_a_hub_repository_is_read_from_the_cache_without_network(
    tmp_path: Path, model_folder: Path, clip_model: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsNotFoundError, match=r"hf-hub:org/tiny are not.*local-dir:FOLDER"):
        load_model("hf-hub:org/tiny", device="cpu", download=False)
    repository = tmp_path / "models--org--tiny"
    shutil.copytree(model_folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    loaded = load_model("hf-hub:org/tiny", device="cpu", precision="fp32", download=False)
    assert_same(loaded.clip, clip_model)
    assert loaded.name == "hf-hub:org/tiny"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, clip_model: open_clip.CLIP) -> Path:
    """A TorchScript archive with the entries of OpenAI's."""
    model = copy.deepcopy(clip_model)
    for name in ("context_length", "vocab_size", "attn_mask"):
        delattr(model, name)
    for name, value in {"input_resolution": 64, "context_length": 16, "vocab_size": 49408}.items():
        model.register_buffer(name, torch.tensor(value))
    path = tmp_path_factory.mktemp("archive") / "clip.pt"
    torch.jit.trace_module(model, {"encode_image": torch.zeros(1, 3, 64, 64)}).save(str(path))
    return path


def test_openais_archive_is_read_through_its_state_dict(
    tiny_arch: str,
    archive: Path,
    safetensors_file: Path,
    clip_model: open_clip.CLIP,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "SINK_CHANNELS", {f"{tiny_arch}/openai": (1, 2)})
    loaded = load_model(f"{tiny_arch}@{archive}", device="cpu", precision="fp32")
    assert_same(loaded.clip, with_quick_gelu(clip_model))  # only OpenAI has such archives
    assert loaded.mean == pytest.approx([255 * x for x in open_clip.OPENAI_DATASET_MEAN])
    assert loaded.sink_channels == (1, 2)
    assert load_model(f"{tiny_arch}-gelu@{safetensors_file}", device="cpu").sink_channels is None


def test_other_weights_are_refused(tmp_path: Path, archive: Path, safetensors_file: Path) -> None:
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 1, "layers": 1},
    }
    (tmp_path / "Other-ViT.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "Other-ViT.json")
    for path in (archive, safetensors_file):
        with pytest.raises(ValueError, match=f"weights of Other-ViT@{path} cannot be read: ") as e:
            load_model(f"Other-ViT-quickgelu@{path}", device="cpu")
        assert "\n" not in str(e.value)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("form", ["torch", "in a state dict", "pickle", "posing as TorchScript"])
def test_unpickling_runs_no_code(tmp_path: Path, tiny_arch: str, form: str) -> None:
    path, exploded = tmp_path / "bomb.pt", tmp_path / "exploded"
    bomb = Bomb(exploded)
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": bomb}, protocol=2))
    else:
        torch.save({"state_dict": {"logit_scale": bomb}} if "state" in form else bomb, path)
    if form == "posing as TorchScript":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("bomb/code/__torch__.py", "")
    with pytest.raises(ValueError, match="cannot be read"):
        load_model(f"{tiny_arch}-gelu@{path}", device="cpu")
    assert not exploded.exists()
    with contextlib.suppress(RuntimeError):  # it does go off where nobody takes care
        torch.load(path, weights_only=False)
    assert exploded.exists()


def test_a_folders_pickle_runs_no_code(tmp_path: Path, model_folder: Path) -> None:
    shutil.copy(model_folder / "open_clip_config.json", tmp_path)
    torch.save(Bomb(tmp_path / "exploded"), tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read"):
        load_model(f"local-dir:{tmp_path}", device="cpu")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_files_that_hold_no_weights_are_refused(
    tmp_path: Path, tiny_arch: str, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights of {tiny_arch}@{path} cannot be read"):
        load_model(f"{tiny_arch}-gelu@{path}", device="cpu")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = write_siglip(tmp_path_factory.mktemp("siglip"))
    return load_model(f"local-dir:{folder}", "cpu", "fp32")


def test_the_temperature_of_a_sigmoid_is_half_of_its_own_scale(siglip: LoadedModel) -> None:
    assert siglip.temperature == pytest.approx(117.3 / 2)


def test_the_temperature_of_clip_is_the_papers(model_folder: Path) -> None:
    assert load_model(f"local-dir:{model_folder}", device="cpu").temperature == 50


def test_siglip_reads_lower_case_without_a_period_and_64_tokens(siglip: LoadedModel) -> None:
    plain, written = siglip.tokenize(["a photo of a tree", "A photo of a Tree."])
    assert torch.equal(plain, written)
    assert plain.shape == (64,)


def test_labels_in_japanese_are_told_apart(siglip: LoadedModel) -> None:
    scene = render_scene(1, size_hw=(96, 128))
    segmenter = Segmenter(siglip)
    sky, tree, road = siglip.tokenize(["空", "木", "道路"])
    assert len({tuple(each.tolist()) for each in (sky, tree, road)}) == 3
    found = segmenter.segment(scene.image, ["空", "木", "道路"])
    assert found.mask("空").shape == (96, 128)
    assert found.labels == ("空", "木", "道路")
