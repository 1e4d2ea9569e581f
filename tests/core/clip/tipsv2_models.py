"""A tiny random TIPSv2 model in transformers' format, with a tokenizer of its own."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    Tipsv2Config,
    Tipsv2ImageProcessor,
    Tipsv2Model,
    Tipsv2Processor,
    Tipsv2TextConfig,
    Tipsv2Tokenizer,
    Tipsv2VisionConfig,
)

WIDTH = 32

SENTENCES = ("a photo of a dog.", "Snow", "a bad photo of many trees in the fog")


def write_tipsv2(folder: Path) -> Path:
    """Write a model whose weights are random, all of them."""
    width = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tipsv2Model(
            Tipsv2Config(
                vision_config=Tipsv2VisionConfig(**width, image_size=56).to_dict(),
                text_config=Tipsv2TextConfig(
                    **width, intermediate_size=64, vocab_size=300
                ).to_dict(),
            )
        )
        for name, each in model.named_parameters():
            if name == "temperature":
                continue
            each.data += 0.1 * torch.randn_like(each)
    model.save_pretrained(folder)
    Tipsv2Processor(Tipsv2ImageProcessor(), _tokenizer()).save_pretrained(folder)
    return folder


def _tokenizer() -> Tipsv2Tokenizer:
    """Make a tokenizer of the bytes, and of pieces of the sentences above."""
    specials = ["<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learned = Tokenizer(BPE())
    trainer = BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    words = [f"▁{word}" for each in SENTENCES for word in each.lower().split()]
    learned.train_from_iterator(words, trainer)
    return Tipsv2Tokenizer(vocab=learned.get_vocab(), merges=_pairs(learned))


def _pairs(learned: Tokenizer) -> list[tuple[str, str]]:
    made = json.loads(learned.to_str())["model"]["merges"]
    return [(first, second) for first, second in made]
