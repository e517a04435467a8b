"""What is seen from points in the plane around buildings: cones of view that travel from triangle to triangle.

A cone is a source and two directions, its right and its left limit, less than 180° apart. Where it enters a triangle, the corner
ahead splits it in two, each of which leaves by one side; at a wall it ends (triangular expansion, Q. X. Bungiu et al., "Efficient
computation of visibility polygons", 2014). All cones of all sources move at once, and the cost is what is seen, not what there is.
Directions are integer vectors between vertices, so a corner that just touches a line of sight is told apart exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..progress import Progress, no_progress
from .free_space import FreeSpace
from .walls import cross


@dataclass(frozen=True)
class Cones:
    """Cones of view, each in one triangle, n of them.

    Attributes
    ----------
    source
        Whose cone it is: a row of the sources given, shape (n,).
    triangle
        Where it is, shape (n,).
    apex
        The corner of the triangle opposite the side that the cone came in by, shape (n,).
    right, left
        Directions of its limits [units], int64, shape (n, 2).
    """

    source: np.ndarray
    triangle: np.ndarray
    apex: np.ndarray
    right: np.ndarray
    left: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: np.ndarray) -> Cones:
        """Some of the cones, by a mask or indices."""
        return Cones(self.source[rows], self.triangle[rows], self.apex[rows], self.right[rows], self.left[rows])


def joined(parts: list[Cones]) -> Cones:
    """All cones of the parts, in order."""
    return Cones(
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.triangle for part in parts]),
        np.concatenate([part.apex for part in parts]),
        np.concatenate([part.right for part in parts]),
        np.concatenate([part.left for part in parts]),
    )


def within(direction: np.ndarray, right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Whether directions (n, 2) lie in cones of less than 180°, limits included, shape (n,)."""
    return np.asarray((cross(right, direction) >= 0) & (cross(direction, left) >= 0))


def clipped(cones: Cones, right: np.ndarray, left: np.ndarray) -> Cones:
    """The parts of cones inside the wedges given by their limits, shape (n, 2) each; cones without such a part are left out."""
    starts = within(right, cones.right, cones.left)
    ends = within(left, cones.right, cones.left)
    begins = within(cones.right, right, left)
    stops = within(cones.left, right, left)
    new_right = np.where(starts[:, None], right, cones.right)
    new_left = np.where(ends[:, None], left, cones.left)
    kept = (starts | begins) & (ends | stops) & (cross(new_right, new_left) > 0)
    return Cones(cones.source, cones.triangle, cones.apex, new_right, new_left).take(kept)


def spread(
    space: FreeSpace, open_: np.ndarray, origins: np.ndarray, cones: Cones, progress: Progress = no_progress
) -> Iterator[tuple[Cones, np.ndarray]]:
    """Let cones travel; yield them step by step, each with whether the corner it has ahead is seen, shape (n,).

    Parameters
    ----------
    space
        The triangles.
    open_
        Whether a triangle may be seen through, shape (t,).
    origins
        Where the sources are [units], shape (s, 2).
    cones
        Where they enter; those in triangles that are not open end at once.
    """
    while True:
        progress(0.0)
        cones = cones.take((cones.triangle >= 0) & open_[cones.triangle])
        if not len(cones):
            return
        ahead = space.points[space.triangles[cones.triangle, cones.apex]] - origins[cones.source]
        from_right, to_left = cross(cones.right, ahead), cross(ahead, cones.left)
        seen = (from_right >= 0) & (to_left >= 0)
        yield cones, seen
        rows = []
        # through the side right of the corner ahead, and through the side left of it
        for side, goes in ((1, from_right > 0), (2, to_left > 0)):
            part, limit, at = cones.take(goes), ahead[goes], seen[goes][:, None]
            out = (part.apex + side) % 3
            right = part.right if side == 1 else np.where(at, limit, part.right)
            left = np.where(at, limit, part.left) if side == 1 else part.left
            rows.append(
                Cones(part.source, space.neighbour[part.triangle, out], space.apex[part.triangle, out], right, left)
            )
        cones = joined(rows)


def around_vertices(space: FreeSpace, vertices: np.ndarray) -> Cones:
    """The cones of view of vertices into each free triangle at them, apex at the vertex: source i is vertices[i]."""
    source_of = np.full(len(space.points), -1)
    source_of[vertices] = np.arange(len(vertices))
    triangle, corner = np.nonzero(space.free[:, None] & (source_of[space.triangles] >= 0))
    at = space.triangles[triangle, corner]
    right = space.points[space.triangles[triangle, (corner + 1) % 3]] - space.points[at]
    left = space.points[space.triangles[triangle, (corner + 2) % 3]] - space.points[at]
    return Cones(source_of[at], triangle, corner, right, left)


def beyond(space: FreeSpace, cones: Cones) -> Cones:
    """Cones that begin at a corner of their triangle, once they have crossed the side opposite to it."""
    return Cones(
        cones.source,
        space.neighbour[cones.triangle, cones.apex],
        space.apex[cones.triangle, cones.apex],
        cones.right,
        cones.left,
    )


def around_point(space: FreeSpace, open_: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, Cones]:
    """Where the view from a point begins: the open triangles that hold it, and the cones (source 0) that leave them.

    A point outside the frame looks in through the frame's sides.
    """
    corners = space.points[space.triangles] - xy
    # twice the area between the point and the side opposite each corner
    area = cross(np.roll(corners, -1, axis=1), np.roll(corners, -2, axis=1))
    holds = (area >= 0).all(axis=1)
    inside = np.flatnonzero(holds & open_)
    if holds.any():
        triangle, side = np.nonzero((area > 0) & holds[:, None] & open_[:, None])
        right, left = corners[triangle, (side + 1) % 3], corners[triangle, (side + 2) % 3]
        entered, apex = space.neighbour[triangle, side], space.apex[triangle, side]
    else:
        entered, apex = np.nonzero((space.neighbour < 0) & (area < 0))
        right, left = corners[entered, (apex + 2) % 3], corners[entered, (apex + 1) % 3]
    return inside, Cones(np.zeros(len(entered), dtype=np.int64), entered, apex, right, left)
