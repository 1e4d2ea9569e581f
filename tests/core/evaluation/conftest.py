"""A model for thresholds: at random weights alone, every pixel falls below those of a benchmark."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file


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
