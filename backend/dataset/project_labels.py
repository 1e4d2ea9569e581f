"""Read which controls of a labeling config have masks, and the classes that their labels make."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from backend.dataset.labelled_image import ClassTable
from backend.errors import DatasetError, LabelConfigError
from backend.label_studio.label_config import ImageTag
from backend.label_studio.label_config_elements import (
    FoundControl,
    attribute_of,
    image_tags,
    is_prompt_tool,
    label_elements,
    label_name,
    parse_xml,
    to_names,
)
from backend.label_studio.region_reader import Area, written_labels

#: Controls whose regions cover pixels. ``<Labels>`` has the labels of the tools beside it.
MASK_TAGS: Final = (
    *("brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels", "ellipselabels"),
    "labels",
)


@dataclass(frozen=True)
class MaskControl:
    """A control whose regions cover pixels.

    Attributes:
        name: its name.
        to_names: names of the images that it is for.
        labels: text of a label in results, its value or its alias -> name of its class.
        left_over: labels of a control for prompts whose regions are no masks.
    """

    name: str
    to_names: tuple[str, ...]
    labels: Mapping[str, str]
    left_over: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ProjectLabels:
    """The images of a labeling config, the controls with masks on them, and their classes.

    Attributes:
        images: in the order of the config.
        controls: name -> control.
        classes: the labels of all controls, each once, in the order of the config.
    """

    images: tuple[ImageTag, ...]
    controls: Mapping[str, MaskControl]
    classes: ClassTable

    def names_of(self, area: Area) -> tuple[str, ...]:
        """Return the names of the classes that a region has: mostly one.

        None, where a prompt has left the region behind.

        Raises:
            DatasetError: it has no label, or one that the labeling config does not have.
        """
        control = self.controls[area.control]
        labels = control.labels
        written = written_labels(area)
        known = [text for text in written if text not in control.left_over]
        unknown = [text for text in known if text not in labels]
        if unknown:
            raise DatasetError(
                f'A region of "{area.control[:50]}" has the label "{unknown[0][:100]}", which the '
                "labeling config does not have there."
            )
        if not written:
            raise DatasetError(f'A region of "{area.control[:50]}" has no label.')
        return tuple(dict.fromkeys(labels[text] for text in known))


def parse_project_labels(xml: str) -> ProjectLabels:
    """Read the controls with masks of a labeling config.

    Unlike `parse_label_config`, which reads what the backend draws, it knows ellipses and every
    tool beside ``<Labels>``. A ``<RectangleLabels>`` for prompts keeps those of its labels that no
    other control has: its other regions are what prompts have left behind.

    Raises:
        LabelConfigError: the XML does not parse, or has no such control with labels.
        DatasetError: it has more labels than a label map holds.

    >>> labels = parse_project_labels('''<View><Image name="img" value="$image"/>
    ...   <KeyPointLabels name="click" toName="img"><Label value="car"/></KeyPointLabels>
    ...   <BrushLabels name="mask" toName="img"><Label value="sky"/><Label value="car" alias="c"/>
    ...   </BrushLabels></View>''')
    >>> labels.classes.names, dict(labels.controls["mask"].labels)
    (('sky', 'car'), {'sky': 'sky', 'car': 'car', 'c': 'car'})
    """
    root = parse_xml(xml)
    images = {tag.name: tag for tag in image_tags(root)}
    found = [
        element
        for element in root.iter()
        if isinstance(element.tag, str)
        and element.tag.lower() in MASK_TAGS
        and label_elements(element)
        and set(to_names(element)) & images.keys()
    ]
    prompts = [each for each in found if _is_prompt_tool(each)]
    drawn = [each for each in found if each not in prompts] or found
    names = list(dict.fromkeys(_names(drawn)))
    left = [each for each in prompts if each not in drawn]
    names += [name for name in dict.fromkeys(_names(left)) if name not in names]
    if not names:
        raise LabelConfigError(
            "Expected the labeling config to have labels for brushes, bitmasks, polygons, "
            "rectangles or ellipses on an <Image>, but got none."
        )
    taken = set(_names(drawn))
    controls = [_control(each, images) for each in drawn]
    controls += [_control(each, images, taken) for each in left]
    used = {name for control in controls for name in control.to_names}
    return ProjectLabels(
        images=tuple(tag for tag in images.values() if tag.name in used),
        controls={control.name: control for control in controls},
        classes=ClassTable.of(names),
    )


def _is_prompt_tool(element: Element) -> bool:
    is_box = element.tag.lower() == "rectanglelabels"
    return is_box and is_prompt_tool(FoundControl("rectanglelabels", element))


def _names(controls: list[Element]) -> Iterator[str]:
    return (label_name(label) for control in controls for label in label_elements(control))


def _control(
    element: Element, images: Mapping[str, ImageTag], taken: Collection[str] = ()
) -> MaskControl:
    labels: dict[str, str] = {}
    all_ = label_elements(element)
    own = [label for label in all_ if label_name(label) not in taken]
    others = [label for label in all_ if label_name(label) in taken]
    for label in own:
        labels[label_name(label)] = label_name(label)
    for label in own:
        if alias := attribute_of(label, "alias"):
            labels.setdefault(alias, label_name(label))
    return MaskControl(
        name=attribute_of(element, "name"),
        to_names=tuple(name for name in to_names(element) if name in images),
        labels=labels,
        left_over=frozenset(
            text
            for label in others
            for text in (label_name(label), attribute_of(label, "alias"))
            if text and text not in labels
        ),
    )
