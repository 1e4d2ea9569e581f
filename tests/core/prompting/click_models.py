"""Tiny random click models in transformers' format: exactness needs no trained ones."""

import json
from pathlib import Path

import torch
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    PretrainedConfig,
    PreTrainedModel,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam3ImageProcessor,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3TrackerProcessor,
    TimmWrapperConfig,
)

KINDS = ("sam2", "sam3_tracker", "edgetam")

_MAPS = [[32, 32], [16, 16], [8, 8]]  # sizes of the three maps of an image, the finest first


def write_click_model(kind: str, folder: Path, model_type: str = "") -> Path:
    """Write a click model of a kind, with weights that answer prompts by different masks.

    `model_type` takes the place of the type in its config.
    """
    made: PreTrainedModel
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "sam2":
            made, size = Sam2Model(_sam2()), 128
        elif kind == "sam3_tracker":
            made, size = Sam3TrackerModel(_sam3()), 112
        else:
            made, size = EdgeTamModel(_edgetam()), 128
        for each in made.parameters():
            each.data += 0.1 * torch.randn_like(each)

    sides = {"height": size, "width": size}
    is_sam3 = kind == "sam3_tracker"
    images = (Sam3ImageProcessor if is_sam3 else Sam2ImageProcessor)(size=sides)
    made.save_pretrained(folder)
    (Sam3TrackerProcessor if is_sam3 else Sam2Processor)(images).save_pretrained(folder)
    if model_type:
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": model_type}))
    return folder


def _sam2() -> PretrainedConfig:
    config = Sam2Config()
    tower = config.vision_config.backbone_config
    tower.blocks_per_stage, tower.global_attention_blocks = [1, 1, 2, 1], [3]
    tower.embed_dim_per_stage, tower.hidden_size = [16, 32, 64, 128], 16
    tower.image_size = [128, 128]
    config.vision_config.backbone_channel_list = [128, 64, 32, 16]
    return _small(config, 128)


def _sam3() -> PretrainedConfig:
    config = Sam3TrackerConfig()
    tower = config.vision_config.backbone_config
    tower.hidden_size, tower.intermediate_size = 32, 64
    tower.num_hidden_layers, tower.num_attention_heads = 2, 2
    tower.image_size = tower.pretrain_image_size = 112
    tower.global_attn_indexes, tower.window_size = [1], 4
    config.prompt_encoder_config.patch_size = 14
    return _small(config, 112)


def _edgetam() -> PretrainedConfig:
    tower = TimmWrapperConfig(
        architecture="test_convnext",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = {"backbone_config": tower.to_dict(), "backbone_channel_list": [64, 48, 32, 24]}
    return _small(EdgeTamConfig(vision_config=vision), 128)


def _small(config: PretrainedConfig, side_px: int) -> PretrainedConfig:
    """Shrink what the kinds share: prompts, decoder and the maps of an image."""
    config.vision_config.backbone_feature_sizes = _MAPS
    config.vision_config.fpn_hidden_size = 32
    config.prompt_encoder_config.image_size = side_px
    config.prompt_encoder_config.hidden_size = 32
    decoder = config.mask_decoder_config
    decoder.hidden_size, decoder.iou_head_hidden_dim, decoder.mlp_dim = 32, 32, 64
    decoder.num_attention_heads = 2
    return config
