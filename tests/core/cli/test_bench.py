"""`clearclip bench` as a person uses it."""

import re

import pytest

from tests.core.cli.clearclip import clearclip


def test_a_machine_is_measured(tiny_arch: str) -> None:
    model = [f"--model={tiny_arch}/random", "--device=cpu", "--precision=fp32", "--short-side=64"]
    size = "--size", "90", "60"
    result = clearclip("bench", *model, *size, "--labels=3", "--batch=3", "--seconds=0")
    assert result.exit_code == 0, result.output
    for shown in ("90×60 px, resized to 96×64", "3 at once", "3 labels", "clearclip, fp32"):
        assert shown in result.output
    row = re.compile(r"  (new words|\w+) +([\d.]+) ", re.MULTILINE)
    ms = {name: float(figure) for name, figure in row.findall(result.output)}
    *stages, together, new_words = ms
    assert stages == ["read", "resize", "encode", "score", "decide", "masks"]
    assert ms[together] == pytest.approx(sum(ms[stage] for stage in stages), abs=0.5)
    assert ms[new_words] == pytest.approx(sum(ms[stage] for stage in stages[3:]), abs=0.3)
    rate = re.search(r"([\d.]+) pictures/s", result.output)
    assert rate is not None
    assert float(rate[1]) == pytest.approx(1000 / ms[together], rel=0.05)
    refused = clearclip("bench", *model, "--size", "90", "8")
    assert refused.exit_code == 2
    assert "8 is not in the range 16<=x<=20000" in refused.output
