"""Each image tower gets the encoder of its family, all of open_clip's among them."""

import re

import open_clip
import pytest
import torch

from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.encoders import check_tower, make_encoder
from clearclip_core.clip.methods import Method
from clearclip_core.clip.towers import Tower
from clearclip_core.clip.weights import ModelName, known_models
from tests.core.clip.architecture_sizes import build_image_tower
from tests.packages import Packages


def test_all_pretrained_models_have_a_name() -> None:
    pairs = open_clip.list_pretrained()
    parsed = [ModelName.parse(f"{arch}/{tag}") for arch, tag in pairs]
    assert len(parsed) >= 196


def _kinds_of_towers() -> dict[tuple[str, ...], str]:
    """Kind of image tower -> one architecture of it; those that differ in size alone are one."""
    sizes = r"_(tiny|small|base|large2?|xlarge|xxlarge|so400m|giantopt|gigantic|enormous)|_?\d+$"
    kinds: dict[tuple[str, ...], str] = {}
    for arch in sorted(
        {row.name.split("/")[0] for row in known_models()} & set(open_clip.list_models())
    ):
        tower = open_clip.get_model_config(arch)["vision_cfg"]
        network = re.sub(
            sizes, "", tower.get("timm_model_name", type(tower.get("layers")).__name__)
        )
        pooling = (
            str(tower.get(key))
            for key in ("timm_pool", "timm_proj", "pool_type", "attentional_pool")
        )
        kinds.setdefault((network, *pooling), arch)
    return kinds


@pytest.mark.thorough
@pytest.mark.parametrize("arch", _kinds_of_towers().values())
def test_the_image_tower_of_each_kind_is_taken(arch: str) -> None:
    model = build_image_tower(arch)
    check_tower(model)
    encoder = make_encoder(model, Method())
    assert isinstance(encoder, DenseEncoder | Tower)
    assert 448 % encoder.patch_size_hw[0] == 0
    assert encoder.activation_bytes((448, 448)) > 0


OWN_FAMILY = """
import torch
from clearclip_core.clip.dense_encoder import WindowFeatures
from clearclip_core.clip.towers import Tower

class Grey(Tower):
    patch_size_hw = (8, 8)

    @classmethod
    def fits(cls, visual):
        return type(visual).__name__ == "Linear"

    def forward(self, pixels, proxy=None):
        cells = torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1)
        return WindowFeatures(torch.nn.functional.normalize(self.visual(cells), dim=-1))
"""


def test_another_package_adds_a_family(packages: Packages) -> None:
    packages.install("grey", OWN_FAMILY, "clearclip.towers", "grey = grey:Grey")
    model = torch.nn.Module()
    model.visual = torch.nn.Linear(3, 5)
    check_tower(model)
    encoder = make_encoder(model, Method())
    assert encoder.encode(torch.rand(2, 3, 16, 24)).shape == (2, 2, 3, 5)


def test_a_tower_of_no_family_is_refused_with_what_works() -> None:
    model = torch.nn.Module()
    model.visual = torch.nn.Linear(3, 5)
    with pytest.raises(ValueError, match=r"another kind \(Linear\)"):
        check_tower(model)
