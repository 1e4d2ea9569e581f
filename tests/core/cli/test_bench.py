"""`clearclip bench` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearclip_core.evaluation.speed import rounds
from tests.core.cli.clearclip import clearclip


def test_a_machine_is_measured(tiny_arch: str, tmp_path: Path) -> None:
    """What is printed is what is written down; random weights will do."""
    model = [f"--model={tiny_arch}/random", "--device=cpu", "--precision=fp32", "--short-side=64"]
    file = tmp_path / "bench.json"
    result = clearclip(
        "bench", *model, "--size=90x60", "--labels=3", "--batch=3", "--seconds=0", f"--json={file}"
    )
    assert result.exit_code == 0
    figures = json.loads(file.read_text())
    assert figures["picture_wh"] == [90, 60]
    assert figures["resized_wh"] == [96, 64]
    assert (figures["labels"], figures["windows_at_once"]) == (3, 3)
    assert figures["model"] == f"{tiny_arch}/random"
    assert [*figures["stages_s"]] == ["read", "resize", "encode", "score", "decide", "masks"]
    assert [*figures["window_s"]] == ["1", "3"]  # others are left out without time
    assert figures["picture_s"] == pytest.approx(sum(figures["stages_s"].values()))
    for shown in ("90×60 px, resized to 96×64", "3 labels", "pictures/s", "clearclip, fp32"):
        assert shown in result.output
    assert f"{1 / figures['picture_s']:.2f} pictures/s" in result.output
    assert f"{1000 * figures['window_s']['3']:.1f}   in use" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size=90"], "expected two sides of 16 to 20000 px as WxH, but got '90'"),
        (["--size=90x8"], "expected two sides of 16"),
        (["--labels=1001"], "'--labels'"),
        (["--batch=0"], "'--batch'"),
        (["--seconds=nan"], "'--seconds': expected a finite number, but got 'nan'"),
        (["--json=nowhere/bench.json"], "No such file or directory"),
        (["--model=ViT-B-16/random", "--device=tpu"], "to be auto, cpu, cuda or mps"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], sentence: str) -> None:
    result = clearclip("bench", *arguments)
    assert result.exit_code in (1, 2)
    assert sentence in result.output


@pytest.mark.parametrize(
    ("lengths_s", "budget_s", "expected"),
    [
        ([2, 2, 2, 2, 2, 2], 10, 5),
        ([2, 2, 2, 2, 2, 2], 9.9, 4),
        ([3, 1, 1, 1, 1, 1], 7, 3),  # after 3 + 1 + 1 s another of 3 does not fit
        ([100], 10, 1),
        ([2], 0, 1),
    ],
)
def test_rounds_end_before_the_budget_does(
    lengths_s: list[float], budget_s: float, expected: int
) -> None:
    now = [0.0]
    seen = []
    for number in rounds(budget_s, lambda: sum(now)):
        now.append(lengths_s[number])
        seen.append(number)
    assert seen == list(range(expected))
