"""The words of a label change, and not a letter of the config beside them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from backend.errors import LabelConfigError
from backend.label_studio.label_config_edit import with_words
from backend.label_studio.label_config_parser import parse_label_config

XML = """<View>
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
    changed, line = with_words(XML, "tree", ["fir", "oak"])
    new = 'predicted_values="fir, oak"'
    assert line == f"<label Value='tree' {new} hint=\"a > b\">"
    expected = XML.replace("PREDICTED_VALUES='pine'", new).replace('"0.9"/>', f'"0.9" {new}/>')
    assert changed == expected


def test_signs_are_escaped_and_read_back() -> None:
    words = ["\"<b>\" & 'c'", "größer"]
    changed, line = with_words(XML, "größe > 1", words)
    (label,) = [each for each in parse_label_config(changed).labels if each.name == "größe > 1"]
    assert list(label.prompts) == words
    assert ElementTree.fromstring(line).attrib["predicted_values"] == ", ".join(words)
    assert "<b>" not in line


@pytest.mark.parametrize("name", ["bush", "$image", ""])
def test_a_label_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(LabelConfigError, match="no label"):
        with_words(XML, name, ["x"])


def test_what_would_not_read_back_is_refused() -> None:
    with pytest.raises(LabelConfigError, match="by hand"):
        with_words(XML, "tree", ["one, two"])


@pytest.mark.parametrize("name", ["car, truck", " car "])
def test_words_that_stay_are_not_written(name: str) -> None:
    """A name with a comma is one word, and would be two as `predicted_values`."""
    xml = XML.replace('value="größe > 1"', f'value="{name}"')
    label = next(each for each in parse_label_config(xml).labels if each.name == name)
    changed, line = with_words(xml, name, label.prompts)
    assert changed == xml
    assert "predicted_values" not in line


def test_tags_that_are_repeated_for_each_picture_stay() -> None:
    """They are not predicted, so nothing says what their words do."""
    tags = '<BrushLabels name="r" toName="img"><Label value="tree"/></BrushLabels>'
    repeated = f'<Repeater on="$all">{tags}</Repeater>'
    xml = XML.replace("</View>", f"{repeated}</View>")
    assert repeated in with_words(xml, "tree", ["fir"])[0]


def test_a_declared_encoding_is_that_of_the_bytes_before_they_were_read() -> None:
    xml = f'<?xml version="1.0" encoding="us-ascii"?>{XML}'
    assert with_words(xml, "größe > 1", ["x"])[0].count('predicted_values="x"') == 1
