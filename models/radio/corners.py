"""The convex corners of buildings and the ways between them that a shortest path can take.

A taut path turns only at convex corners, always around the building, and both its legs touch the corner: the line of each, drawn on,
stays outside the building there. So a corner looks only into two wedges, each between one of its walls and the other wall drawn on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from ..chunks import run_chunks
from ..progress import Progress, no_progress
from .free_space import FreeSpace
from .visibility import Cones, around_vertices, beyond, clipped, spread, within
from .walls import UNIT_M, cross

#: Corners looked from at once.
_CORNERS_AT_ONCE = 512


@dataclass(frozen=True)
class Corners:
    """Convex corners, c of them, and the legs between them.

    Attributes
    ----------
    vertex
        Which point of the triangulation, shape (c,).
    xy
        Where [units], int64, shape (c, 2).
    one, other
        Directions along the two walls: free space begins at `one`, counter-clockwise, and ends at `other`, shape (c, 2).
    index
        The corner at each point of the triangulation, −1 where there is none, shape (v,).
    legs_m
        Length of the free straight ways between corners that taut paths can use [m], sparse, shape (c, c), symmetric.
    """

    vertex: np.ndarray
    xy: np.ndarray
    one: np.ndarray
    other: np.ndarray
    index: np.ndarray
    legs_m: csr_matrix

    def __len__(self) -> int:
        return len(self.vertex)

    def touched(self, corner: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Whether a way in this direction (n, 2) touches the corner: +1 with the building right, −1 left of it, 0 if it doesn't."""
        one, other = self.one[corner], self.other[corner]
        right_hand = within(direction, one, -other)
        left_hand = within(direction, -one, other)
        return np.where(right_hand, 1, np.where(left_hand, -1, 0))

    def shadow(self, corner: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Limits (right, left) of where a path turns that comes to a corner in a direction, shape (n, 2) each."""
        hand = self.touched(corner, direction)[:, None]
        return np.where(hand > 0, self.one[corner], direction), np.where(hand > 0, direction, self.other[corner])


def find_corners(space: FreeSpace, threads: int = 1, progress: Progress = no_progress) -> Corners:
    """Find the convex corners and the legs between them.

    A vertex where free space takes no more than 180°, as where two buildings touch, is no corner.
    """
    vertex, one, other = _convex(space)
    index = np.full(len(space.points), -1)
    index[vertex] = np.arange(len(vertex))
    corners = Corners(vertex, space.points[vertex], one, other, index, csr_matrix((len(vertex), len(vertex))))

    def legs(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.arange(start, stop)
        return _legs(space, corners, chosen)

    parts = run_chunks(legs, len(vertex), _CORNERS_AT_ONCE, threads, progress)
    start = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    end = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    # each way is found from both ends; keep it once
    pair = np.unique(np.sort(np.column_stack([start, end]), axis=1), axis=0)
    vector = (corners.xy[pair[:, 1]] - corners.xy[pair[:, 0]]) * UNIT_M
    length_m = np.hypot(vector[:, 0], vector[:, 1])
    rows, columns = np.concatenate([pair, pair[:, ::-1]]).T
    matrix = csr_matrix((np.tile(length_m, 2), (rows, columns)), shape=(len(vertex), len(vertex)))
    return Corners(vertex, corners.xy, one, other, index, matrix)


def _convex(space: FreeSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices with a free sector of more than 180°, and the directions at which it begins and ends (counter-clockwise)."""
    closed = ~space.free[space.neighbour] | (space.neighbour < 0)
    # sectors begin where the side from the vertex to the next corner is a wall
    triangle, corner = np.nonzero(space.free[:, None] & np.roll(closed, 1, axis=1))
    first = space.triangles[triangle, (corner + 1) % 3]
    last = np.zeros(len(triangle), dtype=np.int64)
    vertex = space.triangles[triangle, corner]
    turning = np.arange(len(triangle))
    while len(turning):
        side = (corner[turning] + 1) % 3
        last[turning] = space.triangles[triangle[turning], (corner[turning] + 2) % 3]
        turning = turning[~closed[triangle[turning], side]]
        side = (corner[turning] + 1) % 3
        onward = space.neighbour[triangle[turning], side]
        # counter-clockwise, the vertex comes after the corner that lies opposite the common side
        corner[turning] = (space.apex[triangle[turning], side] + 1) % 3
        triangle[turning] = onward
    begin, end = space.points[first] - space.points[vertex], space.points[last] - space.points[vertex]
    convex = cross(begin, end) < 0
    return vertex[convex], begin[convex], end[convex]


def _legs(space: FreeSpace, corners: Corners, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (from a chosen corner, to any corner) of free straight ways that touch both."""
    origins = corners.xy[chosen]
    around = around_vertices(space, corners.vertex[chosen])
    one, other = corners.one[chosen][around.source], corners.other[chosen][around.source]
    views = [clipped(around, one, -other), clipped(around, -one, other)]
    pairs = []
    for wedge, (right, left) in zip(views, ((one, -other), (-one, other))):
        # the two other corners of the triangles at the corner itself
        for side, direction in ((1, around.right), (2, around.left)):
            seen = within(direction, right, left)
            pairs.append((around.source[seen], space.triangles[around.triangle, (around.apex + side) % 3][seen]))
        for cones, ahead in spread(space, space.free, origins, beyond(space, wedge)):
            pairs.append((cones.source[ahead], space.triangles[cones.triangle[ahead], cones.apex[ahead]]))
    start = np.concatenate([source for source, _ in pairs])
    end = corners.index[np.concatenate([vertex for _, vertex in pairs])]
    start, end = chosen[start[end >= 0]], end[end >= 0]
    touching = corners.touched(end, corners.xy[end] - corners.xy[start]) != 0
    return start[touching], end[touching]


def shadow_cones(space: FreeSpace, corners: Corners, corner: np.ndarray, direction: np.ndarray) -> Cones:
    """Cones in the triangles at corners, of where paths turn that arrive in a direction: source i is corner[i]."""
    around = around_vertices(space, corners.vertex[corner])
    right, left = corners.shadow(corner, direction)
    turns = cross(right, left) > 0
    around = around.take(turns[around.source])
    return clipped(around, right[around.source], left[around.source])
