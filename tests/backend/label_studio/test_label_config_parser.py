"""Labeling configs as projects have them; names and aliases checked against the SDK's reading."""

from xml.etree import ElementTree

import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.errors import LabelConfigError
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.set_up import with_words
from backend.settings import Settings
from clearclip_core import Label
from clearclip_core.images.drawing import palette
from tests.backend.fakes.colour_segmenter import brush_config

MANY_TAGS = """<!-- a comment --><View>
  <Style>.main { color: red; }</Style>
  <Header value="$title"/>
  <Image name="photo" value="$shot.url" zoom="true"/>
  <Image name="other photo" value="$second"/>
  <Text name="note" value="$note"/>
  <Choices name="good" toName="photo"><Choice value="yes"/></Choices>
  <KeyPointLabels name="click" toName="photo" smart="true">
    <Label value="only clicked"/><Label value="sky"/>
  </KeyPointLabels>
  <RectangleLabels name="ask" toName="photo" smart="true"><Label value="asked"/></RectangleLabels>
  <Labels name="spans" toName="note"><Label value="word"/></Labels>
  <Collapse><Panel value="labels"><View>
    <PolygonLabels name="outline" toName="photo" model_score_threshold="0.25">
      <Label value="house" alias="building"/>
      <Label value="sky" predicted_values="clouds" model_score_threshold="0"/>
    </PolygonLabels>
    <RectangleLabels name="box" toName="other photo,photo">
      <View><Label value="dog" model_score_threshold="0.75"/></View>
    </RectangleLabels>
    <BrushLabels name="mask" toName="photo" model_score_threshold="0.5">
      <Label value="sky" background="#00aaff"/>
      <Label value="trafficLight" alias="TL1" model_score_threshold="0.125"/>
      <Label value="sky" alias="again"/>
      <Label value="Katze" alias="tabby_cat"/>
      <Label value="  "/>
      <Label/>
    </BrushLabels>
  </View></Panel></Collapse>
</View>"""


IMAGE = '<Image name="i" value="$image"/>'
BRUSH = '<BrushLabels name="b" toName="i"><Label value="x"/></BrushLabels>'


def _one(labels: str) -> LabelConfig:
    brush = f'<BrushLabels name="b" toName="i">{labels}</BrushLabels>'
    return parse_label_config(f"<View>{IMAGE}{brush}</View>", None)


def test_controls_are_found_masks_first_with_labels_of_one_query_each() -> None:
    config = parse_label_config(MANY_TAGS, None)
    assert [image.name for image in config.images] == ["photo", "other photo"]
    assert config.labels == (
        Label("sky", ("sky", "clouds")),
        Label("trafficLight", ("traffic light",)),
        Label("Katze", ("tabby cat",)),
        Label("house", ("building",)),
        Label("dog", ("dog",)),
    )
    assert config.labels_of("photo") == config.labels
    assert config.labels_of("other photo") == (Label("dog", ("dog",)),)
    written = {"sky": 0.5, "TL1": 0.125, "tabby_cat": 0.5}
    found = {
        (each.kind, each.name, each.to_names): {own.written: own.threshold for own in each.labels}
        for each in config.controls
    }
    assert [*found.items()] == [
        (("brushlabels", "mask", ("photo",)), written),
        (("polygonlabels", "outline", ("photo",)), {"building": 0.25, "sky": 0}),
        (("rectanglelabels", "box", ("other photo", "photo")), {"dog": 0.75}),
    ]


def test_written_names_are_those_that_the_sdk_knows() -> None:
    sdk = LabelInterface(MANY_TAGS.partition("-->")[2])
    for control in parse_label_config(MANY_TAGS, None).controls:
        theirs = sdk.get_control(control.name)
        assert {label.written for label in control.labels} <= set(theirs.labels)
        assert set(control.to_names) <= set(theirs.to_name)


@pytest.mark.parametrize(
    ("label", "prompts"),
    [
        ('value="traffic_light"', ("traffic light",)),
        *(('value="TrafficLight"', ("traffic light",)), ('value="HDMIPort"', ("hdmi port",))),
        *(('value="iPhone"', ("iphone",)), ('value="Hund" alias="dog"', ("dog",))),
        *(('value="dog" alias="cls_dog_2"', ("dog",)), ('value="dog" alias="DG"', ("dog",))),
        ('value="c1" predicted_values=" tabby cat , kitten ,, "', ("tabby cat", "kitten")),
        ('value="sky" predicted_values=" "', ("sky",)),
        *(('alias="sky"', ("sky",)), ('value="__"', ("__",))),
    ],
)
def test_prompts(label: str, prompts: tuple[str, ...]) -> None:
    assert _one(f"<Label {label}/>").labels[0].prompts == prompts


@pytest.mark.parametrize(
    ("labels", "background"),
    [
        ('<Label value="sky"/><Label value="Background"/>', "Background"),
        ('<Label value="other"/><Label value="sky"/>', "other"),
        ('<Label value="rest" alias="background"/>', "rest"),
        ('<Label value="background"/><Label value="rest" background="true"/>', "rest"),
        ('<Label value="background"/><Label value="other"/>', "background"),
        ('<Label value="sky" background="red"/>', None),
        ('<Label value="background noise"/>', None),
    ],
)
def test_one_background_label_at_most(labels: str, background: str | None) -> None:
    marked = [label.name for label in _one(labels).labels if label.background]
    assert marked == ([background] if background else [])


@pytest.mark.parametrize("attributes", ['smart="true"', 'smartOnly="true"', 'smart="false"', ""])
def test_rectangles_beside_another_control_may_be_a_tool(attributes: str) -> None:
    is_tool = "true" in attributes
    config = parse_label_config(
        f'<View>{IMAGE}{BRUSH}<RectangleLabels name="r" toName="i" {attributes}>'
        '<Label value="x"/></RectangleLabels></View>',
        None,
    )
    assert [control.name for control in config.controls] == (["b"] if is_tool else ["b", "r"])
    assert [control.name for control in config.boxes] == (["r"] if is_tool else [])


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ("<View>", "not well-formed XML"),
        ("", "to have an <Image"),
        (IMAGE, "to have <BrushLabels>"),
        (IMAGE + BRUSH.replace('"i"', '"gone"'), "toName of an <Image>"),
        (IMAGE + BRUSH.replace("BrushLabels", "KeyPointLabels"), "to have <BrushLabels>"),
        (f'{IMAGE}<BrushLabels name="b" toName="i" value="$labels"/>', "come from the task"),
        (f'{IMAGE}<Repeater on="$pages">{BRUSH}</Repeater>', "outside of a <Repeater>"),
    ],
)
def test_configs_with_nothing_to_draw(tags: str, sentence: str) -> None:
    with pytest.raises(LabelConfigError, match=sentence) as caught:
        parse_label_config(f"<View>{tags}</View>", None)
    assert "\n" not in str(caught.value)


TOOLS = """<View>
  <Image name="img" value="$image"/><Text name="txt" value="$text"/>
  <BrushLabels name="mask" toName="img" overlap="False"><Label value="Car" alias="c"/></BrushLabels>
  <PolygonLabels name="poly" toName="img"><Label value="Tree"/></PolygonLabels>
  <KeyPointLabels name="click" toName="img" smart="true"><Label value="Car" alias="k"/>
    <Label value="c2" alias="c"/><Label value="only here"/></KeyPointLabels>
  <RectangleLabels name="box" toName="img" smart="true"><Label value="Car"/>
    <Label value="busStop" background="true"/></RectangleLabels>
  <TextArea name="words" toName="img" prompt_label=" Car "/>
  <TextArea name="notes" toName="txt"/>
</View>"""


@pytest.mark.parametrize(
    ("attributes", "asks"), [("", True), ('smart="False"', False), ('smartOnly="true"', True)]
)
def test_a_tool_may_ask_nothing(attributes: str, asks: bool) -> None:
    config = parse_label_config(TOOLS.replace('name="words"', f'name="words" {attributes}'), None)
    assert [tool.is_smart for tool in config.tools if tool.name == "words"] == [asks]


def test_an_alias_comes_before_a_value() -> None:
    """The editor writes aliases: "blue" is the label whose value is "red"."""
    labels = '<Label value="blue" alias="navy"/><Label value="red" alias="blue"/>'
    config = parse_label_config(
        f'<View>{IMAGE}<BrushLabels name="b" toName="i">{labels}</BrushLabels>'
        f'<KeyPointLabels name="same" toName="i">{labels}</KeyPointLabels>'
        '<KeyPointLabels name="plain" toName="i"><Label value="blue"/></KeyPointLabels></View>',
        None,
    )

    def found(written: str) -> list[str | None]:
        meant = [config.find_label(written, "i", tool) for tool in ("", "same", "plain")]
        return [label and label.name for label in meant]

    assert found("blue") == ["red", "red", "blue"], "a tool's label has the same value"
    assert found("navy") == ["blue"] * 3
    assert found("red") == ["red"] * 3


BY_PEOPLE = parse_label_config(
    f"""<View>{IMAGE}<Image name="rear" value="$rear"/><Ellipse name="e" toName="i"/>
    <RectangleLabels name="r" toName="i" smart="true"><Label value="asked"/></RectangleLabels>
    <PolygonLabels name="p" toName="i"><Label value="b"/><Label value="a"/></PolygonLabels>
    <brushlabels name="m" toname="i"><Label value="a"/><Label value="c"/></brushlabels>
    <Labels name="l" toName="i"><Label value="a"/><Label value="b" alias="x"/></Labels>
    <EllipseLabels name="o" toName="rear"><Label value="sign"/></EllipseLabels></View>""",
    None,
)


def test_labels_are_named_in_the_order_of_the_config_those_of_masks_first() -> None:
    assert BY_PEOPLE.names == ("b", "a", "c", "sign", "asked")
    assert [label.name for label in BY_PEOPLE.labels] == ["a", "c", "b"], "neither sign nor asked"


def test_controls_that_only_people_draw_with_are_known() -> None:
    assert [each.name for each in BY_PEOPLE.controls] == ["m", "p"]
    assert [each.name for each in BY_PEOPLE.undrawn] == ["l", "o"]


def test_a_picture_that_only_people_draw_on_is_annotated() -> None:
    assert [tag.name for tag in BY_PEOPLE.images] == ["i"]
    assert [tag.name for tag in BY_PEOPLE.annotated] == ["i", "rear"]


def test_a_value_of_a_region_is_a_label_also_after_the_label_was_moved() -> None:
    assert BY_PEOPLE.label_of("l", "x") == "b", "by its alias"
    assert BY_PEOPLE.label_of("m", "b") == "b", "as after a label was moved to another control"
    assert BY_PEOPLE.label_of("m", "z") is BY_PEOPLE.label_of("gone", "a") is None


def test_labels_that_no_control_has_are_counted() -> None:
    counted = {"l": {"x": 4, "z": 2}, "gone": {"a": 9}}
    assert BY_PEOPLE.unknown_labels(counted) == {"z": 2}


def test_controls_of_masks_that_are_gone_are_counted() -> None:
    kinds = ("rectanglelabels", "keypointlabels", "labels", "brush", "choices", "textarea")
    made = {"e|i|brushlabels": 9, "gone|i|brushlabels": 4, "gone|j|polygonlabels": 3}
    assert BY_PEOPLE.lost_controls(made | {f"other|i|{kind}": 9 for kind in kinds}) == {"gone": 7}
    repeated = parse_label_config(f"<View>{IMAGE}{BRUSH}<Repeater/></View>", None)
    assert repeated.lost_controls(made) == {}, "its controls have other names in each task"


def test_ellipses_alone_are_nothing_to_draw_but_they_are_labels() -> None:
    xml = f"<View>{IMAGE}{BRUSH.replace('BrushLabels', 'EllipseLabels')}</View>"
    with pytest.raises(LabelConfigError, match="to have <BrushLabels>"):
        parse_label_config(xml, None)
    assert parse_label_config(xml, None, must_draw=False).names == ("x",)


def test_a_box_for_prompts_has_the_labels_that_no_other_control_of_its_image_has() -> None:
    config = parse_label_config(
        f"""<View>{IMAGE}<Image name="rear" value="$rear"/>
        <RectangleLabels name="r" toName="i" smart="true"><Label value="a"/><Label value="b"/>
        </RectangleLabels>
        <RectangleLabels name="s" toName="rear" smart="true"><Label value="a"/></RectangleLabels>
        <BrushLabels name="m" toName="i"><Label value="a"/></BrushLabels></View>""",
        None,
    )
    found = [config.label_of(*each) for each in (("r", "a"), ("r", "b"), ("s", "a"), ("m", "a"))]
    assert found == ["", "b", "a", "a"]


def test_a_box_answers_for_labels_that_only_boxes_have_and_a_click_for_none() -> None:
    config = parse_label_config(TOOLS, None)
    ((control, _),) = config.controls_for("img", "busStop")
    assert (control.name, config.box_labels) == ("box", (Label("busStop", ("bus stop",)),))
    assert config.controls_for("img", "only here") == config.controls_for("other", "Car") == ()


@pytest.mark.parametrize(
    ("field", "written", "meant"),
    [
        ("prelabel", 'prelabel="no"', False),
        ("prelabel", 'preLabel=" Auto "', True),
        ("score", 'Score=" Uncertainty "', "uncertainty"),
        ("score", "", None),
        ("adapt", 'adapt=""', None),
        ("adapt", 'Adapt=" OFF "', "off"),
    ],
)
def test_the_first_control_that_says_it_counts(field: str, written: str, meant: object) -> None:
    settings = Settings(score="effort", adapt="ask")
    later = '<PolygonLabels name="p" toName="image" score="confidence"><Label value="x"/>'
    xml = brush_config("red", attributes=written)
    both = xml.replace("</View>", f"{later}</PolygonLabels></View>") if meant else xml
    config = parse_label_config(both, settings)
    assert getattr(config, field) == (getattr(settings, field) if meant is None else meant)
    assert config.controls[0].is_predicted == (written != 'prelabel="no"')


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ('prelabel="false"', "prelabel to be yes, no or auto, but got 'false'"),
        ('score="margin"', "score to be confidence, uncertainty or effort, but got 'margin'"),
        ('model_score_threshold="half"', "a number from 0 to 1, but got 'half'"),
        ('model_score_threshold="1.5"', "a number from 0 to 1, but got '1.5'"),
        ('model_score_threshold="-0.1"', "a number from 0 to 1, but got '-0.1'"),
        ('model_score_threshold="nan"', "a number from 0 to 1, but got 'nan'"),
    ],
)
def test_other_values_are_refused(written: str, sentence: str) -> None:
    with pytest.raises(LabelConfigError, match=sentence):
        parse_label_config(brush_config("red", attributes=written), None)


GOOD = f"<View>{IMAGE}{BRUSH}</View>"


def _laughs() -> str:
    """Ten entities, each ten times the one before: 3 GB of "ha" where they are expanded."""
    entities = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    return f'<!DOCTYPE v [<!ENTITY l0 "ha">{entities}]>' + GOOD.replace('"x"', '"&l9;"')


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        (_laughs(), "without <!DOCTYPE>"),
        ('<!DOCTYPE v SYSTEM "http://127.0.0.1:1/v.dtd">' + GOOD, "without <!DOCTYPE>"),
        (GOOD.replace('"x"', '"&e;"'), "not well-formed XML"),
        (GOOD.replace("<View>", "<View>" * 100).replace("</View>", "</View>" * 100), "100 tags"),
        ("<a>" * 50_000 + "</a>" * 50_000, "100 tags deep"),
        (GOOD + " " * 2_000_000, "at most 2000000 letters"),
        (GOOD.replace('"x"', '"\0"'), "not well-formed XML"),
    ],
    ids=lambda value: value[:24],
)
def test_hostile_configs_are_refused(xml: str, sentence: str) -> None:
    with pytest.raises(LabelConfigError, match=sentence) as caught:
        parse_label_config(xml, None)
    assert len(str(caught.value)) < 300
    assert parse_label_config(GOOD, None).labels[0].name == "x"


def test_a_label_config_has_a_bounded_number_of_words() -> None:
    def config(count: int, per_label: int) -> str:
        words = ", ".join(f"word {number}" for number in range(per_label))
        labels = "".join(f'<Label value="{n}" predicted_values="{words}"/>' for n in range(count))
        return (
            f'<View>{IMAGE}<BrushLabels name="mask" toName="i"><Label value="sky"/></BrushLabels>'
            f'<RectangleLabels name="r" toName="i" smart="true">{labels}</RectangleLabels></View>'
        )

    parse_label_config(config(2999, 1), None)
    for count, per_label in ((3000, 1), (30, 100)):
        with pytest.raises(LabelConfigError, match=f"{count + 1} labels have 3001 words, more"):
            parse_label_config(config(count, per_label), None)


EDITED = """<View>
  <!-- <Label value="tree"/> is a comment -->
  <Image name="img" value="$image"/>
  <BrushLabels name="b" toName="img">
    <Label value="größe > 1"   background='#f00' />
    <label Value='tree' PREDICTED_VALUES='pine' hint="a > b"></label>
  </BrushLabels>
  <PolygonLabels name="p" toName="img">
    <Label value="tree" model_score_threshold="0.9"/></PolygonLabels>
  <KeyPointLabels name="k" toName="img"><Label value="tree"/></KeyPointLabels>
</View>"""


def test_each_predicted_tag_of_the_label_is_changed_in_its_place() -> None:
    changed, line = with_words(EDITED, "tree", ["fir", "oak"])
    new = 'predicted_values="fir, oak"'
    assert line == f"<label Value='tree' {new} hint=\"a > b\">"
    expected = EDITED.replace("PREDICTED_VALUES='pine'", new).replace('"0.9"/>', f'"0.9" {new}/>')
    assert changed == expected


def test_signs_are_escaped_and_read_back() -> None:
    words = ["\"<b>\" & 'c'", "größer"]
    xml = f'<?xml version="1.0" encoding="us-ascii"?>{EDITED}'  # of its bytes, as they were
    changed, line = with_words(xml, "größe > 1", words)
    found = {each.name: [*each.prompts] for each in parse_label_config(changed, None).labels}
    assert found["größe > 1"] == words
    assert ElementTree.fromstring(line).attrib["predicted_values"] == ", ".join(words)
    assert "<b>" not in line


@pytest.mark.parametrize("name", ["bush", "$image", "", "tree"])
def test_no_label_and_what_would_not_read_back_are_refused(name: str) -> None:
    with pytest.raises(LabelConfigError, match="by hand" if name == "tree" else "no label"):
        with_words(EDITED, name, ["one, two"])


@pytest.mark.parametrize("name", ["car, truck", " car "])
def test_words_that_stay_are_not_written(name: str) -> None:
    """A name with a comma is one word, and would be two as `predicted_values`."""
    xml = EDITED.replace('value="größe > 1"', f'value="{name}"')
    label = next(each for each in parse_label_config(xml, None).labels if each.name == name)
    changed, line = with_words(xml, name, label.prompts)
    assert changed == xml
    assert "predicted_values" not in line


def test_tags_that_are_repeated_for_each_picture_stay() -> None:
    """They are not predicted, so nothing says what their words do."""
    tags = '<BrushLabels name="r" toName="img"><Label value="tree"/></BrushLabels>'
    repeated = f'<Repeater on="$all">{tags}</Repeater>'
    xml = EDITED.replace("</View>", f"{repeated}</View>")
    assert repeated in with_words(xml, "tree", ["fir"])[0]


def test_a_label_without_a_colour_gets_one_that_no_other_label_has() -> None:
    first = f"#{bytes(palette(1)[0]).hex()}"  # what it would have got
    xml = f"""<View><Image name="img" value="$image"/><BrushLabels name="b" toName="img">
      <Label value="sky"/><Label value="sea" background="{first}"/></BrushLabels></View>"""
    sky, sea = parse_label_config(xml, None).colours_of("img").astype(int)
    assert sea.tolist() == palette(1)[0].tolist()
    assert abs(sky - sea).sum() >= 90
