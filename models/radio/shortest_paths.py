"""Shortest ways around buildings from one place to very many, exact.

The first leg starts from the antenna; the building that the antenna stands on is no obstacle to it. Between corners the way follows
the legs found once per map (`corners.find_corners`) by Dijkstra's algorithm; the last leg leaves a corner into the wedge in which the
path turns around it. What is beyond that wedge has a shorter way, so each place is looked at from a few corners only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from ..chunks import run_chunks
from ..progress import Progress, no_progress
from .corners import Corners, shadow_cones
from .free_space import FreeSpace
from .visibility import Cones, around_point, beyond, spread, within
from .walls import SNAP, UNIT_M, pairs_of

#: Pairs of a cone and a place looked at together.
_PAIRS_AT_ONCE = 250_000
#: Places looked for in triangles together.
_PLACES_AT_ONCE = 100_000
#: `Ways.last` of places that the antenna sees, and of places that no way leads to.
SEEN, UNREACHED = -1, -2


@dataclass(frozen=True)
class Places:
    """Places in free space, grouped by the triangle that holds them.

    Attributes
    ----------
    xy
        Where they are [units], int64, shape (n, 2).
    first
        Index of each triangle's first place, and n at the end, shape (t + 1,).
    row
        Which of the places given this is, shape (n,).
    """

    xy: np.ndarray
    first: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Ways:
    """Shortest ways from one antenna.

    Attributes
    ----------
    origin
        The antenna [units], shape (2,).
    corner_m
        Length of the way to each corner [m], inf without one, shape (c,).
    before
        The corner before it, `SEEN` where the way comes straight from the antenna, shape (c,).
    arriving
        Direction in which the way arrives [units], shape (c, 2).
    order
        The reached corners, every one after the one before it.
    length_m
        Length of the way to each place [m], inf without one, shape (n,).
    last
        The last corner on it, `SEEN` or `UNREACHED`, shape (n,).
    """

    origin: np.ndarray
    corner_m: np.ndarray
    before: np.ndarray
    arriving: np.ndarray
    order: np.ndarray
    length_m: np.ndarray
    last: np.ndarray

    def levels(self) -> Iterator[np.ndarray]:
        """Corners in steps, each after the corner before it, without those that the antenna sees."""
        waiting = self.order[self.before[self.order] >= 0]
        known = self.before == SEEN
        while len(waiting):
            ready = known[self.before[waiting]]
            yield waiting[ready]
            known[waiting[ready]] = True
            waiting = waiting[~ready]


def group_places(space: FreeSpace, xy_m: np.ndarray, threads: int = 1, progress: Progress = no_progress) -> Places:
    """Group places [m], shape (n, 2); those inside buildings or outside the frame are left out.

    Walls move by about a lattice step when they are snapped: a place so near inside is moved out.
    """
    xy = space.units(xy_m)

    def work(start: int, stop: int) -> np.ndarray:
        return space.locate(xy[start:stop])

    found_in = run_chunks(work, len(xy), _PLACES_AT_ONCE, threads, progress)
    triangle = np.concatenate([np.zeros(0, dtype=np.int64), *found_in])
    directions = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))
    for step in [np.array(direction) * SNAP * reach for reach in (1, 2, 4) for direction in directions]:
        inside = np.flatnonzero((triangle >= 0) & ~space.free[triangle])
        moved = xy[inside] + step
        found = space.locate(moved)
        out = (found >= 0) & space.free[found]
        xy[inside[out]], triangle[inside[out]] = moved[out], found[out]
    usable = np.flatnonzero((triangle >= 0) & space.free[triangle])
    row = usable[np.argsort(triangle[usable], kind="stable")]
    return Places(xy[row], np.searchsorted(triangle[row], np.arange(len(space.triangles) + 1)), row)


def find_ways(
    space: FreeSpace,
    corners: Corners,
    places: Places,
    xy_m: np.ndarray,
    own: np.ndarray,
    progress: Progress = no_progress,
) -> Ways:
    """Shortest ways from the antenna at `xy_m` [m], shape (2,), to all places; the buildings `own` do not block the first leg."""
    origin = space.units(xy_m)
    at = space.locate(origin[None])
    # snapped to the lattice, a wall may come to lie beyond an antenna at it
    own = np.append(own, space.building[at[at >= 0]])
    open_ = space.free | np.isin(space.building, own)
    best = _Best(places)
    inside, view = around_point(space, open_, origin)
    best.look_around(inside, origin)
    vertices = [space.triangles[inside].ravel()]
    for cones, ahead in spread(space, open_, origin[None], view, progress):
        vertices.append(space.triangles[cones.triangle, cones.apex][ahead])
        best.look(cones, origin[None], np.zeros(1), np.full(1, SEEN))
    corner_m, before = _tree(corners, origin, np.unique(np.concatenate(vertices)))
    reached = np.flatnonzero(np.isfinite(corner_m))
    reached = reached[np.argsort(corner_m[reached], kind="stable")]
    arriving = np.zeros((len(corners), 2), dtype=np.int64)
    previous = np.where((before[reached] == SEEN)[:, None], origin, corners.xy[before[reached]])
    arriving[reached] = corners.xy[reached] - previous
    turning = shadow_cones(space, corners, reached, arriving[reached])
    origins, lengths = corners.xy[reached], corner_m[reached]
    best.look(turning, origins, lengths, reached)
    for cones, _ in spread(space, space.free, origins, beyond(space, turning), progress):
        best.look(cones, origins, lengths, reached)
    return Ways(origin, corner_m, before, arriving, reached, best.length_m, best.last)


def ways_to(corners: Corners, places: Places, ways: Ways) -> list[np.ndarray]:
    """The vertices [units] of the way to each place, antenna and place included, in the order of `places`; empty without one."""
    result = []
    for xy, last in zip(places.xy, ways.last.tolist()):
        if last == UNREACHED:
            result.append(np.zeros((0, 2), dtype=np.int64))
            continue
        way = [xy]
        while last != SEEN:
            way.append(corners.xy[last])
            last = int(ways.before[last])
        result.append(np.stack([*way, ways.origin])[::-1])
    return result


def _tree(corners: Corners, origin: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`Ways.corner_m` and `before`, from the vertices that the antenna sees."""
    n = len(corners)
    seen = corners.index[vertices]
    seen = np.sort(seen[seen >= 0])
    vector = corners.xy[seen] - origin
    touching = corners.touched(seen, vector) != 0
    seen, vector = seen[touching], vector[touching]
    # an antenna exactly at a corner is a way too, and scipy takes an edge of length 0 for none
    length_m = np.maximum(np.hypot(vector[:, 0], vector[:, 1]) * UNIT_M, 1e-9)
    legs = corners.legs_m
    graph = csr_matrix(
        (
            np.concatenate([legs.data, length_m]),
            np.concatenate([legs.indices, seen]),
            np.append(legs.indptr, legs.indptr[-1] + len(seen)),
        ),
        shape=(n + 1, n + 1),
    )
    distance, before = dijkstra(graph, indices=n, return_predecessors=True)
    return distance[:n], np.where(before[:n] == n, SEEN, before[:n]).astype(np.int64)


class _Best:
    """The shortest way found so far to each place."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.count = np.diff(places.first)
        self.length_m = np.full(len(places), np.inf)
        self.last = np.full(len(places), UNREACHED)

    def look_around(self, triangles: np.ndarray, origin: np.ndarray) -> None:
        """Everything in these triangles is seen from the antenna."""
        _, place = pairs_of(triangles, self.count, self.places.first)
        vector = self.places.xy[place] - origin
        self.length_m[place] = np.hypot(vector[:, 0], vector[:, 1]) * UNIT_M
        self.last[place] = SEEN

    def look(self, cones: Cones, origins: np.ndarray, lengths_m: np.ndarray, corner: np.ndarray) -> None:
        """Offer ways that end in these cones; source i is at origins[i], lengths_m[i] from the antenna, and is corner[i]."""
        cones = cones.take(self.count[cones.triangle] > 0)
        total = np.cumsum(self.count[cones.triangle])
        start = 0
        while start < len(cones):
            done = total[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
            self._look(cones.take(np.arange(start, stop)), origins, lengths_m, corner)
            start = stop

    def _look(self, cones: Cones, origins: np.ndarray, lengths_m: np.ndarray, corner: np.ndarray) -> None:
        cone, place = pairs_of(cones.triangle, self.count, self.places.first)
        vector = self.places.xy[place] - origins[cones.source][cone]
        inside = within(vector, cones.right[cone], cones.left[cone])
        cone, place, vector = cone[inside], place[inside], vector[inside]
        source = cones.source[cone]
        length_m = np.hypot(vector[:, 0], vector[:, 1]) * UNIT_M + lengths_m[source]
        shorter = np.flatnonzero(length_m < self.length_m[place])
        # of several ways to one place the shortest is written last
        shorter = shorter[np.argsort(-length_m[shorter], kind="stable")]
        self.length_m[place[shorter]] = length_m[shorter]
        self.last[place[shorter]] = corner[source[shorter]]
