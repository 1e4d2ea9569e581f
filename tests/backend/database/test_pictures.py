"""Reports with and without their pictures."""

import base64
import xml.etree.ElementTree as ElementTree

import msgspec

from backend.database.pictures import NOT_KEPT, encode_report


class Report(msgspec.Struct):
    """Two pictures, and texts that look like one."""

    pictures: list[str]
    note: str


def test_only_pictures_are_left_out() -> None:
    given = Report(["data:image/jpeg;base64,/9j/4AAQ+w==", ""], 'see data:image/png, "a/b"')
    for keeps, pictures in ((True, given.pictures), (False, [NOT_KEPT, ""])):
        text = encode_report(given, keeps_pictures=keeps)
        report = msgspec.json.decode(text, type=Report)
        assert (report.pictures, report.note) == (pictures, given.note)


def test_what_stands_in_place_of_a_picture_says_so() -> None:
    content = base64.b64decode(NOT_KEPT.removeprefix("data:image/svg+xml;base64,"))
    shown = ElementTree.fromstring(content.decode())
    assert "".join(shown.itertext()) == "Picture not kept"
