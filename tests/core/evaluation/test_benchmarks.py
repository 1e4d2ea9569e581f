"""The benchmarks, held to the paper's Sec. 4.1 and its released settings; their files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip_core import HELD_OUT_SEEDS, METHODS, Label, Method, render_scene
from clearclip_core.evaluation.benchmarks import (
    BENCHMARKS,
    RECODINGS,
    benchmark_for,
    class_names,
    find_samples,
    prepare,
    read_labels,
)
from clearclip_core.images.label_maps import LayoutError
from tests.core.evaluation import miniatures
from tests.core.evaluation.miniatures import draw

VOC = BENCHMARKS["voc20"]


def test_a_value_that_is_no_class_is_refused(tmp_path: Path) -> None:
    for _, label_map in miniatures.make("voc20", tmp_path):
        Image.new("L", (60, 44), 21).save(label_map)
    with pytest.raises(LayoutError, match=r"png: .* to hold 0 to 20 and 255, but got 21"):
        find_samples(VOC, tmp_path)


def test_a_file_of_ones_own_gives_several_words_to_a_class(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("sky, air ,heaven\nautomobile\n\n")
    sky, car = Label("sky", ("sky", "air", "heaven")), Label("car", ("automobile",))
    assert read_labels(path, ("sky", "car")) == (sky, car)
    path.write_text("sky\ncar\ntree\n")
    with pytest.raises(ValueError, match=r"2 lines with a word, one a class .* but got 3"):
        read_labels(path, ("sky", "car"))
    path.write_text("sky\n , \n")
    with pytest.raises(ValueError, match=r"but got 1"):
        read_labels(path, ("sky", "car"))


def files_of(benchmark: str, root: Path) -> list[tuple[Path, Path]]:
    layout = BENCHMARKS[benchmark].layout
    assert layout is not None
    return [(each.picture, each.label_map) for each in layout.find(root)]


@pytest.mark.parametrize("benchmark", list(miniatures.MINIATURES))
def test_files_are_found_in_order_without_those_of_macos(benchmark: str, tmp_path: Path) -> None:
    made = miniatures.make(benchmark, tmp_path)
    for path in (path for pair in made for path in pair):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert files_of(benchmark, tmp_path) == made
    names = BENCHMARKS[benchmark].classes
    assert len(names) == len(set(names)) == miniatures.MINIATURES[benchmark].classes


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    made = miniatures.make("voc20", tmp_path)
    made[2][1].unlink()
    with pytest.raises(LayoutError, match=r"but 1 files are not there, such as .*2008_000009\.png"):
        files_of("voc20", tmp_path)
    shutil.rmtree(tmp_path / "SegmentationClass")
    with pytest.raises(LayoutError, match=r"but SegmentationClass is not there\."):
        files_of("voc20", tmp_path)
    with pytest.raises(LayoutError, match=r"needs the folder of its data"):
        find_samples(VOC, None)
    (picture, _), _ = miniatures.make("ade20k", tmp_path / "unlisted")
    picture.unlink()
    with pytest.raises(LayoutError, match=f"such as {picture}"):
        files_of("ade20k", tmp_path / "unlisted")


def test_drawn_scenes_need_no_files() -> None:
    samples = find_samples(BENCHMARKS["demo"], None)
    assert len({sample.digest for sample in samples}) == len(samples) == 500
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


def test_methods_of_the_paper_are_measured_as_the_paper_does() -> None:
    for name, benchmark in BENCHMARKS.items():
        for method in (METHODS["clearclip"], METHODS["gem"], Method("kk", residual=True)):
            assert benchmark_for(name, method) is benchmark


def test_labels_of_a_small_share_become_background() -> None:
    benchmark = benchmark_for("voc21", METHODS["scclip"])
    label_map = np.full((10, 10), -1, np.int16)
    label_map[0, :9], label_map[0, 9] = 3, 7  # of ten labelled pixels nine and one
    label_map[1] = 0
    decided = benchmark.decision(label_map)
    assert (decided[0] == [3] * 9 + [0]).all()
    assert (decided[1:] == 0).all()


#: Category ids of COCO (a published map holds one less) -> name, at both sides of every gap.
COCO = {1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack"}
COCO |= {28: "umbrella", 31: "handbag", 44: "bottle", 46: "wine glass", 65: "bed", 90: "toothbrush"}
COCO |= {67: "dining table", 70: "toilet", 72: "tv", 82: "refrigerator", 84: "book"}
STUFF = {92: "banner", 182: "wood"}
#: Cityscapes' ids of the classes that count.
CITYSCAPES = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"}
CITYSCAPES |= {19: "trafficlight", 20: "trafficsign", 21: "vegetation", 22: "terrain", 23: "sky"}
CITYSCAPES |= {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"}
CITYSCAPES |= {32: "motorcycle", 33: "bicycle"}


def write_map(path: Path, values: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], np.uint8)).save(path)
    return path


def read_map(path: Path) -> list[int]:
    with Image.open(path) as picture:
        return np.asarray(picture)[0].tolist()  # type: ignore[no-any-return]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    values = [number - 1 for number in [*COCO, *STUFF]] + [255]
    write_map(tmp_path / "annotations" / "val2017" / "000000000139.png", values)
    draw(tmp_path / "images" / "val2017" / "000000000139.jpg", 0)
    return tmp_path


def test_coco_stuff_counts_its_classes_through_and_coco_object_its_things(coco: Path) -> None:
    (path,) = prepare("coco_stuff", coco)
    assert path.name == "000000000139_labelTrainIds.png"
    names = class_names("coco_stuff")
    expected = [names.index(name.replace(" ", "")) for name in [*COCO.values(), *STUFF.values()]]
    assert read_map(path) == [*expected, 255]
    (path,) = prepare("coco_object", coco)
    assert path.name == "000000000139_instanceTrainIds.png"
    names = ("background", *class_names("coco_object"))
    assert read_map(path) == [*map(names.index, COCO.values()), *[0] * len(STUFF), 0]


def test_every_value_of_coco_has_a_class() -> None:
    _, stuff = RECODINGS["coco_stuff"]
    assert sorted(set(stuff.values())) == [*range(171), 255]
    assert len([value for value in stuff if value <= 90]) == 80


def test_cityscapes_ids_become_train_ids(tmp_path: Path) -> None:
    name = "frankfurt/frankfurt_000000_000294"
    ids = [*range(34)]
    write_map(tmp_path / "gtFine" / "val" / f"{name}_gtFine_labelIds.png", ids)
    draw(tmp_path / "leftImg8bit" / "val" / f"{name}_leftImg8bit.png", 0)
    (path,) = prepare("cityscapes", tmp_path)
    assert path == tmp_path / "gtFine" / "val" / f"{name}_gtFine_labelTrainIds.png"
    names = class_names("cityscapes")
    values = {number: names.index(name) for number, name in CITYSCAPES.items()}
    assert read_map(path) == [values.get(number, 255) for number in ids]


def test_what_is_missing_or_unknown_is_refused(coco: Path) -> None:
    published = coco / "annotations" / "val2017" / "000000000139.png"
    write_map(published, [0, 11])  # COCO has no category 12
    with pytest.raises(LayoutError, match=r"000000000139.png: Expected values .* but got 11"):
        list(prepare("coco_stuff", coco))
    published.unlink()
    with pytest.raises(LayoutError, match=r"000000000139\.png"):
        list(prepare("coco_object", coco))
    assert [p.name for p in published.parent.iterdir()] == []
