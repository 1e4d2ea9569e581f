"""The library on a CUDA device: the same answers as on a CPU, in bounded memory."""

import numpy as np
import pytest
import torch

from clearclip_core import HELD_OUT_SEEDS, METHODS, SCENE_LABELS, Segmenter, render_scene

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SEEDS = HELD_OUT_SEEDS[:4]


@pytest.fixture(scope="module")
def on_cpu() -> Segmenter:
    return Segmenter.load("demo", device="cpu", precision="fp32")


def demo(precision: str) -> Segmenter:
    if precision == "bf16" and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this card cannot multiply bf16")
    return Segmenter.load("demo", device="cuda", precision=precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_label_maps_are_those_of_the_cpu(on_cpu: Segmenter, precision: str) -> None:
    on_cuda = demo(precision)
    for seed in SEEDS:
        image = render_scene(seed).image
        expected = on_cpu.segment(image, SCENE_LABELS).label_map
        assert (on_cuda.segment(image, SCENE_LABELS).label_map == expected).mean() >= 0.99


def test_refined_label_maps_are_those_of_the_cpu(on_cpu: Segmenter) -> None:
    on_cuda = demo("fp32")
    for seed in SEEDS:
        image = render_scene(seed).image
        expected = on_cpu.segment(image, SCENE_LABELS, contrast=True, threshold=0.3, refine=True)
        found = on_cuda.segment(image, SCENE_LABELS, contrast=True, threshold=0.3, refine=True)
        assert (found.label_map == expected.label_map).mean() >= 0.99


def test_a_batch_of_mixed_sizes_gives_what_the_cpu_gives(on_cpu: Segmenter) -> None:
    on_cuda = demo("fp32")
    sizes_hw = [(448, 900), (100, 70), (448, 448), (900, 448)]
    images = [render_scene(seed, size_hw=hw).image for seed, hw in enumerate(sizes_hw)]
    prepared = [on_cuda.prepare(image) for image in images]
    for features, image in zip(on_cuda.encode_batch(prepared, 3), images, strict=True):
        assert features.patches.device.type == "cuda"
        expected = on_cpu.encode(image).patches
        cosines = (features.patches.cpu() * expected).sum(dim=-1)
        assert cosines.min() > 0.999  # a card may multiply float32 in TF32


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"rfclip", "proxyclip"}))
def test_every_method_gives_what_the_cpu_gives(name: str) -> None:
    on_cpu, on_cuda = (Segmenter.load("demo", name, device, "fp32") for device in ("cpu", "cuda"))
    image = render_scene(SEEDS[0]).image
    expected, found = on_cpu.encode(image), on_cuda.encode(image)
    assert ((found.patches.cpu() * expected.patches).sum(dim=-1) > 0.999).all()
    assert (found.cls is None) == (expected.cls is None)
    if found.cls is not None and expected.cls is not None:
        assert ((found.cls.cpu() * expected.cls).sum(dim=-1) > 0.999).all()
    assert on_cuda.segment(image, SCENE_LABELS).label_map.shape == image.shape[:2]


def test_normalised_pixels_are_those_of_the_cpu(on_cpu: Segmenter) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    pixels = on_cpu.preprocessing.normalize(rgb, "cuda")
    torch.testing.assert_close(pixels.cpu(), on_cpu.preprocessing.normalize(rgb), rtol=0, atol=1e-6)


def test_memory_is_bounded_by_the_batch_not_by_the_pictures() -> None:
    on_cuda = demo("fp16")
    prepared = [on_cuda.prepare(render_scene(1, size_hw=(448, 900)).image)] * 20  # 4 windows each

    def peak(pictures: int) -> int:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        features = on_cuda.encode_batch(prepared[:pictures], windows_at_once=4)
        kept = sum(one.patches.nbytes for one in features)
        return torch.cuda.max_memory_allocated() - before - 2 * kept  # with those of each batch

    peak(1)  # workspaces of the libraries
    assert peak(20) < 1.5 * peak(1) + (1 << 20)


def test_the_default_batch_fits_into_free_memory() -> None:
    on_cuda = demo("fp16")
    assert 1 <= on_cuda.windows_at_once <= 64
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pixels = torch.zeros(on_cuda.windows_at_once, 3, 448, 448, dtype=torch.float16, device="cuda")
    on_cuda.encoder.encode(pixels)
    taken = torch.cuda.max_memory_allocated() - before - pixels.nbytes
    estimated = on_cuda.windows_at_once * on_cuda.encoder.activation_bytes((448, 448))
    assert taken < 2 * estimated
