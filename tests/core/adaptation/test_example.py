"""Training examples: the pixels that stand for an image, and what annotators left there."""

import weakref
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, Example, Scores, Vocabulary
from clearclip_core.adaptation.example import to_safetensors
from tests.core.segmentation.test_windows import plan_of

Mask = npt.NDArray[np.bool_]
WIDTH = 6
SMALL = plan_of((80, 64), (80, 64))  # two windows of 4 x 4 patches, the second pushed back


def features_of(seed: int) -> DenseFeatures:
    made = torch.randn(SMALL.count, *SMALL.grid_hw, WIDTH, generator=torch.manual_seed(seed))
    return DenseFeatures(F.normalize(made, dim=-1), SMALL)


def masks_of(seed: int, names: Sequence[str] = ("sky", "sofa")) -> dict[str, Mask]:
    """A rectangle for each label, which may overlap others and lie anywhere."""
    rng = np.random.default_rng(seed)
    masks: dict[str, Mask] = {}
    for name in names:
        (top, bottom), (left, right) = np.sort(rng.integers(0, 65, (2, 2)), axis=1)
        masks[name] = np.zeros((80, 64), np.bool_)
        masks[name][top : bottom + 9, left : right + 9] = True
    return masks


def example_of(seed: int, names: Sequence[str] = ("sky", "sofa")) -> Example:
    return Example.of(features_of(seed), masks_of(seed, names), ["sofa", "sky", "dog"])


def test_a_picture_in_place_of_features_is_refused() -> None:
    with pytest.raises(TypeError, match=r"what Segmenter\.encode returns .* but got ndarray"):
        Example.of(np.zeros((80, 64, 3)), {}, ["sky"])  # type: ignore[arg-type]


def left_half() -> Mask:
    mask = np.zeros((80, 64), np.bool_)
    mask[:, :32] = True
    return mask


def test_the_scores_of_sampled_pixels_are_those_of_the_label_map() -> None:
    """Every pixel says by its feature what the label map says there."""
    words = Vocabulary.of([f"word {index}" for index in range(5)])
    embeddings = F.normalize(torch.randn(5, WIDTH, generator=torch.manual_seed(9)), dim=1)
    features = features_of(0)
    label_map = Scores.of(features, embeddings, words).label_map()
    masks = {f"word {index}": label_map == index for index in range(5)}
    example = Example.of(features, {k: v for k, v in masks.items() if v.any()}, masks)
    scored = (torch.from_numpy(example.features).float() @ embeddings.T).argmax(dim=1)
    drawn = [int(example.names[label].split()[1]) for label in example.labels]
    assert np.mean(scored.numpy() == drawn) > 0.98  # features are rounded to float16


def test_labels_are_sampled_alike_and_stand_for_their_area() -> None:
    plan = plan_of((640, 640), (640, 640))
    made = torch.randn(plan.count, *plan.grid_hw, 512, generator=torch.manual_seed(0))
    small, large = np.zeros((2, 640, 640), np.bool_)
    small[:16, :32], large[:, 100:] = True, True
    features = DenseFeatures(F.normalize(made, dim=-1), plan)
    example = Example.of(features, {"dog": small, "sky": large}, ["dog", "sky"])
    assert example.names == ("dog", "sky")
    assert len(example.features) <= 192
    assert len(example.to_bytes()) < 220_000
    areas = [example.weights[example.labels == label].sum() for label in (-1, 0, 1)]
    assert areas == pytest.approx([1 - 540 / 640 - 512 / 640**2, 512 / 640**2, 540 / 640], abs=0.01)
    assert (example.labels == 0).sum() == 32  # a small label keeps all its pixels
    both = Example.of(replace(features, second=made), {"dog": small, "sky": large}, ["dog", "sky"])
    assert (both.width, both.labels.tolist()) == (1024, example.labels.tolist())


def test_pixels_of_several_labels_and_of_kept_predictions_are_not_drawn() -> None:
    left, top = left_half(), np.zeros((80, 64), np.bool_)
    top[:40] = True
    crossed = Example.of(features_of(0), {"sky": left, "dog": top}, ["sky", "dog"])
    assert crossed.weights.sum() == pytest.approx(0.75)
    kept = Example.of(features_of(0), {"sky": left}, ["sky"], kept={"sky": left & top})
    assert kept.weights[kept.labels == 0].sum() == pytest.approx(0.25)
    assert kept.weights.sum() == pytest.approx(1)
    accepted = Example.of(features_of(0), {"sky": left}, ["sky"], kept={"sky": left})
    assert accepted.names == ()
    assert (accepted.labels == -1).all()


class Drawn(dict[str, Mask]):
    """Masks that are made when they are asked for; how many were there at once."""

    there = most = 0

    def __getitem__(self, name: str) -> Mask:
        mask = np.ones((80, 64), np.bool_)
        self.there += 1
        weakref.finalize(mask, self._gone)
        self.most = max(self.most, self.there)
        return mask

    def _gone(self) -> None:
        self.there -= 1


def test_masks_are_held_one_by_one() -> None:
    drawn = Drawn({f"label {index}": left_half() for index in range(9)})
    assert not len(Example.of(features_of(0), drawn, ["sky"]).labels)  # all of them everywhere
    assert drawn.most == 1


def test_examples_survive_their_bytes() -> None:
    taken = {"dog": left_half(), "sofa": np.zeros((80, 64), np.bool_)}
    example = Example.of(features_of(0), masks_of(0), ["sofa"], "p", annotator="a1", removed=taken)
    assert (example.known, example.removed_names) == (("sky", "sofa"), ("dog",))
    read = Example.from_bytes(example.to_bytes(), width=WIDTH)
    assert read.digest == example.digest
    assert (read.picture_key, read.annotator, read.names) == ("p", "a1", example.names)
    assert np.array_equal(read.features, example.features)
    assert np.array_equal(read.removed, example.removed)
    with pytest.raises(ValueError, match="another model"):
        Example.from_bytes(example.to_bytes(), WIDTH + 1)
    assert replace(example, picture="").picture_key != replace(example, annotator="b").picture_key


def test_examples_that_version_0_2_0_has_stored_are_read() -> None:
    """It stored a CLS feature too, of what stood only that it stood, and nothing of elsewhere."""
    example = Example.of(features_of(0), {"sky": left_half()}, ["sky"], kept={"sky": left_half()})
    facts = {name: value for name, value in example._metadata.items() if name != "kept"}
    later = {"kept", "elsewhere"}
    arrays = {name: array for name, array in example._arrays.items() if name not in later}
    read = Example.from_bytes(to_safetensors("example", facts, arrays | {"cls": np.ones(3)}))
    assert read.kept_names == ()
    assert read.kept.tolist() == [-1] * len(example.labels)
    assert (read.elsewhere == -1).all()
    assert np.array_equal(read.features, example.features)


def test_what_stands_as_predicted_is_kept_with_its_label() -> None:
    left, top = left_half(), np.zeros((80, 64), np.bool_)
    top[:40] = True
    masks = {"sky": left, "dog": top & ~left}
    example = Example.of(features_of(0), masks, ["sky"], kept={"sky": left & top, "dog": top})
    assert (example.names, example.kept_names) == (("sky",), ("dog", "sky"))
    area = {
        name: example.weights[example.kept == index].sum()
        for index, name in enumerate(example.kept_names)
    }
    assert area["dog"] == pytest.approx(0.25), "not where two labels stand"
    assert (example.kept[example.labels >= 0] == -1).all(), "what is drawn is not kept"


def test_the_layout_averages_the_features_of_each_part_of_the_image() -> None:
    plan = plan_of((64, 64), (64, 64))  # one window of 4 x 4 patches: a patch a cell
    made = torch.randn(1, 4, 4, WIDTH, generator=torch.manual_seed(0))
    example = Example.of(DenseFeatures(made, plan), {}, ["sky"])
    assert example.layout == pytest.approx(made.reshape(16, WIDTH).numpy(), abs=2e-3)


def test_examples_refuse_what_they_cannot_learn_from() -> None:
    for mask in (np.ones((3, 3), np.bool_), np.ones((80, 64), np.uint8)):  # 1 would be an index
        with pytest.raises(ValueError, match=r"'sky' to be \(80, 64\) bool"):
            Example.of(features_of(0), {"sky": mask}, ["sky"])
    for name, known in (("", ["sky"]), ("sky", "sky")):  # a string would be read by letters
        with pytest.raises(ValueError, match="have names"):
            Example.of(features_of(0), {name: np.ones((80, 64), np.bool_)}, known)
    weighed = DenseFeatures(features_of(0).patches, SMALL, torch.ones(SMALL.count, WIDTH), True)
    with pytest.raises(ValueError, match="cannot learn"):
        Example.of(weighed, {}, ["sky"])


def test_other_bytes_are_refused() -> None:
    data = example_of(0).to_bytes()
    other = to_safetensors("number", {}, {"features": np.ones(3)})
    for wrong in (b"", b"{}", data[:-9], other):
        with pytest.raises(ValueError, match="Expected the bytes of an example"):
            Example.from_bytes(wrong)


def test_its_repr_fills_no_notebook() -> None:
    assert "array" not in repr(example_of(0))
