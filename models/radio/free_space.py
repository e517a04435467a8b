"""The plane cut into triangles that lie wholly inside or wholly outside buildings.

A Delaunay triangulation (qhull) of the vertices of all walls and of a frame around the map; walls that it lacks are put in by
flipping the edges they cross (S. W. Sloan, "A fast algorithm for generating constrained Delaunay triangulations", Computers &
Structures 47, 1993). Coordinates are integers, so every test is exact.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay, cKDTree

from ..errors import InputError
from ..progress import Progress, no_progress, span
from .buildings import Buildings
from .walls import UNIT_M, cross, noded_walls

#: The frame is this far outside of everything [units].
_MARGIN = round(10.0 / UNIT_M)
#: A point is looked for along at most so many triangles, then among all.
_MOST_STEPS = 2000


@dataclass(frozen=True)
class FreeSpace:
    """Triangles of the plane around buildings; make one with `triangulate`.

    Attributes
    ----------
    origin_m
        Where integer coordinates are (0, 0) [m], shape (2,).
    points
        Vertices [units of `walls.UNIT_M`], int64, shape (v, 2).
    triangles
        Their corners counter-clockwise, shape (t, 3).
    neighbour, apex
        The triangle across the edge opposite each corner (−1 outside the frame), and which of its corners lies opposite that
        edge, shape (t, 3).
    building
        The highest building a triangle lies in, −1 for free space, shape (t,).
    """

    origin_m: np.ndarray
    points: np.ndarray
    triangles: np.ndarray
    neighbour: np.ndarray
    apex: np.ndarray
    building: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """Whether a triangle lies outside all buildings, shape (t,)."""
        return self.building < 0

    def units(self, xy_m: np.ndarray) -> np.ndarray:
        """Positions [m] as integer coordinates, shape (n, 2)."""
        return np.round((np.asarray(xy_m, dtype=float) - self.origin_m) / UNIT_M).astype(np.int64)

    def metres(self, units: np.ndarray) -> np.ndarray:
        """Integer coordinates as positions [m], shape (n, 2)."""
        return self.origin_m + np.asarray(units) * UNIT_M

    def locate(self, xy: np.ndarray) -> np.ndarray:
        """A triangle that holds each point (given in units), its border included; −1 outside the frame. Shape (n,)."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        found = np.full(len(xy), -1)
        looking = np.flatnonzero(((xy >= low) & (xy <= high)).all(axis=1))
        some = np.zeros(len(self.points), dtype=np.int64)
        some[self.triangles] = np.arange(len(self.triangles))[:, None]
        at = some[cKDTree(self.points).query(xy[looking])[1]] if len(looking) else looking
        for step in range(_MOST_STEPS):
            if not len(looking):
                break
            corners = self.points[self.triangles[at]] - xy[looking][:, None]
            outside = cross(np.roll(corners, -1, axis=1), np.roll(corners, -2, axis=1)) < 0
            inside = ~outside.any(axis=1)
            found[looking[inside]] = at[inside]
            looking, at, outside = looking[~inside], at[~inside], outside[~inside]
            # another edge first at each step, so that no walk goes in circles for ever
            turn = (np.arange(3) + step) % 3
            across = turn[np.argmax(outside[:, turn], axis=1)]
            at = self.neighbour[at, across]
        for row in looking.tolist():
            corners = self.points[self.triangles] - xy[row]
            found[row] = np.argmax((cross(corners, np.roll(corners, -1, axis=1)) >= 0).all(axis=1))
        return found


def triangulate(
    buildings: Buildings, bounds_m: tuple[float, float, float, float], progress: Progress = no_progress
) -> FreeSpace:
    """Triangulate the plane over the buildings and `bounds_m` (x_min, y_min, x_max, y_max).

    Raises
    ------
    InputError
        When the footprints make no sense (see `walls.noded_walls`).
    """
    bounds = np.reshape(np.asarray(bounds_m, dtype=float), (2, 2))
    everything = np.concatenate([buildings.xy_m, bounds])
    origin_m = np.floor(everything.min(axis=0))
    points, walls = noded_walls(buildings, origin_m, span(progress, 0.0, 0.5))
    x, y = np.ceil((everything.max(axis=0) - origin_m) / UNIT_M).astype(np.int64) + _MARGIN
    frame = np.array([[-_MARGIN, -_MARGIN], [x, -_MARGIN], [x, y], [-_MARGIN, y]], dtype=np.int64)
    points = np.concatenate([points, frame])
    triangles = _delaunay(points)
    progress(0.6)
    triangles = _with_walls(points, triangles, walls, span(progress, 0.6, 0.9))
    neighbour, apex = _neighbours(triangles)
    return FreeSpace(origin_m, points, triangles, neighbour, apex, _inside_of(points, triangles, origin_m, buildings))


def _delaunay(points: np.ndarray) -> np.ndarray:
    """Delaunay triangles counter-clockwise, checked to cover the frame exactly once."""
    centred = points - points.mean(axis=0)
    triangles = Delaunay(centred, qhull_options="Qbb Qc Qz Q12").simplices.astype(np.int64)
    area = _area(points, triangles)
    triangles = np.where((area < 0)[:, None], triangles[:, ::-1], triangles)[area != 0]
    width, height = points.max(axis=0) - points.min(axis=0)
    if np.abs(area).sum() != 2 * width * height or len(triangles) != 2 * len(points) - 6:
        raise InputError("The outlines of the buildings cannot be triangulated; simplify them first.")
    return triangles


def _area(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the signed area of each triangle [units²]."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return cross(b - a, c - a)


def _with_walls(points: np.ndarray, triangles: np.ndarray, walls: np.ndarray, progress: Progress) -> np.ndarray:
    """The triangulation, changed so that every wall is an edge."""
    n = len(points)
    start, end = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    lacking = walls[~np.isin(walls[:, 0] * n + walls[:, 1], np.concatenate([start * n + end, end * n + start]))]
    if not len(lacking):
        return triangles
    flipper = _Flipper(points, triangles)
    for number, (a, b) in enumerate(lacking.tolist()):
        if number % 64 == 0:
            progress(number / len(lacking))
        flipper.insert(a, b)
    return flipper.triangles()


class _Flipper:
    """A triangulation as a table from directed edges to the corner on their left."""

    def __init__(self, points: np.ndarray, triangles: np.ndarray) -> None:
        self.xy = points.tolist()
        self.left: dict[tuple[int, int], int] = {}
        self.some: dict[int, int] = {}
        for a, b, c in triangles.tolist():
            self.left[a, b], self.left[b, c], self.left[c, a] = c, a, b
            self.some[a], self.some[b], self.some[c] = b, c, a

    def side(self, a: int, b: int, c: int) -> int:
        """Positive where c lies to the left of the line from a to b."""
        (ax, ay), (bx, by), (cx, cy) = self.xy[a], self.xy[b], self.xy[c]
        return int((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))

    def insert(self, a: int, b: int) -> None:
        """Flip edges until a-b is one of them."""
        crossing = deque(() if (a, b) in self.left else self._crossed(a, b))
        while crossing:
            u, v = crossing.popleft()
            w, x = self.left[u, v], self.left[v, u]
            if self.side(w, x, u) * self.side(w, x, v) >= 0:
                crossing.append((u, v))  # not convex; its turn comes when others are flipped
                continue
            del self.left[u, v], self.left[v, u]
            self.left[u, x], self.left[x, w], self.left[w, u] = w, u, x
            self.left[x, v], self.left[v, w], self.left[w, x] = w, x, v
            self.some[u], self.some[v] = x, w
            if {w, x} != {a, b} and self.side(a, b, w) * self.side(a, b, x) < 0:
                crossing.append((w, x))

    def _crossed(self, a: int, b: int) -> list[tuple[int, int]]:
        """Edges between a and b, each from the right of the line to its left, in order."""
        u = self.some[a]
        while True:
            v = self.left.get((a, u))
            if v is None:  # at the frame: go on from its other side
                u = self._first_at(a)
                continue
            if self.side(a, b, u) < 0 < self.side(a, b, v) and self.side(u, v, b) < 0:
                break
            u = v
        found = [(u, v)]
        while True:
            w = self.left[v, u]
            if w == b:
                return found
            u, v = (w, v) if self.side(a, b, w) < 0 else (u, w)
            found.append((u, v))

    def _first_at(self, a: int) -> int:
        u = self.some[a]
        while (u, a) in self.left:
            u = self.left[u, a]
        return u

    def triangles(self) -> np.ndarray:
        """Corners of all triangles, shape (t, 3)."""
        return np.array([(a, b, c) for (a, b), c in self.left.items() if a < b and a < c], dtype=np.int64)


def _neighbours(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`FreeSpace.neighbour` and `apex`."""
    n = int(triangles.max()) + 1
    start, end = np.roll(triangles, -1, axis=1).ravel(), np.roll(triangles, -2, axis=1).ravel()
    key, twin = start * n + end, end * n + start
    order = np.argsort(key)
    place = np.minimum(np.searchsorted(key[order], twin), len(key) - 1)
    other = np.where(key[order][place] == twin, order[place], -1).reshape(-1, 3)
    return np.where(other < 0, -1, other // 3), np.where(other < 0, 0, other % 3)


def _inside_of(points: np.ndarray, triangles: np.ndarray, origin_m: np.ndarray, buildings: Buildings) -> np.ndarray:
    """`FreeSpace.building`, by the centroid of each triangle."""
    triangle, building = buildings.containing(origin_m + points[triangles].mean(axis=1) * UNIT_M)
    order = np.argsort(buildings.height_m[building], kind="stable")  # the highest is written last
    result = np.full(len(triangles), -1)
    result[triangle[order]] = building[order]
    return result
