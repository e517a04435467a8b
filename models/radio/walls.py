"""Footprints as walls that meet only at their ends: snapped to a lattice, crossings and touching walls made into common vertices.

Real footprints overlap, touch with gaps of millimetres, and have hundreds of vertices per wall. All vertices are moved to the
nearest point of a lattice of `SNAP_M`; a wall that passes a vertex within that distance is bent to pass through it (snap rounding).
Gaps and overlaps narrower than the lattice so become common walls. Coordinates are integers from here on, so that every later
question "left or right of this line?" has an exact answer.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..progress import Progress, no_progress
from .buildings import Buildings

#: Integer coordinates count these [m]: positions of antennas are exact to it.
UNIT_M = 0.001
#: Vertices of walls lie on a lattice of this spacing [m].
SNAP_M = 0.1
#: The lattice in units.
SNAP = round(SNAP_M / UNIT_M)
#: A wall is bent to a vertex that is nearer than this [units]; more than half the diagonal of a lattice cell.
_NEAR = 0.75 * SNAP
#: Points for the search of near pairs are this far apart on a wall [units].
_SPACING = round(4.0 / UNIT_M)
#: Bending and splitting is repeated at most so often; real cities need two to four rounds.
_MOST_ROUNDS = 30


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Third component of the cross product of vectors (…, 2): positive where b points to the left of a."""
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar product of vectors (…, 2)."""
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1])


def pairs_of(groups: np.ndarray, counts: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair each group with its members: positions into `groups`, and the members first[g], first[g] + 1, … of group g.

    Parameters
    ----------
    groups
        Groups asked for, shape (k,).
    counts, first
        Number of members of each group, and where they begin.
    """
    number = counts[groups]
    position = np.repeat(np.arange(len(groups)), number)
    within = np.arange(len(position)) - np.repeat(np.cumsum(number) - number, number)
    return position, first[groups][position] + within


def noded_walls(
    buildings: Buildings, origin_m: np.ndarray, progress: Progress = no_progress
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and walls that meet only at vertices.

    Parameters
    ----------
    buildings
        Footprints; they may overlap, touch and cross themselves.
    origin_m
        Where the integer coordinates are (0, 0) [m], shape (2,).
    progress
        Called now and then.

    Returns
    -------
    points
        Different vertices [units of UNIT_M], int64, shape (v, 2).
    walls
        Pairs of vertices, each pair once, shape (w, 2).

    Raises
    ------
    InputError
        When the walls do not come apart, which needs footprints that make no sense.
    """
    if not np.isfinite(buildings.xy_m).all():
        raise InputError("A building has a vertex whose coordinates are not finite; repair or remove it.")
    if not len(buildings.xy_m):
        return np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2), dtype=np.int64)
    lattice = np.round((buildings.xy_m - origin_m) / SNAP_M).astype(np.int64)
    ends = _ring_walls(lattice, buildings.first) * SNAP
    for number in range(_MOST_ROUNDS):
        progress(1 - 0.7**number)
        points, walls = _indexed(ends)
        crossings = _crossings(points, walls)
        if len(crossings):
            points = np.unique(np.concatenate([points, crossings]), axis=0)
            walls = _index(points, ends)
        split = _bent(points, walls)
        if np.array_equal(split, walls):
            return points, walls
        ends = points[split]
    raise InputError("The outlines of the buildings cross each other in too many places; simplify them first.")


def _ring_walls(lattice: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Walls of all rings without vertices that repeat or lie within half a lattice step of a straight wall, shape (w, 2, 2)."""
    ring = np.repeat(np.arange(len(first) - 1), np.diff(first))
    parity, idle = 0, 0
    while idle < 2:
        before, after = _neighbours(ring)
        to_previous, to_next = lattice[before] - lattice, lattice[after] - lattice
        chord = to_next - to_previous
        length = np.hypot(chord[:, 0], chord[:, 1])
        straight = (2 * np.abs(cross(to_previous, to_next)) <= length) & (dot(to_previous, to_next) <= 0)
        # every other vertex at a time, so that no two neighbours vanish together and a bend with them
        index = np.arange(len(ring))
        number = index - np.searchsorted(ring, ring)
        drop = straight & (number % 2 == parity) & ((after > index) | (number % 2 == 1))
        idle = 0 if drop.any() else idle + 1
        parity = 1 - parity
        lattice, ring = lattice[~drop], ring[~drop]
    after = _neighbours(ring)[1]
    walls = np.stack([lattice, lattice[after]], axis=1)
    return walls[(walls[:, 0] != walls[:, 1]).any(axis=1)]


def _neighbours(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the vertex before and after each vertex of its ring."""
    n = len(ring)
    starts = np.flatnonzero(np.diff(ring, prepend=-1))
    ends = np.append(starts[1:], n) - 1
    before, after = np.arange(n) - 1, np.arange(n) + 1
    before[starts] = ends
    after[ends] = starts
    return before, after


def _index(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Walls as pairs of rows of the sorted `points`, each wall once."""
    low = points[:, 1].min()
    span = int(points[:, 1].max() - low) + 1
    keys = points[:, 0] * span + (points[:, 1] - low)
    walls = np.searchsorted(keys, ends[..., 0] * span + (ends[..., 1] - low))
    walls = np.sort(walls[walls[:, 0] != walls[:, 1]], axis=1)
    return np.unique(walls, axis=0)


def _indexed(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = np.unique(ends.reshape(-1, 2), axis=0)
    return points, _index(points, ends)


def _samples(points: np.ndarray, walls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points at most `_SPACING` apart on each wall, its ends among them, and the wall of each."""
    start, vector = points[walls[:, 0]], points[walls[:, 1]] - points[walls[:, 0]]
    count = np.ceil(np.hypot(vector[:, 0], vector[:, 1]) / _SPACING).astype(np.int64) + 1
    wall = np.repeat(np.arange(len(walls)), count)
    number = np.arange(len(wall)) - np.repeat(np.cumsum(count) - count, count)
    return start[wall] + vector[wall] * (number / (count[wall] - 1))[:, None], wall


def _crossings(points: np.ndarray, walls: np.ndarray) -> np.ndarray:
    """Where walls cross inside both, rounded to the lattice, shape (k, 2)."""
    if len(walls) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    samples, wall = _samples(points, walls)
    near = wall[cKDTree(samples).query_pairs(1.001 * _SPACING, output_type="ndarray")]
    near = np.unique(np.sort(near[near[:, 0] != near[:, 1]], axis=1), axis=0)
    a, b = (points[walls[near[:, 0], end]] for end in (0, 1))
    c, d = (points[walls[near[:, 1], end]] for end in (0, 1))
    side_c, side_d = np.sign(cross(b - a, c - a)), np.sign(cross(b - a, d - a))
    side_a, side_b = np.sign(cross(d - c, a - c)), np.sign(cross(d - c, b - c))
    crossing = (side_c * side_d < 0) & (side_a * side_b < 0)
    a, b, c, d = a[crossing], b[crossing], c[crossing], d[crossing]
    share = cross(c - a, d - c) / cross(b - a, d - c)
    return np.round((a + share[:, None] * (b - a)) / SNAP).astype(np.int64) * SNAP


def _bent(points: np.ndarray, walls: np.ndarray) -> np.ndarray:
    """The walls, each led through the vertices that lie near it."""
    samples, wall = _samples(points, walls)
    found = cKDTree(points).query_ball_point(samples, _SPACING / 2 + 1.01 * _NEAR)
    count = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    vertex = np.fromiter((v for part in found for v in part), dtype=np.int64, count=int(count.sum()))
    pair = np.unique(np.column_stack([np.repeat(wall, count), vertex]), axis=0)
    a, b = points[walls[pair[:, 0], 0]], points[walls[pair[:, 0], 1]]
    along, beside = dot(points[pair[:, 1]] - a, b - a), cross(b - a, points[pair[:, 1]] - a)
    squared = dot(b - a, b - a)
    inside = (along > 0) & (along < squared) & (np.abs(beside) <= _NEAR * np.sqrt(squared))
    pair, along = pair[inside], along[inside]
    # every wall as a chain: its start, the vertices in order, its end
    chain = np.concatenate([np.arange(len(walls)), pair[:, 0], np.arange(len(walls))])
    place = np.concatenate([np.full(len(walls), -1), along, np.full(len(walls), np.iinfo(np.int64).max)])
    vertex = np.concatenate([walls[:, 0], pair[:, 1], walls[:, 1]])
    order = np.lexsort([place, chain])
    chain, vertex = chain[order], vertex[order]
    joined = chain[:-1] == chain[1:]
    links = np.sort(np.column_stack([vertex[:-1], vertex[1:]])[joined], axis=1)
    return np.unique(links, axis=0)
