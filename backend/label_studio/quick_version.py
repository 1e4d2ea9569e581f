"""Tell the ``model_version`` of quick predictions from that of full ones.

An annotator who waits for a new vocabulary is answered with its embeddings in a few templates, see
`clearclip_core.TextEncoder`. Label Studio keeps such a prediction under a version of its own.
"""

from __future__ import annotations

from typing import Final

#: The end of the versions of quick predictions.
QUICK: Final = " quick"


def is_quick(version: str) -> bool:
    """Return whether predictions of a version were made with quick embeddings.

    >>> [is_quick(f"demo clearclip 1a2b3c4d{end}") for end in ("", " +20", " quick", " +20 quick")]
    [False, False, True, True]
    """
    return version.endswith(QUICK)
