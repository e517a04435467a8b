"""Convex hulls and smallest rectangles of thousands of small point sets at once.

`scipy.spatial.ConvexHull` does one set per call and opens a temporary file each time, which for 10,000 base stations is most of the
work. Here points that cannot be corners are dropped (Akl and Toussaint 1978), and all sets then walk Andrew's monotone chain (1979)
in step.
"""

from __future__ import annotations

import numpy as np

from .voronoi_cells import ConvexPolygons

#: Directions whose farthest points make the polygon that no corner of the hull is inside of.
_DIRECTIONS = 16
#: Rectangles thinner than this share of their length have no width: their points are on a line.
_THIN = 1e-9
#: Rectangles whose areas differ by less than this share are as small as each other.
_SAME_AREA = 1e-7


def convex_hulls(points_m: np.ndarray, starts: np.ndarray) -> ConvexPolygons:
    """Convex hull of each set; of points on a line their two ends, of one point nothing.

    Parameters
    ----------
    points_m
        The points (x, y) [m], set after set, shape (n_points, 2).
    starts
        First point of each set and the end of the last, shape (n_sets + 1,); no set is empty.
    """
    counts = np.diff(starts)
    sets = np.repeat(np.arange(len(counts)), counts)
    points = points_m - points_m[starts[:-1]][sets]
    kept = np.flatnonzero(_may_be_corner(points, sets, starts))
    kept = kept[np.lexsort((points[kept, 1], points[kept, 0], sets[kept]))]
    counts = np.bincount(sets[kept], minlength=len(counts))
    first = np.cumsum(counts) - counts
    slots = np.arange(counts.max())
    real = slots < counts[:, None]
    chains, lengths = [], []
    for place in (
        first[:, None] + slots,
        (first + counts - 1)[:, None] - slots,
    ):  # below from the west, above from the east
        chain, length = _turning_left(points[kept[np.where(real, place, 0)]], counts)
        chains.append(chain)
        lengths.append(length - 1)  # the last point of a chain is the first of the other
    corners = np.concatenate(chains, axis=1)
    used = np.concatenate([slots < length[:, None] for length in lengths], axis=1)
    owners = np.nonzero(used)[0]
    return ConvexPolygons(
        corners[used] + points_m[starts[:-1]][owners], np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    )


def _may_be_corner(points: np.ndarray, sets: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Whether each point is outside, or on, the polygon of its set's farthest points in a few directions."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    farthest = []
    for angle in angles:
        ahead = points[:, 0] * np.cos(angle) + points[:, 1] * np.sin(angle)
        is_farthest = np.flatnonzero(ahead == np.maximum.reduceat(ahead, starts[:-1])[sets])
        one = np.zeros(len(starts) - 1, np.int64)
        one[sets[is_farthest]] = is_farthest
        farthest.append(one)
    inside = np.ones(len(points), bool)
    for here, there in zip(farthest, farthest[1:] + farthest[:1]):
        edge = points[there] - points[here]
        arms = points - points[here][sets]
        inside &= (edge[sets, 0] * arms[:, 1] - edge[sets, 1] * arms[:, 0] > 0) | (here == there)[sets]
    inside[np.concatenate(farthest)] = False
    return ~inside


def _turning_left(points: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chain of each set's points, in order, that only turns left: points (n_sets, most, 2) and lengths (n_sets,)."""
    chain = np.zeros_like(points)
    length = np.zeros(len(points), np.int64)
    for slot in range(points.shape[1]):
        growing = np.flatnonzero(counts > slot)
        bent = growing[length[growing] > 1]
        while bent.size:
            middle, before = chain[bent, length[bent] - 1], chain[bent, length[bent] - 2]
            edge, arm = middle - before, points[bent, slot] - before
            bent = bent[edge[:, 0] * arm[:, 1] - edge[:, 1] * arm[:, 0] <= 0]
            length[bent] -= 1
            bent = bent[length[bent] > 1]
        chain[growing, length[growing]] = points[growing, slot]
        length[growing] += 1
    return chain, length


def smallest_rectangles(polygons: ConvexPolygons) -> tuple[np.ndarray, np.ndarray]:
    """Long and short sides [m] of the rectangle of smallest area around each polygon, both of shape (n,); 0 for empty polygons.

    One side of that rectangle lies on an edge of the polygon (Freeman and Shapira 1975), so all edges are tried. All edges of an acute
    triangle, such as a cell in a corner, do equally well; the narrowest rectangle is taken.
    """
    counts = polygons.counts
    long, short = np.zeros(len(polygons)), np.zeros(len(polygons))
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        corners = polygons.corners_m[polygons.starts[rows][:, None] + np.arange(count)]
        edges = np.roll(corners, -1, axis=1) - corners
        lengths = np.hypot(edges[..., 0], edges[..., 1])[..., None]
        along = np.divide(edges, lengths, out=np.zeros_like(edges), where=lengths > 0)
        across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
        sides = np.stack([np.ptp(corners @ axes.transpose(0, 2, 1), axis=1) for axes in (along, across)], axis=-1)
        long_sides, short_sides, areas = sides.max(axis=-1), sides.min(axis=-1), sides.prod(axis=-1)
        small = areas <= areas.min(axis=1, keepdims=True) * (1 + _SAME_AREA)
        narrowest = np.where(small, short_sides, np.inf).argmin(axis=1)[:, None]
        long[rows] = np.take_along_axis(long_sides, narrowest, axis=1)[:, 0]
        short[rows] = np.take_along_axis(short_sides, narrowest, axis=1)[:, 0]
    short[short < _THIN * long] = 0.0
    return long, short
