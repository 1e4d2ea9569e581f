"""Find annotations of near-duplicates among the training examples of a project."""

from __future__ import annotations

from collections.abc import Iterable

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from backend.feedback.learning.versions import TrainingExample
from clearclip_core import Example
from clearclip_core.adaptation.similarity import cluster


def duplicate_groups(stored: Iterable[TrainingExample]) -> dict[int, int]:
    """Return annotation -> number of its group; annotations with near-duplicates share one.

    Args:
        stored: training examples of one model.
    """
    examples = list(stored)
    if not examples:
        return {}
    pictures = cluster([Example.from_bytes(each.example) for each in examples]).tolist()
    ids = sorted({each.annotation for each in examples})
    places = {id_: place for place, id_ in enumerate(ids)}
    # An annotation of several pictures joins their groups: annotations and pictures are the nodes.
    rows = [places[each.annotation] for each in examples]
    columns = [len(ids) + picture for picture in pictures]
    count = len(ids) + max(pictures) + 1
    edges = coo_array(([True] * len(rows), (rows, columns)), shape=(count, count))
    _, groups = connected_components(edges, directed=False)
    return {id_: int(groups[place]) for id_, place in places.items()}
