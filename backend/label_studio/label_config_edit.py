"""Change the words of a label in the text of a labeling config, and nothing else of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from backend.errors import LabelConfigError
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import (
    find,
    find_controls,
    image_tags,
    is_prompt_tool,
    label_elements,
    label_name,
    parse_label_config,
    parse_xml,
)

#: An attribute of a tag, and the blanks before it.
_ATTRIBUTE = r"""(?<!\s)\s+{name}\s*=\s*("[^"]*"|'[^']*')"""

#: A tag, whose attributes may hold a ``>``.
_TAG = re.compile(rb"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")


def with_words(
    xml: str, name: str, words: Sequence[str], threshold: float | None = None
) -> tuple[str, str]:
    """Return a label config with other words of a label, all else as it was written.

    Args:
        threshold: the probability from which the label is drawn, in [0, 1]; None: as it is.

    Returns:
        The changed config, and the changed ``<Label>`` tag as it stands there; the first one where
        several controls have the label.

    Raises:
        LabelConfigError: the config has no such label, or would not read as it should.

    >>> xml = '''<View><Image name="i" value="$i"/>
    ...   <BrushLabels name="b" toName="i"><Label value="tree"/></BrushLabels></View>'''
    >>> with_words(xml, "tree", ["tree", "pine"], 0.4)[1]
    '<Label value="tree" predicted_values="tree, pine" model_score_threshold="0.4"/>'
    """
    before = parse_label_config(xml)
    known = {label.name: label.prompts for label in before.labels}
    changes: dict[str, str] = {}
    if tuple(words) != known.get(name):  # written, a name with a comma would read as two words
        changes["predicted_values"] = ", ".join(words)
    if threshold is not None:
        changes["model_score_threshold"] = f"{threshold:g}"
    data, shift, first = xml.strip().encode(), 0, ""
    for start, end in _tags_of(data, name):
        tag = _with_attributes(data[start + shift : end + shift].decode(), changes)
        data = data[: start + shift] + tag.encode() + data[end + shift :]
        shift += len(tag.encode()) - (end - start)
        first = first or tag
    if not first:
        raise LabelConfigError(f"The label config has no label {name!r} that is predicted.")
    after = data.decode()
    if parse_label_config(after) != _expected(before, name, words, threshold):
        raise LabelConfigError(
            f"The words of {name!r} cannot be changed in this label config: change them by hand."
        )
    return after, first


def _tags_of(data: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Yield the first and the last place, in bytes, of each tag of a label that is predicted."""
    root = parse_xml(data.decode())
    controls = find_controls(root, {tag.name: tag for tag in image_tags(root)})
    repeated = {element for each in find(root, "repeater") for element in each.iter()}
    found = [each for each in controls if each.labels not in repeated and each.tool not in repeated]
    drawn = [each for each in found if not is_prompt_tool(each)] or found
    wanted = {
        element
        for each in drawn
        for element in label_elements(each.labels)
        if label_name(element) == name
    }
    starts: list[int] = []
    parser = expat.ParserCreate("utf-8")  # `parse_xml` has refused entities and document types

    def note(_tag: str, _attributes: Any) -> None:
        starts.append(parser.CurrentByteIndex)

    parser.StartElementHandler = note
    parser.Parse(data, True)
    for element, start in zip(root.iter(), starts, strict=True):
        if element in wanted:
            tag = _TAG.match(data, start)
            if tag is None:
                raise LabelConfigError(f"The tag of the label {name!r} cannot be found.")
            yield start, tag.end()


def _with_attributes(tag: str, changes: dict[str, str]) -> str:
    """Return a tag with attributes set: in their place, else behind all others."""
    for name, value in changes.items():
        written = f" {name}={quoteattr(value)}"
        found = re.search(_ATTRIBUTE.format(name=name), tag, re.IGNORECASE)
        if found is None:
            found = re.search(r"(?<!\s)\s*(?=/?>$)", tag)
        assert found is not None, "each tag has an end"
        tag = tag[: found.start()] + written + tag[found.end() :]
    return tag


def _expected(
    config: LabelConfig, name: str, words: Sequence[str], threshold: float | None
) -> LabelConfig:
    """Return a config with other words of a label, as it should be read."""
    labels = tuple(
        replace(each, prompts=tuple(words)) if each.name == name else each for each in config.labels
    )
    if threshold is None:
        return replace(config, labels=labels)
    controls = tuple(
        replace(
            control,
            labels=tuple(
                replace(own, threshold=threshold) if own.name == name else own
                for own in control.labels
            ),
        )
        for control in config.controls
    )
    return replace(config, labels=labels, controls=controls)
