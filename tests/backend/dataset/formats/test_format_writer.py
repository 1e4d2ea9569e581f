"""A format that a test adds is written, replaced, offered by the command and by the page."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec, module_from_spec
from typing import Any

import numpy as np
import pytest

from backend.annotations.label_map import draw_label_map
from backend.annotations.regions import LabelledRegion
from backend.dataset.formats import writers
from backend.dataset.formats.format_writer import (
    ClassTable,
    FormatWriter,
    LabelledImage,
    LabelledObject,
    WrittenImage,
)
from backend.errors import DatasetError
from backend.runs.dataset import AskedDataset
from clearclip_core import BoolMask
from tests.backend.dataset.drawn_tasks import CONFIG, Bench, brush_region, rectangle
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.browser import Dashboard


class AreaWriter(FormatWriter):
    name = "areas"
    title = "areas of the objects"
    files = frozenset({"areas"})
    has_objects = True

    def entry(self, thing: LabelledObject, mask: BoolMask) -> str:
        return f"{thing.label} {mask.sum()}\n"

    def image_files(self, picture: WrittenImage, entries: Sequence[Any]) -> Mapping[str, bytes]:
        return {f"areas/{picture.name}.txt": "".join(entries).encode()}


def test_it_is_written_and_offered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writers._OWN, AreaWriter.name, AreaWriter)
    bench.draw("a.png", brush_region(rectangle(0, 0, 2, 3), "sky"))
    for _ in range(2):
        bench.done(formats=("areas", "index-png"))
        assert (bench.folder / "areas/a.txt").read_text() == "sky 6\n"
    AskedDataset(formats=("areas",))
    spec = find_spec("backend.cli.dataset")
    anew = module_from_spec(spec)
    spec.loader.exec_module(anew)
    (option,) = (each for each in anew.dataset.params if each.name == "chosen")
    assert "areas" in option.type.choices
    with FakeStudio(CONFIG, {}).served() as server:
        page = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN).page(
            "/projects/7/datasets"
        )
    assert "areas of the objects" in page.text
    assert "areas" in [each["value"] for each in page.all("input") if each["name"] == "formats"]


@pytest.mark.parametrize("entry", [0, "", []], ids=repr)
def test_an_entry_that_is_empty_is_an_entry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, entry: Any
) -> None:
    monkeypatch.setitem(writers._OWN, AreaWriter.name, AreaWriter)
    monkeypatch.setattr(AreaWriter, "entry", lambda *_: entry)
    monkeypatch.setattr(
        AreaWriter, "image_files", lambda _, image, entries: {"areas/n": b"%d" % len(entries)}
    )
    bench.draw("a.png", brush_region(rectangle(0, 0, 2, 3), "sky"))
    bench.done(formats=("areas",))
    assert (bench.folder / "areas/n").read_text() == "1"


# ---- objects of regions, and tables of classes ---------------------------------------------------

CLASSES = ClassTable(("sky", "road", "car"))


def test_regions_below_one_of_their_label_are_one_object() -> None:
    """Also in a chain and in a ring, which no editor draws; not below another label."""
    below = {"a": "", "b": "a", "c": "b", "d": "e", "e": "d", "f": "gone", "": ""}
    mask = np.ones((1, 1), np.bool_)
    regions = [LabelledRegion.of("car", mask, id=i, parent=p) for i, p in below.items()]
    regions.append(LabelledRegion.of("sky", mask, id="g", parent="a"))
    image = LabelledImage((1, 1), tuple(regions), partial(draw_label_map, regions, (1, 1)))
    found = [[each.id for each in thing.regions] for thing in image.objects()]
    assert ["a", "b", "c"] in found
    assert ["g"] in found
    assert sorted(i for each in found for i in each) == sorted([*below, "g"])
    assert [each.label for each in image.objects(by_label=True)] == ["car", "sky"]


@pytest.mark.parametrize("names", [[], ["sky", "sky"], [str(i) for i in range(256)]])
def test_a_table_refuses_what_a_label_map_cannot_hold(names: list[str]) -> None:
    with pytest.raises(DatasetError):
        ClassTable(tuple(names))


def test_a_background_has_the_value_0_and_is_no_object() -> None:
    table = CLASSES.with_background("other")
    assert table.all_names == ("other", "sky", "road", "car")
    assert table.value_of("sky") == 1
    assert CLASSES.with_background("road").all_names == ("road", "sky", "car")
