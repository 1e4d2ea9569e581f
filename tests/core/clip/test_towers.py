"""Towers of other families than native ones are read out as their own heads embed a picture."""

from copy import deepcopy
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel

from clearclip_core import SCENE_LABELS, Example, Segmenter, adapt, render_scene
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.methods import METHODS, Method
from clearclip_core.clip.towers import ResNetTower, TimmTower, Tower

WIDTH = 64

#: Family -> a small network of its kind in timm, its pooling, its projection.
FAMILIES = {
    "SigLIP, SigLIP2": ("vit_base_patch32_siglip_256", "map", "none"),
    "PE": ("vit_pe_core_tiny_patch16_384", "map", ""),
    "EVA01": ("eva_giant_patch14_224", "token", ""),
    "EVA02": ("eva02_tiny_patch14_224", "token", ""),
    "ViTamin": ("vitamin_small_224", "", "linear"),
    "MobileCLIP, a ViT": ("vit_base_mci_224", "token", ""),
    "MobileCLIP, FastViT": ("fastvit_mci0", "avg", ""),
    "attention that leaves the CLS out": ("test_vit", "map", ""),
    "ConvNeXt": ("convnext_atto", "", "mlp"),
}


def make_visual(family: str) -> Any:
    """Make the image tower of a family in float64, with random weights and at most two blocks."""
    name, pool, proj = FAMILIES[family]
    is_large = family == "EVA01"  # a billion weights: two blocks are made
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device("meta" if is_large else "cpu"):
            visual: Any = TimmModel(name, WIDTH, 224, pool, proj)
        if hasattr(visual.trunk, "patch_embed"):
            visual.trunk.blocks = visual.trunk.blocks[-2:]
        if is_large:
            visual.to_empty(device="cpu")
            for parameter in visual.parameters():
                torch.nn.init.normal_(parameter, std=0.05)
            for buffer in visual.buffers():
                torch.nn.init.zeros_(buffer)
    return visual.double().eval()


@pytest.fixture(scope="module", params=FAMILIES)
def visual(request: pytest.FixtureRequest) -> Any:
    return make_visual(request.param)


def pixels_for(tower: Tower, batch: int = 2) -> torch.Tensor:
    height, width = tower.patch_size_hw
    made = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 3 * height, 5 * width, dtype=tower.dtype, generator=made)


def test_where_all_places_are_equal_a_feature_is_the_pictures_embedding(
    visual: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = TimmTower(visual, Method())
    maps_of = tower.trunk.forward_features

    def equal_places(pixels: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = maps_of(pixels)
        one = maps[:, -1:] if maps.ndim == 3 else maps[:, :, :1, :1]
        return one.expand_as(maps).contiguous()

    monkeypatch.setattr(tower.trunk, "forward_features", equal_places)
    pixels = pixels_for(tower)
    with torch.inference_mode():
        patches = tower(pixels).patches
        embedded = visual.head(visual.trunk.forward_head(equal_places(pixels)))
    whole = F.normalize(embedded, dim=-1)[:, None, None]
    assert patches.shape[:3] == (2, 3, 5)
    torch.testing.assert_close(patches, whole.expand_as(patches))


@torch.inference_mode()
def test_a_place_is_read_without_the_tokens_before_the_places(
    visual: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = TimmTower(visual, Method())
    maps_of = tower.trunk.forward_features

    def other_prefix(pixels: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = maps_of(pixels).clone()
        if maps.ndim == 3:
            maps[:, : -3 * 5] += 1
        return maps

    pixels = pixels_for(tower)
    expected = tower(pixels).patches
    assert expected.norm(dim=-1).min() > 0.99
    monkeypatch.setattr(tower.trunk, "forward_features", other_prefix)
    torch.testing.assert_close(tower(pixels).patches, expected)


@torch.inference_mode()
def test_a_picture_has_the_same_features_in_any_batch(visual: Any) -> None:
    tower = TimmTower(visual, Method())
    pixels = pixels_for(tower)
    both = tower(pixels).patches
    torch.testing.assert_close(both, torch.cat([tower(each[None]).patches for each in pixels]))


@torch.inference_mode()
def test_a_tower_leaves_the_model_as_it_was(visual: Any) -> None:
    fresh, pixels = deepcopy(visual), torch.randn(1, 3, 224, 224, dtype=torch.float64)
    tower = TimmTower(visual, Method())
    tower(pixels_for(tower))
    for (name, before), (_, after) in zip(
        fresh.state_dict().items(), visual.state_dict().items(), strict=True
    ):
        assert torch.equal(before, after), name
    if not hasattr(visual.trunk, "patch_embed") or visual.trunk.patch_embed.img_size == (224, 224):
        torch.testing.assert_close(visual(pixels), fresh(pixels))


@torch.inference_mode()
def test_half_precision_agrees(visual: Any) -> None:
    tower = TimmTower(visual, Method())
    halved = TimmTower(deepcopy(visual).to(torch.bfloat16), Method())
    pixels = pixels_for(tower)
    cosines = (tower(pixels).patches * halved(pixels.bfloat16()).patches.double()).sum(-1)
    assert cosines.min() > 0.97


@torch.inference_mode()
def test_the_last_block_attends_by_queries_alone() -> None:
    tower = TimmTower(make_visual("MobileCLIP, a ViT"), Method())
    block = tower.visual.trunk.blocks[-1]
    tokens = torch.randn(2, 7, block.norm1.weight.numel(), dtype=torch.float64)

    made = tower.trunk.blocks[-1](tokens)

    heads = block.attn.num_heads
    weights, bias = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
    normed = block.norm1(tokens)
    query = (normed @ weights[0].T + bias[0]).unflatten(-1, (heads, -1))
    value = (normed @ weights[2].T + bias[2]).unflatten(-1, (heads, -1))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, query) / query.shape[-1] ** 0.5
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2)
    torch.testing.assert_close(made, mixed @ block.attn.proj.weight.T + block.attn.proj.bias)


@torch.inference_mode()
def test_queries_that_stand_for_keys_are_turned_by_their_positions() -> None:
    tower = TimmTower(make_visual("EVA02"), Method())
    attention = tower.trunk.blocks[-1].attention
    own = tower.visual.trunk.blocks[-1].attn
    tower.trunk.rope.update_feat_shape([1, 6])
    turned = tower.trunk.rope.get_embed()
    tokens = torch.randn(1, 7, own.qkv.in_features, dtype=torch.float64)
    made = attention(tokens, rope=turned)

    heads, prefix = own.num_heads, own.num_prefix_tokens
    weights = own.qkv.weight.chunk(3)
    query = (tokens @ weights[0].T + own.q_bias).unflatten(-1, (heads, -1)).transpose(1, 2)
    value = (tokens @ weights[2].T + own.v_bias).unflatten(-1, (heads, -1)).transpose(1, 2)
    sine, cosine = turned.chunk(2, -1)
    pairs = query[:, :, prefix:].unflatten(-1, (-1, 2))
    swapped = torch.stack((-pairs[..., 1], pairs[..., 0]), -1).flatten(-2)
    rotated = query[:, :, prefix:] * cosine + swapped * sine
    query = torch.cat((query[:, :, :prefix], rotated), 2)
    attended = (query @ query.mT / query.shape[-1] ** 0.5).softmax(-1) @ value
    torch.testing.assert_close(made, own.proj(own.norm(attended.transpose(1, 2).flatten(2))))


@torch.inference_mode()
def test_clip_reads_the_last_block_as_it_was_trained() -> None:
    visual = make_visual("MobileCLIP, a ViT")
    tower = TimmTower(visual, METHODS["clip"])
    height, width = tower.patch_size_hw
    pixels = torch.randn(1, 3, 14 * height, 14 * width, dtype=torch.float64)
    tokens = visual.trunk.forward_features(pixels)[:, 1:]
    expected = F.normalize(visual.trunk.head(visual.trunk.fc_norm(tokens)), dim=-1)
    torch.testing.assert_close(tower(pixels).patches.flatten(1, 2), expected)


def make_resnet() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = ModifiedResNet((1, 1, 1, 1), WIDTH, heads=4, image_size=64, width=8)
    return made.double().eval()


@torch.inference_mode()
def test_a_resnet_reads_each_place_by_the_value_path_of_its_pooling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visual = make_resnet()
    visual.attnpool.positional_embedding.zero_()
    layer4 = visual.layer4
    monkeypatch.setattr(
        layer4, "forward", lambda x: layer4[0](x)[:, :, :1, :1].expand(-1, -1, 2, 2)
    )
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    patches = ResNetTower(visual, Method())(pixels).patches
    whole = F.normalize(visual(pixels), dim=-1)[:, None, None]
    torch.testing.assert_close(patches, whole.expand_as(patches))


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"clearclip", "clip"}))
def test_methods_of_native_towers_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match="is read out with clearclip or clip"):
        ResNetTower(make_resnet(), METHODS[method])


@pytest.mark.parametrize("shape", [(1, 3, 33, 64), (3, 64, 64), (1, 1, 64, 64), (1, 3, 0, 64)])
def test_wrong_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        ResNetTower(make_resnet(), Method())(torch.zeros(shape, dtype=torch.float64))


def test_masks_clicks_and_learning_work_on_a_tower_of_timm() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.CLIP(
            embed_dim=32,
            vision_cfg={"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
            text_cfg={"context_length": 77, "width": 32, "heads": 2, "layers": 1},
        ).eval()
    tokenize = open_clip.get_tokenizer("ViT-B-16")
    model = LoadedModel("tiny", clip, tokenize, (127.5,) * 3, (127.5,) * 3)
    segmenter = Segmenter(model)
    scene = render_scene(1, size_hw=(96, 128))
    names = SCENE_LABELS[:4]

    assert segmenter.segment(scene.image, names).label_map.shape == (96, 128)
    assert segmenter.set_image(scene.image, names).click((60, 40), label="sky").mask.any()
    examples = []
    for seed in range(4):
        drawn = render_scene(seed, size_hw=(96, 128))
        masks = {name: drawn.label_map == SCENE_LABELS.index(name) for name in names}
        encoded = segmenter.encode(drawn.image)
        examples.append(Example.of(encoded, masks, names, str(seed)))
    fit = adapt(examples, segmenter.embed, segmenter.vocabulary(names))
    assert fit is not None
