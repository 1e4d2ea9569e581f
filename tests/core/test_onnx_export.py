"""ONNX files of a small model, and the network that they are made of, against `segment`."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch

from clearclip_core import Adaptation, RGBArray, Segmenter
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.onnx_export import ImageToLabelMap, Words
from tests.core.conftest import MEAN, STD, make_clip, picture

SIZES = Preprocessing(MEAN, STD, short_side_px=64, long_side_px=256, window_px=64, stride_px=32)
WORDS = ("dog", "sky", "grass")


@pytest.fixture(scope="module")
def segmenter(model: LoadedModel) -> Segmenter:
    """A segmenter of one block, since the exporter takes time for each."""
    return Segmenter(dataclasses.replace(model, clip=make_clip(layers=1)), preprocessing=SIZES)


def network_of(segmenter: Segmenter, threshold: float = 0.0) -> ImageToLabelMap:
    """The network that is exported, of plain words."""
    embeddings = segmenter.embed(WORDS)
    return ImageToLabelMap(
        segmenter.encoder,
        segmenter.preprocessing,
        Words(embeddings, torch.zeros(3), (0, 1, 2), segmenter.model.temperature, threshold),
        patch_hw=segmenter.encoder.patch_size_hw,
        remove_redundancy=segmenter.method.remove_redundancy,
    )


def label_map_of(network: ImageToLabelMap, image: RGBArray) -> npt.NDArray[np.int16]:
    with torch.inference_mode():
        return network(torch.from_numpy(image)).numpy()


@pytest.fixture(scope="module")
def adaptation(segmenter: Segmenter) -> Adaptation:
    width = segmenter.encode(picture(64, 64)).width
    directions = 0.05 * torch.randn(1, width, generator=torch.manual_seed(0)).numpy()
    return Adaptation(("sky",), directions, np.array([0.02], np.float32), 3)


@pytest.fixture(scope="module")
def session(
    segmenter: Segmenter, adaptation: Adaptation, tmp_path_factory: pytest.TempPathFactory
) -> onnxruntime.InferenceSession:
    path = tmp_path_factory.mktemp("onnx") / "street.onnx"
    segmenter.export(path, WORDS, adaptation, contrast=True)
    return onnxruntime.InferenceSession(str(path))


# Of these sizes pictures need no resizing, which rounds a little differently in a file.
@pytest.mark.thorough
@pytest.mark.parametrize("size_hw", [(64, 140), (100, 64), (64, 64)])
def test_a_file_labels_pictures_of_any_size_as_the_segmenter(
    session: onnxruntime.InferenceSession,
    segmenter: Segmenter,
    adaptation: Adaptation,
    size_hw: tuple[int, int],
) -> None:
    image = picture(*size_hw)
    (label_map,) = session.run(["label_map"], {"image": image})
    wanted = segmenter.segment(image, WORDS, contrast=True, adaptation=adaptation).label_map
    assert label_map.dtype == np.int16
    assert len(np.unique(wanted)) > 1
    assert np.array_equal(label_map, wanted)


@pytest.mark.thorough
def test_a_file_names_its_labels(session: onnxruntime.InferenceSession) -> None:
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == list(WORDS)


# A panorama, whose windows are lower than others, and one whose windows are padded.
@pytest.mark.parametrize("size_hw", [(64, 140), (16, 256), (24, 256)])
@pytest.mark.parametrize("method", ["clearclip", "clipsurgery"])
def test_the_network_labels_a_picture_as_the_segmenter(
    model: LoadedModel, method: str, size_hw: tuple[int, int]
) -> None:
    segmenter, image = Segmenter(model, method, SIZES), picture(*size_hw)
    found = label_map_of(network_of(segmenter), image)
    assert np.array_equal(found, segmenter.segment(image, WORDS).label_map)


@pytest.mark.parametrize("size_hw", [(96, 128), (300, 200), (5, 7)])
def test_a_resized_picture_differs_by_rounding_alone(
    segmenter: Segmenter, size_hw: tuple[int, int]
) -> None:
    image = cv2.resize(picture(3, 4), size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    found = label_map_of(network_of(segmenter), image)
    assert np.mean(found == segmenter.segment(image, WORDS).label_map) > 0.98


def test_the_network_leaves_improbable_pixels_without_a_label(segmenter: Segmenter) -> None:
    image, threshold = picture(64, 140), 0.4
    found = label_map_of(network_of(segmenter, threshold), image)
    wanted = segmenter.segment(image, WORDS, threshold=threshold).label_map
    assert 0 < np.mean(wanted < 0) < 1
    assert np.array_equal(found, wanted)


def test_what_was_learned_with_a_second_encoder_is_refused(
    segmenter: Segmenter, adaptation: Adaptation, tmp_path: Path
) -> None:
    wider = np.pad(adaptation.directions, ((0, 0), (0, 4)))
    with pytest.raises(ValueError, match="second encoder"):
        segmenter.export(
            tmp_path / "a.onnx", WORDS, dataclasses.replace(adaptation, directions=wider)
        )


def test_a_network_that_the_exporter_cannot_write_is_refused(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.onnx, "export", Mock(side_effect=torch.onnx.OnnxExporterError("no translation"))
    )
    with pytest.raises(ValueError, match="give `size_hw`"):
        segmenter.export(tmp_path / "a.onnx", WORDS)
