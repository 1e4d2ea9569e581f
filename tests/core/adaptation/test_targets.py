"""What the targets of training examples are made of."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from clearclip_core.adaptation.targets import cluster
from tests.core.adaptation.test_example import WIDTH, example_of

Cells = npt.NDArray[np.float16]


def scene(seed: int) -> Cells:
    """What a scene looks like, in features that share a direction as those of a model do."""
    made = 3.0 + np.random.default_rng(seed).normal(size=(16, WIDTH))
    return made.astype(np.float16)


def frame(seed: int, number: int, step: float = 0.02) -> Cells:
    """A frame of a drive through the scene, a little off what it looks like."""
    off = np.random.default_rng((seed, number)).normal(size=(16, WIDTH))
    return (scene(seed) + step * number * off).astype(np.float16)


def clusters(*images: Cells) -> list[int]:
    made = [replace(example_of(0), picture=f"{n}", layout=each) for n, each in enumerate(images)]
    return cluster(made).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_frames_of_one_drive_are_one_cluster_and_scenes_are_several(seed: int) -> None:
    drives = np.random.default_rng(seed).integers(0, 6, 30).tolist()
    found = clusters(*(frame(drive, number % 5) for number, drive in enumerate(drives)))
    assert len(set(zip(drives, found, strict=True))) == len(set(drives)) == len(set(found))


def test_frames_count_as_one_also_by_a_chain_of_frames_alone() -> None:
    off = np.random.default_rng(9).normal(size=(16, WIDTH))
    drive = [(scene(0) + share * off).astype(np.float16) for share in np.linspace(0, 1.5, 7)]
    others = [scene(number) for number in range(1, 8)]
    ends = clusters(drive[0], drive[-1], *others)[:2]
    assert ends[0] != ends[1]
    assert len(set(clusters(*drive, *others)[:7])) == 1


def test_two_images_alone_count_as_one_only_where_they_are_nearly_equal() -> None:
    """With one pair, nothing says how unlike images of the project are: 0.999 counts."""
    assert clusters(frame(0, 0), frame(0, 1, 0.25)) == [0, 1]
    assert clusters(frame(0, 0), frame(0, 1, 0.25), scene(1), scene(2), scene(3))[:2] == [0, 0]
