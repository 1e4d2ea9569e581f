"""Pictures with their truth, and files that are not what they should be."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearclip_core import HELD_OUT_SEEDS, render_scene
from clearclip_core.evaluation.benchmarks import BENCHMARKS, find_samples
from clearclip_core.images.label_maps import LayoutError, read_label_map
from tests.core.evaluation import miniatures

VOC = BENCHMARKS["voc20"]


def test_a_picture_is_read_as_opencv_reads_it(tmp_path: Path) -> None:
    """MMSegmentation reads with OpenCV; a JPEG with thinned-out colours decodes the same here."""
    made = miniatures.make("voc20", tmp_path)
    for sample, (picture, label_map) in zip(find_samples(VOC, tmp_path), made, strict=True):
        rgb, truth = sample.read()
        assert (rgb == cv2.imread(str(picture))[:, :, ::-1]).all()
        with Image.open(label_map) as stored:
            values = np.asarray(stored)
        expected = [255 if v in (0, 255) else v - 1 for v in values.ravel().tolist()]
        assert truth.ravel().tolist() == expected
        assert truth.dtype == np.uint8


def test_drawn_scenes_need_no_files() -> None:
    samples = find_samples(BENCHMARKS["demo"], None)
    assert len({sample.name for sample in samples}) == len(samples) == 500
    rgb, truth = samples[3].read()
    scene = render_scene(HELD_OUT_SEEDS[3])
    assert (rgb == scene.image).all()
    assert (truth == scene.label_map).all()


def test_digests_follow_the_files_wherever_they_lie(tmp_path: Path) -> None:
    made = miniatures.make("voc20", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def digests(folder: str) -> list[str]:
        return [sample.digest for sample in find_samples(VOC, tmp_path / folder)]

    first = digests("a")
    assert len(set(first)) == len(made) == 3
    assert digests("b") == first
    _, label_map = made[0]
    with Image.open(label_map) as stored:
        shifted = np.asarray(stored) % 20 + 1  # an image of as many bytes, or nearly
    Image.fromarray(shifted).save(label_map)
    picture, _ = made[1]
    miniatures.draw(picture, 77, (60, 52))
    now = digests("a")
    assert [one == other for one, other in zip(now, first, strict=True)] == [False, False, True]
    assert len({sample.digest for sample in find_samples(BENCHMARKS["demo"], None)}) == 500


def test_a_painted_map_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(LayoutError, match=r"\(mode L or P\), but its mode is RGB"):
        read_label_map(path)
