"""Count the weights of open_clip's architectures, without making them: `python -m` writes the file.

python -m tests.core.clip.architecture_sizes > clearclip_core/clip/sizes.csv
"""

import sys

import open_clip
import torch

from clearclip_core.clip.encoders import make_encoder
from clearclip_core.clip.loading import load_model
from clearclip_core.clip.methods import Method
from clearclip_core.clip.weights import known_models

#: Model by transformers -> weights of both towers in millions, as its card says, and the width.
TIPSV2 = {
    "google/tipsv2-b14": (86, 110, 768),
    "google/tipsv2-l14": (303, 184, 1024),
    "google/tipsv2-so400m14": (412, 448, 1152),
    "google/tipsv2-g14": (1100, 389, 1536),
}


def build_image_tower(arch: str) -> torch.nn.Module:
    """Build a model with the image tower of an architecture alone, on the meta device."""
    config = open_clip.get_model_config(arch)
    model = torch.nn.Module()
    with torch.device("meta"):
        model.visual = open_clip.model._build_vision_tower(
            config["embed_dim"], config["vision_cfg"], bool(config.get("quick_gelu"))
        )
    return model


def measure(arch: str) -> tuple[str, int, int | None, int]:
    """Return name, millions of weights of both towers, and MB of a window of 448 px in fp32.

    The text tower's are None where the network comes from Hugging Face.
    """
    model = build_image_tower(arch)
    window = make_encoder(model, Method()).activation_bytes((448, 448))
    config = open_clip.get_model_config(arch)
    text = None
    if "hf_model_name" not in config["text_cfg"]:
        with torch.device("meta"):
            text = millions(
                open_clip.model._build_text_tower(config["embed_dim"], config["text_cfg"])
            )
    return arch, millions(model), text, round(window / 1e6)


def millions(module: torch.nn.Module) -> int:
    return round(sum(each.numel() for each in module.parameters()) / 1e6)


if __name__ == "__main__":
    print("architecture,image_millions,text_millions,window_mb")
    demo = load_model("demo", device="cpu").clip
    window = make_encoder(demo, Method()).activation_bytes((448, 448))
    text = millions(demo) - millions(demo.visual)
    print(f"demo,{millions(demo.visual)},{text},{round(window / 1e6)}")
    for repository, (image, text, width) in TIPSV2.items():
        window = round(32 * 32 * width * 16 * 4 / 1e6)
        print(f"hf-hub:{repository},{image},{text},{window}")
    for arch in sorted({row.name.split("/")[0] for row in known_models() if ":" not in row.name}):
        if arch != "demo":
            print(*("" if each is None else each for each in measure(arch)), sep=",")
            sys.stdout.flush()
