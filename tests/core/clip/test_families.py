"""Families and sizes that `clearclip models` lists."""

import pytest

from clearclip_core.clip.families import family_of, model_sizes
from clearclip_core.clip.weights import known_models
from tests.core.clip.architecture_sizes import measure

#: The smallest of each family of open_clip, and what else its text tower may be.
SMALLEST = {
    "ViT": "ViT-B-32",
    "SigLIP": "ViT-B-16-SigLIP",
    "SigLIP2": "ViT-B-16-SigLIP2",
    "PE": "PE-Core-T-16-384",
    "EVA": "EVA02-B-16",
    "ViTamin": "ViTamin-S",
    "MobileCLIP": "MobileCLIP2-S0",
    "ConvNeXt": "convnext_base",
    "ResNet": "RN50",
    "CoCa": "coca_ViT-B-32",
    "CLIPA": "ViT-L-14-CLIPA",
    "MetaCLIP 2": "ViT-H-14-worldwide",
    "NLLB-CLIP": "nllb-clip-base",
}


@pytest.mark.parametrize("family", SMALLEST)
def test_the_size_of_the_smallest_of_a_family_is_its_weights(family: str) -> None:
    arch = SMALLEST[family]
    size = model_sizes()[arch]
    assert (arch, size.image_millions, size.text_millions, size.window_mb) == measure(arch)


@pytest.mark.parametrize("family", SMALLEST)
def test_the_smallest_of_a_family_belongs_to_it(family: str) -> None:
    assert family_of(SMALLEST[family]) == family


def test_each_model_has_a_size() -> None:
    assert all(row.size is not None for row in known_models())


def test_without_a_text_tower_no_memory_is_told() -> None:
    size = model_sizes()["roberta-ViT-B-32"]
    assert (str(size), size.memory_gb) == ("88+? M", None)
