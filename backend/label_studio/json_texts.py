"""Read texts of JSON that arrive in parts, each byte once.

The parser reads a text that goes on in another part from its beginning again, and holds the
interpreter meanwhile.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Final

#: What of a part of JSON ends before a text that does not end within the part.
_WHOLE_TEXTS: Final = re.compile(rb'(?:[^"]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL)

#: The content of a text, up to its end or to an escape that is not complete.
_CONTENT: Final = re.compile(rb'(?:[^"\\]+|\\(?:[^u]|u[0-9a-fA-F]{4}))*', re.DOTALL)
#: Bytes of the longest escape.
_LONGEST_ESCAPE: Final = 6

#: Escapes, and among them those of surrogates that are no pair.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_LONE: Final = re.compile("[\ud800-\udfff]")


def end_of_whole_texts(part: bytes, at: int) -> int:
    """Return where the last text of a part begins, if it does not end within the part.

    Args:
        part: of JSON.
        at: index of a byte outside of texts.

    Returns:
        The index of its quotation mark; the length of the part where all texts end.

    >>> end_of_whole_texts(b'{"a": "b", "c', 0), end_of_whole_texts(b'{"a": "b"', 0)
    (11, 9)
    """
    if part.find(b"\\", at) < 0:
        return part.rfind(b'"') if part.count(b'"', at) % 2 else len(part)
    match = _WHOLE_TEXTS.match(part, at)
    return match.end() if match else at


def replace_lone_surrogates(part: bytes) -> bytes:
    """Replace escapes of surrogates that are no pair by question marks.

    A text that was cut in the middle of an emoji has one. The parser refuses some of them, and
    combines others with any character that follows.

    Args:
        part: of JSON; its texts are whole.

    >>> replace_lone_surrogates(rb'"\\ude00 \\ud83d\\ude00"')
    b'"? \\\\ud83d\\\\ude00"'
    """
    if _SURROGATE.search(part) is None:
        return part
    return _ESCAPES.sub(lambda found: b"?" if found[1] else found[0], part)


class PartialText:
    """A text that arrives in parts.

    Args:
        is_kept: whether its content is asked for.

    Attributes:
        bytes_taken: an estimate of the memory that the content takes, also while it is put
            together.
        letters: the length of the content so far; 0 where it is not asked for.
    """

    def __init__(self, is_kept: bool) -> None:
        self.bytes_taken = self.letters = 0
        self._is_kept = is_kept
        self._tail = b""  # an escape that is not complete
        self._high = ""  # a surrogate that the next part may complete
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pieces: list[str] = []

    def take(self, part: bytes) -> int | None:
        """Take the content in a part of JSON.

        Returns:
            The index of the quotation mark that ends the text; None where it goes on.

        Raises:
            ValueError: it is no text of JSON.
        """
        content = self._tail + part
        end = _end_of_content(content)
        ends = content[end : end + 1] == b'"'
        if self._is_kept:
            self._keep(content[:end], is_last=ends)
        if ends:
            return end - len(self._tail)
        self._tail = content[end:]
        if len(self._tail) >= _LONGEST_ESCAPE:
            raise ValueError("An escape of a text is broken.")
        return None

    @property
    def value(self) -> str:
        """The content so far; empty where it is not asked for."""
        return "".join(self._pieces)

    def _keep(self, content: bytes, is_last: bool) -> None:
        text = self._decoder.decode(content, is_last)
        piece = self._high + str(json.loads(f'"{text}"'))
        self._high = ""
        if b"\\" in content or piece[:1] >= "\ud800":
            piece = self._pair(piece, is_last)
        self._pieces.append(piece)
        self.letters += len(piece)
        self.bytes_taken += 2 * len(piece) * (1 if piece.isascii() else 4)

    def _pair(self, piece: str, is_last: bool) -> str:
        """Combine pairs of surrogates, and replace others; keep one that may become a pair."""
        if not is_last and "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._high = piece[:-1], piece[-1]
        if _LONE.search(piece) is None:
            return piece
        paired = piece.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return _LONE.sub("?", paired)


def _end_of_content(content: bytes) -> int:
    """Return where a text ends or has an escape that is not complete; else its length."""
    if b"\\" not in content:
        end = content.find(b'"')
        return len(content) if end < 0 else end
    match = _CONTENT.match(content)
    return match.end() if match else 0
