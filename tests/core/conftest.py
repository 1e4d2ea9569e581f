"""Small CLIP models with random weights: exactness needs no trained ones."""

import copy
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clearclip_core import RGBArray
from clearclip_core.clip.loading import LoadedModel

VISION = {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
CONFIG = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)


def make_clip(quick_gelu: bool = False, **vision: object) -> open_clip.CLIP:
    """A CLIP of 3 blocks and 4 heads, its norms not at their initial 1 and 0."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        24, vision_cfg=VISION | vision, text_cfg=TEXT, quick_gelu=quick_gelu
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def picture(height: int, width: int, seed: int = 0) -> RGBArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def clip_model() -> open_clip.CLIP:
    return make_clip()


@pytest.fixture(scope="session")
def model(clip_model: open_clip.CLIP) -> LoadedModel:
    tokenize = open_clip.SimpleTokenizer(context_length=16)
    return LoadedModel("tiny", clip_model, tokenize, MEAN, STD, contrast=("sand", "wall"))


@pytest.fixture(scope="session")
def tiny_arch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shape of `make_clip` as an architecture that open_clip knows by name."""
    path = tmp_path_factory.mktemp("configs") / "Tiny-ViT.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub of weights answers when it is asked whether it is there."""
    monkeypatch.setattr(huggingface_hub, "get_session", Mock)


@pytest.fixture(scope="session")
def safetensors_file(tmp_path_factory: pytest.TempPathFactory, clip_model: open_clip.CLIP) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({name: tensor.clone() for name, tensor in clip_model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, safetensors_file: Path) -> Path:
    """`clip_model` as a folder that open_clip reads by `local-dir:`."""
    folder = tmp_path_factory.mktemp("model")
    preprocess = {"mean": [0.1, 0.2, 0.4], "std": [0.5, 0.6, 0.8]}
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "open_clip_model.safetensors").write_bytes(safetensors_file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def sure_clip(clip_model: open_clip.CLIP) -> open_clip.CLIP:
    """`clip_model`, its words so far apart that it is sure of some pixels."""
    model = copy.deepcopy(clip_model)
    with torch.no_grad():
        model.token_embedding.weight.mul_(20)
        for block in model.transformer.resblocks:
            block.attn.in_proj_weight.mul_(4)
    return model


@pytest.fixture(scope="session")
def sure_model_folder(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, sure_clip: open_clip.CLIP
) -> Path:
    """`sure_clip` as a folder that open_clip reads by `local-dir:`."""
    folder = tmp_path_factory.mktemp("sure")
    shutil.copy(model_folder / "open_clip_config.json", folder)
    tensors = {name: tensor.clone() for name, tensor in sure_clip.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder
