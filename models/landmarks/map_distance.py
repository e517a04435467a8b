"""μ(e, map) of the Time-Forwarding Graph: how far it is between two places over a map.

A map puts points on *spots* (a free cell, a place on a street), and measures between spots. Every search is bounded by what is
asked, and what was found is kept: instants, trajectories and runs over one map share it.

References
----------
Equation (1) of landmark_tfg.txt: μ is "the real distance between two nodes based on the map (i.e., taking into account the presence of
buildings, street curves, and so on)".
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Callable, Protocol

import numpy as np

#: Lengths that are kept, of 24 bytes each.
_MOST_KNOWN = 20_000_000


@dataclass(frozen=True)
class Spots:
    """Where points are on a map; a point may have several spots (streets side by side), or none (inside a building).

    Parameters
    ----------
    owner
        The point that a spot belongs to, shape (s,), ascending.
    xy_m
        Positions on the map [m], shape (s, 2).
    place, along_m
        The map's own code of a spot: its cell, or its edge and how far along [m]; shape (s,).
    moved_m
        How far a spot is from its point [m], shape (s,).
    """

    owner: np.ndarray
    xy_m: np.ndarray
    place: np.ndarray
    along_m: np.ndarray
    moved_m: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, rows: slice | np.ndarray) -> Spots:
        """Return some of the spots, by a slice or a mask."""
        return Spots(*(getattr(self, each.name)[rows] for each in fields(self)))


class MapDistance(Protocol):
    """A map that measures."""

    def spots(self, xy_m: np.ndarray) -> Spots:
        """Put points [m], shape (n, 2), on the map."""

    def lengths_m(self, spots: Spots, start: np.ndarray, end: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """Measure from spots `start` to spots `end`, shape (k,): metres, inf beyond `limit_m`, shape (k,)."""

    def route(self, spots: Spots, start: int, end: int, limit_m: float) -> np.ndarray:
        """Vertices [m], shape (v, 2), of the way from a spot to another that is at most `limit_m` away."""

    def nearest(self, xy_m: np.ndarray) -> np.ndarray:
        """The places of the map nearest to points [m], shape (n, 2); a point too far from it stays."""


def on_the_map(distance: MapDistance, xy_m: np.ndarray) -> np.ndarray:
    """Points [m], shape (n, 2), at their first spot of a map; those without one stay where they are."""
    spots = distance.spots(xy_m)
    owner, first = np.unique(spots.owner, return_index=True)
    result = np.array(xy_m, dtype=float).reshape(-1, 2)
    result[owner] = spots.xy_m[first]
    return result


class Straight:
    """No map: the straight line."""

    def spots(self, xy_m: np.ndarray) -> Spots:
        """See `MapDistance`."""
        n = len(xy_m)
        return Spots(np.arange(n), np.asarray(xy_m, dtype=float).reshape(-1, 2), np.arange(n), np.zeros(n), np.zeros(n))

    def lengths_m(self, spots: Spots, start: np.ndarray, end: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """See `MapDistance`."""
        length = straight_m(spots.xy_m, start, end)
        length[length > limit_m] = np.inf
        return length

    def route(self, spots: Spots, start: int, end: int, limit_m: float) -> np.ndarray:  # noqa: ARG002 - of the protocol
        """See `MapDistance`."""
        return spots.xy_m[[start, end]]

    def nearest(self, xy_m: np.ndarray) -> np.ndarray:
        """See `MapDistance`."""
        return np.asarray(xy_m, dtype=float)


class KnownLengths:
    """Lengths between pairs of places that were searched before; of more than `_MOST_KNOWN` the older ones are forgotten.

    Parameters
    ----------
    search
        Called with keys of pairs, shape (k,), and how far to search [m], shape (k,); returns metres, inf where it is farther.
    """

    def __init__(self, search: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self._search = search
        self._keys = np.empty(0, np.int64)
        self._metres = np.empty(0)
        self._searched_m = np.empty(0)

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, key: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """Metres of pairs, shape (k,); what is farther than `limit_m`, shape (k,), may be inf."""
        if not len(key):
            return np.empty(0)
        order = np.argsort(key, kind="stable")
        new = np.ones(len(key), bool)
        new[1:] = np.diff(key[order]) != 0
        keys, limit = key[order][new], np.maximum.reduceat(limit_m[order], np.flatnonzero(new))
        metres, searched, at = self._looked_up(keys)
        missing = np.isnan(metres) | (np.isinf(metres) & (searched < limit))
        if missing.any():
            metres[missing] = self._search(keys[missing], limit[missing])
            searched[missing] = limit[missing]
            known = at >= 0
            self._metres[at[known]], self._searched_m[at[known]] = metres[known], searched[known]
            self._add(keys[~known], metres[~known], searched[~known])
        result = np.empty(len(key))
        result[order] = metres[np.cumsum(new) - 1]
        return result

    def _looked_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Metres (NaN where never searched), how far was searched, and the row of each key (−1)."""
        metres, searched, at = np.full(len(keys), np.nan), np.zeros(len(keys)), np.full(len(keys), -1)
        if len(self._keys):
            row = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            found = self._keys[row] == keys
            at[found] = row[found]
            metres[found], searched[found] = self._metres[row[found]], self._searched_m[row[found]]
        return metres, searched, at

    def _add(self, keys: np.ndarray, metres: np.ndarray, searched_m: np.ndarray) -> None:
        """Keep new pairs, whose keys ascend."""
        if len(self) + len(keys) > _MOST_KNOWN:
            self._keys, self._metres, self._searched_m = keys, metres, searched_m
            return
        row = np.searchsorted(self._keys, keys)
        self._keys = np.insert(self._keys, row, keys)
        self._metres = np.insert(self._metres, row, metres)
        self._searched_m = np.insert(self._searched_m, row, searched_m)


def straight_m(xy_m: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Length of the straight lines between rows `start` and `end` of positions [m], shape (k,)."""
    return np.hypot(xy_m[end, 0] - xy_m[start, 0], xy_m[end, 1] - xy_m[start, 1])
