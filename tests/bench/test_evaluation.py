"""`clearclip eval --benchmark demo` with every method, on 500 drawn scenes.

The order of methods is reported, not asserted: the demo model's training favours dense readouts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from clearclip_core import METHODS
from clearclip_core.cli.main import main
from clearclip_core.clip.sink_channels import save_sink_channels
from tests.bench.conftest import Report

#: Methods, best first, as in Tab. 2 of the paper for ViT-B/16 on VOC20.
PAPER_ORDER = ("clearclip", "sclip", "maskclip", "clip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    save_sink_channels("demo", (), folder)  # a model of five blocks has none
    return folder


@pytest.mark.parametrize("method", list(METHODS))
def test_drawn_scenes(method: str, folder: Path, report: Report) -> None:
    out = folder / f"{method}.json"
    run = ["eval", "--benchmark=demo", "--model=demo", "--precision=fp32", f"--method={method}"]
    result = CliRunner().invoke(main, [*run, f"--model-dir={folder}", f"-o{out}"])
    assert result.exit_code == 0, result.output
    facts = json.loads(out.read_text())
    assert facts["pictures"] == 500
    report.add(
        f"mIoU of {method} on 500 drawn scenes, demo model",
        "",
        f"{100 * facts['miou']:.1f} %",
        f"pixel accuracy {100 * facts['pixel_accuracy']:.1f} %, "
        f"{facts['seconds_per_picture']:.2f} s a picture",
    )


def test_the_papers_order(folder: Path, report: Report) -> None:
    miou = {path.stem: json.loads(path.read_text())["miou"] for path in folder.glob("*.json")}
    found = sorted(PAPER_ORDER, key=lambda method: -miou[method])
    report.add(
        "order of four methods on drawn scenes (no proof of the paper)",
        " > ".join(PAPER_ORDER),
        " > ".join(found),
    )
