"""From an annotator's clicks, boxes and words to a prompt request."""

from collections import Counter

import pytest

from backend.label_studio import prompts
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prompts import (
    Boxes,
    Clicks,
    Context,
    Keypoint,
    Prompt,
    parse_prompt,
    read_words,
)
from backend.label_studio.region_reader import Rectangle
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.prediction.annotator import CONFIG, STREET


def read(text: str, config: LabelConfig = STREET, prompt_label: str = "") -> list[tuple[str, ...]]:
    """Each phrase as the name of its label, and its prompts."""
    read = read_words(text, config, config.labels_of("image"), prompt_label)
    return [(phrase.label.name, *phrase.prompts) for phrase in read.phrases]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red car -> Car", ("Car", "red car")),
        ("rusty thing->tl", ("TrafficLight", "rusty thing")),
        ("old thing → traffic light", ("TrafficLight", "old thing")),
        *(("car ->", ("Car", "car", "van")), ("red car -> Spaceship", ("Car", "red car"))),
        *(("Car", ("Car", "car", "van")), ("van", ("Car", "van"))),
        ("trafficLight", ("TrafficLight", "traffic light")),
        ("tl", ("TrafficLight", "traffic light")),
        ("the traffic light by the car", ("TrafficLight", "the traffic light by the car")),
        ("a bush!", ("Veg", "a bush!")),
        ("van or tree", ("Veg", "van or tree")),  # the longest
        *(("car near van", ("Car", "car near van")), ("black cat, red car", ("Car", "red car"))),
    ],
)
def test_a_label_that_is_named_gets_the_mask(text: str, expected: tuple[str, ...]) -> None:
    assert read(text) == [expected]


def test_phrases_are_separated_by_commas(caplog: pytest.LogCaptureFixture) -> None:
    assert read("black cat", prompt_label="tree") == [("Veg", "black cat")]
    assert read("red car", prompt_label="tree") == [("Car", "red car")]
    assert read("black cat -> Spaceship") == []
    assert read("black cat -> tree, red car -> tl,bush, van,, bush") == [
        ("Veg", "black cat"),
        ("TrafficLight", "red car"),
        ("Veg", "bush"),
        ("Car", "van"),
    ]
    assert read("cat", prompt_label="nobody") == []
    assert "prompt_label='nobody' is the name of no label." in caplog.text


def test_names_of_many_labels_are_made_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, made = [f"label {number}" for number in range(100)], Counter[str]()
    monkeypatch.setattr(prompts, "words_of_name", lambda name: (made.update([name]), name)[1])
    config = parse_label_config(brush_config(*labels), None)
    assert len(read(",".join(f"old label {n}" for n in range(50)), config)) == 50
    assert made.total() < 10 * len(labels)


@pytest.mark.parametrize("text", ["all", " ALL ", "van, all"])
def test_all_is_every_label(text: str) -> None:
    found = read_words(text, STREET, STREET.labels_of("image"), "")
    assert (found.asks_all, found.phrases) == (True, ())


def test_the_last_prompt_decides() -> None:
    config = parse_label_config(CONFIG, None)

    first, second = Keypoint(1, 1), Keypoint(2, 2, positive=False)
    box = Rectangle(1, 1, 2, 2)
    click, again, boxed = (Prompt(shape, ("red",)) for shape in (first, second, box))
    blue = Prompt(Keypoint(3, 3), ("blue",))
    ask = parse_prompt(Context((click, blue, boxed, again)), config)
    assert ask.query == Clicks(Label("red"), (first, second))
    ask = parse_prompt(Context((click, boxed)), config)
    assert ask.query == Boxes(Label("red"), (box,))


def test_a_click_without_a_label_is_for_the_only_one() -> None:
    one = parse_label_config(brush_config("red"), None)
    bare = Context((Prompt(Keypoint(1, 1)),))
    ask = parse_prompt(bare, one)
    assert ask.query == Clicks(Label("red"), (Keypoint(1, 1),))


def test_a_click_without_a_label_leaves_the_label_to_the_words() -> None:
    config = parse_label_config(CONFIG, None)
    ask = parse_prompt(Context((Prompt(Keypoint(1, 1)),)), config)
    assert ask is not None
    assert ask.query == Clicks(None, (Keypoint(1, 1),))
    unknown = Context((Prompt(Keypoint(1, 1), ("green",)),))
    assert parse_prompt(unknown, config) is None
