"""Set a project of Label Studio up: its connection, and the row and the words of its labels."""

import difflib
import mimetypes
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from backend.errors import LabelConfigError, StudioRefused
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import Control
from backend.label_studio.label_config_parser import (
    attribute_of,
    find,
    find_controls,
    image_tags,
    label_elements,
    label_name,
    parse_label_config,
    parse_xml,
    without_prompt_tools,
)
from backend.label_studio.task_filter import TaskFilter
from backend.settings import Settings
from clearclip_core.images.drawing import palette

#: What Label Studio calls the connection, and with it whose predictions a project shows.
TITLE: Final = "ClearCLIP"

#: Label Studio's name of what was uploaded to a project before it had a labeling config.
_UNNAMED: Final = "$undefined$"

_RESERVED: Final = (
    "Label Studio says that the address is reserved: it may not call a webhook there. It is "
    "connected all the same, and the backend asks by itself what has changed."
)

#: What to do where a connection is refused; {} is the address.
_FORBIDDEN: Final = (
    "Label Studio did not connect {} (HTTP 403). Either the user of LABEL_STUDIO_API_KEY may not "
    "change the project, or Label Studio refuses the address: for private ones it needs "
    "ML_BLOCK_LOCAL_IP=false."
)


def own_address(settings: Settings, is_here: bool = False) -> str:
    """Return the address at which Label Studio most likely reaches the backend, or this machine.

    >>> own_address(Settings(host="0.0.0.0", port=9090), is_here=True)
    'http://localhost:9090'
    """
    anywhere = "localhost" if is_here else socket.gethostname()
    host = anywhere if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{host}:{settings.port}"


def login(settings: Settings) -> dict[str, str]:
    """Return the user name and password that Label Studio is to send, as its API takes them."""
    if settings.basic_auth_user is None or settings.basic_auth_pass is None:
        return {}
    password = settings.basic_auth_pass.get_secret_value()
    user = settings.basic_auth_user
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}


def connect(
    client: LabelStudioClient, project: int, url: str, *, uniform: bool = False, **more: Any
) -> str:
    """Connect a backend to a project, with interactive preannotations, and show its predictions.

    A connection to the same address, or one that was made here before, is changed. `uniform` lets
    tasks come at random; `more` are fields of the connection, such as `login`. Return what people
    should know of it; empty where all is well.

    Raises:
        StudioRefused: Label Studio may not call that address, or the backend does not let it in.
    """
    found = client.backends(project)
    same = [each.id for each in found if each.url == url or each.title == TITLE]
    body = {"project": project, "url": url, "title": TITLE, "is_interactive": True} | more
    said = _save(client, min(same, default=None), body)

    sampling = {"sampling": "Uniform sampling"} if uniform else {}
    shown = {"model_version": TITLE, "show_collab_predictions": True}
    client.change_project(project, shown | sampling)
    if found and not same:
        return (
            f"{said} Another backend is connected to the project, {found[0].url}, and Label Studio "
            "asks the first one only: delete it in the project's settings, under Model."
        ).lstrip()
    return said


def _save(client: LabelStudioClient, connection: int | None, body: dict[str, Any]) -> str:
    """Make or change a connection; return what people should know of it.

    Label Studio answers 403 also where it has stored the connection, but may not call its webhook.
    """
    try:
        client.save_backend(connection, body)
    except StudioRefused as error:
        if error.status != 403:
            raise
        if all(each.url != body["url"] for each in client.backends(body["project"])):
            raise StudioRefused(_FORBIDDEN.format(body["url"]), error.status) from None
        return _RESERVED
    return ""


# ---- the labeling config -------------------------------------------------------------------------

#: The attribute of a tag that holds its words, and the blanks before it.
_WORDS = re.compile(r"""(?<!\s)\s+predicted_values\s*=\s*("[^"]*"|'[^']*')""", re.IGNORECASE)

#: A tag, whose attributes may hold a ``>``.
_TAG = re.compile(rb"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")


def with_words(xml: str, name: str, words: Sequence[str]) -> tuple[str, str]:
    """Return a labeling config with other words of a label, and the changed ``<Label>`` tag.

    All else stays as it was written. Of several controls with the label, the first one's tag.

    Raises:
        LabelConfigError: the config has no such label, or would not read as it should.

    >>> xml = '''<View><Image name="i" value="$i"/>
    ...   <BrushLabels name="b" toName="i"><Label value="tree"/></BrushLabels></View>'''
    >>> with_words(xml, "tree", ["tree", "pine"])[1]
    '<Label value="tree" predicted_values="tree, pine"/>'
    """
    before = parse_label_config(xml, None)
    known = {label.name: label.prompts for label in before.labels}
    # Equal ones stay as they are: written, a name with a comma would read as two words.
    new = None if tuple(words) == known.get(name) else ", ".join(words)

    data, shift, first = xml.strip().encode(), 0, ""
    for start, end in _tags_of(data, name):
        tag = _with_attribute(data[start + shift : end + shift].decode(), new)
        data = data[: start + shift] + tag.encode() + data[end + shift :]
        shift += len(tag.encode()) - (end - start)
        first = first or tag

    if not first:
        raise LabelConfigError(f"The labeling config has no label {name!r} that is predicted.")

    after = data.decode()
    labels = tuple(
        replace(each, prompts=tuple(words)) if each.name == name else each for each in before.labels
    )
    if parse_label_config(after, None) != replace(before, labels=labels):
        raise LabelConfigError(
            f"The words of {name!r} cannot be changed in this labeling config: change them by hand."
        )
    return after, first


def in_one_row(xml: str) -> str:
    """Return a labeling config with one row of labels, and tools beside it that ask for masks.

    A selected label stays selected for the next click; it would become the label of an answer to
    words, too, so there is no text area. A config comes back as it was where a tool asks already,
    or where its controls are others than one ``<BrushLabels>``.

    >>> in_one_row('''<View><Image name="i" value="$i"/>
    ...   <BrushLabels name="b" toName="i"><Label value="tree"/></BrushLabels></View>''')
    ... # doctest: +ELLIPSIS
    '<View>...<Labels name="b" toName="i"><Label value="tree"/></Labels>...<Brush name="mask" ...'
    """
    config = parse_label_config(xml, None)
    if config.asks or len(config.controls) != 1:
        return xml

    root = parse_xml(xml)
    brush = next(find(root, "brushlabels"), None)
    if brush is None:
        return xml

    brush.tag, brush.tail = "Labels", "\n  "
    tools = _tools_beside(root, config.controls[0])
    parent = next(each for each in root.iter() if brush in each)
    place = [*parent].index(brush) + 1
    parent[place:place] = tools

    text = tostring(root, encoding="unicode")
    return text if " />" in xml else text.replace(" />", "/>")


def _tools_beside(root: Element, labels: Control) -> list[Element]:
    """Make the tools that draw and ask for a row of labels, under names that are free."""
    asks = {"smart": "true", "smartOnly": "true"}  # no ordinary tool of the same look
    attributes_of = {
        ("Brush", "mask"): {"smart": "false"},
        ("KeyPoint", "click"): asks,
        ("Rectangle", "box"): asks,
    }
    taken = {attribute_of(each, "name") for each in root.iter()}
    tools = []
    for (tag, name), attributes in attributes_of.items():
        free = name if name not in taken else f"{labels.name}-{name}"
        tool = Element(tag, {"name": free, "toName": ",".join(labels.to_names)} | attributes)
        tool.tail = "\n  "
        tools.append(tool)
    tools[-1].tail = "\n"
    return tools


@dataclass(frozen=True)
class Offer:
    """A labeling config, and the one that is offered in its place."""

    now: str
    then: str

    @property
    def diff(self) -> list[str]:
        """The lines of both, those that differ with a + or a - before them."""
        now, then = self.now.splitlines(), self.then.splitlines()
        return list(difflib.unified_diff(now, then, "now", "then", lineterm=""))


def offered_config(client: LabelStudioClient, project: int) -> Offer | None:
    """Return a labeling config with tools that ask, see `in_one_row`; None where there is no need.

    Nothing may be annotated, as a new config would orphan it.
    """
    after = in_one_row(before := client.label_config(project))
    if after == before or is_annotated(client, project):
        return None
    return Offer(before, after)


def is_annotated(client: LabelStudioClient, project: int) -> bool:
    """Return whether a project has annotations.

    Label Studio's summary leaves out those that came with imported tasks, so tasks with an
    annotation are counted, too.
    """
    has_regions = client.region_counts(project).created_labels
    return bool(has_regions or client.count(project, TaskFilter(labeled=True)))


def tools_advice(xml: str, is_annotated: bool) -> str:
    """Say how a labeling config gets tools that ask for masks; empty where it has some.

    Args:
        xml: the labeling config, which has something to draw.
        is_annotated: whether the project has annotations, which a changed control would orphan.
    """
    config = parse_label_config(xml, None)
    if config.asks:
        return ""
    lacking = "No tool of the labeling config asks for masks, so Auto-Annotation does nothing."
    if not is_annotated and in_one_row(xml) != xml:
        return (
            f"{lacking} Set up, or clearclip-backend connect, offers a config with tools that do."
        )
    why = "Something is annotated, so its controls have to stay. " if is_annotated else ""
    image = config.images[0].name
    return (
        f"{lacking} {why}Add a tool by hand beside them, with the same labels: "
        f'<RectangleLabels name="box" toName="{image}" smart="true">.'
    )


def label_config(labels: Sequence[str], key: str = "image") -> str:
    """Return a labeling config with one row of labels, each in a colour of its own.

    Args:
        labels: names of the labels.
        key: name of the pictures' addresses in the data of tasks.

    >>> label_config(["sky"])  # doctest: +ELLIPSIS
    '<View><Image name="image" value="$image" zoom="true" /><Labels name="label" ...'
    """
    view = Element("View")
    SubElement(view, "Image", name="image", value=f"${key}", zoom="true")
    row = SubElement(view, "BrushLabels", name="label", toName="image")
    for label, rgb in zip(labels, palette(len(labels)), strict=True):
        SubElement(row, "Label", value=label, background=f"#{bytes(rgb).hex()}")
    return in_one_row(tostring(view, encoding="unicode"))


def split_names(labels: str) -> tuple[str, ...]:
    """Split names of labels at their commas, semicolons and lines; equal ones become one.

    >>> split_names("sky, tree; sky,")
    ('sky', 'tree')
    """
    names = (name.strip() for name in re.split(r"[,;\n]", labels))
    return tuple(dict.fromkeys(name for name in names if name))


def name_labels(client: LabelStudioClient, project: int, labels: str) -> None:
    """Give a project whose labeling config is empty one with these labels; others stay.

    Raises:
        LabelConfigError: it is empty, and there are no labels.
        LabelConfigChanged: somebody has made one meanwhile.
    """
    before = client.label_config(project)
    if len(parse_xml(before)):
        return

    names = split_names(labels)
    if not names:
        raise LabelConfigError(
            f"Project {project} has no labels yet. Name them (in a terminal by --labels "
            '"sky,tree,car"); or choose a labeling interface in the project\'s settings in Label '
            "Studio."
        )
    config = label_config(names, _image_key(client, project))
    conflict = (
        f"Somebody has made a labeling config for project {project} meanwhile: set it up again."
    )
    client.replace_label_config(project, before, config, conflict)


def _image_key(client: LabelStudioClient, project: int) -> str:
    """Return under which name the tasks of a project have the addresses of their pictures.

    Of several addresses it is the first that ends as the name of a picture's file does, else the
    first of all. Pictures that were uploaded before there was a labeling config have no name yet:
    Label Studio gives them the one that the config asks for.
    """
    task = next(iter(client.tasks(project, TaskFilter(), size=1)), None)
    data = {} if task is None else task.data
    if "image" in data or _UNNAMED in data:
        return "image"

    addresses = [key for key, value in data.items() if isinstance(value, str) and "/" in value]
    pictures = [key for key in addresses if _is_picture(data[key])]
    return next(iter(pictures or addresses), "image")


def _is_picture(address: str) -> bool:
    """Whether an address ends as the name of a picture's file does, or is a picture itself."""
    return (mimetypes.guess_type(address)[0] or "").startswith("image/")


def _tags_of(data: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Yield the first and the last place, in bytes, of each tag of a label that is predicted."""
    root = parse_xml(data.decode())
    found = find_controls(root, {tag.name: tag for tag in image_tags(root)})
    wanted = {
        element
        for each in without_prompt_tools(found)
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


def _with_attribute(tag: str, words: str | None) -> str:
    """Return a tag with these words: in the place of those that it has, else behind all else."""
    if words is None:
        return tag
    found = _WORDS.search(tag) or re.search(r"(?<!\s)\s*(?=/?>$)", tag)
    assert found is not None, "each tag has an end"
    return f"{tag[: found.start()]} predicted_values={quoteattr(words)}{tag[found.end() :]}"
