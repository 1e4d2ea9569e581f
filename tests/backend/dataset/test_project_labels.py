"""Controls and classes of labeling configs."""

from __future__ import annotations

import pytest

from backend.dataset.task_images import parse_project_labels
from backend.errors import DatasetError, LabelConfigError
from backend.label_studio.region_reader import Area

IMAGE = '<Image name="img" value="$image"/>'


def area(control: str, kind: str, *labels: str) -> Area:
    return Area(kind, control, "img", None, (1, 1), {kind: list(labels)})


def test_classes_are_in_the_order_of_the_config_and_each_once() -> None:
    found = parse_project_labels(
        f"""<View>{IMAGE}
        <PolygonLabels name="p" toName="img"><Label value="b"/><Label value="a"/></PolygonLabels>
        <brushlabels name="m" toname="img"><Label value="a"/><Label value="c"/></brushlabels>
        </View>"""
    )
    assert found.classes.names == ("b", "a", "c")


def test_labels_with_any_tool_and_several_labels_of_a_region() -> None:
    found = parse_project_labels(
        f"""<View>{IMAGE}<Ellipse name="e" toName="img"/><Brush name="b" toName="img"/>
        <Labels name="l" toName="img"><Label value="a"/><Label value="b" alias="x"/></Labels>
        </View>"""
    )
    assert found.names_of(area("l", "ellipselabels", "x", "a", "b")) == ("b", "a")


def test_a_box_for_prompts_has_the_labels_that_no_other_control_has() -> None:
    found = parse_project_labels(
        f"""<View>{IMAGE}
        <RectangleLabels name="r" toName="img" smart="true"><Label value="a"/><Label value="b"/>
        </RectangleLabels>
        <BrushLabels name="m" toName="img"><Label value="a"/></BrushLabels></View>"""
    )
    assert found.classes.names == ("a", "b")
    assert found.names_of(area("r", "rectanglelabels", "a")) == ()
    assert found.names_of(area("r", "rectanglelabels", "b")) == ("b",)


@pytest.mark.parametrize("labels", [("z",), ()])
def test_unknown_and_missing_labels_are_refused(labels: tuple[str, ...]) -> None:
    found = parse_project_labels(
        f'<View>{IMAGE}<BrushLabels name="m" toName="img"><Label value="a"/></BrushLabels></View>'
    )
    with pytest.raises(DatasetError, match="label"):
        found.names_of(area("m", "brushlabels", *labels))


@pytest.mark.parametrize(
    "xml",
    [
        "<View>",
        f"<View>{IMAGE}</View>",
        f'<View>{IMAGE}<KeyPointLabels name="k" toName="img"><Label value="a"/></KeyPointLabels>'
        "</View>",
        '<View><BrushLabels name="m" toName="img"><Label value="a"/></BrushLabels></View>',
    ],
)
def test_a_config_without_masks_is_refused(xml: str) -> None:
    with pytest.raises(LabelConfigError):
        parse_project_labels(xml)
