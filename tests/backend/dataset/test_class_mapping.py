"""Classes to labels: by name, by alias, by words, and as the caller says."""

from __future__ import annotations

import pytest

from backend.dataset.matching import ClassMapping
from backend.errors import DatasetError
from backend.label_studio.label_config_parser import parse_label_config

CONFIG = parse_label_config(
    """<View><Image name="img" value="$image"/><Image name="two" value="$two"/>
    <PolygonLabels name="outline" toName="img"><Label value="Car"/><Label value="Traffic Light"/>
    </PolygonLabels>
    <BrushLabels name="mask" toName="img" prelabel="no"><Label value="Car" alias="c"/>
      <Label value="car"/><Label value="CAR"/></BrushLabels>
    <RectangleLabels name="box" toName="img,two" smart="true"><Label value="Dog"/>
    </RectangleLabels></View>"""
)


@pytest.mark.parametrize(
    ("name", "control", "label"),
    [
        ("Car", "mask", "Car"),
        ("c", "mask", "Car"),
        ("car", "mask", "car"),
        ("traffic_light", "outline", "Traffic Light"),
        ("trafficLight", "outline", "Traffic Light"),
        ("traffic-light", "outline", "Traffic Light"),
        ("dog", "box", "Dog"),
    ],
)
def test_a_class_is_the_label_of_its_name(name: str, control: str, label: str) -> None:
    target = ClassMapping(CONFIG).target(name, "img")
    assert (target.control.name, target.label.name) == (control, label)


def test_a_class_without_a_label_says_what_there_is() -> None:
    with pytest.raises(DatasetError, match=r'"tree" is no label .* which have "Dog": .*"tree="'):
        ClassMapping(CONFIG).target("tree", "two")


def test_the_controls_that_are_named_are_tried_in_their_order() -> None:
    mapping = ClassMapping(CONFIG, controls=("outline", "mask"))
    assert mapping.target("Car", "img").control.name == "outline"
    assert mapping.target("CAR", "img").control.name == "mask"
    with pytest.raises(DatasetError, match=r'"Dog" is no label of outline and mask, which have'):
        mapping.target("Dog", "img")


def test_several_labels_of_the_same_words_are_not_chosen_from() -> None:
    with pytest.raises(DatasetError, match=r'could be the labels "CAR", "Car", "car".*--map "cAR='):
        ClassMapping(CONFIG).target("cAR", "img")
