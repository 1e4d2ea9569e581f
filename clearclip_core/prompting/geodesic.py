"""Geodesic distances over the cells of an image: paths across edges are long."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from clearclip_core.segmentation.runs import BoolMask

FloatMap = npt.NDArray[np.float32]

#: Cost of a step between two cells without an edge, in units of CIELAB.
STEP = 0.5

#: Factor on the Euclidean distance of two cells' root probabilities, in units of CIELAB. From one
#: certain class to another that distance is √2 (√2 times the Hellinger distance).
_SEMANTIC_WEIGHT = 30.0

#: SciPy's Dijkstra holds the GIL: several at once are no faster and block all other threads.
_DIJKSTRA_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class GeodesicGrid:
    """A grid of cells with costs between neighbours: differences in colour and in class.

    Attributes:
        colours: (h, w, 3) float32 CIELAB of the cells.
        root_probabilities: (h, w, Q) float32, square roots of the queries' probabilities.
    """

    colours: FloatMap
    root_probabilities: FloatMap

    def distance(self, seeds: BoolMask) -> FloatMap:
        """Compute the length of the shortest path from each cell to any of the seeds.

        Args:
            seeds: (h, w) bool, at least one.

        Returns:
            (h, w) float32, 0 at the seeds.

        >>> flat = GeodesicGrid(np.zeros((1, 3, 3)), np.ones((1, 3, 1)))
        >>> flat.distance(np.array([[True, False, False]])).tolist()
        [[0.0, 0.5, 1.0]]
        """
        graph, starts = self._graph, np.flatnonzero(seeds)
        with _DIJKSTRA_LOCK:
            lengths = dijkstra(graph, directed=False, indices=starts, min_only=True)
        return np.asarray(lengths, np.float32).reshape(seeds.shape)

    @cached_property
    def _graph(self) -> coo_array:
        size_hw = self.colours.shape[:2]
        space = np.concatenate([self.colours, _SEMANTIC_WEIGHT * self.root_probabilities], axis=2)
        index = np.arange(size_hw[0] * size_hw[1]).reshape(size_hw)
        right = np.linalg.norm(np.diff(space, axis=1), axis=2)
        down = np.linalg.norm(np.diff(space, axis=0), axis=2)
        start = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
        stop = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
        steps = np.concatenate([right.ravel(), down.ravel()])
        # Noise and texture are everywhere: a difference that half of all steps have is no edge.
        cost = np.maximum(steps - np.median(steps), 0) + STEP
        return coo_array((cost, (start, stop)), shape=(index.size, index.size)).tocsr()
