"""Text embeddings: seven templates against all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from clearclip_core import BEST_TEMPLATES, TEMPLATES, TextEncoder, load_model
from clearclip_core.clip.text_encoder import Template
from tests.bench.conftest import Report

MODEL = "ViT-B-16/random"
#: Labels of a new vocabulary.
NEW = 150


def words(count: int) -> list[str]:
    """Return different words of about the length of labels."""
    return [f"label {number}" for number in range(count)]


def test_seven_templates_are_cheaper(report: Report) -> None:
    """Counted is the processor time of the process, as the machine is shared."""
    model = load_model(MODEL, "cpu")

    def cpu_s(templates: Sequence[Template]) -> float:
        began = time.process_time()
        TextEncoder(model.embed, templates)(words(NEW))
        return time.process_time() - began

    all_s, best_s = cpu_s(TEMPLATES), cpu_s(BEST_TEMPLATES)
    report.add(
        f"{NEW} new labels, all {len(TEMPLATES)} templates over the best {len(BEST_TEMPLATES)}",
        "≥ 8×",
        f"{all_s / best_s:.1f}×",
        f"{all_s:.1f} s of processor against {best_s:.1f} s, {MODEL}",
    )
