"""Links of the README on pages that are not the repository's, such as the index's."""

from __future__ import annotations

import re
from pathlib import Path

_TARGET = re.compile(r"(?<=\]\()(?P<target>(?!https?://|#|mailto:)[^()\s]+)(?=\))")
_ABSOLUTE = re.compile(r"(?<=\]\()https?://[^()\s]+(?=\))")
_PICTURE = re.compile(r"\.(?:gif|jpe?g|png|svg|webp)$")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def absolute_links(text: str, address: str, tag: str) -> str:
    """Return Markdown whose links into the repository have its address.

    Args:
        text: a page at the repository's root.
        address: such as "https://github.com/OWNER/NAME".
        tag: the tag or branch whose files are meant, such as "v0.3.0".
    """

    def absolute(found: re.Match[str]) -> str:
        target = found["target"]
        kind = "raw" if _PICTURE.search(target) else "blob"
        return f"{address}/{kind}/{tag}/{target}"

    return _TARGET.sub(absolute, text)


def broken_links(text: str, root: Path, address: str, tag: str) -> list[str]:
    """Return a sentence for each link that leads nowhere from outside of the repository.

    Args:
        text: Markdown, such as the long description of a wheel.
        root: a checkout of the repository.
        address: where the repository is public.
        tag: the tag or branch of the links.
    """
    found = [f"{each['target']} is relative." for each in _TARGET.finditer(text)]
    ours = re.compile(rf"{re.escape(address)}/(?:raw|blob)/{re.escape(tag)}/([^#]+)#?(.*)")
    for link in _ABSOLUTE.findall(text):
        match = ours.fullmatch(link)
        if match is None:
            continue
        path, heading = match.groups()
        if not (root / path).is_file():
            found.append(f"{path} is not there.")
        elif heading and heading not in _anchors((root / path).read_text("utf-8")):
            found.append(f"{path} has no heading {heading}.")
    return found


def _anchors(page: str) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    headings = _HEADING.findall(_FENCE.sub("", page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
