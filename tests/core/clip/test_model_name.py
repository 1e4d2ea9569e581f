"""Forms of model names, and names that are refused."""

from __future__ import annotations

import pytest

from clearclip_core.clip.weights import DEMO_FOLDER, ModelName

FORMS = r"'arch/tag', 'arch@file', 'local-dir:path', 'hf-hub:org/repo' or 'demo'"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ViT-B-16/openai", ("tag", "ViT-B-16", "openai")),
        ("ViT-B-16-quickgelu/dfn2b", ("tag", "ViT-B-16-quickgelu", "dfn2b")),
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


@pytest.mark.parametrize(
    "name", ["", "ViT-B-16", "ViT-B-16/", "ViT-B-16@", "local-dir:", "hf-hub:"]
)
def test_other_forms_are_refused_with_those_that_work(name: str) -> None:
    with pytest.raises(ValueError, match=f"{FORMS}, but got '{name}'"):
        ModelName.parse(name)


@pytest.mark.parametrize("name", ["ViT-Q-99/openai", "ViT-Q-99@x.pt", "/openai", "@x.pt"])
def test_unknown_architectures_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"knows no architecture.*`clearclip models` lists"):
        ModelName.parse(name)


@pytest.mark.parametrize(
    "name",
    ["RN50/openai", "RN50@x.pt", "ViT-B-16-SigLIP/webli", "coca_ViT-B-32/random", "EVA02-B-16@x"],
)
def test_what_cannot_be_read_out_densely_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"native Vision Transformer.*lists what works"):
        ModelName.parse(name)
