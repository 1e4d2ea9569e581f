"""A tiny random SigLIP in a folder of open_clip's format; its tokenizer knows some Japanese."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.trainers import UnigramTrainer
from transformers import PreTrainedTokenizerFast

WIDTH = 64

#: Sky, tree, road, grass and house, in English and in Japanese.
WORDS = ("sky", "tree", "road", "grass", "house", "空", "木", "道路", "草", "家")

#: The towers of SigLIP and SigLIP2, small.
CONFIG = {
    "embed_dim": WIDTH,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 64,
        "vocab_size": 200,
        "hf_tokenizer_name": "",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": WIDTH,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}


def write_siglip(folder: Path, logit_scale: float = 117.3) -> Path:
    """Write the folder; `logit_scale` is the factor on cosines in training."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(CONFIG))
    config["text_cfg"]["hf_tokenizer_name"] = str(folder)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CustomTextCLIP(
            **{key: value for key, value in CONFIG.items() if key != "custom_text"}
        )
        # So that words and places differ as those of trained weights do.
        for each in model.parameters():
            if each.ndim > 1:
                each.data += 0.3 * torch.randn_like(each)
    model.logit_scale.data = torch.tensor(logit_scale).log()
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    learned = Tokenizer(Unigram())
    learned.normalizer = normalizers.NFKC()
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=200,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    sentences = [f"a photo of a {word}" for word in WORDS]
    learned.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=learned, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
